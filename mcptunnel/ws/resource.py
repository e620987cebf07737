"""The resource behind ``/mcp/ws`` and ``/servers/NAME/ws``: checks the handshake, then hands the socket to autobahn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from autobahn.twisted.resource import WebSocketResource

from mcptunnel.core.conversation import Conversation
from mcptunnel.core.errors import RequestError
from mcptunnel.core.principal import reaches
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.ws.protocol import SUBPROTOCOL, McpSocket, McpSocketFactory

__all__ = ["McpSocketResource"]

_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")


class McpSocketResource(WebSocketResource):
    """One WebSocket address. The gate has passed before :meth:`render` is called.

    Args:
        relay: Where messages go.
        target: What this address shows.
        factory: Makes the protocols.
        report: Told of each exchange's record.
    """

    def __init__(
        self, relay: Relay, target: Target, factory: McpSocketFactory, report: Callable[[Record], None]
    ) -> None:
        super().__init__(self)  # type: ignore[no-untyped-call]
        self._relay: Final = relay
        self._target: Final = target
        self._sockets: Final = factory
        self._report: Final = report
        self._request: Any = None

    def render(self, request: Any) -> Any:
        """Upgrade, or say why not.

        Raises:
            RequestError: 405, 426 or 400.
        """
        if request.method != b"GET":
            raise RequestError(405, "method_not_allowed", "A WebSocket opens with GET.", ((b"Allow", b"GET"),))
        # RFC 6455 §4.2.1. autobahn checks again, but when it refuses there is no HTTP left to say so in.
        upgrade = (request.header(b"upgrade") or b"").lower()
        options = b",".join(request.headers_named(b"connection")).lower().split(b",")
        key = request.header(b"sec-websocket-key")
        if upgrade != b"websocket" or b"upgrade" not in [option.strip() for option in options] or key is None:
            raise RequestError(
                426,
                "upgrade_required",
                "This address speaks WebSocket only.",
                ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")),
            )
        if request.header(b"sec-websocket-version") != b"13":
            raise RequestError(
                400, "websocket_version", "Only WebSocket version 13 is spoken.", ((b"Sec-WebSocket-Version", b"13"),)
            )
        if _KEY.fullmatch(key) is None:
            raise RequestError(400, "websocket_key", "Sec-WebSocket-Key is not 16 bytes in Base64.")
        offered = b",".join(request.headers_named(b"sec-websocket-protocol")).split(b",")
        if SUBPROTOCOL.encode() not in [name.strip() for name in offered]:
            raise RequestError(400, "subprotocol", "Offer the WebSocket subprotocol 'mcp'.")
        if self._relay.closing:
            raise RequestError(503, "stopping", "The daemon is stopping.")
        if not any(reaches(request.principal, server) for server in self._target.servers or ("",)):
            raise RequestError(404, "not_found", "There is nothing at this address.")
        # autobahn's render() asks the factory for a protocol before it returns.
        self._request = request
        try:
            return super().render(request)  # type: ignore[no-untyped-call]
        finally:
            self._request = None

    def buildProtocol(self, addr: Any) -> McpSocket:
        """Make the protocol for the request that is being rendered."""
        request = self._request
        socket = self._sockets.buildProtocol(addr)
        record = request.record
        record.protocol = "ws"
        record.status = 101
        socket.relay = self._relay
        socket.conversation = Conversation(socket, self._relay, self._target, request.principal, self._report)
        socket.record = record
        socket.common = request.common_headers()
        socket.report = self._report
        socket.opened = self._relay.clock()
        return socket
