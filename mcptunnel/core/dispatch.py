"""From a client's request to the server that must answer it: policy, names, and targets of one server.

What needs several servers at once is in :mod:`mcptunnel.core.aggregate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from mcptunnel.core.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, Span, decode, encode, loads, members, splice
from mcptunnel.core.principal import Principal, permits
from mcptunnel.core.routing import Target

__all__ = ["LISTS", "Item", "Links", "authorize", "filtered", "items", "reference", "to_one"]

# Method → (member of the result, member of an item that names it).
LISTS: Final = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
}
# Methods that name nothing a pattern could speak of; a principal with patterns may use these, and none unknown to us.
_HARMLESS: Final = frozenset({"initialize", "ping", "server/discover", "logging/setLevel"})
_WHAT: Final = {"tools/call": "tool", "prompts/get": "prompt"}
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Links(Protocol):
    """Who holds the links that serve a client: its session, or the commons of stateless calls."""

    def forward(self, server: str, exchange: Exchange) -> None:
        """Send ``exchange`` to ``server``, over a link that is opened when there is none."""


class Item(NamedTuple):
    """One entry of a list.

    Attributes:
        name: What the server calls it by.
        place: Where that stands in ``raw``.
        raw: The entry as it came.
    """

    name: str
    place: Span
    raw: bytes


def reference(exchange: Exchange) -> tuple[Span, str] | None:
    """Where a request names a tool, prompt or resource, and which; None when it names none.

    Raises:
        RpcError: It ought to name one and does not.
    """
    message = exchange.message
    method = message.method
    holder, member = message.params, "uri"
    if method in ("tools/call", "prompts/get"):
        member = "name"
    elif method == "completion/complete":
        span = message.params.get("ref")
        if span is None:
            raise RpcError(INVALID_PARAMS, "params.ref: expected a reference", reason="invalid_params")
        holder = message.inside(span, "params.ref")
        member = "name" if "name" in holder else "uri"
    elif method != "resources/read" and (
        # 2026-07-28 has no such methods: whoever answers says so, whatever the params are.
        exchange.era == "modern" or method not in ("resources/subscribe", "resources/unsubscribe")
    ):
        return None
    place = holder.get(member)
    value = None if place is None else message.at(place)
    if place is None or not isinstance(value, str):
        raise RpcError(INVALID_PARAMS, f"{method}: expected a string member {member!r}", reason="invalid_params")
    return place, value


def unknown(method: str, name: str) -> RpcError:
    """The error for a name that does not exist, or that this caller may not know of: they read the same."""
    what = _WHAT.get(method, "resource")
    return RpcError(INVALID_PARAMS, f"Unknown {what}: {name}", reason=f"unknown_{what}")


def authorize(exchange: Exchange, server: str, name: str | None) -> None:
    """Refuse what the principal may not do with ``server``.

    Args:
        exchange: The request.
        server: Where it would go.
        name: Name of the tool or prompt, or URI of the resource, as the server knows it; None when it names none.

    Raises:
        RpcError: Refused, in the words for something that does not exist.
    """
    principal, method = exchange.principal, exchange.message.method or ""
    if principal.allow is None:
        return
    if name is not None:
        if not permits(principal, server, name):
            raise unknown(method, name)
    elif method == "subscriptions/listen":
        for uri in _subscribed(exchange.message):
            if not permits(principal, server, uri):
                raise unknown("resources/read", uri)
    elif method not in _HARMLESS and method not in LISTS:
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}", reason="method_not_found")


def _subscribed(message: Message) -> list[str]:
    wanted = message.param("notifications")
    uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else None
    return [uri for uri in uris if isinstance(uri, str)] if isinstance(uris, list) else []


def items(reply: Message, method: str, server: str) -> tuple[list[Item], Any]:
    """The entries of one list result.

    Returns:
        They, in the server's order, and the server's next cursor or None.

    Raises:
        RpcError: The result is not of the form that MCP prescribes.
    """
    member, key = LISTS[method]
    spans = reply.inside(reply.spans["result"], "result")
    found: list[Item] = []
    cursor_span = spans.get("nextCursor")
    cursor = None if cursor_span is None else reply.at(cursor_span)
    span = spans.get(member)
    try:
        for raw in [] if span is None else _decode_list(reply.raw[span[0] : span[1]]):
            item = bytes(raw)
            place = members(item)[key]
            name = loads(item[place[0] : place[1]])
            if isinstance(name, str):
                found.append(Item(name, place, item))
    except (ValueError, KeyError, msgspec.DecodeError):
        raise RpcError(
            -32603, f"server {server} answered {method} with a list that cannot be read", reason="upstream_malformed"
        ) from None
    return found, cursor


def filtered(method: str, server: str, principal: Principal) -> Callable[[Message], bytes]:
    """A rewrite of a list response that leaves out what ``principal`` may not see."""

    def rewrite(reply: Message) -> bytes:
        every, _ = items(reply, method, server)
        kept = [item.raw for item in every if permits(principal, server, item.name)]
        result = reply.inside(reply.spans["result"], "result")
        edits: list[tuple[Span, bytes]] = []
        if LISTS[method][0] in result:
            edits.append((result[LISTS[method][0]], b"[%b]" % b",".join(kept)))
        if "cacheScope" in result:
            # What is left was chosen for this caller: no cache may show it to another (2026-07-28, "Caching").
            edits.append((result["cacheScope"], b'"private"'))
        return splice(reply.raw, edits)

    return rewrite


def to_one(links: Links, exchange: Exchange, target: Target) -> None:
    """Dispatch to a target of one server: names and bytes stay as they are.

    Raises:
        RpcError: Refused before anything was sent.
    """
    message = exchange.message
    if not target.servers:
        raise RpcError(METHOD_NOT_FOUND, "no server is configured (mcpServers)", reason="no_server")
    server = target.servers[0]
    named = reference(exchange)
    if named is not None:
        exchange.record.target = named[1]
    authorize(exchange, server, None if named is None else named[1])
    if exchange.principal.allow is not None and message.method in LISTS:
        exchange.rewrite = filtered(message.method, server, exchange.principal)
    links.forward(server, exchange)


def to_named(links: Links, exchange: Exchange, server: str, place: Span, name: str) -> None:
    """Dispatch to one server of several, under the name that the server knows.

    Raises:
        RpcError: Refused before anything was sent.
    """
    authorize(exchange, server, name)
    message = exchange.message
    exchange.message = decode(splice(message.raw, [(place, encode(name))]))
    links.forward(server, exchange)
