"""Tests for mcptunnel.upstream.client: answers of every framing, connections used again, and servers that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.test.upstream.servers import Origin
from mcptunnel.upstream.client import CONNECT_SECONDS, IDLE_SECONDS, MAX_HEAD, Transfer

ASK = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


@define(eq=False)
class Got:
    """A receiver that remembers, and holds to the order: head, data, one end."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(factory=list)
    body: bytes = b""
    chunks: int = 0
    ended: bool = False
    why: str | None = None
    then: Callable[[], Any] | None = None
    on_data: Callable[[], Any] | None = None

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._open()
        if self.status:
            raise AssertionError("a second head")
        self.status, self.headers = status, headers

    def data(self, chunk: bytes) -> None:
        self._open()
        if not self.status:
            raise AssertionError("data before the head")
        self.body += chunk
        self.chunks += 1
        if self.on_data is not None:
            self.on_data()

    def end(self) -> None:
        self._open()
        if not self.status:
            raise AssertionError("an end without a head")
        self.ended = True
        if self.then is not None:
            self.then()

    def failed(self, why: str) -> None:
        self._open()
        self.why = why

    def _open(self) -> None:
        if self.ended or self.why is not None:
            raise AssertionError("something after the end")


class Case(SynchronousTestCase):
    """A pool to one origin."""

    def setUp(self) -> None:
        self.origin = Origin()
        self.pool = self.origin.pool()

    def ask(self, got: Got | None = None) -> tuple[Got, Transfer]:
        got = got or Got()
        return got, self.pool.request(ASK, got)


class FramingTests(Case):
    """Where an answer ends."""

    def test_a_body_with_a_length(self) -> None:
        """The request goes out as it is, the answer comes in as it is."""
        got, _ = self.ask()
        self.assertEqual(self.origin.last.take(), ASK)
        self.origin.last.send(
            b"HTTP/1.1 200 OK\r\nContent-Type:  a/b \r\nX-Y: 1\r\nx-y: 2\r\ncontent-length: 5\r\n\r\nhe"
        )
        self.assertEqual((got.status, got.body, got.ended), (200, b"he", False))
        self.origin.last.send(b"llo")
        self.assertEqual((got.body, got.ended), (b"hello", True))
        self.assertEqual(got.headers[:3], [(b"content-type", b"a/b"), (b"x-y", b"1"), (b"x-y", b"2")])

    def test_a_chunked_body_with_trailers(self) -> None:
        """Chunks come one by one; extensions and trailer fields are nobody's."""
        got, _ = self.ask()
        self.origin.last.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nKeep-Alive: timeout=60\r\n\r\n"
        )
        self.assertEqual((got.body, got.ended, got.headers), (b"abcde", True, [(b"transfer-encoding", b"chunked")]))
        self.assertEqual(self.reused(), True)

    def reused(self) -> bool:
        self.ask()
        return len(self.origin.accepted) == 1

    def test_a_body_that_ends_with_the_connection(self) -> None:
        """Even under a head without any lines."""
        for head in (
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n",
        ):
            self.setUp()
            got, _ = self.ask()
            self.origin.last.send(head + b"hel")
            self.origin.last.send(b"lo")
            self.assertFalse(got.ended)
            self.origin.last.lose()
            self.assertEqual((got.body, got.ended), (b"hello", True))

    def test_an_answer_without_a_body(self) -> None:
        """202 and 204 with and without a length."""
        for text in (b"202 Accepted\r\nContent-Length: 0", b"204 No Content\r\nX: y"):
            got, _ = self.ask()
            self.origin.last.send(b"HTTP/1.1 " + text + b"\r\n\r\n")
            self.assertTrue(got.ended)
        self.assertEqual(len(self.origin.accepted), 1)

    def test_interim_answers_are_passed_over(self) -> None:
        """With header lines of their own."""
        got, _ = self.ask()
        self.origin.last.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        self.assertEqual(got.status, 0)
        self.origin.last.answer(b"hi", 200)
        self.assertEqual((got.status, got.body, got.headers), (200, b"hi", [(b"content-length", b"2")]))

    @settings(deadline=None, max_examples=60)
    @given(
        st.sampled_from(
            [
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello",
                b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            ]
        ),
        st.lists(st.integers(0, 80), max_size=8),
    )
    def test_segments_make_no_difference(self, stream: bytes, cuts: list[int]) -> None:
        """However the bytes are cut."""
        self.setUp()
        got, _ = self.ask()
        places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for a, b in pairwise(places):
            self.origin.last.send(stream[a:b])
        self.assertEqual((got.status, got.headers[0], got.body, got.ended), (200, (b"a", b"b"), b"hello", True))


