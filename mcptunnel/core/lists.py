"""The whole list of one server: all its pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen

from mcptunnel.core.dispatch import Item, Links, items
from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.fanout import ask
from mcptunnel.core.jsonrpc import Message, decode, encode, splice

__all__ = ["MAX_PAGES", "Part", "listing", "whole"]

# The cap of the official SDKs on pages of one list.
MAX_PAGES: Final = 100


@frozen
class Part:
    """What one server's pages held.

    Attributes:
        items: Its entries, in its order.
        hints: ``ttlMs`` and ``cacheScope`` of its last page that has them.
    """

    items: list[Item] = field(factory=list)
    hints: dict[str, Any] = field(factory=dict)


def whole(
    links: Links,
    exchange: Exchange,
    server: str,
    question: Message,
    patience: float,
    done: Callable[[Part | Message | RpcError], None],
) -> None:
    """Ask ``server`` for every page of a list and call ``done`` once.

    Args:
        links: Where the link to the server is.
        exchange: The client's request that it is for.
        server: Whom to ask.
        question: The list request for the first page.
        patience: Seconds of silence that are borne for a page.
        done: Takes the entries; the server's error response; or our own error.
    """
    method = question.method or ""
    part = Part()
    seen: set[str] = set()

    def page(reply: Message | None, error: RpcError | None) -> None:
        if error is not None or reply is None:
            # There is always one of the two.
            done(error or RpcError(-32603, "no answer", reason="no_answer"))
            return
        if reply.kind != "result":
            done(reply)
            return
        try:
            some, cursor = items(reply, method, server)
            for hint in ("ttlMs", "cacheScope"):
                span = reply.inside(reply.spans["result"], "result").get(hint)
                if span is not None:
                    part.hints[hint] = reply.at(span)
        except RpcError as e:
            done(e)
            return
        part.items.extend(some)
        if isinstance(cursor, str) and cursor not in seen and len(seen) < MAX_PAGES:
            seen.add(cursor)
            ask(links, exchange, server, _with_cursor(question, cursor), page, patience)
        else:
            done(part)

    ask(links, exchange, server, question.raw, page, patience)


def listing(exchange: Exchange, method: str) -> Message:
    """The list request ``method`` in the envelope of ``exchange``, which asks for something else."""
    if exchange.era == "legacy":
        return decode(b'{"jsonrpc":"2.0","id":0,"method":%b}' % encode(method))
    message = exchange.message
    # Progress of this is nothing that the client has asked to hear of.
    meta = b",".join(
        b"%b:%b" % (encode(name), message.raw[start:end])
        for name, (start, end) in message.meta().items()
        if name != "progressToken"
    )
    return decode(b'{"jsonrpc":"2.0","id":0,"method":%b,"params":{"_meta":{%b}}}' % (encode(method), meta))


def _with_cursor(message: Message, cursor: str) -> bytes:
    """The same list request for the page at ``cursor``."""
    member = b'"cursor":%b' % encode(cursor)
    span = message.spans.get("params")
    if span is None:
        # Before the closing brace of the message.
        end = message.raw.rindex(b"}")
        return splice(message.raw, [((end, end), b',"params":{%b}' % member)])
    start = message.raw.index(b"{", span[0]) + 1
    comma = b"," if message.params else b""
    return splice(message.raw, [((start, start), member + comma)])
