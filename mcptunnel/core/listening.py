"""One ``subscriptions/listen`` of 2026-07-28 at a server of the legacy era: a member of the hub while it lasts."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, Final

from mcptunnel.core.envelope import put, rebuilt
from mcptunnel.core.errors import INVALID_PARAMS, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hub import Hub
from mcptunnel.core.jsonrpc import Message, encode
from mcptunnel.core.link import unavailable
from mcptunnel.core.mcp import SUBSCRIPTION_KEY

__all__ = ["KINDS", "Listening", "tagged", "untagged"]

# Changes kept until the server has answered every question.
HELD: Final = 1000

# What can be asked for, the capability and feature that offer it, and the notification that it is about.
KINDS: Final = {
    "toolsListChanged": ("tools", "notifications/tools/list_changed"),
    "promptsListChanged": ("prompts", "notifications/prompts/list_changed"),
    "resourcesListChanged": ("resources", "notifications/resources/list_changed"),
}


class Listening:
    """The subscription of one client.

    Args:
        hub: The session with the server, open.
        exchange: The request.
    """

    def __init__(self, hub: Hub, exchange: Exchange) -> None:
        self._hub: Final = hub
        self._exchange: Final = exchange
        self._methods: Final[set[str]] = set()
        self._honoured: Final[dict[str, Any]] = {}
        self._silent = 0
        self._told = False
        # They say that something changed, not what: when there are too many, the oldest makes room.
        self._held: Final[deque[Message]] = deque(maxlen=HELD)

    def start(self) -> None:
        """Ask the server for what it offers of what the client wants; tell the client when all of that is settled."""
        exchange, hub = self._exchange, self._hub
        try:
            asked = exchange.message.param("notifications")
        except RpcError as e:
            exchange.fail(e)
            return
        uris = asked.get("resourceSubscriptions") or [] if isinstance(asked, dict) else None
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            exchange.fail(RpcError(INVALID_PARAMS, "params.notifications: expected an object of kinds of changes"))
            return
        exchange.on_end(lambda _: hub.leave(self))
        hub.join(self)
        for kind, (capability, method) in KINDS.items():
            if asked.get(kind) and hub.offers(capability, "listChanged"):
                self._honoured[kind] = True
                self._methods.add(method)
        # One more than there are: nothing is settled before everything has been asked.
        self._silent = 1
        for uri in dict.fromkeys(uris) if hub.offers("resources", "subscribe") else ():
            self._silent += 1
            hub.subscribe(self, uri, partial(self._answered, uri))
        self._settled()

    def _answered(self, uri: str, reply: Message | None, error: RpcError | None) -> None:
        if error is None and (reply is None or reply.kind == "result"):
            self._honoured.setdefault("resourceSubscriptions", []).append(uri)
        self._settled()

    def _settled(self) -> None:
        self._silent -= 1
        if self._silent or self._exchange.done:
            return
        self._told = True
        tag = b'{"%b":%b}' % (SUBSCRIPTION_KEY.encode(), self._exchange.message.id_raw)
        self._exchange.emit(
            b'{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":%b,"notifications":%b}}'
            % (tag, encode(self._honoured))
        )
        for message in self._held:
            self.heard(message)
        self._held.clear()

    # --- member of the hub

    def heard(self, message: Message, exchange: Exchange | None = None) -> None:
        """A change. The acknowledgement comes first ("subscriptions/listen", "Acknowledgment")."""
        if message.method not in self._methods and message.method != "notifications/resources/updated":
            return
        if self._told:
            self._exchange.emit(tagged(message, self._exchange.message.id_raw))
        else:
            self._held.append(message)

    def asked(self, message: Message, exchange: Exchange) -> None:
        """It makes no calls."""

    def hub_lost(self, hub: Hub) -> None:
        """A client that is told can subscribe anew."""
        self._exchange.fail(unavailable(hub.link.server, hub.link.why))


def tagged(message: Message, id_raw: bytes) -> bytes:
    """The notification with the subscription that it belongs to."""
    meta = rebuilt(message.raw, message.meta(), frozenset(), {SUBSCRIPTION_KEY: id_raw})
    return put(message, rebuilt(message.raw, message.params, frozenset(), {"_meta": meta}))


def untagged(message: Message) -> bytes:
    """The notification without the subscription that it belongs to, which no legacy client knows."""
    meta = rebuilt(message.raw, message.meta(), frozenset({SUBSCRIPTION_KEY}), {})
    more = {} if meta == b"{}" else {"_meta": meta}
    return put(message, rebuilt(message.raw, message.params, frozenset({"_meta"}), more))
