"""Tests for mcptunnel.web.sse: HTTP+SSE on the real site, a stream on one connection and messages on others."""

from __future__ import annotations

import json
from itertools import count
from typing import Any
from urllib.parse import urljoin

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource

from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import targets
from mcptunnel.core.session import BACKLOG
from mcptunnel.core.sse import Decoder, Event
from mcptunnel.test.web.calls import Reply, chunks
from mcptunnel.test.web.sites import NOW, Connection, serve, split
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
    FakeWire,
    know_both_eras,
    notification,
    request,
    response,
)
from mcptunnel.web.replies import KEEPALIVE_SECONDS, Streams
from mcptunnel.web.sse import MessagesResource, SseResource
from mcptunnel.web.tree import Nothing

HELLO = {"protocolVersion": "2024-11-05"}


class Hearing:
    """A client's stream: the connection, and where it may post."""

    def __init__(self, connection: Connection, path: str, first: bytes) -> None:
        self.connection = connection
        self.status, self.headers, body = split(first)
        self.raw = b"".join(chunks(body))
        ((event),) = Decoder(10_000).feed(self.raw)
        assert event.event == b"endpoint", event
        self.reference = event.data.decode()
        self.endpoint = urljoin(f"https://h{path}", self.reference).removeprefix("https://h")

    def events(self) -> list[Event]:
        """What has come since the last look."""
        return Decoder(100_000).feed(b"".join(chunks(self.connection.received())))

    def heard(self) -> list[Any]:
        """The messages among them, decoded."""
        events = self.events()
        assert all(event.event == b"message" and event.id is None for event in events), events
        return [json.loads(event.data) for event in events]


class Case(SynchronousTestCase):
    """Two servers, a and b; ``/mcp/sse`` shows both, ``/servers/a/sse`` one."""

    def setUp(self) -> None:
        streams = count(1)
        self.upstreams = {name: FakeUpstream(name) for name in "ab"}
        self.relay = Relay(self.upstreams, Bounds(sessions=3), self.seconds, FakeSeal(), {"name": "us", "version": "0"})
        know_both_eras(self.relay.eras, "ab")
        self.streams = Streams(self.seconds, Clock().callLater)
        routes: dict[bytes, IResource] = {}
        self.records: list[Any] = []
        for base, target in targets(["a", "b"]).items():
            hears = SseResource(self.relay, target, self.streams, lambda: f"stream-{next(streams)}")
            routes[f"{base}/sse".encode()] = routes[f"{base}/sse/".encode()] = hears
            routes[f"{base}/messages".encode()] = MessagesResource(target, hears)
        self.served = serve(Nothing(), routes=routes, admit=self.admit, on_record=self.records.append)
        self.principal = ANONYMOUS

    def seconds(self) -> float:
        return self.served.clock.seconds() if hasattr(self, "served") else NOW

    def admit(self, request: Any) -> None:
        request.principal = self.principal

    def wire(self, server: str = "a") -> FakeWire:
        return self.upstreams[server].wire

    def get(self, path: str = "/servers/a/sse", accept: str | None = "text/event-stream") -> tuple[Connection, bytes]:
        connection = self.served.connect()
        lines = "Host: h\r\n" if accept is None else f"Host: h\r\nAccept: {accept}\r\n"
        return connection, connection.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())

    def open(self, path: str = "/servers/a/sse") -> Hearing:
        connection, data = self.get(path)
        return Hearing(connection, path, data)

    def post(self, to: Hearing | str, body: bytes, kind: str | None = "application/json", verb: str = "POST") -> Reply:
        path = to if isinstance(to, str) else to.endpoint
        line = "" if kind is None else f"Content-Type: {kind}\r\n"
        head = f"{verb} {path} HTTP/1.1\r\nHost: h\r\n{line}Content-Length: {len(body)}\r\n\r\n"
        return Reply(self.served.connect().send(head.encode() + body))

    def say(self, to: Hearing, body: bytes) -> None:
        reply = self.post(to, body)
        self.assertEqual((reply.status, reply.body), (202, b"Accepted"))

    def initialize(self, hearing: Hearing) -> None:
        self.say(hearing, request("initialize", 0, HELLO))
        self.wire().answer(HELLO)
        self.assertEqual([m["id"] for m in hearing.heard()], [0])


