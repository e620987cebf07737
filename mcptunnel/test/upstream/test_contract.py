"""The contract of servers, held against each transport and against the fakes."""

from __future__ import annotations

import json
import sys
from typing import Any

from mcptunnel.test.upstream.contract import UpstreamContract
from mcptunnel.test.upstream.processes import Spawning
from mcptunnel.test.upstream.servers import Accepted, Origin
from mcptunnel.testing import FakeUpstream
from mcptunnel.upstream.stdio import StdioUpstream
from mcptunnel.upstream.streamable import HttpUpstream


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
            target=b"/",
            host=b"h",
            headers={},
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
