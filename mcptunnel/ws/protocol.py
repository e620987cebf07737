"""One MCP client on one WebSocket.

MCP does not specify this transport; what is in use, and documented in docs/mcp.rst, is: subprotocol ``mcp``,
one JSON-RPC message per text message, no envelope. The connection is the session, see
:mod:`mcptunnel.core.conversation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.conversation import Conversation
from mcptunnel.core.errors import RpcError
from mcptunnel.core.jsonrpc import decode, error_reply
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay

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
    """The protocol of one connection: the line of its conversation, and the brake on it."""

    # autobahn owns the name `log`.
    _logger = Logger()

    relay: Relay
    conversation: Conversation
    record: Record
    report: Callable[[Record], None]
    opened: float = 0.0
    # The header lines that go with every response.
    common: Sequence[tuple[str, str]] = ()

    def onConnect(self, request: ConnectionRequest) -> tuple[str, dict[str, str]]:
        """The resource has checked everything: select our subprotocol."""
        return SUBPROTOCOL, dict(self.common)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Autobahn refuses what it finds wrong with a handshake: the record shall say so."""
        self.record.status = code
        self.record.error = "handshake"
        framing = (("Content-Length", "0"), ("Connection", "close"))
        super().failHandshake(reason, code, [*(responseHeaders or ()), *self.common, *framing])

    def onOpen(self) -> None:
        self.factory.sockets.add(self)
        self.registerProducer(self, True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.say_goodbye(UNSUPPORTED_DATA, "MCP messages are text")
            return
        self.record.received += len(payload)
        try:
            self.conversation.take(decode(payload), self.record)
        except RpcError as e:
            # It could not be read, and so neither could its id.
            self.send(error_reply(e, None))
        except Exception:
            self._logger.failure("a WebSocket message could not be handled")
            self.say_goodbye(INTERNAL_ERROR, "internal error")

    # --- line of the conversation

    def send(self, raw: bytes) -> None:
        if self.state != self.STATE_OPEN:
            # Closing or gone: autobahn would raise into whoever brings the last answers.
            return
        self.record.sent += len(raw)
        self.sendMessage(raw, isBinary=False)  # type: ignore[no-untyped-call]

    def end(self) -> None:
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

    # --- backpressure

    def pauseProducing(self) -> None:
        self.conversation.pause()

    def resumeProducing(self) -> None:
        self.conversation.resume()

    def stopProducing(self) -> None:
        """The connection is going down; onClose follows."""

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.sockets.discard(self)
        self.conversation.close()
        self.record.duration = self.relay.clock() - self.opened
        self.report(self.record)


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
