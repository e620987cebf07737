"""One MCP client on one WebSocket.

MCP does not specify this transport; what is in use, and documented in docs/mcp.rst, is: subprotocol ``mcp``,
one JSON-RPC message per text message, no envelope. The connection is the session: when it closes, everything in flight
is cancelled. The era is decided by each message; cancelling in the modern era is by notification, since there is no
stream to close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import evolve
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import INVALID_REQUEST, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Id, Message, decode, error_reply
from mcptunnel.core.mcp import check_headers, era_of_message
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.session import Session

__all__ = ["SUBPROTOCOL", "McpSocket", "McpSocketFactory"]

SUBPROTOCOL: Final = "mcp"

# RFC 6455 §7.4.1
GOING_AWAY: Final = 1001
UNSUPPORTED_DATA: Final = 1003
INTERNAL_ERROR: Final = 1011
# Below the 60 s after which common proxies cut a silent connection.
PING_SECONDS: Final = 25
PONG_SECONDS: Final = 20


@implementer(IPushProducer)
class McpSocket(WebSocketServerProtocol):
    """The protocol of one connection. Also the standing sink of its session and the brake on its exchanges."""

    # autobahn owns the name `log`.
    _logger = Logger()

    relay: Relay
    target: Target
    principal: Principal = ANONYMOUS
    record: Record
    report: Callable[[Record], None]
    opened: float = 0.0
    session: Session | None = None

    def __init__(self) -> None:
        super().__init__()
        self._modern: Final[dict[Id, Exchange]] = {}
        self._paused = False

    def onConnect(self, request: ConnectionRequest) -> str:
        """The resource has checked everything: select our subprotocol."""
        return SUBPROTOCOL

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Autobahn refuses what it finds wrong with a handshake: the record shall say so."""
        self.record.status = code
        self.record.error = "handshake"
        super().failHandshake(reason, code, responseHeaders)

    def onOpen(self) -> None:
        self.factory.sockets.add(self)
        self.registerProducer(self, True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.say_goodbye(UNSUPPORTED_DATA, "MCP messages are text")
            return
        self.record.received += len(payload)
        message: Message | None = None
        try:
            message = decode(payload)
            self._take(message)
        except RpcError as e:
            # JSON-RPC 2.0 §4.1 and §5: notifications and responses are never answered.
            if message is None or message.kind == "request":
                self._say(error_reply(e, None if message is None else message.id_raw))
        except Exception:
            self._logger.failure("a WebSocket message could not be handled")
            self.say_goodbye(INTERNAL_ERROR, "internal error")

    def _take(self, message: Message) -> None:
        if message.kind in ("result", "error"):
            if self.session is not None:
                self.session.response(message)
        elif era_of_message(message) == "modern":
            self._take_modern(message)
        elif message.method == "notifications/cancelled" and self.session is None:
            self._cancel(message)
        else:
            self._take_legacy(message)

    def _take_legacy(self, message: Message) -> None:
        if message.method == "initialize":
            if self.session is not None:
                raise RpcError(INVALID_REQUEST, "this connection is initialized already", reason="second_initialize")
            self.session = self.relay.open(self.principal, self.target)
            self.session.attach(self)
        session = self.session
        if session is None:
            raise RpcError(INVALID_REQUEST, "initialize first", reason="no_session")
        if message.kind == "notification":
            session.notification(message)
        else:
            exchange = self._exchange(message, modern=False)
            session.request(exchange)
            self._brake(exchange)

    def _take_modern(self, message: Message) -> None:
        check_headers(message, None)
        if message.kind == "notification":
            if message.method == "notifications/cancelled":
                self._cancel(message)
            return
        assert message.id is not None
        if message.id in self._modern:
            raise RpcError(INVALID_REQUEST, "a request with this id is still in progress", reason="duplicate_id")
        exchange = self._exchange(message, modern=True)
        self._modern[message.id] = exchange
        self.relay.stateless(exchange, self.target)
        self._brake(exchange)

    def _brake(self, exchange: Exchange) -> None:
        """A client that does not read gets no further replies either."""
        if self._paused:
            exchange.pause()

    def _cancel(self, message: Message) -> None:
        wanted = message.id_at(message.params.get("requestId"))
        exchange = None if wanted is None else self._modern.pop(wanted, None)
        if exchange is not None:
            span = message.params.get("reason")
            exchange.abandon(None if span is None else message.raw[span[0] : span[1]])

    def _exchange(self, message: Message, *, modern: bool) -> Exchange:
        record = evolve(
            self.record,
            started=self.relay.clock(),
            era="modern" if modern else "legacy",
            method=message.method,
            received=len(message.raw),
            sent=0,
        )
        sink = _SocketSink(self, record)
        exchange = Exchange(
            message=message,
            principal=self.principal,
            era="modern" if modern else "legacy",
            sink=sink,
            record=record,
        )
        exchange.on_end(self._ended)
        return exchange

    def _ended(self, exchange: Exchange) -> None:
        if exchange.era == "modern" and exchange.message.id is not None:
            self._modern.pop(exchange.message.id, None)
        record = exchange.record
        if record.method == "initialize" and record.code is not None and self.session is not None:
            # Refused: the client may try again on this connection.
            session, self.session = self.session, None
            session.detach(self)
            session.close()
        record.duration = self.relay.clock() - record.started
        self.report(record)

    # --- standing sink of the session

    def message(self, raw: bytes) -> None:
        self._say(raw)

    def end(self) -> None:
        """The session has ended: so has the connection."""
        self.session = None
        if self.relay.closing:
            self.leave()
        else:
            self.say_goodbye(INTERNAL_ERROR, "the session has ended: connect again")

    def leave(self) -> None:
        """The daemon is stopping: close, also where there is no session to end."""
        self.say_goodbye(GOING_AWAY, "the daemon is stopping")

    def say_goodbye(self, code: int, reason: str) -> None:
        """Close with any code of RFC 6455 §7.4.1; autobahn's own ``sendClose`` takes none of them but 1000."""
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code=code, reasonUtf8=reason.encode(), isReply=False)

    def _say(self, raw: bytes) -> None:
        if self.state != self.STATE_OPEN:
            # Closing or gone: autobahn would raise into whoever brings the last answers.
            return
        self.record.sent += len(raw)
        self.sendMessage(raw, isBinary=False)  # type: ignore[no-untyped-call]

    # --- backpressure

    def pauseProducing(self) -> None:
        self._paused = True
        for exchange in self._active():
            exchange.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        for exchange in self._active():
            exchange.resume()

    def stopProducing(self) -> None:
        """The connection is going down; onClose follows."""

    def _active(self) -> list[Exchange]:
        legacy = [] if self.session is None else list(self.session.active.values())
        return [*legacy, *self._modern.values()]

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.sockets.discard(self)
        for exchange in self._active():
            exchange.abandon(b'"the client closed the connection"')
        session, self.session = self.session, None
        if session is not None:
            session.detach(self)
            session.close()
        self.record.duration = self.relay.clock() - self.opened
        self.report(self.record)


