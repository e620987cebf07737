"""Tests for mcptunnel.upstream.streamable: exact request heads, every kind of answer, sessions and standing streams."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import SUBSCRIPTION_KEY, Era
from mcptunnel.core.principal import ANONYMOUS
from mcptunnel.test.upstream.servers import Accepted, Origin
from mcptunnel.testing import RecordingSink, make_exchange, notification, request, response
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.answers import LISTEN_BACKOFF
from mcptunnel.upstream.streamable import LEAVE_SECONDS, HttpUpstream

JSON = "Content-Type: application/json"
SSE = "Content-Type: text/event-stream"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(raw: bytes) -> bytes:
    return chunk(b"event: message\ndata: " + raw + b"\n\n")


END = b"0\r\n\r\n"


class Owner:
    """Remembers what belongs to no call."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.lost = 0

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        self.said.append((json.loads(message.raw), exchange))

    def session_lost(self, link: Link) -> bool:
        return False

    def doubted(self, link: Link) -> None:
        """Nothing is known here of eras."""

    def link_lost(self, link: Link) -> None:
        self.lost += 1


class Case(SynchronousTestCase):
    """One link to one server."""

    era: Era = "legacy"
    max_bytes = 2000

    def setUp(self) -> None:
        self.origin = Origin()
        self.upstream = HttpUpstream(
            "docs",
            address=Address.of("http://docs.example.com/mcp?x=1", {"Authorization": "Bearer ours", "X-Team": "é"}),
            pool=self.origin.pool(),
            clock=self.origin.clock,
            max_bytes=self.max_bytes,
        )
        self.owner = Owner()
        self.link = Link.open(self.upstream, self.era, self.owner, self.origin.clock.seconds)

    @property
    def server(self) -> Accepted:
        """The latest connection."""
        return self.origin.last

    def ask(self, raw: bytes, **arguments: Any) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(raw, era=self.era, **arguments)
        self.link.request(exchange)
        return exchange, sink

    def initialize(self, *headers: str) -> RecordingSink:
        """Open a session as far as the answer."""
        _, sink = self.ask(request("initialize", "init"))
        self.server.take()
        self.server.answer(response(1, {"protocolVersion": "2025-06-18"}), 200, JSON, *headers)
        return sink


class FormTests(Case):
    """Whether an answer is a stream is known to whoever passes it on."""

    def test_json_is_no_stream(self) -> None:
        """Not even a slow one."""
        exchange, sink = self.ask(request("tools/list"))
        begun: list[bool] = []
        exchange.on_stream = lambda: begun.append(True)
        self.server.answer(response(1, {}), 200, JSON)
        self.assertEqual((sink.answered, exchange.streamed, begun), (True, False, []))

    def test_an_event_stream_is_one_and_shows_life_with_an_event_that_is_no_response(self) -> None:
        """Such as one that has only an id; half an event is none."""
        exchange, sink = self.ask(request("tools/list"))
        begun: list[bool] = []
        exchange.on_stream = lambda: begun.append(True)
        self.server.send(STREAM)
        self.assertTrue(exchange.streamed)
        self.server.send(chunk(b":\n\nid: 1\ndata: "))
        self.assertEqual(begun, [])
        self.server.send(chunk(b"\n\n"))
        self.assertEqual(begun, [True])
        self.server.send(event(response(1, {})))
        self.assertEqual((sink.answered, begun), (True, [True]))

    def test_a_response_that_comes_first_begins_nothing(self) -> None:
        """It goes on in one piece."""
        exchange, sink = self.ask(request("tools/list"))
        begun: list[bool] = []
        exchange.on_stream = lambda: begun.append(True)
        self.server.send(STREAM + event(response(1, {})))
        self.assertEqual((sink.answered, exchange.streamed, begun), (True, True, []))


