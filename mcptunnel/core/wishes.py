"""What a client has asked of a server to last, so that it can be asked again of a server that has forgotten it."""

from __future__ import annotations

from typing import Final

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange

__all__ = ["LASTING", "Wishes"]

LASTING: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})


class Wishes:
    """The log level and the resource subscriptions of one client at one server."""

    def __init__(self) -> None:
        self._level: bytes | None = None
        self._uris: Final[dict[str, bytes]] = {}

    def watch(self, exchange: Exchange) -> None:
        """Remember ``exchange``, a request to the server, if it is one that lasts and the server grants it."""
        message = exchange.message
        if message.method == "logging/setLevel":
            exchange.on_end(lambda ended: self._set_level(ended, message.raw))
        elif message.method in ("resources/subscribe", "resources/unsubscribe"):
            try:
                uri = message.param("uri")
            except RpcError:
                return
            if isinstance(uri, str):
                raw = message.raw if message.method == "resources/subscribe" else None
                exchange.on_end(lambda ended: self._subscribed(ended, uri, raw))

    def _set_level(self, exchange: Exchange, raw: bytes) -> None:
        if exchange.record.code is None and exchange.record.error is None:
            self._level = raw

    def _subscribed(self, exchange: Exchange, uri: str, raw: bytes | None) -> None:
        if exchange.record.code is not None or exchange.record.error is not None:
            return
        if raw is None:
            self._uris.pop(uri, None)
        else:
            self._uris[uri] = raw

    def requests(self) -> list[bytes]:
        """The requests to say again, each under an id that means nothing."""
        return [*([] if self._level is None else [self._level]), *self._uris.values()]
