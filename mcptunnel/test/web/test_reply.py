"""The reply: whole, in pieces, and what a resource may get wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import NOT_DONE_YET

from mcptunnel.test.web.sites import Calling, Later, ask, get, serve, split, statuses


def replying(*arguments: Any) -> Callable[[Any], int]:
    """A render function that responds with ``arguments``."""

    def render(request: Any) -> int:
        request.respond(*arguments)
        return NOT_DONE_YET

    return render


class ShortWayTests(SynchronousTestCase):
    """What resources of our own use."""

    def test_the_whole_reply_is_one_write(self) -> None:
        """Head and body leave together."""
        connection = serve().connect()
        writes: list[bytes] = []
        connection.transport.write = writes.append
        connection.channel.dataReceived(get(b"Content-Length: 2\r\n", method=b"POST") + b"hi")
        (reply,) = writes
        first, headers, body = split(reply)
        self.assertEqual((first, body), (b"HTTP/1.1 200 OK", b"hi"))
        self.assertEqual(headers[b"content-length"], b"2")
        self.assertEqual(headers[b"content-type"], b"text/plain")
        self.assertEqual(headers[b"date"], b"Sun, 22 Nov 2026 21:46:40 GMT")
        self.assertNotIn(b"server", headers)

    def test_the_date_follows_the_clock(self) -> None:
        """It is made once a second, not once."""
        connection = serve().connect()
        connection.wait(60)
        self.assertEqual(split(connection.send(get()))[1][b"date"], b"Sun, 22 Nov 2026 21:47:40 GMT")

    def test_headers_of_a_reply_replace_the_common_ones(self) -> None:
        """Each of them once."""
        render = replying(200, b"a/b", b"x", ((b"Cache-Control", b"max-age=1"), (b"X", b"1"), (b"X", b"2")))
        connection = serve(Calling(render)).connect()
        reply = connection.send(get())
        self.assertEqual(reply.lower().count(b"cache-control:"), 1)
        self.assertIn(b"\r\nCache-Control: max-age=1\r\n", reply)
        self.assertIn(b"\r\nX: 1\r\nX: 2\r\n", reply)

    def test_what_the_operator_has_decided_is_not_the_resources_to_change(self) -> None:
        """A security header that was replaced or taken away; others of the operator's are only defaults."""
        render = replying(200, b"a/b", b"x", ((b"Cache-Control", b"max-age=1"), (b"X-Mine", b"1")))
        for value, expected in (("private", b"private"), (None, None)):
            _, headers, body = ask(render, headers={"cache-control": value, "X-Mine": "2"})
            self.assertEqual((headers.get(b"cache-control"), headers[b"x-mine"], body), (expected, b"1", b"x"))

    def test_a_header_that_splits_the_reply_is_refused(self) -> None:
        """500 instead of two replies."""
        for line in ((b"X", b"1\r\nY: 2"), (b"X: 1\r\nY", b"2"), (b"X", b"1\n"), (b"", b"x")):
            first, headers, _ = ask(replying(200, b"a/b", b"x", (line,)))
            self.assertEqual(first, b"HTTP/1.1 500 Internal Server Error")
            self.assertNotIn(b"y", headers)
            self.flushLoggedErrors(ValueError)

    def test_a_header_is_found_and_a_doubled_one_refused(self) -> None:
        """``header`` has one answer; ``headers_named`` all."""
        seen: list[Any] = []

        def render(request: Any) -> Any:
            seen.extend((request.header(b"a"), request.header(b"none"), request.headers_named(b"b")))
            return request.header(b"b")

        first, _, body = ask(render, get(b"A: 1\r\nB: 2\r\nB: 3\r\n"))
        self.assertEqual(seen, [b"1", None, [b"2", b"3"]])
        self.assertEqual(first, b"HTTP/1.1 400 Bad Request")
        self.assertIn(b"duplicate_header", body)

    def test_a_second_reply_is_an_error(self) -> None:
        """Of the programmer; nothing of it reaches the client."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen
        request.respond(200, b"a/b", b"1")
        connection.received()
        self.assertRaises(RuntimeError, request.respond, 200, b"a/b", b"2")
        self.assertRaises(RuntimeError, request.start_stream, 200, b"a/b")
        self.assertRaises(RuntimeError, request.write, b"x")
        self.assertEqual(connection.received(), b"")

    def test_an_empty_reply_needs_no_type(self) -> None:
        """202 with nothing: Content-Length 0, no Content-Type."""
        first, headers, body = ask(replying(202, None, b""))
        self.assertEqual((first, headers[b"content-length"], body), (b"HTTP/1.1 202 Accepted", b"0", b""))
        self.assertNotIn(b"content-type", headers)

    def test_a_content_type_that_splits_the_reply_is_refused(self) -> None:
        """It may come from an upstream."""
        self.assertEqual(ask(replying(200, b"a/b\r\nX: y", b"x"))[0][:12], b"HTTP/1.1 500")
        self.flushLoggedErrors(ValueError)

    def test_204_and_304_have_no_body_and_204_no_length(self) -> None:
        """RFC 9110 §8.6."""
        for status, kind in ((204, None), (304, None), (204, b"a/b")):
            first, headers, body = ask(replying(status, kind, b""))
            self.assertTrue(first.startswith(b"HTTP/1.1 %d " % status))
            self.assertNotIn(b"content-length", headers)
            self.assertNotIn(b"transfer-encoding", headers)
            self.assertEqual(body, b"")

    def test_head_tells_the_length_and_sends_nothing(self) -> None:
        """The next reply begins where this one ends."""
        reply = serve().connect().send(get(b"Content-Length: 2\r\n", method=b"HEAD") + b"hi" + get())
        self.assertEqual(statuses(reply), [200, 200])
        self.assertIn(b"\r\nContent-Length: 2\r\n", reply)
        self.assertNotIn(b"hi", reply)

    def test_nothing_happens_when_the_client_is_gone(self) -> None:
        """Replies go nowhere, silently; the listener has been told."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen
        told: list[int] = []
        request.on_lost = lambda: told.append(1)
        connection.lose()
        self.assertEqual(told, [1])
        request.respond(200, b"a/b", b"x")
        request.start_stream(200, b"a/b")
        request.write(b"x")
        self.assertEqual(connection.received(), b"")

    def test_nobody_is_told_of_a_loss_after_the_end(self) -> None:
        """The reply was complete."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        later.seen[0].on_lost = self.fail
        later.seen[0].respond(200, b"a/b", b"x")
        connection.lose()


class StreamTests(SynchronousTestCase):
    """Replies in pieces."""

    def test_the_head_goes_out_at_once_and_pieces_follow(self) -> None:
        """Chunked in HTTP/1.1, and the connection goes on."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen
        request.start_stream(200, b"text/event-stream", ((b"X-Accel-Buffering", b"no"),))
        first, headers, body = split(connection.received())
        self.assertEqual((first, headers[b"transfer-encoding"], body), (b"HTTP/1.1 200 OK", b"chunked", b""))
        self.assertEqual(headers[b"x-accel-buffering"], b"no")
        request.write(b"data: 1\n\n")
        self.assertEqual(connection.received(), b"9\r\ndata: 1\n\n\r\n")
        request.write(b"")
        self.assertEqual(connection.received(), b"")
        request.finish()
        self.assertEqual(connection.received(), b"0\r\n\r\n")
        self.assertEqual(request.record.sent, 9)
        self.assertEqual(statuses(connection.send(get()[:-2])), [])

    def test_an_old_client_sees_the_end_of_the_connection(self) -> None:
        """HTTP/1.0 has no chunks."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0"))
        later.seen[0].start_stream(200, b"a/b")
        later.seen[0].write(b"abc")
        later.seen[0].finish()
        _, headers, body = split(connection.received())
        self.assertEqual((headers[b"connection"], body), (b"close", b"abc"))
        self.assertNotIn(b"transfer-encoding", headers)
        self.assertTrue(connection.closing)

    def test_a_stream_that_fails_is_cut_off(self) -> None:
        """No last chunk: the client must not take it for whole."""
        later = Later()
        served = serve(later)
        connection = served.connect()
        connection.send(get())
        (request,) = later.seen
        request.start_stream(200, b"a/b")
        request.write(b"abc")
        connection.received()
        deferred: Deferred[None] = Deferred()
        deferred.addErrback(request.processingFailed)
        deferred.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(connection.received(), b"")
        self.assertTrue(connection.aborted)
        connection.lose()
        self.assertEqual([(r.status, r.error) for r in served.records], [(200, "internal")])

    def test_a_push_producer_follows_the_transport(self) -> None:
        """It pauses when the transport is full, also if it already was, and goes on after."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen
        request.start_stream(200, b"a/b")
        calls: list[str] = []

        class Source:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

            def stopProducing(self) -> None:
                calls.append("stop")

        transport = connection.transport
        transport.producer.pauseProducing()
        request.registerProducer(Source(), True)
        self.assertEqual(calls, ["pause"])
        transport.producer.resumeProducing()
        transport.producer.pauseProducing()
        transport.producer.stopProducing()
        self.assertEqual(calls, ["pause", "resume", "pause", "stop"])
        self.assertRaises(ValueError, request.registerProducer, Source(), True)
        request.unregisterProducer()
        request.finish()
        self.assertEqual(connection.received()[-5:], b"0\r\n\r\n")

    def test_a_pull_producer_is_the_transports_own(self) -> None:
        """And the channel takes its place again afterwards."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen
        pieces = [b"a", b"b"]

        class Source:
            def resumeProducing(self) -> None:
                request.write(pieces.pop(0))
                if not pieces:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                raise AssertionError

        request.registerProducer(Source(), False)
        transport = connection.transport
        self.assertFalse(transport.streaming)
        transport.producer.resumeProducing()
        transport.producer.resumeProducing()
        self.assertTrue(transport.streaming)
        self.assertEqual(split(connection.received())[2], b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")

    def test_a_client_that_stops_pulling_is_cut_off(self) -> None:
        """The write timeout holds for pull producers too."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen

        class Source:
            def resumeProducing(self) -> None:
                request.write(b"x")

            def stopProducing(self) -> None:
                """Nothing to free."""

        request.registerProducer(Source(), False)
        for _ in range(50):
            connection.transport.producer.resumeProducing()
            connection.wait(1)
        self.assertFalse(connection.aborted)
        connection.wait(31)
        self.assertTrue(connection.aborted)

    def test_a_producer_left_behind_is_removed_and_reported(self) -> None:
        """It would drive the next reply."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        (request,) = later.seen
        request.start_stream(200, b"a/b")
        request.registerProducer(object(), True)
        request.finish()
        connection.transport.producer.pauseProducing()
        self.assertIsNone(request.producer)


class WriteTests(SynchronousTestCase):
    """twisted.web's write and finish."""

    def test_a_single_write_before_finish_has_a_length(self) -> None:
        """No chunks needed."""

        def render(request: Any) -> int:
            request.write(b"abc")
            request.finish()
            return NOT_DONE_YET

        _, headers, body = ask(render)
        self.assertEqual((headers[b"content-length"], body), (b"3", b"abc"))
        self.assertEqual(headers[b"content-type"], b"text/html")

    def test_several_writes_are_chunked(self) -> None:
        """Nobody knows the length."""

        def render(request: Any) -> int:
            request.write(b"abc")
            request.write(b"de")
            request.finish()
            return NOT_DONE_YET

        _, headers, body = ask(render)
        self.assertEqual((headers[b"transfer-encoding"], body), (b"chunked", b"5\r\nabcde\r\n0\r\n\r\n"))

    def test_a_first_write_leaves_when_render_returns(self) -> None:
        """A resource that waits for something else does not hold it back."""
        later: list[Any] = []

        def render(request: Any) -> int:
            later.append(request)
            request.write(b"abc")
            return NOT_DONE_YET

        connection = serve(Calling(render)).connect()
        self.assertEqual(split(connection.send(get()))[2], b"3\r\nabc\r\n")
        later[0].write(b"d")
        later[0].finish()
        self.assertEqual(connection.received(), b"1\r\nd\r\n0\r\n\r\n")

    def test_nothing_written_is_an_empty_reply(self) -> None:
        """Content-Length 0."""

        def render(request: Any) -> int:
            request.setResponseCode(201, b"Made\r\nX: y")
            request.finish()
            return NOT_DONE_YET

        first, headers, body = ask(render)
        self.assertEqual((first, headers[b"content-length"], body), (b"HTTP/1.1 201 Made  X: y", b"0", b""))

    def test_a_reply_longer_than_announced_is_cut(self) -> None:
        """The rest would be read as the next reply."""

        def render(request: Any) -> int:
            request.setHeader(b"Content-Length", b"3")
            request.write(b"abcHTTP/1.1 200 OK")
            request.write(b"more")
            request.finish()
            return NOT_DONE_YET

        connection = serve(Calling(render)).connect()
        self.assertEqual(split(connection.send(get()))[2], b"abc")
        self.assertFalse(connection.closing)

    def test_a_reply_shorter_than_announced_ends_the_connection(self) -> None:
        """Or the client waits for ever, or takes the next reply for the rest."""

        def render(request: Any) -> int:
            request.setHeader(b"Content-Length", b"3")
            request.write(b"ab")
            request.finish()
            return NOT_DONE_YET

        connection = serve(Calling(render)).connect()
        connection.send(get())
        self.assertTrue(connection.aborted)

    def test_what_render_returns_has_the_length_it_has(self) -> None:
        """Whatever the resource had announced; to HEAD it may announce without giving."""

        def render(request: Any) -> bytes:
            request.setHeader(b"Content-Length", b"7")
            return b"" if request.method == b"HEAD" else b"abc"

        _, headers, body = ask(render)
        self.assertEqual((headers[b"content-length"], body), (b"3", b"abc"))
        connection = serve(Calling(render)).connect()
        self.assertEqual(split(connection.send(get(method=b"HEAD")))[1][b"content-length"], b"7")
        self.assertFalse(connection.closing)
        self.assertNotIn(b"content-length", ask(lambda _: b"", get(method=b"HEAD"))[1])

    def test_head_may_be_answered_in_pieces(self) -> None:
        """Nothing of them is sent, and nothing is missed."""

        def render(request: Any) -> int:
            request.setHeader(b"Content-Length", b"3")
            request.write(b"abc")
            request.finish()
            return NOT_DONE_YET

        connection = serve(Calling(render)).connect()
        self.assertEqual(split(connection.send(get(method=b"HEAD")))[2], b"")
        self.assertFalse(connection.closing)

    def test_framing_is_not_the_resources_business(self) -> None:
        """Its Transfer-Encoding is ignored, its Connection: close obeyed."""

        def render(request: Any) -> bytes:
            request.setHeader(b"Transfer-Encoding", b"gzip")
            request.setHeader(b"Connection", b"close")
            return b"abc"

        connection = serve(Calling(render)).connect()
        reply = connection.send(get())
        self.assertNotIn(b"ransfer-", reply)
        self.assertEqual(reply.count(b"Connection: close"), 1)
        self.assertTrue(connection.closing)

    def test_finish_after_a_loss_and_twice(self) -> None:
        """As documented for twisted.web: RuntimeError, and a warning."""
        later = Later()
        connection = serve(later).connect()
        connection.send(get())
        finished, failed = later.seen[0].notifyFinish(), None
        later.seen[0].finish()
        self.successResultOf(finished)
        later.seen[0].finish()
        self.assertEqual(len(self.flushWarnings()), 1)
        connection.send(get())
        failed = later.seen[1].notifyFinish()
        connection.lose()
        self.failureResultOf(failed)
        self.assertRaises(RuntimeError, later.seen[1].finish)