class PollingTests(Case):
    """A server ends the stream of a call early, and wants us back for the rest (2025-11-25)."""

    def setUp(self) -> None:
        super().setUp()
        self.initialize("Mcp-Session-Id: s")
        self.exchange, self.sink = self.ask(request("tools/call", "x", {"name": "t"}))
        self.breaks = 0
        self.exchange.on_break = self.broken
        self.server.take()
        self.server.send(STREAM + chunk(b"retry: 500\nid: e-1\ndata: \n\n"))

    def broken(self) -> None:
        self.breaks += 1

    def wait(self, seconds: float) -> None:
        self.origin.clock.advance(seconds)

    def test_we_come_back_with_the_last_id_when_the_server_says(self) -> None:
        """And again, until there is a response."""
        self.server.send(event(notification("notifications/message", {"n": 1})) + END)
        self.assertEqual((self.breaks, self.sink.answered), (1, False))
        self.wait(0.4)
        self.assertEqual(self.server.take(), b"")
        self.wait(0.1)
        head = self.server.take()
        self.assertTrue(head.startswith(b"GET /mcp?x=1 HTTP/1.1\r\n"))
        self.assertIn(b"\r\nMcp-Session-Id: s\r\nMCP-Protocol-Version: 2025-06-18\r\nLast-Event-ID: e-1\r\n", head)
        self.server.send(STREAM + chunk(b"id: e-2\ndata: \n\n") + END)
        self.wait(0.5)
        self.assertIn(b"\r\nLast-Event-ID: e-2\r\n", self.server.take())
        self.server.send(STREAM + event(response(2, {"ok": 1})) + END)
        self.assertEqual((self.sink.answer, self.breaks), ({"jsonrpc": "2.0", "id": "x", "result": {"ok": 1}}, 2))
        self.assertEqual([m["params"] for m in self.sink.heard], [{"n": 1}])

    def test_a_server_that_never_says_anything_again_has_failed(self) -> None:
        """After a few attempts."""
        self.server.send(END)
        for _ in range(3):
            self.assertFalse(self.sink.answered)
            self.wait(0.5)
            self.server.take()
            self.server.send(STREAM + END)
        self.assertIn("without a response", self.sink.answer["error"]["message"])
        self.wait(60)
        self.assertEqual(self.server.take(), b"")

    def test_a_refusal_to_go_on_is_the_end_of_the_call(self) -> None:
        """At once."""
        self.server.send(END)
        self.wait(0.5)
        self.server.take()
        self.server.answer(b"", 405)
        self.assertIn("HTTP status 405", self.sink.answer["error"]["message"])

    def test_nobody_comes_back_for_what_is_not_wanted(self) -> None:
        """Cancelled, or the link is closed."""
        self.server.send(END)
        self.exchange.abandon()
        self.server.take()
        self.wait(1)
        self.assertNotIn(b"Last-Event-ID", self.server.take())
        self.setUp()
        self.server.send(END)
        self.link.close()
        self.assertEqual(self.origin.clock.getDelayedCalls(), [])

    def test_the_wait_is_within_bounds(self) -> None:
        """Whatever the server asks for."""
        for asked, least, most in ((b"0", 0.05, 0.05), (b"999999999", 29.9, 0.1)):
            self.setUp()
            self.server.send(chunk(b"retry: %b\nid: e\ndata: \n\n" % asked) + END)
            self.wait(least)
            self.assertEqual(self.server.take(), b"")
            self.wait(most)
            self.assertIn(b"Last-Event-ID: e\r\n", self.server.take())

    def test_an_id_that_is_no_header_value_is_none(self) -> None:
        """The last good one stands."""
        self.server.send(chunk(b"id: a\x01b\ndata: \n\nid: \xc3\xa9\ndata: \n\nid: \ndata: \n\n") + END)
        self.wait(0.5)
        self.assertIn(b"Last-Event-ID: e-1\r\n", self.server.take())

    def test_who_is_slow_stays_slow(self) -> None:
        """On the new connection as well."""
        self.exchange.pause()
        self.exchange.resume()
        self.server.send(END)
        self.exchange.pause()
        self.wait(0.5)
        self.assertTrue(self.server.transport.paused)
        self.exchange.resume()
        self.assertFalse(self.server.transport.paused)


