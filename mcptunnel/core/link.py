"""A link: one connection to one upstream server, and whose work is on it.

Ids on a link are ours: a counter per link, never a client's. So no client can name, cancel or read another's work,
and a server that invents an answer reaches nobody. Progress tokens are ours for the same reason.

The link is pure. A :class:`Wire` (HTTP, child process, WebSocket) moves the bytes and calls :meth:`Link.received`,
:meth:`Link.failed` and :meth:`Link.lost`; the link's :class:`Owner` (a session, or the commons of all stateless calls)
takes what belongs to no call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from mcptunnel.core.errors import UPSTREAM_TIMEOUT, UPSTREAM_UNAVAILABLE, RpcError, UpstreamError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, Span, decode, splice
from mcptunnel.core.mcp import Era, subscription_span
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.wire import Upstream, Wire

__all__ = ["Link", "Owner", "unavailable"]

# A revision goes into a header of the next request: nothing that could end a line there.
_VERSION: Final = re.compile(r"[\x21-\x7e]{1,64}")


class Owner(Protocol):
    """Who holds a link."""

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        """A request or notification of the server; ``exchange`` when it came on that call's own stream."""

    def session_lost(self, link: Link) -> bool:
        """The server has forgotten the session: :meth:`Link.introduce` again. False when there is nothing to say."""

    def link_lost(self, link: Link) -> None:
        """The link is gone for good; its calls have failed already."""

    def doubted(self, link: Link) -> None:
        """The server has refused a call in a way that puts in doubt what is known of its era."""


class _Introduction:
    """Takes the answer to an ``initialize`` of ours."""

    def __init__(self, link: Link, ready: Callable[[], None]) -> None:
        self._link: Final = link
        self._ready: Final = ready

    def message(self, raw: bytes) -> None:
        """Nobody has asked for progress."""

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        if error is None and code is not None:
            self._link.turned_away = True
            error = unavailable(self._link.server, f"it could not be initialized (its error {code})")
        self._link.welcome = decode(raw)
        self._link.settle(error, self._ready)

    def cancelled(self) -> None:
        """Nobody can."""


