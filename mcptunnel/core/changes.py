"""What a legacy client wants to hear of, at a server of 2026-07-28: one subscription, renewed when that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mcptunnel.core.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import decode, encode
from mcptunnel.core.listening import KINDS, untagged
from mcptunnel.core.mcp import subscription_span
from mcptunnel.core.record import Record
from mcptunnel.core.rounds import answer

if TYPE_CHECKING:
    from mcptunnel.core.legacy_on_modern import LegacyOnModern

__all__ = ["Changes"]

# Waits before a subscription that has ended is opened again.
_BACKOFF: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"


class Changes:
    """The session's subscription: to changes of lists, and to the resources that the client has subscribed to.

    Attributes:
        wanted: The client is initialized.
    """

    def __init__(self, lane: LegacyOnModern) -> None:
        self.wanted = False
        self._lane: Final = lane
        self._kinds: dict[str, bool] | None = None
        self._subscribable = False
        self._uris: Final[dict[str, None]] = {}
        # The one that is heard, and the one that is to take its place when the server has acknowledged it.
        self._current: Exchange | None = None
        self._coming: Exchange | None = None
        self._asking: list[tuple[Exchange, str | None]] = []
        self._failures = 0
        self._again_at: float | None = None

    def learn(self, capabilities: dict[str, Any]) -> None:
        """What the server tells of."""
        offers = {
            kind: True
            for kind, (name, _) in KINDS.items()
            if isinstance(value := capabilities.get(name), dict) and value.get("listChanged")
        }
        self._kinds = offers
        resources = capabilities.get("resources")
        self._subscribable = isinstance(resources, dict) and bool(resources.get("subscribe"))

    def change(self, exchange: Exchange, *, subscribe: bool) -> None:
        """The client wants to hear of a resource, or no longer.

        Raises:
            RpcError: The request cannot be read, or the server does not tell of resources.
        """
        uri = exchange.message.param("uri")
        if not isinstance(uri, str):
            raise RpcError(INVALID_PARAMS, "params.uri: expected a string", reason="invalid_params")
        if self._kinds is not None and not self._subscribable:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {exchange.message.method}", reason="method_not_found")
        if subscribe and uri in self._uris and any(uri == asked for _, asked in self._asking):
            # Somebody has asked for it already, and waits like us.
            self._asking.append((exchange, uri))
            return
        if subscribe == (uri in self._uris):
            answer(exchange)
            return
        if subscribe:
            self._uris[uri] = None
            self._asking.append((exchange, uri))
        else:
            del self._uris[uri]
            self._asking.append((exchange, None))
        self._renew()

    def open(self) -> None:
        """Subscribe, if there is anything to hear and nobody has."""
        if self._current is None and self._coming is None and self.wanted and not self._lane.closed:
            self._renew()

    def _renew(self) -> None:
        """Ask for all that is wanted now; what was asked before is heard until this is acknowledged."""
        kinds: dict[str, Any] = dict(self._kinds if self._kinds is not None else dict.fromkeys(KINDS, True))
        if self._uris:
            kinds["resourceSubscriptions"] = list(self._uris)
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.abandon()
        if not kinds:
            self._switch(None, [])
            return
        raw = b'{"jsonrpc":"2.0","id":0,"method":"subscriptions/listen","params":{"notifications":%b}}' % encode(kinds)
        sink = _Heard(self)
        sink.exchange = self._coming = Exchange(
            message=decode(self._lane.enveloped(decode(raw), {})),
            principal=self._lane.principal,
            era="modern",
            sink=sink,
            record=Record(),
            patience=0,
        )
        self._lane.links.forward(self._lane.server, sink.exchange)

    def _switch(self, exchange: Exchange | None, honoured: list[Any]) -> None:
        """``exchange`` is heard from now on; whoever has waited for that learns what came of it."""
        earlier, self._current, self._coming = self._current, exchange, None
        if earlier is not None:
            earlier.abandon()
        asking, self._asking = self._asking, []
        wanted = set(self._uris)
        for request, uri in asking:
            # What the client has taken back meanwhile was not refused.
            if uri is None or uri in honoured or uri not in wanted:
                answer(request)
            else:
                self._uris.pop(uri, None)
                request.fail(RpcError(INVALID_PARAMS, f"Unknown resource: {uri}", reason="unknown_resource"))

    def heard(self, exchange: Exchange, raw: bytes) -> None:
        """A message on the subscription ``exchange``."""
        message = decode(raw)
        if message.method == _ACKNOWLEDGED:
            if exchange is self._coming:
                value = message.param("notifications")
                uris = value.get("resourceSubscriptions") if isinstance(value, dict) else None
                self._failures = 0
                self._switch(exchange, uris if isinstance(uris, list) else [])
        elif exchange is self._current and subscription_span(message) is not None:
            self._lane.speaker.from_server(self._lane, decode(untagged(message)), None)

    def ended(self, exchange: Exchange, error: RpcError | None, code: int | None) -> None:
        """The subscription is over, without our doing."""
        if exchange is self._coming:
            self._coming = None
            why = f"the server refused the subscription ({code})"
            failure = error or RpcError(INVALID_PARAMS, why, reason="refused")
            asking, self._asking = self._asking, []
            for request, uri in asking:
                if uri is not None:
                    self._uris.pop(uri, None)
                request.fail(failure)
        elif exchange is self._current:
            self._current = None
        else:
            return
        if code == METHOD_NOT_FOUND and error is None:
            # It has none, and is not asked again.
            self._kinds, self._subscribable = {}, False
            return
        if self._coming is None and not self._lane.closed:
            self._again_at = self._lane.clock() + _BACKOFF[min(self._failures, len(_BACKOFF) - 1)]
            self._failures += 1

    def tick(self) -> None:
        """Try again when it is time."""
        if self._again_at is not None and self._lane.clock() >= self._again_at:
            self._again_at = None
            if self.wanted and not self._lane.closed:
                self._renew()

    def close(self) -> None:
        """Nobody listens any more."""
        ending = (self._coming, self._current)
        self._coming = self._current = None
        for exchange in ending:
            if exchange is not None:
                exchange.abandon()


class _Heard:
    """The sink of one subscription."""

    __slots__ = ("_changes", "exchange")

    exchange: Exchange

    def __init__(self, changes: Changes) -> None:
        self._changes: Final = changes

    def message(self, raw: bytes) -> None:
        self._changes.heard(self.exchange, raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._changes.ended(self.exchange, error, code)

    def cancelled(self) -> None:
        """By the server, if it is one that still matters."""
        self._changes.ended(self.exchange, None, None)
