"""What the tests of this package share: a site on a clock, and a client's end of one connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import directlyProvides, providedBy

from mcptunnel.core.addresses import Trust
from mcptunnel.core.forwarded import ForwardedPolicy, Resolver
from mcptunnel.core.record import Record
from mcptunnel.web.channel import HTTPChannel
from mcptunnel.web.site import Site

# A Sunday evening, so that Date is known.
NOW = 1_795_384_000.0


class Echo(Resource):
    """Sends the body back and remembers every request it has seen."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def render(self, request: Any) -> int:
        self.seen.append(request)
        request.respond(200, b"text/plain", request.body)
        return NOT_DONE_YET


class Later(Resource):
    """Answers nothing until the test does."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def render(self, request: Any) -> int:
        self.seen.append(request)
        return NOT_DONE_YET


class Calling(Resource):
    """Renders by calling a function."""

    isLeaf = True

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def render(self, request: Any) -> Any:
        return self.function(request)


@define(eq=False)
class Connection:
    """One connection, seen from the client."""

    site: Site
    channel: HTTPChannel
    transport: Any
    clock: Clock

    def send(self, data: bytes) -> bytes:
        """Deliver ``data`` in one segment; returns all that has been received since the last call."""
        if self.channel.transport is not None:
            self.channel.dataReceived(data)
        return self.received()

    def received(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def wait(self, seconds: float) -> bytes:
        """Let time pass, second by second."""
        self.clock.pump([1.0] * int(seconds))
        return self.received()

    @property
    def closing(self) -> bool:
        return bool(self.transport.disconnecting or self.aborted)

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnected)

    def lose(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))


@define(eq=False)
class Served:
    """A site for tests, and the records it reported."""

    site: Site
    clock: Clock
    records: list[Record] = field(factory=list)

    def connect(self, peer: Any = None, *, tls: bool = False, refuse: Any = None, transport: Any = None) -> Connection:
        factory = self.site if refuse is None else self.site.refusing(refuse)
        channel = factory.buildProtocol(None)  # type: ignore[arg-type]
        transport = transport or StringTransport(peerAddress=peer)
        if tls:
            directlyProvides(transport, ISSLTransport, providedBy(transport))
        assert isinstance(channel, HTTPChannel)
        channel.makeConnection(transport)
        return Connection(self.site, channel, transport, self.clock)


def serve(resource: Any = None, *, trusted: tuple[str, ...] = (), policy: Any = None, **arguments: Any) -> Served:
    """A site on a clock of its own, with a resolver that trusts ``trusted``."""
    clock = Clock()
    clock.advance(NOW)
    records: list[Record] = []
    site = Site(
        resource if resource is not None else Echo(),
        Resolver(policy or ForwardedPolicy(trust=Trust(trusted))),
        clock,
        **{"on_record": records.append, "hsts": "max-age=63072000", **arguments},
    )
    return Served(site, clock, records)


def statuses(data: bytes) -> list[int]:
    """The status codes in what a client has received."""
    return [int(line[9:12]) for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def get(extra: bytes = b"", path: bytes = b"/", method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return method + b" " + path + b" " + version + b"\r\nHost: localhost:8080\r\n" + extra + b"\r\n"


def split(reply: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers by lower-case name, body."""
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}, body


def ask(
    render: Callable[[Any], Any], request: bytes = b"", **arguments: Any
) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The reply of a resource that renders by ``render``."""
    return split(serve(Calling(render), **arguments).connect().send(request or get()))