class OpenTests(Case):
    """The GET."""

    def test_the_stream_begins_at_once_with_the_endpoint(self) -> None:
        """No proxy may hold it back; the address is relative to that of the GET."""
        hearing = self.open()
        self.assertEqual(hearing.status, b"HTTP/1.1 200 OK")
        self.assertEqual(hearing.headers[b"content-type"], b"text/event-stream")
        self.assertEqual(hearing.headers[b"x-accel-buffering"], b"no")
        self.assertEqual(hearing.headers[b"cache-control"], b"no-store, no-transform")
        self.assertEqual(hearing.raw, b"event: endpoint\ndata: messages?session_id=stream-1\n\n")

    def test_the_endpoint_holds_at_every_address_and_under_a_prefix(self) -> None:
        """With a slash at the end too."""
        for path, endpoint in (
            ("/servers/a/sse", "/servers/a/messages"),
            ("/servers/a/sse/", "/servers/a/messages"),
            ("/mcp/sse", "/mcp/messages"),
        ):
            hearing = self.open(path)
            self.assertEqual(hearing.endpoint.partition("?")[0], endpoint)
            outside = urljoin(f"https://h/tools{path}", hearing.reference)
            self.assertEqual(outside, f"https://h/tools{hearing.endpoint}")
            self.assertEqual(self.post(hearing, notification("n")).status, 202)

    def test_a_client_must_take_an_event_stream(self) -> None:
        """406; whoever says nothing takes everything."""
        for accept in ("application/json", "text/event-stream;q=0, application/json"):
            self.assertEqual(split(self.get(accept=accept)[1])[0], b"HTTP/1.1 406 Not Acceptable")
        accepted: tuple[str | None, ...] = (None, "*/*", "text/*", "application/json, text/event-stream")
        for good in accepted:
            self.assertEqual(split(self.get(accept=good)[1])[0], b"HTTP/1.1 200 OK")

    def test_other_verbs_are_told_which_is_right(self) -> None:
        """405 with Allow, at both addresses."""
        for path, allow in (("/servers/a/sse", "GET"), ("/servers/a/messages", "POST")):
            for verb in ("GET", "POST", "PUT", "DELETE"):
                if verb != allow:
                    reply = self.post(path, b"", verb=verb)
                    self.assertEqual((reply.status, reply.headers["allow"]), (405, allow))

    def test_an_address_that_shows_nothing_to_the_principal_is_none(self) -> None:
        """404, at both."""
        hearing = self.open()
        self.principal = Principal(name="p", allow=("b__*",))
        self.assertEqual(split(self.get()[1])[0], b"HTTP/1.1 404 Not Found")
        self.assertEqual(self.post(hearing, request("ping")).status, 404)
        self.assertEqual(split(self.get("/servers/b/sse")[1])[0], b"HTTP/1.1 200 OK")

    def test_a_daemon_that_stops_takes_none(self) -> None:
        """503."""
        self.relay.close()
        self.assertEqual(split(self.get()[1])[0], b"HTTP/1.1 503 Service Unavailable")

    def test_a_comment_every_fifteen_seconds(self) -> None:
        """Counted from the last byte."""
        hearing = self.open()
        for passed, expected in ((KEEPALIVE_SECONDS - 1, b""), (1, b":\n\n"), (KEEPALIVE_SECONDS, b":\n\n")):
            self.served.clock.advance(passed)
            self.streams.sweep()
            self.assertEqual(b"".join(chunks(hearing.connection.received())), expected)


