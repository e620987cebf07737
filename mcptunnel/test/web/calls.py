"""What the tests of MCP over HTTP share: a daemon's site in memory, and what its replies say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource

from mcptunnel.core.principal import ANONYMOUS
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import targets
from mcptunnel.core.rules import Rules
from mcptunnel.test.web.sites import NOW, Connection, serve
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
    FakeWire,
    know_both_eras,
    request,
)
from mcptunnel.web.mcp import McpResource
from mcptunnel.web.replies import Streams
from mcptunnel.web.tree import Nothing

JSON = "application/json"
BOTH = "application/json, text/event-stream"
MODERN = {"MCP-Protocol-Version": "2026-07-28"}


class Reply:
    """What came back, in parts."""

    def __init__(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1]) if first else 0
        self.headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        if "transfer-encoding" in self.headers:
            self.ended = body.endswith(b"0\r\n\r\n")
            self.chunks = chunks(body)
            self.body = b"".join(self.chunks)
        else:
            self.body = body
            if first and len(body) != int(self.headers.get("content-length", 0)):
                raise AssertionError(data)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The messages of an event stream, decoded; comments left out."""
        return messages(self.body)


def chunks(data: bytes) -> list[bytes]:
    """The chunks in ``data``, without the last, empty one."""
    found = []
    while data:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16):
            found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return found


def ids(stream: bytes) -> list[bytes]:
    """The ids of the events in a piece of an event stream."""
    return [line[4:] for line in stream.split(b"\n") if line.startswith(b"id: ")]


def messages(stream: bytes) -> list[Any]:
    """The messages in a piece of an event stream."""
    found = []
    for event in stream.split(b"\n\n"):
        block = event.partition(b"\n")[2] if event.startswith(b"id: ") else event
        if block.startswith(b"event: message\ndata: "):
            found.append(json.loads(block.removeprefix(b"event: message\ndata: ")))
        elif block not in (b"", b":", b": this stream has ended") and not block.endswith(b"\ndata: "):
            raise AssertionError(block)
    return found


class Case(SynchronousTestCase):
    """Two servers, a and b; ``/mcp`` shows both, ``/servers/a/mcp`` one."""

    def setUp(self) -> None:
        self.upstreams = {name: FakeUpstream(name, rules=Rules(mirrored=True)) for name in "ab"}
        self.relay = Relay(
            self.upstreams,
            Bounds(sessions=3),
            self.seconds,
            FakeSeal(),
            {"name": "us", "version": "0"},
        )
        know_both_eras(self.relay.eras, "ab")
        self.streams = Streams(self.seconds, self.later)
        routes: dict[bytes, IResource] = {
            (base if base == "/mcp" else f"{base}/mcp").encode(): McpResource(self.relay, target, self.streams)
            for base, target in targets(["a", "b"]).items()
        }
        self.served = serve(Nothing(), routes=routes, admit=self.admit)
        self.clock = self.served.clock
        self.principal = ANONYMOUS
        self.client = self.served.connect()

    def seconds(self) -> float:
        return self.served.clock.seconds() if hasattr(self, "served") else NOW

    def later(self, seconds: float, call: Callable[[], None]) -> object:
        return self.served.clock.callLater(seconds, call)

    def admit(self, request: Any) -> None:
        request.principal = self.principal

    def wire(self, server: str = "a") -> FakeWire:
        return self.upstreams[server].wire

    def send(
        self,
        verb: str,
        body: bytes = b"",
        headers: dict[str, str | None] | None = None,
        *,
        path: str = "/servers/a/mcp",
        on: Connection | None = None,
    ) -> Reply:
        """One request, and what has come back so far."""
        lines: dict[str, str | None] = {"Host": "h", "Accept": BOTH, "Content-Type": JSON, **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        data = (on or self.client).send(
            f"{verb} {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        )
        return Reply(data)

    def post(self, body: bytes, headers: dict[str, str | None] | None = None, **arguments: Any) -> Reply:
        return self.send("POST", body, headers, **arguments)

    def rest(self, on: Connection | None = None) -> list[Any]:
        """The messages that have come on a stream since the last look."""
        return messages(b"".join(chunks((on or self.client).received())))

    def initialize(self, version: str = "2025-06-18") -> dict[str, str | None]:
        """Open a session; returns the headers that go with it."""
        self.post(request("initialize", 0, {"protocolVersion": version}))
        self.wire().answer({"protocolVersion": version})
        reply = Reply(self.client.received())
        return {"Mcp-Session-Id": reply.headers["mcp-session-id"], "MCP-Protocol-Version": version}

    def modern(self, method: str, params: Any = None, id_: int | str = 1, **more: str | None) -> Reply:
        """A modern request with the headers that belong to it."""
        headers: dict[str, str | None] = {**MODERN, "Mcp-Method": method}
        if params and "name" in params:
            headers["Mcp-Name"] = params["name"]
        return self.post(request(method, id_, params, modern=True), {**headers, **more})