class LegacyHeadTests(Case):
    """What goes out."""

    def test_a_request_is_these_bytes(self) -> None:
        """Nothing of the client's own request is in them."""
        self.ask(
            b'{"jsonrpc":"2.0", "id":"x","method":"tools/call","params":{"name":"a"}}',
            params_headers=[(b"mcp-param-a", b"1")],
        )
        body = b'{"jsonrpc":"2.0", "id":1,"method":"tools/call","params":{"name":"a"}}'
        self.assertEqual(
            self.server.take(),
            b"POST /mcp?x=1 HTTP/1.1\r\nHost: docs.example.com\r\nAuthorization: Bearer ours\r\nX-Team: \xe9\r\n"
            b"Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        )

    def test_the_session_and_the_revision_go_with_what_follows(self) -> None:
        """From the answer to initialize, and from no other."""
        sink = self.initialize("Mcp-Session-Id: abc-123", "Set-Cookie: a=b")
        self.assertEqual(sink.answer["id"], "init")
        self.ask(request("tools/list"))
        _, headers, _ = self.server.request()
        self.assertEqual((headers["mcp-session-id"], headers["mcp-protocol-version"]), ("abc-123", "2025-06-18"))
        self.assertNotIn("cookie", headers)
        self.server.answer(response(2, {}), 200, JSON, "Mcp-Session-Id: other")
        self.ask(request("tools/list"))
        self.assertEqual(self.server.request()[1]["mcp-session-id"], "abc-123")

    def test_a_session_id_that_is_none_is_not_repeated(self) -> None:
        """Spaces, nothing, too long."""
        for value in ("a b", "", "x" * 1025, "\xe9"):
            self.setUp()
            self.initialize(f"Mcp-Session-Id: {value}")
            self.ask(request("tools/list"))
            self.assertNotIn("mcp-session-id", self.server.request()[1])

    def test_the_end_of_the_link_ends_the_servers_session(self) -> None:
        """With DELETE; calls under way are cut, and hear nothing."""
        self.initialize("Mcp-Session-Id: abc")
        _, sink = self.ask(request("tools/call", 1, {"name": "a"}))
        cut = self.server
        self.link.close()
        self.assertTrue(cut.transport.aborted)
        self.assertEqual(
            self.server.take(),
            b"DELETE /mcp?x=1 HTTP/1.1\r\nHost: docs.example.com\r\nAuthorization: Bearer ours\r\nX-Team: \xe9\r\n"
            b"Mcp-Session-Id: abc\r\nMCP-Protocol-Version: 2025-06-18\r\n\r\n",
        )
        self.server.answer(b"", 405)
        self.assertFalse(sink.answered)

    def test_without_a_session_there_is_nothing_to_delete(self) -> None:
        """Some servers keep none."""
        self.initialize()
        self.link.close()
        self.assertEqual(self.server.take(), b"")

    def test_it_shows_no_header(self) -> None:
        """They hold credentials."""
        self.assertEqual(repr(self.upstream), "<HttpUpstream docs>")


class AnswerTests(Case):
    """What comes back."""

    def test_json(self) -> None:
        """Under the client's id, otherwise byte for byte."""
        _, sink = self.ask(request("tools/list", "c"))
        self.server.answer(
            b'{"id":1, "jsonrpc":"2.0","result":{"n":1.0}}', 200, "Content-Type: Application/JSON; charset=utf-8"
        )
        self.assertEqual(sink.replies[0][0], b'{"id":"c", "jsonrpc":"2.0","result":{"n":1.0}}')

    def test_an_event_stream(self) -> None:
        """Messages as they come, then the response; priming events and comments say nothing."""
        _, sink = self.ask(request("tools/call", "c", {"_meta": {"progressToken": "t"}}))
        self.server.send(STREAM + chunk(b"id: 1\nretry: 10\ndata:\n\n") + chunk(b": hi\n\n"))
        self.server.send(event(notification("notifications/progress", {"progressToken": 1, "progress": 1})))
        self.assertEqual(sink.heard[0]["params"]["progressToken"], "t")
        self.server.send(event(response(1, {"ok": 1})) + END)
        self.assertEqual(sink.answer["result"], {"ok": 1})
        self.ask(request("tools/list"))
        self.assertEqual(len(self.origin.accepted), 1)

    def test_a_stream_that_ends_without_the_response_fails_the_call(self) -> None:
        """So does one that breaks off, and one with an event that is too long."""
        for rest, why in (
            (END, "closed the event stream without a response"),
            (event(b"x" * 3000), "longer than 2000 bytes"),
            (event(b"junk"), "cannot be read"),
        ):
            self.setUp()
            _, sink = self.ask(request("tools/call", "c"))
            self.server.send(STREAM + rest)
            self.assertIn(why, sink.answer["error"]["message"])
        self.setUp()
        _, sink = self.ask(request("tools/call", "c"))
        self.server.send(STREAM)
        self.server.lose()
        self.assertIn("without a complete answer", sink.answer["error"]["message"])

    def test_a_stream_that_stays_open_after_the_response_is_closed(self) -> None:
        """Or each call would cost a connection."""
        _, sink = self.ask(request("tools/call", "c"))
        self.server.send(STREAM + event(response(1, {})))
        self.assertTrue(sink.answered)
        self.origin.clock.advance(LEAVE_SECONDS)
        self.upstream.pool.sweep()
        self.assertFalse(self.server.over)
        self.origin.clock.advance(0.1)
        self.upstream.pool.sweep()
        self.assertTrue(self.server.over)

    def test_every_status_says_what_to_do(self) -> None:
        """And which of them a probing client should see as its own mistake."""
        for status, headers, body, words, http in (
            (401, (), b"", "refuses our credential (401); see mcpServers.docs.headers", 200),
            (403, (JSON,), response(1, error={"code": 1, "message": "m"}), "refuses our credential (403)", 200),
            (
                302,
                ("Location: http://elsewhere/",),
                b"",
                "it redirects (302) to http://elsewhere/, which is not followed",
                200,
            ),
            (307, (), b"", "it redirects (307)", 200),
            (400, (), b"", "HTTP status 400", 400),
            (404, ("Content-Type: text/html",), b"<p>", "HTTP status 404", 400),
            (405, (), b"", "HTTP status 405", 400),
            (406, (), b"", "HTTP status 406", 400),
            (415, (), b"", "HTTP status 415", 400),
            (429, (), b"", "HTTP status 429", 200),
            (500, (JSON,), b"{}", "HTTP status 500", 200),
            (502, ("Content-Type: text/html",), b"<p>", "HTTP status 502", 200),
            (200, ("Content-Type: text/html",), b"<p>", "neither JSON nor an event stream", 200),
            (202, (), b"", "HTTP status 202", 200),
            (200, (JSON,), b"[]", "cannot be read", 200),
            (200, (JSON,), response(7, {}), "no response to the request", 200),
            (200, (JSON,), notification("notifications/x"), "no response to the request", 200),
        ):
            self.setUp()
            _, sink = self.ask(request("tools/list", "c"))
            self.server.answer(body, status, *headers)
            ((_, error, code),) = sink.replies
            self.assertIsNotNone(error)
            assert error is not None
            self.assertIn(words, error.message)
            self.assertEqual((error.legacy_status, code), (http, -32010), words)
            self.assertIn("server docs is unavailable", error.message)

    def test_a_json_rpc_error_counts_whatever_the_status(self) -> None:
        """It is the server's answer."""
        for status in (200, 400, 404, 500):
            self.setUp()
            _, sink = self.ask(request("tools/list", "c"))
            self.server.answer(response(1, error={"code": -32601, "message": "m"}), status, JSON)
            self.assertEqual(sink.answer["error"], {"code": -32601, "message": "m"})

    def test_a_refusal_under_another_id_is_about_the_request(self) -> None:
        """As the official SDK refuses requests without a session; under status 200 it would answer something else."""
        body = response("server-error", error={"code": -32600, "message": "Bad Request: Missing session ID"})
        _, sink = self.ask(request("tools/list", "c"))
        self.server.answer(body, 400, JSON)
        self.assertEqual((sink.answer["id"], sink.answer["error"]["code"]), ("c", -32600))
        self.setUp()
        _, sink = self.ask(request("tools/list", "c"))
        self.server.answer(body, 200, JSON)
        self.assertIn("no response to the request", sink.answer["error"]["message"])

    def test_an_answer_without_end_is_cut_off(self) -> None:
        """At server.limits.message_bytes."""
        _, sink = self.ask(request("tools/list", "c"))
        self.server.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 2001)
        self.assertIn("server.limits.message_bytes", sink.answer["error"]["message"])
        self.assertTrue(self.server.over)

    def test_a_server_that_cannot_be_reached(self) -> None:
        """The call hears why; the link goes on, since each call has its own connection."""
        self.origin.refusing = True
        _, sink = self.ask(request("tools/list", "c"))
        self.assertIn("cannot connect", sink.answer["error"]["message"])
        self.origin.refusing = False
        _, sink = self.ask(request("tools/list", "c"))
        self.server.answer(response(2, {}), 200, JSON)
        self.assertEqual(sink.answer["result"], {})

    def test_requests_of_the_server_on_a_calls_stream_name_the_call(self) -> None:
        """So that they go to the right client."""
        exchange, _ = self.ask(request("tools/call", "c"))
        self.server.send(STREAM + event(request("roots/list", "q")))
        self.assertEqual([(said["id"], whose) for said, whose in self.owner.said], [("q", exchange)])

    def test_a_slow_client_pauses_its_own_connection(self) -> None:
        """And no other."""
        exchange, _ = self.ask(request("tools/call", "c"))
        self.ask(request("tools/call", "d"))
        one, two = self.origin.accepted
        exchange.pause()
        self.assertEqual((one.transport.paused, two.transport.paused), (True, False))
        exchange.resume()
        self.assertFalse(one.transport.paused)