class _SocketSink:
    """Where the answers to one request go: the connection, and the request's own record."""

    __slots__ = ("_record", "_socket")

    def __init__(self, socket: McpSocket, record: Record) -> None:
        self._socket: Final = socket
        self._record: Final = record

    def message(self, raw: bytes) -> None:
        self._record.sent += len(raw)
        self._socket._say(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self.message(raw)

    def cancelled(self) -> None:
        """Nothing is said: the client does not wait."""


class McpSocketFactory(WebSocketServerFactory):
    """Makes the protocols of one address.

    Args:
        limits: Message size.
        clock: The reactor, for autobahn's timers.
    """

    protocol = McpSocket
    noisy = False

    def __init__(self, limits: LimitsConfig, clock: IReactorTime) -> None:
        super().__init__(protocols=[SUBPROTOCOL], server="", reactor=clock)  # type: ignore[no-untyped-call]
        self.clock: Final = clock
        self.sockets: Final[set[McpSocket]] = set()
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            # Both bounds default to none; since autobahn 26.10 they hold for what a compressed message inflates to.
            maxMessagePayloadSize=limits.body_bytes,
            maxFramePayloadSize=limits.body_bytes,
            openHandshakeTimeout=limits.handshake_timeout,
            closeHandshakeTimeout=1,
            autoPingInterval=PING_SECONDS,
            autoPingTimeout=PONG_SECONDS,
            failByDrop=False,
            tcpNoDelay=True,
            # The gate has decided about the origin, and the resolver about the client.
            allowedOrigins=["*"],
            allowNullOrigin=True,
            trustXForwardedFor=0,
            versions=[13],
            webStatus=False,
        )

    def buildProtocol(self, addr: Any) -> McpSocket:
        socket = super().buildProtocol(addr)
        assert isinstance(socket, McpSocket)
        return socket
