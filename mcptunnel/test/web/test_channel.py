"""The channel: what is refused, what is served, in which order, and when patience ends."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import RequestError
from mcptunnel.core.plaintext import PlainRequest, Redirect
from mcptunnel.test.web.sites import Calling, Echo, Later, serve, statuses

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def get(extra: bytes = b"", line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\nHost: localhost\r\n" + extra + b"\r\n"


def post(extra: bytes, body: bytes = b"abcd") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\n" + extra + b"\r\n" + body


def forbid(request: PlainRequest) -> RequestError:
    return RequestError(403, "https_required", "Use https.")


CHUNKED = b"Transfer-Encoding: chunked\r\n"

# Number of the vector, what it shows, bytes, statuses that come back.
VECTORS: list[tuple[str, bytes, list[int]]] = [
    ("01 plain GET", GET, [200]),
    ("02 CL and TE", post(b"Content-Length: 4\r\n" + CHUNKED, b"0\r\n\r\n"), [400]),
    ("03 TE and CL", post(CHUNKED + b"Content-Length: 4\r\n", b"0\r\n\r\n"), [400]),
    ("04 CL twice, equal", post(b"Content-Length: 4\r\nContent-Length: 4\r\n"), [400]),
    ("05 CL twice, different", post(b"Content-Length: 4\r\nContent-Length: 5\r\n"), [400]),
    ("06 CL list", post(b"Content-Length: 4, 4\r\n"), [400]),
    ("07 CL signed", post(b"Content-Length: +4\r\n"), [400]),
    ("08 CL hexadecimal", post(b"Content-Length: 0x4\r\n"), [400]),
    ("09 CL superscript", post(b"Content-Length: \xb2\r\n"), [400]),
    ("10 CL empty", post(b"Content-Length: \r\n"), [400]),
    ("11 TE identity", post(b"Transfer-Encoding: identity\r\nContent-Length: 4\r\n"), [501]),
    ("11b TE identity alone", post(b"Transfer-Encoding: identity\r\n", b""), [501]),
    ("12 TE xchunked", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), [501]),
    ("13 TE gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), [501]),
    ("13b TE gzip and chunked lines", post(b"Transfer-Encoding: gzip\r\n" + CHUNKED, b"0\r\n\r\n"), [400]),
    ("14 TE chunked twice", post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), [400]),
    ("14b TE chunked in two lines", post(CHUNKED + CHUNKED, b"0\r\n\r\n"), [400]),
    ("15 TE Chunked", post(b"Transfer-Encoding: Chunked\r\n", b"4\r\nabcd\r\n0\r\n\r\n"), [200]),
    ("16 TE in 1.0", b"POST / HTTP/1.0\r\nHost: localhost\r\n" + CHUNKED + b"\r\n0\r\n\r\n", [400]),
    ("17 space before colon", post(b"Content-Length : 4\r\n"), [400]),
    ("18 tab before colon", post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n"), [400]),
    ("19 obs-fold", get(b"X-A: b\r\n c\r\n"), [400]),
    ("20 obs-fold in TE", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), [400]),
    ("21 obs-fold first", b"GET / HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n", [400]),
    ("22 bare LF", b"GET / HTTP/1.1\nHost: localhost\n\n", [400]),
    ("23 LF in value", get(b"X-A: b\nX-B: c\r\n"), [400]),
    ("24 CR in value", get(b"X-A: b\rc\r\n"), [400]),
    ("25 NUL in value", get(b"X-A: b\x00c\r\n"), [400]),
    ("26 no Host", b"GET / HTTP/1.1\r\n\r\n", [400]),
    ("27 two Hosts", get(b"Host: localhost\r\n"), [400]),
    ("28 Host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", [400]),
    ("28b Host with a control", b"GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n", [400]),
    ("28c Host empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [400]),
    ("29 absolute-form of another host", get(line=b"GET http://evil/ HTTP/1.1"), [400]),
    ("29b absolute-form of this host", get(line=b"GET http://localhost/ HTTP/1.1"), [200]),
    ("30 HTTP/1.2", get(line=b"GET / HTTP/1.2"), [505]),
    ("31 HTTP/2.0", get(line=b"GET / HTTP/2.0"), [505]),
    ("32 HTTP/01.1", get(line=b"GET / HTTP/01.1"), [400]),
    ("33 HTTP/0.9", get(line=b"GET / HTTP/0.9"), [505]),
    ("33b no version", get(line=b"GET /"), [400]),
    ("34 two spaces", get(line=b"GET  / HTTP/1.1"), [400]),
    ("35 tab", get(line=b"GET\t/ HTTP/1.1"), [400]),
    ("36 bad method token", get(line=b"g{et / HTTP/1.1"), [400]),
    ("37 chunk-size 0x4", post(CHUNKED, b"0x4\r\nabcd\r\n0\r\n\r\n"), [400]),
    ("38 chunk-size +4", post(CHUNKED, b"+4\r\nabcd\r\n0\r\n\r\n"), [400]),
    ("39 chunk-size 0_4", post(CHUNKED, b"0_4\r\nabcd\r\n0\r\n\r\n"), [400]),
    ("40 chunk-size and a space", post(CHUNKED, b"4 \r\nabcd\r\n0\r\n\r\n"), [400]),
    ("41 chunk-ext", post(CHUNKED, b"4;a=b\r\nabcd\r\n0\r\n\r\n"), [200]),
    ("42 chunk-ext with LF", post(CHUNKED, b"4;a\nb\r\nabcd\r\n0\r\n\r\n"), [400]),
    ("43 chunk overrun", post(CHUNKED, b"4\r\nabcdef\r\n0\r\n\r\n"), [400]),
    ("44 chunk lines with LF", post(CHUNKED, b"4\nabcd\n0\n\n"), [400]),
    ("45 chunk-size 2^64+4", post(CHUNKED, b"10000000000000004\r\nabcd\r\n0\r\n\r\n"), [413]),
    ("46 chunk-size -1", post(CHUNKED, b"-1\r\nabcd\r\n0\r\n\r\n"), [400]),
    ("47 trailer", post(CHUNKED, b"4\r\nabcd\r\n0\r\nContent-Length: 9\r\n\r\n"), [200]),
    ("48 three at once", GET * 3, [200, 200, 200]),
    ("49 101 headers", get(b"X: y\r\n" * 100), [431]),
    ("49b 100 headers", get(b"X: y\r\n" * 99), [200]),
    ("50 600 headers", get(b"X: y\r\n" * 600), [431]),
    ("51 a header of 17 KB", get(b"X: " + b"y" * 17_000 + b"\r\n"), [431]),
    ("52 a target of 65 KB", get(line=b"GET /" + b"a" * 65_000 + b" HTTP/1.1"), [414]),
    ("52b a target of 9 KB", get(line=b"GET /" + b"a" * 9_000 + b" HTTP/1.1"), [414]),
    ("53 Expect: 100-continue", post(b"Expect: 100-continue\r\nContent-Length: 4\r\n"), [100, 200]),
    ("54 Expect: nope", post(b"Expect: nope\r\nContent-Length: 4\r\n"), [417]),
    ("55 Upgrade: h2c", get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"), [200]),
    ("56 Upgrade: TLS", get(b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"), [200]),
    ("57 h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []),
    ("58 TRACE", get(line=b"TRACE / HTTP/1.1"), [405]),
    ("59 CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", [405]),
    ("60 empty name", get(b": x\r\n"), [400]),
    ("61 no colon", get(b"abc\r\n"), [400]),
    ("62 underscore", post(b"Content_Length: 4\r\n", b""), [200]),
    ("63 8-bit name", get(b"X\xff: y\r\n"), [400]),
    ("64 two empty lines first", b"\r\n\r\n" + GET, [400]),
    ("64b one empty line first", b"\r\n" + GET, [200]),
    ("65 a bad line, then a good request", b"GET /\x01 HTTP/1.1\r\n\r\n" + GET, [400]),
]
# Refusals that keep the connection's framing; every other refusal ends the connection.
ALIVE = [200, 100]


class RawVectorTests(SynchronousTestCase):
    """The 65 raw vectors and their variants."""

    def test_each_vector_gets_its_status_and_refusals_close(self) -> None:
        """In one segment: the statuses that come back, and whether the connection goes on."""
        for name, data, want in VECTORS:
            connection = serve().connect()
            got = connection.send(data)
            self.assertEqual(statuses(got), want, name)
            connection.wait(4)
            closes = want == [] or any(status not in ALIVE for status in want)
            self.assertEqual(connection.closing, closes, name)
            # A producer that stays registered keeps a real transport from closing.
            self.assertEqual(connection.transport.producer is None, closes and want != [], name)

    def test_cutting_the_input_anywhere_changes_nothing(self) -> None:
        """Byte by byte the same statuses come back as in one segment."""
        for name, data, want in VECTORS:
            connection = serve().connect()
            got = b"".join(connection.send(data[i : i + 1]) for i in range(len(data)))
            self.assertEqual(statuses(got), want, name)

    def test_refusals_are_one_problem_document_with_date_and_close(self) -> None:
        """A refusal says what it is in JSON, with the same headers as any reply."""
        for name, data, want in VECTORS:
            if len(want) != 1 or want[0] == 200:
                continue
            head, _, body = serve().connect().send(data).partition(b"\r\n\r\n")
            self.assertIn(b"\r\nDate: ", head, name)
            self.assertIn(b"\r\nConnection: close", head, name)
            self.assertIn(b"\r\nContent-Type: application/problem+json", head, name)
            self.assertIn(b"\r\nX-Content-Type-Options: nosniff", head, name)
            self.assertIn(b"\r\nContent-Length: %d" % len(body), head, name)
            self.assertEqual(json.loads(body)["status"], want[0], name)

    def test_nothing_after_a_refusal_is_parsed(self) -> None:
        """A good request behind a malformed one is not served, now or later."""
        echo = Echo()
        connection = serve(echo).connect()
        connection.send(b"GET  / HTTP/1.1\r\n\r\n" + GET)
        self.assertEqual(connection.send(GET), b"")
        self.assertEqual(connection.wait(5), b"")
        self.assertEqual(echo.seen, [])

    def test_the_underscore_header_is_dropped(self) -> None:
        """Vector 62: nobody behind us sees the twin."""
        echo = Echo()
        serve(echo).connect().send(post(b"Content_Length: 4\r\nX-Real: 1\r\n", b""))
        self.assertEqual(echo.seen[0].lines, ((b"host", b"localhost"), (b"x-real", b"1")))

    def test_the_trailer_is_dropped_and_the_body_whole(self) -> None:
        """Vector 47: the trailer reaches nobody."""
        echo = Echo()
        serve(echo).connect().send(post(CHUNKED, b"4\r\nabcd\r\n0\r\nX-Late: 9\r\n\r\n"))
        self.assertEqual(echo.seen[0].body, b"abcd")
        self.assertIsNone(echo.seen[0].header(b"x-late"))

    def test_another_protocol_is_not_answered(self) -> None:
        """TLS and HTTP/2 clients would not understand a reply."""
        for data in (b"\x16\x03\x01\x00\x05hello", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            connection = serve().connect()
            self.assertEqual(connection.send(data), b"")
            self.assertTrue(connection.aborted)


class LimitTests(SynchronousTestCase):
    """Bounds apply before anything is stored."""

    def test_an_announced_body_over_the_limit_is_refused_before_it_is_read(self) -> None:
        """Content-Length 10^14: 413 at once; at the limit it is served."""
        served = serve(limits=LimitsConfig(body_bytes=4))
        connection = served.connect()
        self.assertEqual(statuses(connection.send(post(b"Content-Length: 100000000000000\r\n", b""))), [413])
        self.assertEqual(statuses(served.connect().send(post(b"Content-Length: 5\r\n", b""))), [413])
        self.assertEqual(statuses(served.connect().send(post(b"Content-Length: 4\r\n"))), [200])

    def test_a_length_beyond_64_bits_is_too_large_too(self) -> None:
        """It does not wrap around."""
        self.assertEqual(statuses(serve().connect().send(post(b"Content-Length: 99999999999999999999999\r\n"))), [413])

    def test_a_chunked_body_is_cut_off_at_the_limit(self) -> None:
        """413 with the chunk that would exceed it; at the limit it is served."""
        served = serve(limits=LimitsConfig(body_bytes=8))
        connection = served.connect()
        self.assertEqual(connection.send(post(CHUNKED, b"8\r\nabcdefgh\r\n")), b"")
        self.assertEqual(statuses(connection.send(b"1\r\n")), [413])
        self.assertEqual(connection.send(b"x\r\n0\r\n\r\n" + GET), b"")
        self.assertEqual(statuses(served.connect().send(post(CHUNKED, b"8\r\nabcdefgh\r\n0\r\n\r\n"))), [200])

    def test_the_head_may_be_as_long_as_the_limit_and_no_longer(self) -> None:
        """The exact cut-off byte, whole and in two segments."""
        request = get(b"X: " + b"y" * 100 + b"\r\n")
        for limit, want in ((len(request), [200]), (len(request) - 1, [431])):
            served = serve(limits=LimitsConfig(header_bytes=limit))
            self.assertEqual(statuses(served.connect().send(request)), want)
            connection = served.connect()
            self.assertEqual(statuses(connection.send(request[:-1]) + connection.send(request[-1:])), want)

    def test_the_target_may_be_as_long_as_the_limit_and_no_longer(self) -> None:
        """The exact cut-off byte."""
        served = serve(limits=LimitsConfig(uri_bytes=10))
        self.assertEqual(statuses(served.connect().send(get(line=b"GET /" + b"a" * 9 + b" HTTP/1.1"))), [200])
        self.assertEqual(statuses(served.connect().send(get(line=b"GET /" + b"a" * 10 + b" HTTP/1.1"))), [414])


class PersistenceTests(SynchronousTestCase):
    """When a connection goes on."""

    def test_each_way_to_ask_for_an_end_or_not(self) -> None:
        """HTTP/1.1 goes on unless told, HTTP/1.0 ends unless told."""
        for data, goes_on in (
            (get(), True),
            (get(b"Connection: close\r\n"), False),
            (get(b"Connection: keep-alive,close\r\n"), False),
            (get(b"Connection: keep-alive\r\nConnection: CLOSE\r\n"), False),
            (b"GET / HTTP/1.0\r\n\r\n", False),
            (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
        ):
            connection = serve().connect()
            reply = connection.send(data)
            self.assertEqual(statuses(reply), [200], data)
            self.assertEqual(connection.closing, not goes_on, data)
            self.assertEqual(b"\r\nConnection: close\r\n" in reply, not goes_on, data)
            self.assertEqual(b"\r\nConnection: keep-alive\r\n" in reply, goes_on and b"/1.0" in data, data)

    def test_nothing_is_served_after_the_last_request(self) -> None:
        """What a client sends behind its own Connection: close is ignored."""
        echo = Echo()
        connection = serve(echo).connect()
        self.assertEqual(statuses(connection.send(get(b"Connection: close\r\n") + GET)), [200])
        self.assertEqual(len(echo.seen), 1)


class PipeliningTests(SynchronousTestCase):
    """Order, and bounds on what is sent ahead."""

    def test_requests_are_answered_one_at_a_time_and_in_order(self) -> None:
        """The second is not even shown to a resource before the first is answered."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get(line=b"GET /1 HTTP/1.1") + get(line=b"GET /2 HTTP/1.1"))
        self.assertEqual([request.path for request in later.seen], [b"/1"])
        later.seen[0].respond(200, b"text/plain", b"one")
        self.assertEqual([request.path for request in later.seen], [b"/1", b"/2"])
        later.seen[1].respond(200, b"text/plain", b"two")
        received = connection.received()
        self.assertLess(received.index(b"one"), received.index(b"two"))

    def test_reading_pauses_when_a_client_sends_too_much_ahead(self) -> None:
        """And goes on when the reply is out; everything that was sent is served."""
        later = Later()
        connection = serve(later).connect()
        connection.send(GET)
        connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n" + b"x" * 10_000)
        self.assertEqual(connection.transport.producerState, "producing")
        connection.send(b"x" * 10_000)
        self.assertEqual(connection.transport.producerState, "paused")
        later.seen[0].respond(200, b"text/plain", b"")
        self.assertEqual(connection.transport.producerState, "producing")
        self.assertEqual(later.seen[1].body, b"x" * 20_000)

    def test_no_request_begins_while_the_client_does_not_read(self) -> None:
        """A client that asks without reading fills its own buffers, not ours."""
        echo = Echo()
        connection = serve(echo).connect()
        connection.transport.producer.pauseProducing()
        connection.send(GET)
        self.assertEqual(echo.seen, [])
        connection.transport.producer.resumeProducing()
        self.assertEqual(len(echo.seen), 1)

    def test_thousands_of_requests_at_once_need_no_deep_stack(self) -> None:
        """Synchronous replies do not recurse."""
        self.assertEqual(len(statuses(serve().connect().send(GET * 3000))), 3000)

    def test_thousands_of_requests_answered_later_need_no_deep_stack(self) -> None:
        """Nor do replies that come in a callback."""
        later = Later()
        connection = serve(later).connect()
        connection.send(GET * 2000)
        for i in range(2000):
            later.seen[i].respond(200, b"text/plain", b"")
        self.assertEqual(len(statuses(connection.received())), 2000)