class SessionTests(Case):
    """The server's session."""

    def test_a_session_that_the_server_has_forgotten_loses_the_link(self) -> None:
        """404, with and without the body that the official SDKs send."""
        for body in (
            b"",
            response(None, error={"code": -32001, "message": "Session not found"}),
            response("server-error", error={"code": -32600, "message": "Session not found"}),
        ):
            self.setUp()
            self.initialize("Mcp-Session-Id: abc")
            _, one = self.ask(request("tools/list", 1))
            _, two = self.ask(request("tools/list", 2))
            self.origin.accepted[0].answer(body, 404, JSON)
            for sink in (one, two):
                self.assertIn("it has ended the session (404)", sink.answer["error"]["message"])
            self.assertEqual((self.owner.lost, self.link.closed), (1, True))
            self.assertNotIn(b"DELETE", b"".join(a.take() for a in self.origin.accepted))

    def renewing(self) -> None:
        """An owner that knows what its client has said."""
        self.ready = 0

        def again(link: Link) -> bool:
            def ready() -> None:
                self.ready += 1

            link.introduce(request("initialize", 0, {"x": 1}), ANONYMOUS, ready)
            return True

        self.patch(self.owner, "session_lost", again)

    def test_a_session_that_the_server_has_forgotten_is_opened_again_and_the_call_repeated(self) -> None:
        """Once, whatever words the server has for it; a call under way goes on, one that comes meanwhile waits."""
        for status, body in (
            (404, b""),
            (404, response("server-error", error={"code": -32600, "message": "Session not found"})),
            (400, response(None, error={"code": -32000, "message": "Bad Request: No valid session ID provided"})),
        ):
            self.setUp()
            self.renewing()
            self.initialize("Mcp-Session-Id: old")
            _, sink = self.ask(request("tools/call", 5, {"name": "t"}))
            self.server.take()
            self.server.answer(body, status, JSON)
            _, _, hello = self.server.request()
            self.assertEqual((hello["method"], hello["params"]), ("initialize", {"x": 1}))
            _, other = self.ask(request("tools/list", 6))
            self.server.answer(
                response(hello["id"], {"protocolVersion": "2025-06-18"}), 200, JSON, "Mcp-Session-Id: new"
            )
            _, headers, told = self.server.request()
            self.assertEqual((told["method"], headers["mcp-session-id"]), ("notifications/initialized", "new"))
            self.server.answer(b"", 202)
            sent = [connection.request() for connection in self.origin.accepted[-2:]]
            self.assertEqual({call["method"] for _, _, call in sent}, {"tools/call", "tools/list"})
            self.assertEqual({headers["mcp-session-id"] for _, headers, _ in sent}, {"new"})
            for connection, (_, _, call) in zip(self.origin.accepted[-2:], sent, strict=True):
                connection.answer(response(call["id"], {"of": call["method"]}), 200, JSON)
            self.assertEqual(sink.answer["result"], {"of": "tools/call"})
            self.assertEqual((other.answer["result"], self.ready), ({"of": "tools/list"}, 1))

    def test_a_call_that_is_refused_twice_for_that_reason_fails(self) -> None:
        """A server that forgets at once must not be asked for ever."""
        self.renewing()
        self.initialize("Mcp-Session-Id: old")
        _, sink = self.ask(request("tools/call", 5, {"name": "t"}))
        for _ in range(2):
            self.server.take()
            self.assertFalse(sink.answered)
            self.server.answer(b"", 404)
            _, _, hello = self.server.request()
            self.server.answer(response(hello["id"], {}), 200, JSON, "Mcp-Session-Id: new")
            self.server.take()
            self.server.answer(b"", 202)
        self.assertIn("it has ended the session (404)", sink.answer["error"]["message"])

    def test_a_call_of_which_something_was_delivered_is_not_repeated(self) -> None:
        """It may have been done."""
        self.renewing()
        self.initialize("Mcp-Session-Id: old")
        _, sink = self.ask(request("tools/call", 5, {"name": "t"}))
        self.server.send(STREAM + chunk(b"id: 7\ndata: \n\n") + b"0\r\n\r\n")
        self.origin.clock.advance(1.0)
        self.server.take()
        self.server.answer(b"", 404)
        self.assertIn("in the middle of the call", sink.answer["error"]["message"])

    def test_what_follows_initialized_waits_until_the_server_has_taken_it(self) -> None:
        """In order; also when the notification is refused or lost."""
        for settle in (
            lambda server: server.answer(b"", 202),
            lambda server: server.answer(b"", 400),
            lambda server: server.lose(),
        ):
            self.setUp()
            self.initialize("Mcp-Session-Id: abc")
            self.link.tell(notification("notifications/initialized"))
            notified = self.server
            self.assertEqual(notified.request()[2]["method"], "notifications/initialized")
            _, sink = self.ask(request("tools/list", "c"))
            self.link.tell(notification("notifications/roots/list_changed"))
            self.assertEqual([a.take() for a in self.origin.accepted], [b""])
            settle(notified)
            sent = [body["method"] for accepted in self.origin.accepted if (body := self.peek(accepted)) is not None]
            self.assertEqual(sorted(sent), ["notifications/roots/list_changed", "tools/list"])
            self.assertFalse(sink.answered)

    @staticmethod
    def peek(accepted: Accepted) -> Any:
        return accepted.request()[2] if accepted.transport.value() else None

    def test_only_the_end_of_initialized_ends_the_waiting(self) -> None:
        """Not that of a notification that went before."""
        self.initialize()
        self.link.tell(notification("notifications/x"))
        before = self.server
        self.link.tell(notification("notifications/initialized"))
        self.ask(request("tools/list", "c"))
        before.answer(b"", 202)
        self.assertEqual(len(self.origin.accepted), 2)
        self.server.take()
        self.server.answer(b"", 202)
        self.assertEqual(self.server.request()[2]["method"], "tools/list")

    def test_a_notification_that_cannot_be_sent_holds_nothing_up(self) -> None:
        """Even where connecting fails at once."""
        self.initialize("Mcp-Session-Id: abc", "Connection: close")
        self.origin.refusing = True
        self.link.tell(notification("notifications/initialized"))
        self.origin.refusing = False
        _, sink = self.ask(request("tools/list", "c"))
        self.server.take()
        self.server.answer(response(2, {}), 200, JSON)
        self.assertTrue(sink.answered)

    def test_cancelling_is_a_notification_of_its_own(self) -> None:
        """The stream stays open for a moment: the server ends it."""
        exchange, sink = self.ask(request("tools/call", "c"))
        exchange.abandon(b'"r"')
        self.assertEqual(self.server.request()[2]["params"], {"requestId": 1, "reason": "r"})
        self.assertFalse(self.origin.accepted[0].over)
        self.origin.accepted[0].answer(response(1, {}), 200, JSON)
        self.assertFalse(sink.answered)
        self.origin.accepted[0].take()
        exchange, _ = self.ask(request("tools/call", "d"))
        silent = self.origin.accepted[0]
        self.assertEqual(silent.request()[2]["method"], "tools/call")
        exchange.abandon()
        self.origin.clock.advance(LEAVE_SECONDS + 0.1)
        self.upstream.pool.sweep()
        self.assertTrue(silent.over)


