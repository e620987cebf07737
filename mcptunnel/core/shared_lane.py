"""The lane of a session to a legacy server that several sessions share (``sharing: shared``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mcptunnel.core.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hub import Hub
from mcptunnel.core.hubs import Hubs
from mcptunnel.core.jsonrpc import Message, decode, encode, splice
from mcptunnel.core.mcp import LEGACY_VERSIONS, LEVELS
from mcptunnel.core.principal import Principal
from mcptunnel.core.rounds import Speaker, answer
from mcptunnel.core.wire import Lane

__all__ = ["SharedLane"]


class SharedLane:
    """A lane, see :class:`mcptunnel.core.wire.Lane`, and a member of the hub.

    Args:
        server: The server's name.
        hubs: Where the shared session is found, once it is known what the client can do.
        speaker: Takes what the server wants to say to the client.
        principal: Whose session it is.
        lost: Told when the shared session is over.
    """

    def __init__(
        self, server: str, hubs: Hubs, speaker: Speaker, principal: Principal, lost: Callable[[Lane], None]
    ) -> None:
        self.server: Final = server
        self.closed = False
        self.introduced = False
        self.calls: Final[Mapping[int, Exchange]] = {}
        self._hubs: Final = hubs
        self._speaker: Final = speaker
        self._principal: Final = principal
        self._lost: Final = lost
        self._hub: Hub | None = None
        self._level: int | None = None

    # --- from the session (Lane)

    def introduce(self, hello: bytes, principal: Principal, ready: Callable[[], None]) -> None:
        """The client has said ``hello`` to somebody before us."""
        self.introduced = True
        self._find(decode(hello))
        ready()

    def _find(self, hello: Message) -> Hub:
        span = hello.params.get("capabilities")
        raw = b"{}" if span is None else hello.raw[span[0] : span[1]]
        try:
            self._hub = self._hubs.find(self.server, raw, self._principal)
        except ValueError as e:
            raise RpcError(INVALID_PARAMS, f"params.capabilities: {e}", reason="invalid_params") from None
        self._hub.attach(self)
        return self._hub

    def request(self, exchange: Exchange) -> None:
        """Serve one request of the client."""
        exchange.record.upstream = self.server
        try:
            self._request(exchange)
        except RpcError as e:
            exchange.fail(e)

    def _request(self, exchange: Exchange) -> None:
        message = exchange.message
        if message.method == "initialize":
            self._find(message).when_open(lambda reply, error: _welcome(exchange, reply, error))
            return
        hub = self._hub
        if hub is None:
            raise RpcError(INTERNAL_ERROR, "the session is not open", reason="no_session")
        if message.method == "ping":
            answer(exchange)
        elif message.method == "logging/setLevel":
            level = message.param("level")
            if level not in LEVELS:
                raise RpcError(INVALID_PARAMS, f"params.level: expected one of {', '.join(LEVELS)}", reason="level")
            self._level = LEVELS.index(level)
            hub.level(self, self._level, lambda: answer(exchange))
        elif message.method in ("resources/subscribe", "resources/unsubscribe"):
            uri = message.param("uri")
            if not isinstance(uri, str):
                raise RpcError(INVALID_PARAMS, "params.uri: expected a string", reason="invalid_params")
            change = hub.subscribe if message.method == "resources/subscribe" else hub.unsubscribe
            change(self, uri, lambda reply, error: _settle(exchange, reply, error))
        else:
            hub.request(exchange, self)

    def tell(self, raw: bytes) -> None:
        """The client's answer to a request of the server. Its notifications would speak for all others, too."""
        message = decode(raw)
        if self._hub is not None and message.kind in ("result", "error"):
            self._hub.link.tell(raw)

    def listen(self) -> None:
        """The client listens."""
        if self._hub is not None and not self.closed:
            self._hub.join(self)

    def close(self) -> None:
        """The session has ended; the server's goes on."""
        self.closed = True
        if self._hub is not None:
            self._hub.leave(self)

    # --- member of the hub

    def heard(self, message: Message, exchange: Exchange | None = None) -> None:
        """Something that this client may hear."""
        if message.method == "notifications/message":
            level = message.param("level")
            if self._level is not None and level in LEVELS and LEVELS.index(level) < self._level:
                return
        self._speaker.from_server(self, message, None)

    def asked(self, message: Message, exchange: Exchange) -> None:
        """The server asks something because of a call of this client."""
        self._speaker.from_server(self, message, exchange)

    def hub_lost(self, hub: Hub) -> None:
        """The next request opens another."""
        if hub is self._hub and not self.closed:
            self.closed = True
            self._lost(self)


def _welcome(exchange: Exchange, reply: Message | None, error: RpcError | None) -> None:
    """The server's answer to our ``initialize`` as the answer to the client's."""
    if error is not None or reply is None:
        exchange.fail(error or RpcError(INTERNAL_ERROR, "no answer", reason="no_answer"))
        return
    try:
        if reply.kind == "error":
            exchange.finish(decode(reply.with_id(exchange.message.id_raw)))
            return
        wanted = exchange.message.param("protocolVersion")
        span = reply.inside(reply.spans["result"], "result").get("protocolVersion")
        edits = [(reply.spans["id"], exchange.message.id_raw)]
        if span is not None and wanted in LEGACY_VERSIONS:
            edits.append((span, encode(wanted)))
        exchange.finish(decode(splice(reply.raw, edits)))
    except RpcError as e:
        exchange.fail(e)


def _settle(exchange: Exchange, reply: Message | None, error: RpcError | None) -> None:
    """The outcome of a request of ours as the client's; nobody had to be asked when there is none."""
    if error is not None:
        exchange.fail(error)
    elif reply is None:
        answer(exchange)
    else:
        exchange.finish(decode(reply.with_id(exchange.message.id_raw)))
