"""The contract of servers, held against each transport and against the fakes."""

from __future__ import annotations

import json
import sys
from typing import Any

from mcptunnel.test.upstream.contract import UpstreamContract
from mcptunnel.test.upstream.processes import Spawning
from mcptunnel.test.upstream.servers import Accepted, Origin
from mcptunnel.test.upstream.sockets import SocketServer
from mcptunnel.testing import FakeUpstream
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.events import EventsUpstream
from mcptunnel.upstream.stdio import StdioUpstream
from mcptunnel.upstream.streamable import HttpUpstream
from mcptunnel.upstream.websocket import WsUpstream


class FakeStreamsTests(UpstreamContract):
    """The fake with a stream for each call."""

    streams = True

    def setUp(self) -> None:
        self.fake = FakeUpstream("srv", streams=self.streams)
        self.upstream = self.fake
        self.seen = 0

    def taken(self) -> list[Any]:
        new, self.seen = self.fake.wire.bodies[self.seen :], len(self.fake.wire.sent)
        return new

    def say(self, raw: bytes, number: int) -> None:
        self.fake.wire.say(raw, number)

    def gone(self) -> None:
        self.fake.wire.lose()

    def ended(self) -> bool:
        return self.fake.wire.closed


class FakePipeTests(FakeStreamsTests):
    """The fake with one pipe for all calls."""

    streams = False


class HttpTests(UpstreamContract):
    """Streamable HTTP."""

    def setUp(self) -> None:
        self.origin = Origin()
        self.upstream = HttpUpstream(
            "srv",
            address=Address.of("http://h/", {}),
            pool=self.origin.pool(),
            clock=self.origin.clock,
            max_bytes=10_000,
        )
        self.calls: dict[int, Accepted] = {}
        self.begun: set[int] = set()

    def taken(self) -> list[Any]:
        found = []
        for accepted in self.origin.accepted:
            while accepted.transport.value():
                body = accepted.request()[2]
                found.append(body)
                if "id" in body:
                    self.calls[body["id"]] = accepted
        return found

    def say(self, raw: bytes, number: int) -> None:
        self.taken()
        accepted = self.calls[number]
        if number not in self.begun:
            self.begun.add(number)
            accepted.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        event = b"data: %b\n\n" % raw
        accepted.send(b"%x\r\n%b\r\n" % (len(event), event))
        if "result" in json.loads(raw):
            accepted.send(b"0\r\n\r\n")

    def gone(self) -> None:
        for accepted in self.origin.accepted:
            accepted.lose()

    def ended(self) -> bool:
        return all(accepted.over for accepted in self.origin.accepted)


class EventsTests(UpstreamContract):
    """HTTP+SSE."""

    def setUp(self) -> None:
        self.origin = Origin()
        self.upstream = EventsUpstream(
            "srv",
            address=Address.of("http://h/sse", {}),
            pool=self.origin.pool(),
            clock=self.origin.clock,
            max_bytes=10_000,
        )

    def stream(self) -> Accepted:
        accepted = self.origin.accepted[0]
        if accepted.transport.value():
            first, headers, _ = accepted.request()
            self.assertEqual((first, headers["accept"]), ("GET /sse HTTP/1.1", "text/event-stream"))
            accepted.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            accepted.send(b"event: endpoint\ndata: /messages?s=1\n\n")
        return accepted

    def taken(self) -> list[Any]:
        stream, found = self.stream(), []
        for accepted in self.origin.accepted:
            while accepted is not stream and accepted.transport.value():
                first, _, body = accepted.request()
                self.assertEqual(first, "POST /messages?s=1 HTTP/1.1")
                found.append(body)
                accepted.answer(b"", 202)
        return found

    def say(self, raw: bytes, number: int) -> None:
        self.stream().send(b"event: message\ndata: %b\n\n" % raw)

    def gone(self) -> None:
        self.stream().lose()

    def ended(self) -> bool:
        return self.origin.accepted[0].over


class WebSocketTests(UpstreamContract):
    """A WebSocket."""

    def setUp(self) -> None:
        self.server = SocketServer()
        self.upstream = WsUpstream(
            "srv",
            url="ws://h:1/x",
            headers={},
            endpoint=lambda: self.server,
            clock=self.server.clock,
            max_bytes=10_000,
        )

    def taken(self) -> list[Any]:
        return [json.loads(text) for text in self.server.last.texts()]

    def say(self, raw: bytes, number: int) -> None:
        self.server.last.say(raw)

    def gone(self) -> None:
        self.server.last.lose()

    def ended(self) -> bool:
        return self.server.last.left


class StdioTests(UpstreamContract):
    """A child process."""

    def setUp(self) -> None:
        self.spawning = Spawning()
        self.upstream = StdioUpstream(
            "srv",
            argv=(sys.executable, "serve.py"),
            env={},
            cwd=None,
            children=self.spawning.children(),
            max_bytes=10_000,
        )

    def taken(self) -> list[Any]:
        return [json.loads(line) for line in self.spawning.last.take().splitlines()]

    def say(self, raw: bytes, number: int) -> None:
        self.spawning.last.say(raw + b"\n")

    def gone(self) -> None:
        self.spawning.last.exit(0)

    def ended(self) -> bool:
        return self.spawning.last.input_closed


del UpstreamContract