class PostTests(Case):
    """Messages of the client."""

    def test_a_session_over_one_stream(self) -> None:
        """Accepted at once, answered on the stream: progress, result, requests of the server and what it tells."""
        hearing = self.open()
        self.initialize(hearing)
        self.say(hearing, notification("notifications/initialized"))
        self.say(hearing, request("tools/call", "x", {"name": "t", "_meta": {"progressToken": "p"}}))
        self.wire().say(notification("notifications/progress", {"progressToken": 2}), 2)
        self.wire().answer({"ok": 1})
        progress, reply = hearing.heard()
        self.assertEqual((progress["params"]["progressToken"], reply["id"], reply["result"]), ("p", "x", {"ok": 1}))
        self.wire().say(notification("notifications/message", {"n": 1}))
        self.wire().say(request("roots/list", "q"))
        note, asked = hearing.heard()
        self.assertEqual(note["params"], {"n": 1})
        self.say(hearing, response(asked["id"], {"roots": []}))
        self.assertEqual(self.wire().last.body, {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})

    def test_the_era_is_that_of_each_message(self) -> None:
        """No headers, no initialize; both on one stream, with the same id."""
        hearing = self.open()
        self.say(hearing, request("tools/call", 1, {"name": "t"}, modern=True))
        modern = self.wire()
        self.initialize(hearing)
        self.say(hearing, request("tools/call", 1, {"name": "t"}))
        modern.answer({"era": "modern"})
        self.wire().answer({"era": "legacy"})
        self.assertEqual([(m["id"], m["result"]["era"]) for m in hearing.heard()], [(1, "modern"), (1, "legacy")])

    def test_a_refusal_comes_on_the_stream_under_the_requests_id(self) -> None:
        """The message was accepted, its content was not."""
        hearing = self.open()
        self.say(hearing, request("tools/list", "x"))
        (refused,) = hearing.heard()
        self.assertEqual((refused["id"], refused["error"]["code"]), ("x", -32600))

    def test_what_cannot_be_read_is_refused_in_the_reply(self) -> None:
        """There is no id under which the stream could say so."""
        hearing = self.open()
        for body, kind, status, code in (
            (b"junk", "application/json", 400, -32700),
            (b"[]", "application/json", 400, -32600),
            (request("ping"), "text/plain", 415, -32600),
            (request("ping"), None, 415, -32600),
        ):
            reply = self.post(hearing, body, kind)
            self.assertEqual((reply.status, reply.json["error"]["code"], reply.json["id"]), (status, code, None))
        self.assertEqual(hearing.events(), [])
        self.assertEqual(self.post(hearing, notification("n"), "Application/JSON; charset=utf-8").status, 202)

    def test_without_a_session_nothing_is_taken(self) -> None:
        """400 when none is named or more than one; 404 when it is unknown."""
        hearing = self.open()
        for path, status, code in (
            ("/servers/a/messages", 400, -32600),
            ("/servers/a/messages?session_id=", 404, -32001),
            ("/servers/a/messages?session_id=x&session_id=stream-1", 400, -32600),
            (f"{hearing.endpoint}&session_id=stream-1", 400, -32600),
            ("/servers/a/messages?session_id=stream-2", 404, -32001),
            ("/servers/a/messages?session_id=%ff%00", 404, -32001),
        ):
            reply = self.post(path, request("initialize", 0, HELLO))
            self.assertEqual((reply.status, reply.json["error"]["code"]), (status, code), path)
        self.assertEqual(self.upstreams["a"].wires, [])

    def test_a_session_of_another_is_none(self) -> None:
        """Foreign, ended, of another address, or never there: the same bytes."""
        hearing = self.open()
        ended = self.open()
        ended.connection.lose()
        self.principal = Principal(name="other")
        own = self.open("/servers/b/sse")
        answers = {
            self.post(path, request("initialize", 0, HELLO)).body
            for path in (
                hearing.endpoint,
                ended.endpoint,
                "/servers/a/messages?session_id=none",
                own.endpoint.replace("/b/", "/a/"),
                own.reference.replace("messages", "/mcp/messages"),
            )
        }
        self.assertEqual(len(answers), 1)
        self.assertIn(b"-32001", answers.pop())
        self.assertEqual(self.upstreams["a"].wires, [])
        self.assertEqual(hearing.events(), [])

    def test_an_id_of_one_stream_is_not_that_of_another(self) -> None:
        """Two clients, the same ids; nobody hears or cancels what is another's."""
        one, other = self.open(), self.open()
        for hearing in (one, other):
            self.say(hearing, request("tools/call", 1, {"name": "t"}, modern=True))
        self.say(other, notification("notifications/cancelled", {"requestId": 1}))
        self.wire().answer({"n": 1}, number=1)
        self.wire().answer({"n": 2}, number=2)
        self.assertEqual([m["result"] for m in one.heard()], [{"n": 1}])
        self.assertEqual(other.heard(), [])


