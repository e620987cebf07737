"""One call of a legacy client on a server of 2026-07-28, in as many rounds as the server needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from mcptunnel.core.envelope import PARTS, member, rebuilt
from mcptunnel.core.errors import INVALID_PARAMS, UPSTREAM_TIMEOUT, RpcError, UpstreamError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, decode, result_reply, splice
from mcptunnel.core.link import unavailable
from mcptunnel.core.record import Record
from mcptunnel.core.wire import Lane

if TYPE_CHECKING:
    from mcptunnel.core.legacy_on_modern import LegacyOnModern

__all__ = ["Round", "Speaker", "answer"]

# Rounds of one call in which the server asks nothing and only wants to be called again.
_EMPTY_ROUNDS: Final = 16
_OLD_MISSING: Final = -32002


class Speaker(Protocol):
    """Takes what the server wants to say to the client: the session."""

    def from_server(self, link: Lane, message: Message, exchange: Exchange | None) -> None:
        """A request or notification for the client."""


class Round:
    """One call of the client, in as many rounds as the server needs.

    Attributes:
        exchange: The client's request.
        since: Since when the client is asked something; None while the server works.
    """

    def __init__(self, lane: LegacyOnModern, exchange: Exchange) -> None:
        self.exchange: Final = exchange
        self.since: float | None = None
        self._lane: Final = lane
        self._answers: dict[str, bytes] = {}
        self._open: set[str] = set()
        self._state: bytes | None = None
        self._empty = 0
        self._inner: Exchange | None = None
        lane.enter(self)
        exchange.on_end(lambda _: lane.leave(self))

    def send(self, more: Mapping[str, bytes]) -> None:
        """Ask the server, with what it has wanted to know."""
        exchange = self.exchange
        self.since = None
        self._inner = Exchange(
            message=decode(self._lane.enveloped(exchange.message, more)),
            principal=exchange.principal,
            era="modern",
            sink=self,
            record=Record(),
            patience=exchange.patience,
        )
        exchange.call = self
        self._lane.links.forward(self._lane.server, self._inner)
        if exchange.paused:
            self._inner.pause()

    # --- from the server (Sink)

    def message(self, raw: bytes) -> None:
        self.exchange.emit(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        exchange = self.exchange
        if exchange.done:
            return
        if error is not None:
            exchange.fail(error)
            return
        reply = decode(decode(raw).with_id(exchange.message.id_raw))
        try:
            if code is not None:
                exchange.finish(_translated(reply, exchange.message.method, code))
            elif exchange.message.method in PARTS and member(reply, "resultType") == "input_required":
                self._ask(reply)
            else:
                exchange.finish(reply)
        except RpcError as e:
            exchange.fail(e)

    def cancelled(self) -> None:
        """The client was here first."""

    def _ask(self, reply: Message) -> None:
        """Put every question of the server to the client."""
        result = reply.inside(reply.spans["result"], "result")
        span = result.get("requestState")
        self._state = None if span is None else reply.raw[span[0] : span[1]]
        self._answers = {}
        span = result.get("inputRequests")
        questions = {} if span is None else reply.inside(span, "result.inputRequests")
        if not questions:
            self._empty += 1
            if self._empty > _EMPTY_ROUNDS:
                raise unavailable(self._lane.server, "it wants to be called again and again, and asks nothing")
            self._again()
            return
        self._open = set(questions)
        self.since = self._lane.clock()
        for key, place in questions.items():
            if self.exchange.done:
                return
            inner = reply.inside(place, f"result.inputRequests.{key}")
            method, params = inner.get("method"), inner.get("params")
            if method is None:
                raise unavailable(self._lane.server, "it asks something without a method")
            self._lane.question(
                self,
                key,
                reply.raw[method[0] : method[1]],
                None if params is None else reply.raw[params[0] : params[1]],
            )

    def answered(self, key: str, message: Message) -> None:
        """The client has answered, or will not."""
        if self.exchange.done:
            return
        if message.kind == "error":
            # This era has no way to tell a server that its question failed.
            self.exchange.finish(decode(message.with_id(self.exchange.message.id_raw)))
            return
        start, end = message.spans["result"]
        self._answers[key] = message.raw[start:end]
        self._open.discard(key)
        if not self._open:
            self._again()

    def _again(self) -> None:
        more = {"inputResponses": rebuilt(b"", {}, frozenset(), self._answers)} if self._answers else {}
        if self._state is not None:
            more["requestState"] = self._state
        self.send(more)

    def give_up(self, patience: float) -> None:
        """The client does not answer."""
        self.exchange.fail(
            UpstreamError(
                UPSTREAM_TIMEOUT,
                f"the client gave no answer to server {self._lane.server} within {patience:g} s "
                "(server.limits.input_timeout)",
                reason="input_timeout",
            )
        )

    # --- from the client (Call)

    def cancel(self, reason: bytes | None) -> None:
        if self._inner is not None:
            self._inner.abandon(reason)

    def pause(self) -> None:
        if self._inner is not None:
            self._inner.pause()

    def resume(self) -> None:
        if self._inner is not None:
            self._inner.resume()


def answer(exchange: Exchange) -> None:
    exchange.finish(decode(result_reply(exchange.message.id_raw, b"{}")))


def _translated(reply: Message, method: str | None, code: int) -> Message:
    """The error in the codes of the legacy era, which has one of its own for a missing resource."""
    if method != "resources/read" or code != INVALID_PARAMS:
        return reply
    span = reply.inside(reply.spans["error"], "error")["code"]
    return decode(splice(reply.raw, [(span, b"%d" % _OLD_MISSING)]))
