"""What the tests of this package share: the far end of HTTP connections, in memory."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from mcptunnel.upstream.client import Pool


class Wire(StringTransport):
    """A TCP transport that remembers being paused and how it ended; pausing one that ends is allowed, as on TCP."""

    paused = False
    aborted = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def abortConnection(self) -> None:
        self.aborted = True


@define(eq=False)
class Accepted:
    """One connection, seen from the server."""

    protocol: Any
    transport: Wire
    _read: bytes = b""

    def take(self) -> bytes:
        """What has been received since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def request(self) -> tuple[str, dict[str, str], Any]:
        """The one request that has been received: request line, header lines by name in lower case, decoded body."""
        head, _, body = self.take().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            if name.lower() in headers:
                raise AssertionError(f"{name} twice")
            headers[name.lower()] = value
        if len(body) != int(headers.get("content-length", 0)):
            raise AssertionError(f"{len(body)} bytes of body: {headers}")
        return first, headers, json.loads(body) if body else None

    def send(self, data: bytes) -> None:
        """Deliver ``data`` in one segment."""
        if not self.transport.aborted:
            self.protocol.dataReceived(data)

    def answer(self, body: bytes = b"", status: int = 200, *headers: str) -> None:
        """A whole response with a length."""
        lines = "".join(f"{line}\r\n" for line in headers)
        self.send(
            b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines.encode("latin-1"), len(body), body)
        )

    def lose(self, reason: Exception | None = None) -> None:
        """The connection ends."""
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    @property
    def over(self) -> bool:
        """The client has ended the connection, one way or the other."""
        return bool(self.transport.aborted or self.transport.disconnecting)

    def settle(self) -> None:
        """Let an end that the client asked for happen."""
        if self.over:
            self.lose(ConnectionAborted() if self.transport.aborted else None)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Origin:
    """An HTTP origin: counts connections and hands out their far ends.

    Attributes:
        clock: Of the pool.
        accepted: Connections, oldest first.
        refusing: Nobody listens.
        slow: Connecting takes until the test says otherwise.
    """

    clock: Clock = field(factory=Clock)
    accepted: list[Accepted] = field(factory=list)
    refusing: bool = False
    slow: bool = False
    waiting: list[tuple[Any, Deferred[Any]]] = field(factory=list)
    cancelled: int = 0

    def pool(self, *, reuse: bool = True) -> Pool:
        """A pool of connections to here."""
        return Pool(lambda: self, self.clock, reuse=reuse)

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refusing:
            return fail(ConnectionRefusedError())
        if self.slow:
            connecting: Deferred[Any] = Deferred(self._cancel)
            self.waiting.append((factory, connecting))
            return connecting
        return succeed(self._accept(factory))

    def let_in(self) -> None:
        """Accept what has been waiting."""
        waiting, self.waiting = self.waiting, []
        for factory, connecting in waiting:
            connecting.callback(self._accept(factory))

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1

    def _accept(self, factory: Any) -> Any:
        protocol, transport = factory.buildProtocol(None), Wire()
        protocol.makeConnection(transport)
        self.accepted.append(Accepted(protocol, transport))
        return protocol

    @property
    def last(self) -> Accepted:
        """The latest connection."""
        return self.accepted[-1]
