"""One request to several servers: each is asked under an exchange of its own, the last answer brings them together.

A server that is down, slow or lying costs its own part and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mcptunnel.core.dispatch import Links
from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange, Sink
from mcptunnel.core.jsonrpc import Message, decode
from mcptunnel.core.record import Record

__all__ = ["ask", "ask_all", "fan_out", "part_of"]


class _Collect:
    """A sink that hands one server's reply to ``done`` and passes messages on to the client's own sink."""

    def __init__(self, parent: Exchange, done: Callable[[Message | None, RpcError | None], None]) -> None:
        self._parent: Final = parent
        self._done: Final = done

    def message(self, raw: bytes) -> None:
        self._parent.emit(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._done(decode(raw), error)

    def cancelled(self) -> None:
        """The whole was, and says so itself."""


def part_of(parent: Exchange, raw: bytes, sink: Sink, patience: float | None) -> Exchange:
    """An exchange for the request ``raw``, on behalf of ``parent`` and abandoned with it."""
    part = Exchange(
        message=decode(raw),
        principal=parent.principal,
        era=parent.era,
        sink=sink,
        # Of its own: what one server fails at is not what the client is told.
        record=Record(),
        params_headers=parent.params_headers,
        patience=patience,
        seal=parent.seal,
    )
    parent.on_end(lambda _: part.abandon())
    return part


def ask(
    links: Links,
    parent: Exchange,
    server: str,
    raw: bytes,
    done: Callable[..., None],
    patience: float | None,
) -> None:
    """Send ``raw`` to ``server`` as a part of ``parent``; ``done(reply, error)`` is called once.

    Args:
        links: Where the link to the server is.
        parent: The client's request.
        server: Whom to ask.
        raw: The question, under any id.
        done: Takes the reply as a message and our own error if that is what it says.
        patience: Seconds of silence that are borne; None for the relay's own limit.
    """
    links.forward(server, part_of(parent, raw, _Collect(parent, done), patience))


def fan_out(
    links: Links,
    exchange: Exchange,
    servers: list[str],
    question: Callable[[str, Callable[[Any], None]], None],
    merge: Callable[[dict[str, Any]], None],
) -> None:
    """Run ``question(server, settle)`` for each server, then ``merge`` what they settled with (RpcError: a failure)."""
    answers: dict[str, Any] = {}

    def settled(server: str, answer: Any) -> None:
        answers[server] = answer
        if len(answers) == len(servers) and not exchange.done:
            try:
                merge({name: answers[name] for name in servers})
            except RpcError as e:
                exchange.fail(e)

    for server in servers:
        question(server, partial(settled, server))
    if not servers:
        merge({})


def ask_all(
    links: Links,
    exchange: Exchange,
    servers: list[str],
    patience: float,
    merge: Callable[[dict[str, Any]], None],
) -> None:
    """Ask every server what the client asked, then ``merge`` their replies (a Message each, or an RpcError)."""

    def question(server: str, settle: Callable[[Any], None]) -> None:
        ask(links, exchange, server, exchange.message.raw, lambda reply, error: settle(error or reply), patience)

    fan_out(links, exchange, servers, question, merge)