class StandingTests(Case):
    """The GET stream."""

    def listen(self) -> Accepted:
        self.initialize("Mcp-Session-Id: abc")
        self.link.tell(notification("notifications/initialized"))
        self.server.answer(b"", 202)
        self.server.take()
        self.link.wire.listen()
        return self.server

    def test_it_is_opened_once_with_the_session(self) -> None:
        """These bytes."""
        server = self.listen()
        self.assertEqual(
            server.take(),
            b"GET /mcp?x=1 HTTP/1.1\r\nHost: docs.example.com\r\nAuthorization: Bearer ours\r\nX-Team: \xe9\r\n"
            b"Accept: text/event-stream\r\n"
            b"Mcp-Session-Id: abc\r\nMCP-Protocol-Version: 2025-06-18\r\n\r\n",
        )
        self.link.wire.listen()
        self.assertEqual((len(self.origin.accepted), server.take()), (1, b""))

    def test_without_a_revision_there_is_nothing_to_listen_to(self) -> None:
        """Before initialize."""
        self.link.wire.listen()
        self.assertEqual(self.origin.accepted, [])

    def test_what_it_says_belongs_to_no_call(self) -> None:
        """Except progress, which names its call."""
        server = self.listen()
        _, sink = self.ask(request("tools/call", "c", {"_meta": {"progressToken": "t"}}))
        server.send(STREAM + event(notification("notifications/message", {})) + event(request("roots/list", 5)))
        server.send(event(notification("notifications/progress", {"progressToken": 2})))
        self.assertEqual([said["method"] for said, _ in self.owner.said], ["notifications/message", "roots/list"])
        self.assertEqual(len(sink.messages), 1)

    def test_it_is_opened_again_later_and_later_while_it_fails(self) -> None:
        """And soon again once it has worked."""
        server = self.listen()
        for wait in (*LISTEN_BACKOFF, LISTEN_BACKOFF[-1]):
            server.answer(b"", 503)
            server.take()
            self.origin.clock.advance(wait - 0.1)
            self.assertEqual(server.take(), b"")
            self.origin.clock.advance(0.1)
            server = self.server
            self.assertTrue(server.take().startswith(b"GET "))
        server.send(STREAM + END)
        self.origin.clock.advance(LISTEN_BACKOFF[0])
        self.assertTrue(self.server.take().startswith(b"GET "))
        self.server.lose()
        self.origin.clock.advance(LISTEN_BACKOFF[1])
        self.assertTrue(self.server.take().startswith(b"GET "))

    def test_a_server_without_such_a_stream_is_not_asked_again(self) -> None:
        """405, or any other refusal of the request."""
        for status in (405, 404, 400):
            self.setUp()
            self.listen().answer(b"", status)
            self.origin.clock.advance(1000.0)
            self.assertEqual(self.origin.clock.getDelayedCalls(), [])

    def test_an_event_that_is_too_long_starts_it_anew(self) -> None:
        """The rest of the stream is not looked at."""
        server = self.listen()
        server.send(STREAM + event(b"x" * 3000))
        self.assertTrue(server.over)
        self.origin.clock.advance(LISTEN_BACKOFF[0])
        self.assertTrue(self.server.take().startswith(b"GET "))

    def test_it_ends_with_the_link(self) -> None:
        """Open, or waiting to be opened."""
        server = self.listen()
        server.send(STREAM)
        self.link.close()
        self.assertTrue(server.over)
        self.setUp()
        self.listen().answer(b"", 503)
        self.link.close()
        self.assertEqual(self.origin.clock.getDelayedCalls(), [])