class SplitTests(SynchronousTestCase):
    """Any segmentation of valid traffic is the same traffic."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 200), max_size=20))
    def test_random_splits_give_the_same_bodies(self, sizes: list[int]) -> None:
        """Three requests with different framing, cut at random."""
        data = (
            post(b"Content-Length: 4\r\n")
            + post(CHUNKED, b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n")
            + b"\r\n"
            + GET
            + post(b"Content-Length: 4\r\n", b"wxyz")
        )
        echo = Echo()
        connection = serve(echo).connect()
        position = 0
        for size in [*sizes, len(data)]:
            connection.send(data[position : position + size])
            position += size
        self.assertEqual([request.body for request in echo.seen], [b"abcd", b"abc0123456789", b"", b"wxyz"])


class AdmissionTests(SynchronousTestCase):
    """Refusals by policy, before the body."""

    def refuse(self, request: object) -> None:
        raise RequestError(401, "no_token", "Who are you?", ((b"WWW-Authenticate", b"Bearer"),))

    def test_admission_comes_before_100_continue_and_the_body(self) -> None:
        """Vector 53: nobody is told to go on who will be refused."""
        connection = serve(admit=self.refuse).connect()
        reply = connection.send(post(b"Expect: 100-continue\r\nContent-Length: 4\r\n", b""))
        self.assertEqual(statuses(reply), [401])
        self.assertIn(b"\r\nWWW-Authenticate: Bearer\r\n", reply)
        self.assertIn(b"\r\nConnection: close\r\n", reply)

    def test_an_admitted_client_is_told_to_go_on_before_the_body(self) -> None:
        """100 goes out when the head is complete, 200 when the body is."""
        connection = serve().connect()
        self.assertEqual(
            connection.send(post(b"Expect: 100-continue\r\nContent-Length: 4\r\n", b"")),
            b"HTTP/1.1 100 Continue\r\n\r\n",
        )
        self.assertEqual(statuses(connection.send(b"abcd")), [200])

    def test_an_old_client_is_not_told_to_go_on(self) -> None:
        """RFC 9110 §10.1.1: the expectation of a 1.0 client is ignored."""
        data = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd"
        self.assertEqual(statuses(serve().connect().send(data)), [200])

    def test_the_connection_survives_a_refusal_with_a_small_body(self) -> None:
        """The body is thrown away, whatever its framing and segments, and the next request is served."""
        refusals = iter([True, False])

        def admit(request: object) -> None:
            if next(refusals):
                self.refuse(request)

        for body, extra in ((b"abcd", b"Content-Length: 4\r\n"), (b"4\r\nabcd\r\n0\r\n\r\n", CHUNKED)):
            for cut in (0, 2, len(body)):
                refusals = iter([True, False])
                connection = serve(admit=admit).connect()
                received = connection.send(post(extra, body[:cut]))
                self.assertEqual(statuses(received), [401])
                received = connection.send(body[cut:] + GET)
                self.assertEqual(statuses(received), [200], (extra, cut))

    def test_a_large_body_is_not_worth_skipping(self) -> None:
        """The connection ends, but not before the client could read why."""
        connection = serve(admit=self.refuse).connect()
        reply = connection.send(post(b"Content-Length: 100000\r\n", b"abcd"))
        self.assertEqual(statuses(reply), [401])
        self.assertIn(b"\r\nConnection: close\r\n", reply)
        self.assertFalse(connection.closing)
        self.assertEqual(connection.send(b"x" * 50_000), b"")
        connection.wait(3)
        self.assertTrue(connection.closing)

    def test_a_skipped_body_with_broken_framing_gets_no_second_answer(self) -> None:
        """It would be read as the answer to the next request."""
        connection = serve(admit=self.refuse).connect()
        connection.send(post(CHUNKED, b""))
        self.assertEqual(connection.send(b"zz\r\n"), b"")
        connection.wait(4)
        self.assertTrue(connection.closing)

    def test_an_admission_that_breaks_refuses(self) -> None:
        """An error in the gate opens nothing: 500, and the log has the reason."""
        echo = Echo()

        def admit(request: object) -> None:
            raise ZeroDivisionError

        self.assertEqual(statuses(serve(echo, admit=admit).connect().send(GET)), [500])
        self.assertEqual(echo.seen, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class RefusingTests(SynchronousTestCase):
    """Connections on which a decision stands before everything else."""

    def test_a_refusal_is_answered_and_the_connection_closed(self) -> None:
        """The resource and the gate see nothing."""
        echo = Echo()
        served = serve(echo, admit=self.fail)
        connection = served.connect(refuse=forbid)
        reply = connection.send(GET + GET)
        self.assertEqual(statuses(reply), [403])
        self.assertIn(b"\r\nConnection: close\r\n", reply)
        self.assertTrue(connection.closing)
        self.assertEqual(echo.seen, [])
        self.assertEqual([record.error for record in served.records], ["https_required"])

    def test_a_redirect_is_308_without_a_body(self) -> None:
        """Location is what the decision says, and never HSTS over plaintext."""
        connection = serve().connect(refuse=lambda request: Redirect(location=b"https://example.com" + request.target))
        reply = connection.send(get(line=b"GET /a?b HTTP/1.1"))
        self.assertTrue(reply.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n"), reply)
        self.assertIn(b"\r\nLocation: https://example.com/a?b\r\n", reply)
        self.assertIn(b"\r\nContent-Length: 0\r\n", reply)
        self.assertNotIn(b"Strict-Transport-Security", reply)
        self.assertTrue(connection.closing)

    def test_the_decision_sees_the_request_as_it_came(self) -> None:
        """Method, target, host, header names and peer."""
        seen: list[PlainRequest] = []
        served = serve()
        served.connect(IPv4Address("TCP", "192.0.2.7", 1), refuse=seen.append).send(
            get(b"Authorization: x\r\n", b"POST /p?q HTTP/1.1")
        )
        (request,) = seen
        self.assertEqual((request.method, request.target, request.host), (b"POST", b"/p?q", b"localhost"))
        self.assertEqual((request.headers, request.peer), ({b"host", b"authorization"}, "192.0.2.7"))

    def test_what_the_decision_lets_pass_is_served(self) -> None:
        """None means: as on any other connection."""
        connection = serve().connect(refuse=lambda _: None)
        self.assertEqual(statuses(connection.send(GET)), [200])
        self.assertFalse(connection.closing)

    def test_a_refused_body_is_read_for_a_while(self) -> None:
        """Otherwise a reset could take the answer away."""
        connection = serve().connect(refuse=forbid)
        self.assertEqual(statuses(connection.send(post(b"Content-Length: 4\r\n", b"ab"))), [403])
        self.assertFalse(connection.closing)
        connection.wait(3)
        self.assertTrue(connection.closing)


class DeadlineTests(SynchronousTestCase):
    """Patience, in seconds on the site's clock."""

    limits = LimitsConfig(header_timeout=10, body_timeout=10, idle_timeout=75, write_timeout=30)

    def test_a_head_has_to_be_complete_in_time_however_busy_it_is(self) -> None:
        """One byte a second does not prolong it: 408 after ten seconds."""
        connection = serve(limits=self.limits).connect()
        connection.wait(20)
        received = b""
        for byte in GET[:9]:
            received += connection.send(bytes([byte])) + connection.wait(1)
        self.assertEqual(received, b"")
        self.assertEqual(statuses(connection.wait(2)), [408])
        connection.wait(3)
        self.assertTrue(connection.closing)

    def test_an_idle_connection_is_closed_silently(self) -> None:
        """Fresh and used ones alike, and not before their time."""
        for first in (b"", GET):
            connection = serve(limits=self.limits).connect()
            if first:
                connection.send(first)
            connection.wait(74)
            self.assertFalse(connection.closing)
            self.assertEqual(connection.wait(2), b"")
            self.assertTrue(connection.closing)

    def test_a_body_that_pauses_is_given_up(self) -> None:
        """408 after the pause, for both framings."""
        for extra in (b"Content-Length: 4\r\n", CHUNKED):
            served = serve(limits=self.limits)
            connection = served.connect()
            connection.send(post(extra, b""))
            self.assertEqual(connection.wait(9), b"")
            self.assertEqual(statuses(connection.wait(2)), [408])
            self.assertEqual([record.error for record in served.records], ["request_timeout"])

    def test_a_body_that_trickles_is_given_up(self) -> None:
        """A byte a second is no pause, but not 500 bytes a second either."""
        connection = serve(limits=self.limits).connect()
        connection.send(post(b"Content-Length: 1000\r\n", b""))
        received = b"".join(connection.send(b"x") + connection.wait(1) for _ in range(11))
        self.assertEqual(statuses(received), [408])

    def test_a_fast_beginning_does_not_pay_for_a_slow_end(self) -> None:
        """The rate is judged in windows."""
        connection = serve(limits=self.limits).connect()
        connection.send(post(b"Content-Length: 1000000\r\n", b"x" * 900_000))
        received = b"".join(connection.send(b"x") + connection.wait(1) for _ in range(25))
        self.assertEqual(statuses(received), [408])

    def test_a_body_that_is_merely_slow_is_served(self) -> None:
        """600 bytes a second for half a minute."""
        connection = serve(limits=self.limits).connect()
        connection.send(post(b"Content-Length: 18000\r\n", b""))
        received = b"".join(connection.wait(1) + connection.send(b"x" * 600) for _ in range(30))
        self.assertEqual(statuses(received), [200])

    def test_a_resource_may_take_as_long_as_it_likes(self) -> None:
        """Its deadline is its own matter."""
        later = Later()
        connection = serve(later, limits=self.limits).connect()
        connection.send(GET)
        connection.wait(1000)
        later.seen[0].respond(200, b"text/plain", b"")
        self.assertEqual(statuses(connection.received()), [200])

    def test_a_head_in_time_is_served(self) -> None:
        """Nine seconds are fine, and the clock starts anew with each head."""
        connection = serve(limits=self.limits).connect()
        for _ in range(2):
            connection.send(GET[:5])
            connection.wait(9)
            self.assertEqual(statuses(connection.send(GET[5:])), [200])