class EndTests(Case):
    """Stopping work."""

    def test_a_notification_cancels_in_both_eras(self) -> None:
        """There is no stream of one reply to close."""
        hearing = self.open()
        self.say(hearing, request("tools/call", "m", {"name": "t"}, modern=True))
        modern = self.wire()
        self.say(hearing, notification("notifications/cancelled", {"requestId": "m"}))
        self.assertEqual(modern.dropped, [1])
        self.initialize(hearing)
        self.say(hearing, request("tools/call", "l", {"name": "t"}))
        self.say(hearing, notification("notifications/cancelled", {"requestId": "l", "reason": "r"}))
        self.assertEqual(self.wire().last.body["params"], {"requestId": 2, "reason": "r"})
        self.assertEqual(hearing.events(), [])

    def test_when_the_stream_ends_everything_ends(self) -> None:
        """Calls of both eras, the session, the address; late answers go nowhere."""
        hearing = self.open()
        self.initialize(hearing)
        legacy = self.wire()
        self.say(hearing, request("tools/call", 1, {"name": "t"}))
        self.say(hearing, request("tools/call", 2, {"name": "t"}, modern=True))
        modern = self.wire()
        hearing.connection.lose()
        self.assertEqual((legacy.closed, modern.dropped), (True, [1]))
        self.assertEqual((self.relay.sessions, self.relay.in_flight, len(self.streams)), ({}, 0, 0))
        modern.answer({}, number=1)
        self.assertEqual(self.post(hearing, request("ping")).status, 404)

    def test_a_session_that_ends_ends_the_stream(self) -> None:
        """After the calls have heard; the stream is whole."""
        hearing = self.open()
        self.initialize(hearing)
        self.say(hearing, request("tools/call", 1, {"name": "t"}))
        (session,) = self.relay.sessions.values()
        session.close()
        data = hearing.connection.received()
        (event,) = Decoder(10_000).feed(b"".join(chunks(data)))
        self.assertEqual(json.loads(event.data)["error"]["message"], "the session has ended")
        self.assertTrue(data.endswith(b": the session has ended\n\n\r\n0\r\n\r\n"))
        self.assertEqual((self.relay.sessions, len(self.streams)), ({}, 0))
        self.assertEqual(self.post(hearing, request("ping")).status, 404)

    def test_a_daemon_that_stops_ends_every_stream(self) -> None:
        """With a session, with a modern call, and with neither."""
        with_session, with_call, idle = self.open(), self.open(), self.open()
        self.initialize(with_session)
        self.say(with_call, request("tools/call", 7, {"name": "t"}, modern=True))
        self.relay.close()
        for hearing in (with_session, with_call, idle):
            data = hearing.connection.received()
            self.assertTrue(data.endswith(b": the session has ended\n\n\r\n0\r\n\r\n"))
            self.assertEqual(data.count(b'"id":7,"error"'), hearing is with_call)
        self.assertEqual((len(self.streams), self.relay.guests), (0, set()))

    def test_initialize_that_fails_can_be_tried_again(self) -> None:
        """On the same stream."""
        hearing = self.open()
        self.say(hearing, request("initialize", 1, HELLO))
        self.wire().answer(error={"code": -32602, "message": "no"})
        self.assertEqual([m["error"]["code"] for m in hearing.heard()], [-32602])
        self.initialize(hearing)

    def test_a_message_that_breaks_us_ends_the_stream(self) -> None:
        """It has been accepted: leaving the client to wait would be worse."""
        hearing = self.open()
        self.patch(self.relay, "stateless", lambda *_: 1 // 0)
        self.say(hearing, request("tools/list", 1, modern=True))
        self.assertTrue(hearing.connection.received().endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_records(self) -> None:
        """One of each post, one of each request, one of the stream; only requests have a method."""
        hearing = self.open()
        self.initialize(hearing)
        self.say(hearing, notification("notifications/initialized"))
        hearing.connection.lose()
        found = [(r.protocol, r.verb, r.path, r.status, r.method, r.era) for r in self.records]
        post = ("sse", "POST", "/servers/a/messages", 202)
        self.assertEqual(
            found,
            [
                (*post, None, None),
                (*post, "initialize", "legacy"),
                (*post, None, None),
                ("sse", "GET", "/servers/a/sse", 200, None, None),
            ],
        )
        self.assertGreater(self.records[1].sent, 0)
        self.assertGreater(self.records[1].received, 0)


class PressureTests(Case):
    """A client that does not read."""

    def test_its_calls_are_paused_and_those_it_posts_meanwhile(self) -> None:
        """Until it reads again; what belongs to no call waits, the oldest makes room."""
        hearing = self.open()
        self.initialize(hearing)
        self.say(hearing, request("tools/call", 1, {"name": "t"}))
        producer = hearing.connection.transport.producer
        producer.pauseProducing()
        self.say(hearing, request("tools/call", 2, {"name": "t"}))
        self.say(hearing, request("tools/call", 3, {"name": "t"}, modern=True))
        legacy, modern = self.upstreams["a"].wires
        self.assertEqual((legacy.paused, modern.paused), ({2, 3}, {1}))
        for number in range(BACKLOG + 5):
            legacy.say(notification("notifications/message", {"n": number}))
        self.served.clock.advance(KEEPALIVE_SECONDS)
        self.streams.sweep()
        self.assertEqual(hearing.connection.received(), b"")
        producer.resumeProducing()
        self.assertEqual((legacy.paused, modern.paused), (set(), set()))
        self.assertEqual([m["params"]["n"] for m in hearing.heard()], list(range(5, BACKLOG + 5)))