class ReuseTests(Case):
    """One connection, many requests, and when it must not be."""

    def test_a_connection_is_used_again_one_request_at_a_time(self) -> None:
        """Two at once need two; the latest idle one is taken first."""
        (one, _), (two, _) = self.ask(), self.ask()
        self.assertEqual(len(self.origin.accepted), 2)
        for accepted, got in zip(self.origin.accepted, (one, two), strict=True):
            accepted.answer(b"x")
            self.assertTrue(got.ended)
        for _ in range(3):
            got, _ = self.ask()
            self.origin.accepted[1].answer(b"again")
            self.assertEqual(got.body, b"again")
        self.assertEqual(len(self.origin.accepted), 2)

    def test_a_request_made_at_the_end_of_another_uses_its_connection(self) -> None:
        """It is free by then."""
        second = Got()
        self.ask(Got(then=lambda: self.ask(second)))
        self.origin.last.answer(b"1")
        self.origin.last.answer(b"2")
        self.assertEqual((second.body, len(self.origin.accepted)), (b"2", 1))

    def test_what_follows_an_answer_is_never_taken_for_the_next_one(self) -> None:
        """In the same segment, also where the next request is sent at that moment; and later, on an idle connection."""
        extra = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
        for surplus in (extra, extra[:9], extra[:-2], b"junk"):
            self.setUp()
            second = Got()
            first, _ = self.ask(Got(then=partial(self.ask, second)))
            self.origin.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1" + surplus)
            self.assertEqual((first.body, first.ended), (b"1", True))
            self.assertTrue(self.origin.accepted[0].over)
            self.assertEqual(len(self.origin.accepted), 2)
            self.origin.last.answer(b"good")
            self.assertEqual(second.body, b"good")
        self.origin.last.send(extra)
        self.assertTrue(self.origin.last.transport.aborted)
        self.ask()
        self.assertEqual(len(self.origin.accepted), 3)

    def test_a_server_that_says_close_is_not_asked_again(self) -> None:
        """Nor one of HTTP/1.0, nor one whose answer ended with the connection."""
        for head in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        ):
            self.setUp()
            got, _ = self.ask()
            self.origin.last.send(head)
            self.assertTrue(got.ended)
            self.assertTrue(self.origin.last.transport.disconnecting)
            self.ask()
            self.assertEqual(len(self.origin.accepted), 2)

    def test_idle_connections_are_closed_before_the_server_does(self) -> None:
        """After four seconds, or a second before the time that the server has announced."""
        for announced, seconds in (
            (None, IDLE_SECONDS),
            ("timeout=3", 2.0),
            ("max=9, Timeout=30", 29.0),
            ("timeout=900", 60.0),
            ("timeout=x", IDLE_SECONDS),
        ):
            self.setUp()
            self.ask()
            self.origin.last.answer(b"", 200, *(() if announced is None else (f"Keep-Alive: {announced}",)))
            self.origin.clock.advance(seconds)
            self.pool.sweep()
            self.assertFalse(self.origin.last.over, announced)
            self.origin.clock.advance(0.1)
            self.pool.sweep()
            self.assertTrue(self.origin.last.over, announced)
            self.ask()
            self.assertEqual(len(self.origin.accepted), 2)

    def test_a_connection_that_the_server_has_closed_is_forgotten(self) -> None:
        """While it was idle."""
        self.ask()
        self.origin.last.answer(b"")
        self.origin.last.lose()
        self.ask()
        self.assertEqual(len(self.origin.accepted), 2)

    def test_a_busy_connection_is_never_idle(self) -> None:
        """However long it takes."""
        got, _ = self.ask()
        self.origin.clock.advance(1000.0)
        self.pool.sweep()
        self.origin.last.answer(b"late")
        self.assertEqual(got.body, b"late")

    def test_an_answer_that_ought_to_have_ended_is_cut_off(self) -> None:
        """Where somebody has said until when."""
        got, transfer = self.ask()
        self.origin.last.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        transfer.until = 5.0
        self.origin.clock.advance(5.0)
        self.pool.sweep()
        self.assertIsNone(got.why)
        self.origin.clock.advance(0.1)
        self.pool.sweep()
        self.assertEqual((got.why, self.origin.last.transport.aborted), ("it does not end its answer", True))

    def test_a_pool_that_may_not_opens_a_connection_for_each_request(self) -> None:
        """Although the answer would allow it."""
        pool = self.origin.pool(reuse=False)
        for number in (1, 2):
            pool.request(ASK, Got())
            self.assertEqual(len(self.origin.accepted), number)
            self.origin.last.answer(b"ok")
            self.assertTrue(self.origin.last.over)


