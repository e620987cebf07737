"""The first ``initialize`` to a server of which it is not known whether it speaks the legacy era."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcptunnel.core.commons import Commons
from mcptunnel.core.eras import Eras
from mcptunnel.core.errors import METHOD_NOT_FOUND, UNSUPPORTED_VERSION, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.fanout import part_of
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.wire import Lane

__all__ = ["Opening"]

# What says that a server will never know `initialize`; any other error may be about this one.
_NEVER: Final = (UNSUPPORTED_VERSION, METHOD_NOT_FOUND)


class Opening:
    """Says ``initialize`` on a lane of the legacy era, and where that fails, asks for the other.

    Args:
        lane: The lane.
        eras: What is known, and what is learned.
        commons: Asks.
        cross: Makes the bridge, in place of ``lane``.
    """

    def __init__(self, lane: Lane, eras: Eras, commons: Commons, cross: Callable[[], Lane]) -> None:
        self._lane: Final = lane
        self._eras: Final = eras
        self._commons: Final = commons
        self._cross: Final = cross
        self._exchange: Exchange | None = None

    def start(self, exchange: Exchange) -> None:
        """Serve ``exchange``, an ``initialize`` request."""
        self._exchange = exchange
        exchange.record.upstream = self._lane.server
        self._lane.request(part_of(exchange, exchange.message.raw, self, exchange.patience))

    # --- Sink

    def message(self, raw: bytes) -> None:
        if self._exchange is not None:
            self._exchange.emit(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        exchange, server = self._exchange, self._lane.server
        if exchange is None or exchange.done:
            return
        if code is None:
            self._eras.learn(server, "legacy", True)
            exchange.finish(decode(raw))
        elif error is not None and not (error.reason == "upstream_status" and error.legacy_status == 400):
            exchange.fail(error)
        else:
            self._commons.probe(server, lambda _: self._asked(exchange, raw, error, code))

    def _asked(self, exchange: Exchange, raw: bytes, error: RpcError | None, code: int) -> None:
        server = self._lane.server
        if exchange.done:
            return
        if self._eras.speaks(server, "modern"):
            if error is not None or code in _NEVER:
                self._eras.learn(server, "legacy", False)
            self._cross().request(exchange)
        elif error is not None:
            exchange.fail(error)
        else:
            exchange.finish(decode(raw))

    def cancelled(self) -> None:
        """The client was here first."""