class _Call:
    """The upstream side of one exchange on a link."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int) -> None:
        self._link: Final = link
        self._number: Final = number

    def cancel(self, reason: bytes | None) -> None:
        self._link.cancel(self._number, reason)

    def pause(self) -> None:
        self._link.wire.pause(self._number)

    def resume(self) -> None:
        self._link.wire.resume(self._number)


class Link:
    """One connection to one server.

    Attributes:
        server: The server's name.
        era: Under which rules its calls travel.
        version: Revision negotiated by ``initialize``, None before and in the modern era.
        calls: What is in flight, by our number.
        wire: Set once, right after construction.
        introduced: We, not the client, have said ``initialize`` on it.
        welcome: What the server has answered to that.
        turned_away: It was an error of the server's own.
        why: Why the link is gone; completes "server NAME is unavailable: …".
    """

    wire: Wire

    def __init__(self, server: str, era: Era, owner: Owner, clock: Callable[[], float]) -> None:
        self.server: Final = server
        self.era: Final = era
        self.version: str | None = None
        self.calls: Final[dict[int, Exchange]] = {}
        self.closed = False
        self.why = "the connection to it is closed"
        # Requests that wait for a server that must be introduced first; None when nothing has to wait.
        self._waiting: list[Exchange] | None = None
        self.introduced = False
        self.welcome: Message | None = None
        self.turned_away = False
        self._owner: Final = owner
        self._clock: Final = clock
        self._next = 1

    @classmethod
    def open(cls, upstream: Upstream, era: Era, owner: Owner, clock: Callable[[], float]) -> Link:
        """A link to ``upstream`` with its wire."""
        link = cls(upstream.name, era, owner, clock)
        link.wire = upstream.connect(link)
        return link

    def request(self, exchange: Exchange) -> None:
        """Send a client's request under a number of ours."""
        exchange.record.upstream = self.server
        if self.closed:
            exchange.fail(unavailable(self.server, self.why))
        elif self._waiting is not None:
            exchange.started = exchange.touched = self._clock()
            self._waiting.append(exchange)
        else:
            self._send(exchange)

    def introduce(self, hello: bytes, principal: Principal, ready: Callable[[], None]) -> None:
        """Open the server's session ourselves: in the client's words, when it has said them to an earlier link.

        Requests wait until the server has answered; if it does not, they fail and the link is lost.

        Args:
            hello: The ``initialize`` request.
            principal: Whose it is.
            ready: Called when the server has been told that it is initialized, before what has waited is sent.
        """
        self._waiting = []
        self.introduced = True
        self.version = None
        self._send(
            Exchange(
                message=decode(hello),
                principal=principal,
                era=self.era,
                sink=_Introduction(self, ready),
                record=Record(),
            )
        )

    def settle(self, error: RpcError | None, ready: Callable[[], None]) -> None:
        """The introduction is over: send what has waited, or fail it with ``error``."""
        waiting, self._waiting = self._waiting or [], None
        if error is None:
            self.tell(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
            ready()
        for exchange in waiting:
            if exchange.done:
                continue
            if error is None:
                self.request(exchange)
            else:
                exchange.fail(error)
        if error is not None and not self.closed:
            self.lost(error.message.removeprefix(unavailable(self.server, "").message))
            self.wire.close()

    def renew(self, number: int | None, why: str) -> None:
        """The server has forgotten our session: open another, and send call ``number`` once more.

        Args:
            number: A call that the server has refused for that reason, so that nothing of it has been delivered.
            why: Completes "server NAME is unavailable: …", where it cannot be helped.
        """
        exchange = None if number is None else self.calls.pop(number, None)
        if self._waiting is None and not self._owner.session_lost(self):
            if exchange is not None:
                exchange.fail(unavailable(self.server, why))
            self.lost(why)
            self.wire.close()
        elif exchange is not None:
            self.repeat(exchange, why)

    def repeat(self, exchange: Exchange, why: str) -> None:
        """Send ``exchange`` a second time, after the introduction where one is under way; not a third time."""
        if exchange.repeated:
            exchange.fail(unavailable(self.server, why))
            return
        exchange.repeated = True
        exchange.call = None
        self.request(exchange)

    def _send(self, exchange: Exchange) -> None:
        message = exchange.message
        number = self._next
        self._next += 1
        ours = b"%d" % number
        edits: list[tuple[Span, bytes]] = [(message.spans["id"], ours)]
        if "_meta" in message.params:
            token = message.meta().get("progressToken")
            if token is not None:
                exchange.token = message.raw[token[0] : token[1]]
                edits.append((token, ours))
        self.calls[number] = exchange
        exchange.call = _Call(self, number)
        exchange.started = exchange.touched = self._clock()
        self.wire.send(splice(message.raw, edits), number, exchange)
        if exchange.paused and number in self.calls:
            # Its client does not read what an earlier call of it has brought.
            self.wire.pause(number)

    def tell(self, raw: bytes) -> None:
        """Send a notification, or the client's response to a request of the server."""
        if not self.closed:
            self.wire.send(raw, None, None)

    def listen(self) -> None:
        """Open the way for messages that belong to no call."""
        if not self.closed:
            self.wire.listen()

    def cancel(self, number: int, reason: bytes | None) -> None:
        """Stop call ``number``; a response that still comes is swallowed."""
        exchange = self.calls.pop(number, None)
        if exchange is None or self.closed or self.wire.drop(number):
            return
        # MCP, Cancellation: `initialize` is never cancelled by notification.
        if exchange.message.method != "initialize":
            tail = b',"reason":%b' % reason if reason else b""
            self.tell(
                b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d%b}}' % (number, tail)
            )

    def received(self, raw: bytes, number: int | None = None) -> None:
        """One message from the server.

        Args:
            raw: Its bytes.
            number: The call on whose own stream it came, where the transport has such streams.
        """
        if self.closed:
            return
        try:
            message = decode(raw)
            if message.kind in ("result", "error"):
                self._replied(message, number)
            else:
                self._said(message, number)
        except RpcError as e:
            # A server that does not speak JSON-RPC harms the call it was asked for, and nobody else.
            if number is not None:
                self.failed(number, f"it answered with a message that cannot be read ({e.message})")

    def _replied(self, message: Message, number: int | None) -> None:
        if number is None:
            if not isinstance(message.id, int):
                return
            number = message.id
        elif message.id != number and not (message.kind == "error" and message.id is None):
            return
        exchange = self.calls.get(number)
        if exchange is None:
            return
        try:
            if exchange.message.method == "initialize" and message.kind == "result":
                self.version = _negotiated(message)
            edits = [(message.spans["id"], exchange.message.id_raw)]
            # A subscription is named by the id of the request that opened it: theirs upstream, the client's below.
            if exchange.era == "modern" and (span := subscription_span(message)) is not None:
                edits.append((span, exchange.message.id_raw))
        except RpcError as e:
            self.failed(number, f"it answered with a message that cannot be read ({e.message})")
            return
        del self.calls[number]
        exchange.finish(decode(splice(message.raw, edits)) if exchange.rewrite else _renamed(message, edits))

    def _said(self, message: Message, number: int | None) -> None:
        exchange = None if number is None else self.calls.get(number)
        if message.method == "notifications/progress":
            span = message.params.get("progressToken")
            token = message.id_at(span)
            exchange = self.calls.get(token) if isinstance(token, int) else None
            if exchange is not None and span is not None and exchange.token is not None:
                exchange.touched = self._clock()
                exchange.emit(splice(message.raw, [(span, exchange.token)]))
            return
        if self.era == "modern" and (span := subscription_span(message)) is not None:
            subscription = message.id_at(span)
            exchange = self.calls.get(subscription) if isinstance(subscription, int) else None
            if exchange is not None:
                exchange.touched = self._clock()
                exchange.emit(splice(message.raw, [(span, exchange.message.id_raw)]))
            return
        if message.method == "notifications/cancelled" and self.era == "modern":
            self._torn_down(message)
            return
        if exchange is not None:
            exchange.touched = self._clock()
            if message.kind == "notification" and message.method != "notifications/cancelled":
                exchange.emit(message.raw)
                return
        self._owner.from_server(self, message, exchange)

    def _torn_down(self, message: Message) -> None:
        """The server ends a subscription without a result (2026-07-28, ``subscriptions/listen``): so do we."""
        span = message.params.get("requestId")
        number = message.id_at(span)
        exchange = self.calls.pop(number, None) if isinstance(number, int) else None
        if exchange is not None and span is not None:
            exchange.emit(splice(message.raw, [(span, exchange.message.id_raw)]))
            exchange.call = None
            exchange.abandon()

    def failed(self, number: int, why: str) -> None:
        """Call ``number`` cannot be answered; ``why`` completes "server NAME is unavailable: …"."""
        self.refused(number, unavailable(self.server, why))

    def refused(self, number: int, error: RpcError) -> None:
        """Call ``number`` ends with ``error``."""
        exchange = self.calls.pop(number, None)
        if error.reason == "upstream_status":
            self._owner.doubted(self)
        if exchange is not None:
            exchange.fail(error)

    def lost(self, why: str) -> None:
        """The connection is gone: every call fails at once, and the owner learns of it."""
        if self.closed:
            return
        self.closed = True
        self.why = why
        for number in list(self.calls):
            self.failed(number, why)
        self._owner.link_lost(self)

    def close(self) -> None:
        """End the link from our side. Calls in flight are abandoned in silence: their owner ends them."""
        if not self.closed:
            self.closed = True
            self.calls.clear()
            self.wire.close()

    def expire(self, now: float, silence: float, longest: float) -> None:
        """Fail what has been silent for ``silence`` seconds or has lasted ``longest``."""
        for number, exchange in list(self.calls.items()):
            error = self._overdue(exchange, now, silence, longest)
            if error is not None:
                exchange.fail(error)
                self.cancel(number, b'"timed out"')
        if self._waiting:
            for exchange in self._waiting:
                if (error := self._overdue(exchange, now, silence, longest)) is not None:
                    exchange.fail(error)
            self._waiting = [exchange for exchange in self._waiting if not exchange.done]

    def _overdue(self, exchange: Exchange, now: float, silence: float, longest: float) -> UpstreamError | None:
        patience = silence if exchange.patience is None else exchange.patience
        if not patience or (now - exchange.touched <= patience and now - exchange.started <= longest):
            return None
        what = (
            f"gave no sign of life for {patience:g} s (request_timeout)"
            if now - exchange.touched > patience
            else f"took longer than {longest:g} s (request_max_time)"
        )
        return UpstreamError(UPSTREAM_TIMEOUT, f"server {self.server} {what}", reason="upstream_timeout")


def unavailable(server: str, why: str) -> UpstreamError:
    """The error for a server that cannot be reached or does not answer as it should."""
    return UpstreamError(UPSTREAM_UNAVAILABLE, f"server {server} is unavailable: {why}", reason="upstream_unavailable")


def _negotiated(message: Message) -> str | None:
    span = message.spans["result"]
    inner = message.inside(span, "result").get("protocolVersion")
    value = None if inner is None else message.at(inner)
    return value if isinstance(value, str) and _VERSION.fullmatch(value) else None


def _renamed(message: Message, edits: list[tuple[Span, bytes]]) -> Message:
    """``message`` with new bytes; its spans are not moved, since nobody looks inside it again."""
    if message.kind == "result":
        return Message(splice(message.raw, edits), "result", message.id, None, {})
    return decode(splice(message.raw, edits))