class FailureTests(Case):
    """Answers that never come, or not whole."""

    def test_nobody_listens(self) -> None:
        """The reason is told."""
        self.origin.refusing = True
        got, _ = self.ask()
        self.assertIn("cannot connect (Connection was refused by other side", got.why or "")

    def test_connecting_takes_too_long(self) -> None:
        """It is given up."""
        self.origin.slow = True
        got, _ = self.ask()
        self.origin.clock.advance(CONNECT_SECONDS)
        self.assertIn("cannot connect", got.why or "")
        self.assertEqual(self.origin.cancelled, 1)

    def test_an_answer_cut_short_is_none(self) -> None:
        """At any byte of the head, and in bodies that say how long they are."""
        whole = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello"
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        for stream in (whole, chunked):
            for size in range(len(stream)):
                self.setUp()
                got, _ = self.ask()
                self.origin.last.send(stream[:size])
                self.origin.last.lose()
                self.assertEqual(got.why, "it closed the connection without a complete answer", stream[:size])

    def test_a_connection_that_breaks_cuts_any_body_short(self) -> None:
        """Also one that would have ended with a proper close: TLS was cut, or a packet said reset."""
        got, _ = self.ask()
        self.origin.last.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        self.origin.last.lose(ConnectionLost())
        self.assertIn("the connection broke", got.why or "")

    def test_what_is_no_http_is_refused_and_the_connection_ended(self) -> None:
        """Malformed, ambiguous, another protocol."""
        for stream in (
            b"SSH-2.0-x\r\n",
            b"\x15\x03\x01",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nA b\r\n\r\n",
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nyy",
        ):
            self.setUp()
            got, _ = self.ask()
            self.origin.last.send(stream)
            self.assertIn("it sent a malformed HTTP response", got.why or "", stream)
            self.assertTrue(self.origin.last.transport.aborted)

    def test_a_head_without_end_is_cut_off(self) -> None:
        """One long line, many lines, endless interim answers: none may fill memory."""
        for piece in (b"x" * 1000, b"X: y\r\n" * 200, b"a: b\r\n\r\nHTTP/1.1 100 Continue\r\n" * 40):
            self.setUp()
            got, _ = self.ask()
            self.origin.last.send(b"HTTP/1.1 %d X\r\nX: " % (100 if b"100" in piece else 200))
            sent = 0
            while got.why is None and sent < 4 * MAX_HEAD:
                self.origin.last.send(piece)
                sent += len(piece)
            self.assertEqual(got.why, f"it sent a response head longer than {MAX_HEAD} bytes")
            self.assertLess(sent, MAX_HEAD + 3000)

    def test_a_receiver_that_fails_ends_the_transfer_only(self) -> None:
        """The connection is given up, nothing is raised into the reactor."""

        def explode() -> None:
            raise ZeroDivisionError

        got, _ = self.ask(Got(on_data=explode))
        self.origin.last.answer(b"x")
        self.assertEqual(got.why, "its answer could not be handled")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ControlTests(Case):
    """Pausing, aborting, closing."""

    def test_pausing_stops_reading_and_the_end_undoes_it(self) -> None:
        """A connection must not go back paused."""
        got, transfer = self.ask()
        transfer.pause()
        self.assertTrue(self.origin.last.transport.paused)
        transfer.resume()
        self.assertFalse(self.origin.last.transport.paused)
        transfer.pause()
        self.origin.last.answer(b"rest of a segment")
        self.assertEqual((got.ended, self.origin.last.transport.paused), (True, False))
        transfer.pause()
        self.assertFalse(self.origin.last.transport.paused)

    def test_pausing_before_there_is_a_connection_holds_once_there_is(self) -> None:
        """The client was slow from the start."""
        self.origin.slow = True
        _, transfer = self.ask()
        transfer.pause()
        self.origin.let_in()
        self.assertTrue(self.origin.last.transport.paused)

    def test_an_aborted_transfer_is_heard_of_no_more(self) -> None:
        """Before the connection, before the answer, within it; and its connection is used by nobody."""
        self.origin.slow = True
        got, transfer = self.ask()
        transfer.abort()
        self.origin.let_in()
        self.assertEqual((self.origin.last.take(), self.origin.last.transport.aborted), (b"", True))
        self.origin.slow = False
        for sent in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx"):
            got, transfer = self.ask()
            self.origin.last.send(sent)
            transfer.abort()
            transfer.abort()
            self.assertTrue(self.origin.last.transport.aborted)
            self.origin.last.settle()
            self.assertEqual((got.ended, got.why), (False, None))

    def test_a_transfer_aborted_in_the_middle_of_a_segment_leaves_no_connection_behind(self) -> None:
        """Although the same segment completes the answer."""
        transfers: list[Transfer] = []
        got, transfer = self.ask(Got(on_data=lambda: transfers.pop().abort()))
        transfers.append(transfer)
        self.origin.last.answer(b"x")
        self.assertEqual((got.body, got.ended, self.origin.last.transport.aborted), (b"x", False, True))
        self.ask()
        self.assertEqual(len(self.origin.accepted), 2)

    def test_closing_the_pool_ends_every_connection_in_silence(self) -> None:
        """Idle ones politely, busy ones at once; what connects later as well; and none comes back."""
        idle, _ = self.ask()
        self.origin.last.answer(b"x")
        self.origin.last.take()
        busy, _ = self.ask()
        late_origin, self.origin.slow = self.origin, True
        late, _ = self.ask()
        self.pool.close()
        late_origin.let_in()
        self.assertTrue(all(accepted.over for accepted in self.origin.accepted))
        for accepted in self.origin.accepted:
            accepted.settle()
        self.assertEqual((idle.ended, busy.why, late.why), (True, None, None))