class ModernTests(Case):
    """2026-07-28."""

    era: Era = "modern"

    def test_the_headers_repeat_the_body(self) -> None:
        """Method, name in its encoding, revision, and the client's Mcp-Param lines; no session."""
        for method, params, name in (
            ("tools/call", {"name": "add"}, "add"),
            ("tools/call", {"name": "é"}, "=?base64?w6k=?="),
            ("tools/call", {"name": "a\r\nX: y"}, "=?base64?YQ0KWDogeQ==?="),
            ("resources/read", {"uri": "x:y"}, "x:y"),
            ("tools/list", {}, None),
        ):
            self.ask(request(method, 1, params, modern=True), params_headers=[(b"mcp-param-region", b"eu")])
            first, headers, _ = self.server.request()
            self.assertEqual(first, "POST /mcp?x=1 HTTP/1.1")
            self.assertEqual(headers.get("mcp-name"), name)
            self.assertEqual(
                (headers["mcp-method"], headers["mcp-protocol-version"], headers["mcp-param-region"]),
                (method, "2026-07-28", "eu"),
            )
            self.assertNotIn("mcp-session-id", headers)

    def test_closing_the_stream_is_cancelling(self) -> None:
        """Nothing else is sent."""
        exchange, _ = self.ask(request("tools/call", 1, {"name": "a"}, modern=True))
        exchange.abandon(b'"r"')
        self.assertEqual((self.server.transport.aborted, len(self.origin.accepted)), (True, 1))

    def test_no_responses_and_notifications_are_sent(self) -> None:
        """There are none in this revision."""
        self.link.tell(response("q", {}))
        self.link.tell(notification("notifications/initialized"))
        self.link.wire.listen()
        self.assertEqual(self.origin.accepted, [])

    def test_no_session_is_kept(self) -> None:
        """Even if the server names one."""
        self.ask(request("server/discover", 1, {}, modern=True))
        self.server.answer(response(1, {}), 200, JSON, "Mcp-Session-Id: abc")
        self.link.close()
        self.assertNotIn(b"DELETE", self.server.take())

    def test_errors_of_the_server_keep_their_code(self) -> None:
        """A client corrects itself by them."""
        _, sink = self.ask(request("tools/call", 1, {"name": "a"}, modern=True))
        self.server.answer(response(1, error={"code": -32022, "message": "m", "data": {"supported": []}}), 400, JSON)
        self.assertEqual(sink.answer["error"], {"code": -32022, "message": "m", "data": {"supported": []}})

    def test_a_subscription_is_a_stream_that_lasts(self) -> None:
        """Tagged with the client's id."""
        _, sink = self.ask(request("subscriptions/listen", "s", {"notifications": {}}, modern=True))
        tag = {"_meta": {SUBSCRIPTION_KEY: 1}}
        self.server.send(STREAM + event(notification("notifications/subscriptions/acknowledged", tag)))
        self.assertEqual(sink.heard[0]["params"]["_meta"], {SUBSCRIPTION_KEY: "s"})
        self.server.send(event(response(1, tag)) + END)
        self.assertEqual(sink.answer["result"]["_meta"], {SUBSCRIPTION_KEY: "s"})