class RecordTests(SynchronousTestCase):
    """One record per exchange."""

    def test_a_served_request_is_recorded_at_its_end(self) -> None:
        """With who, what, how much and how long."""
        later = Later()
        served = serve(later)
        connection = served.connect(IPv4Address("TCP", "192.0.2.7", 1))
        connection.send(post(b"Content-Length: 4\r\n").replace(b"/ ", b"/p?secret=1 ", 1))
        self.assertEqual(served.records, [])
        connection.wait(3)
        later.seen[0].respond(202, b"text/plain", b"abc")
        (record,) = served.records
        self.assertEqual((record.peer, record.client, record.host), ("192.0.2.7", "192.0.2.7", "localhost"))
        self.assertEqual((record.verb, record.path, record.status), ("POST", "/p", 202))
        self.assertEqual((record.received, record.sent, record.duration), (4, 3, 3.0))
        self.assertIsNone(record.error)

    def test_a_lost_request_is_recorded_once(self) -> None:
        """The client left: nothing was sent."""
        later = Later()
        served = serve(later)
        connection = served.connect()
        connection.send(GET)
        served.clock.advance(2)
        connection.lose()
        seen = [(record.status, record.error, record.duration) for record in served.records]
        self.assertEqual(seen, [(0, "client_gone", 2.0)])

    def test_a_request_lost_in_its_body_is_recorded(self) -> None:
        """It had been admitted; whoever counted it in must hear of its end."""
        served = serve()
        connection = served.connect()
        connection.send(post(b"Content-Length: 4\r\n", b"ab"))
        connection.lose()
        self.assertEqual([record.error for record in served.records], ["client_gone"])

    def test_a_malformed_request_is_recorded_with_its_reason(self) -> None:
        """Operators want to see who sends garbage."""
        served = serve()
        served.connect(IPv4Address("TCP", "192.0.2.7", 1)).send(b"GET  / HTTP/1.1\r\n\r\n")
        (record,) = served.records
        self.assertEqual((record.client, record.status, record.error), ("192.0.2.7", 400, "bad_request_line"))

    def test_a_connection_lost_between_requests_leaves_no_record(self) -> None:
        """Nothing was asked."""
        served = serve()
        connection = served.connect()
        connection.send(GET[:10])
        connection.lose()
        self.assertEqual(served.records, [])

    def test_a_broken_recorder_harms_nobody(self) -> None:
        """The reply is out; the failure is in the log."""

        def on_record(record: object) -> None:
            raise ZeroDivisionError

        connection = serve(on_record=on_record).connect()
        self.assertEqual(statuses(connection.send(GET + GET)), [200, 200])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class FailureTests(SynchronousTestCase):
    """Errors of ours stay ours."""

    def test_a_resource_that_raises_gives_500_without_internals(self) -> None:
        """And the log has the failure; the connection goes on."""

        def render(request: object) -> bytes:
            raise ZeroDivisionError("secret detail")

        connection = serve(Calling(render)).connect()
        reply = connection.send(GET)
        self.assertEqual(statuses(reply), [500])
        self.assertNotIn(b"secret", reply)
        self.assertNotIn(b"ZeroDivision", reply)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(connection.closing)
