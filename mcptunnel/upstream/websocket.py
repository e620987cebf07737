"""An MCP server on a WebSocket, as a wire of a link: subprotocol ``mcp``, one JSON-RPC message per text message.

One connection per link. Pings find a server that has gone without a word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.link import Link
from mcptunnel.core.rules import Rules
from mcptunnel.upstream.brake import Brake
from mcptunnel.upstream.client import CONNECT_SECONDS, MAX_HEAD

__all__ = ["WsUpstream"]

SUBPROTOCOL: Final = "mcp"
# Below the 60 s after which common proxies cut a silent connection. One that brings nothing for two beats is lost.
PING_SECONDS: Final = 25.0
# For the server to answer our goodbye.
CLOSE_SECONDS: Final = 1.0


class WsUpstream:
    """One server with a WebSocket ``url``.

    Args:
        name: Its key in ``mcpServers``.
        url: ws or wss.
        headers: Configured header lines of the handshake; secret.
        endpoint: Makes an endpoint to it, TLS and proxy included.
        clock: For the handshake and for pings.
        max_bytes: Longest message it may send.
        rules: How it is to be spoken to.
    """

    def __init__(
        self,
        name: str,
        *,
        url: str,
        headers: Mapping[str, str],
        endpoint: Callable[[], IStreamClientEndpoint],
        clock: IReactorTime,
        max_bytes: int,
        rules: Rules = Rules(),  # noqa: B008  # frozen
    ) -> None:
        self.name: Final = name
        self.rules: Final = rules
        self.url: Final = url
        self.headers: Final = headers
        self.endpoint: Final = endpoint
        self.clock: Final = clock
        self.max_bytes: Final = max_bytes

    def __repr__(self) -> str:
        return f"<WsUpstream {self.name}>"

    def connect(self, link: Link) -> WsWire:
        """A connection for ``link``."""
        wire = WsWire(self, link)
        wire.open()
        return wire


class WsWire:
    """The wire of one link. See :class:`mcptunnel.core.wire.Wire`."""

    def __init__(self, upstream: WsUpstream, link: Link) -> None:
        self.upstream: Final = upstream
        self._link: Final = link
        self._socket: _Socket | None = None
        self._brake: Final = Brake(self._stop, self._go)
        self._queue: Final[deque[bytes]] = deque()
        self._size = 0
        # The server can be sent to: the handshake is over, and what was sent before is on its way.
        self._ready = False
        self._heard = True
        self._timer: IDelayedCall | None = None
        self._closed = False

    def open(self) -> None:
        """Connect."""
        self._timer = self.upstream.clock.callLater(CONNECT_SECONDS, self._too_late)
        self._connecting = self.upstream.endpoint().connect(_Sockets(self))
        self._connecting.addCallbacks(self._connected, self._refused)

    def _connected(self, socket: _Socket) -> None:
        self._socket = socket
        if self._closed:
            socket.dropConnection(abort=True)

    def _refused(self, failure: Failure) -> None:
        self.lose(f"cannot connect ({failure.getErrorMessage() or type(failure.value).__name__})")

    def _too_late(self) -> None:
        self._timer = None
        self.lose(f"it did not answer the WebSocket handshake within {CONNECT_SECONDS:g} s")

    # --- what the socket says

    def opened(self) -> None:
        """The handshake is over."""
        self._schedule(PING_SECONDS, self._beat)
        if self._brake.on:
            self._stop()
        self.flow()

    def heard(self) -> None:
        """The server is alive."""
        self._heard = True

    def message(self, raw: bytes) -> None:
        """One message."""
        if not self._closed:
            self._link.received(raw)

    def hold(self) -> None:
        """The server reads too slowly: what is sent waits here."""
        self._ready = False

    def flow(self) -> None:
        """It reads again."""
        self._ready = True
        while self._queue and self._ready and self._socket is not None and not self._closed:
            raw = self._queue.popleft()
            self._size -= len(raw)
            self._socket.say(raw)

    def lose(self, why: str) -> None:
        """The connection is of no use any more."""
        if not self._closed:
            self._end(abort=True)
            self._link.lost(why)

    def over(self) -> None:
        """The connection is gone, as we asked."""
        self._schedule(None)

    # --- what the link says

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        if exchange is not None:
            # More than the response may come.
            exchange.streamed = True
        if self._closed:
            return
        if self._ready and self._socket is not None and not self._queue:
            self._socket.say(raw)
        elif self._size <= self.upstream.max_bytes:
            self._queue.append(raw)
            self._size += len(raw)
        elif number is not None:
            self._link.failed(number, "it does not read what it is sent")
        else:
            self.lose("it does not read what it is sent")

    def drop(self, number: int) -> bool:
        self.resume(number)
        return False

    def pause(self, number: int) -> None:
        self._brake.pause(number)

    def resume(self, number: int) -> None:
        self._brake.resume(number)

    def _stop(self) -> None:
        if self._socket is not None and self._socket.transport is not None:
            self._socket.transport.pauseProducing()  # type: ignore[attr-defined]  # IPushProducer

    def _go(self) -> None:
        # Nothing was heard because nothing was read.
        self._heard = True
        if self._socket is not None and self._socket.transport is not None:
            self._socket.transport.resumeProducing()  # type: ignore[attr-defined]  # IPushProducer

    def listen(self) -> None:
        """Nothing to do: the connection carries everything."""

    def close(self) -> None:
        if not self._closed:
            self._end(abort=False)

    def _end(self, *, abort: bool) -> None:
        self._closed = True
        self._queue.clear()
        self._schedule(None)
        if self._brake.on:
            self._go()
        socket = self._socket
        if socket is None:
            self._connecting.cancel()
        elif abort or not socket.leave():
            socket.dropConnection(abort=True)
        else:
            self._schedule(CLOSE_SECONDS, lambda: socket.dropConnection(abort=True))

    # --- time

    def _schedule(self, seconds: float | None, then: Callable[[], None] = lambda: None) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if seconds is not None:
            self._timer = self.upstream.clock.callLater(seconds, then)

    def _beat(self) -> None:
        if not self._heard and not self._brake.on:
            self.lose("it does not answer pings")
            return
        self._heard = False
        if self._socket is not None:
            self._socket.sendPing()
        self._schedule(PING_SECONDS, self._beat)


@implementer(IPushProducer)
class _Socket(WebSocketClientProtocol):
    """autobahn's side of the connection."""

    wire: WsWire
    _handshake: str | None = None

    def dataReceived(self, data: bytes) -> None:
        self.wire.heard()
        if self.state != self.STATE_CONNECTING:
            super().dataReceived(data)
            return
        if len(self.data) + len(data) > MAX_HEAD:
            self.failHandshake(f"a response head longer than {MAX_HEAD} bytes")
            return
        try:
            super().dataReceived(data)
        except UnicodeDecodeError:
            self.failHandshake("a response head that is no text")

    def failHandshake(self, reason: str) -> None:
        """Remember what is wrong with the answer of the server."""
        self._handshake = reason
        super().failHandshake(reason)  # type: ignore[no-untyped-call]

    def onOpen(self) -> None:
        self.registerProducer(self, True)
        self.wire.opened()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.wire.lose("it sent a binary message; MCP messages are text")
        else:
            self.wire.message(payload)

    def say(self, raw: bytes) -> None:
        """Send one message."""
        if self.state == self.STATE_OPEN:
            self.sendMessage(raw, isBinary=False)  # type: ignore[no-untyped-call]

    def leave(self) -> bool:
        """Say goodbye; False when there is nobody to say it to."""
        if self.state != self.STATE_OPEN:
            return False
        self.sendClose(code=1000)
        return True

    def pauseProducing(self) -> None:
        self.wire.hold()

    def resumeProducing(self) -> None:
        self.wire.flow()

    def stopProducing(self) -> None:
        """The connection is going down; onClose follows."""

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.wire.lose(self._why(code, reason))
        self.wire.over()

    def _why(self, code: int | None, reason: str | None) -> str:
        if self._handshake is not None:
            return self._answered()
        if self.wasMaxMessagePayloadSizeExceeded:
            return f"it sent a message longer than {self.wire.upstream.max_bytes} bytes (server.limits.message_bytes)"
        if self.remoteCloseCode is not None:
            said = f": {self.remoteCloseReason}" if self.remoteCloseReason else ""
            return f"it closed the connection ({self.remoteCloseCode}{said})"
        return f"the connection broke ({reason})" if reason else "the connection broke"

    def _answered(self) -> str:
        status = str(getattr(self, "http_status_line", "")).split()[1:2]
        if status in (["401"], ["403"]):
            return f"it refuses our credential ({status[0]}); see mcpServers.{self.wire.upstream.name}.headers"
        return f"it refuses the WebSocket handshake ({self._handshake})"


class _Sockets(WebSocketClientFactory):
    """Makes the one socket of a wire. All timers are the wire's own."""

    protocol = _Socket
    noisy = False

    def __init__(self, wire: WsWire) -> None:
        upstream = wire.upstream
        super().__init__(  # type: ignore[no-untyped-call]
            upstream.url,
            protocols=[SUBPROTOCOL],
            headers=dict(upstream.headers),
            useragent="",
            reactor=upstream.clock,
        )
        self.wire: Final = wire
        # autobahn writes the Host header without brackets.
        if ":" in self.host:
            self.host = f"[{self.host}]"
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            maxMessagePayloadSize=upstream.max_bytes,
            maxFramePayloadSize=upstream.max_bytes,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            autoPingInterval=0,
            autoPingTimeout=0,
            failByDrop=True,
            tcpNoDelay=True,
            version=13,
        )

    def buildProtocol(self, addr: Any) -> _Socket:
        socket = super().buildProtocol(addr)
        assert isinstance(socket, _Socket)
        socket.wire = self.wire
        return socket
