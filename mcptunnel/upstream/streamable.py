"""An MCP server behind Streamable HTTP (2025-03-26 … 2025-11-25 and 2026-07-28), as a wire of a link.

Every message is a POST of its own; its answer is JSON or an event stream and belongs to that call. In the legacy era
the server's session id, the negotiated revision and the standing GET stream live here.

Nothing of the client's HTTP request travels on: the head is built anew from the message and the configuration, so
neither the client's credential, cookies, host, origin nor session id can reach a server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import MODERN_VERSIONS, VERSION_KEY, encode_header, subject
from mcptunnel.core.rules import Rules
from mcptunnel.core.wire import Wire
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.answers import Answer, Nobody, Standing, Told
from mcptunnel.upstream.client import Pool, Receiver, Transfer
from mcptunnel.upstream.events import EventsUpstream
from mcptunnel.upstream.redirects import follow

__all__ = ["HttpUpstream"]

# How long a server may keep a stream open after the response, or after the call has been cancelled.
LEAVE_SECONDS: Final = 5.0
HTTP: Final = Rules(mirrored=True)
_FORGOTTEN: Final = "it has ended the session (404)"

_POST: Final = b"Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"


class HttpUpstream:
    """One server with a ``url``.

    Args:
        name: Its key in ``mcpServers``.
        address: Where it is, and what every request to it says.
        pool: Connections to its origin.
        clock: For waiting before the standing stream is opened again.
        max_bytes: Longest message it may send.
        rules: How it is to be spoken to.
        older: The same server over HTTP+SSE, for the case that it understands nothing else; None not to try.
    """

    def __init__(
        self,
        name: str,
        *,
        address: Address,
        pool: Pool,
        clock: IReactorTime,
        max_bytes: int,
        rules: Rules = HTTP,
        older: EventsUpstream | None = None,
    ) -> None:
        self.name: Final = name
        self.rules: Final = rules
        self.address: Final = address
        self.older: Final = older
        self.pool: Final = pool
        self.clock: Final = clock
        self.max_bytes: Final = max_bytes

    def __repr__(self) -> str:
        return f"<HttpUpstream {self.name}>"

    def connect(self, link: Link) -> Wire:
        """A wire for ``link``; connections are opened when there is something to send."""
        if self.older is None:
            return HttpWire(self, link)
        if self.older.understood:
            return self.older.connect(link)
        return EitherWire(self, self.older, link) if link.era == "legacy" else HttpWire(self, link)

    def post(self, lines: bytes, body: bytes, receiver: Receiver) -> Transfer:
        """Send one message."""
        return self._ask(b"POST", b"%b%b" % (_POST, lines), body, receiver)

    def get(self, lines: bytes, receiver: Receiver) -> Transfer:
        """Open the standing stream."""
        return self._ask(b"GET", b"Accept: text/event-stream\r\n%b" % lines, None, receiver)

    def delete(self, lines: bytes, receiver: Receiver) -> Transfer:
        """End the session."""
        return self._ask(b"DELETE", lines, None, receiver)

    def _ask(self, method: bytes, lines: bytes, body: bytes | None, receiver: Receiver) -> Transfer:
        return follow(self.pool, self.address, lambda address: address.request(method, lines, body), receiver)


class EitherWire:
    """The wire of a legacy link whose server may be one of 2024-11-05 (MCP, Transports, "Backwards compatibility").

    It is that of Streamable HTTP until the server has refused the ``initialize`` of the link with a status that says
    so; then that message, and everything after it, goes over HTTP+SSE.
    """

    def __init__(self, upstream: HttpUpstream, older: EventsUpstream, link: Link) -> None:
        self._older: Final = older
        self._link: Final = link
        self._opening: tuple[bytes, int, Exchange] | None = None
        self._wire: Wire = HttpWire(upstream, link, otherwise=self._otherwise)

    def _otherwise(self, number: int) -> bool:
        if self._opening is None or self._opening[1] != number:
            return False
        first, self._opening = self._opening, None
        self._wire.close()
        self._wire = self._older.connect(self._link)
        self._wire.send(*first)
        return True

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        opening = exchange is not None and number is not None and exchange.message.method == "initialize"
        self._opening = (raw, number, exchange) if opening and self._link.version is None else None  # type: ignore[assignment]  # both are there
        self._wire.send(raw, number, exchange)

    def drop(self, number: int) -> bool:
        return self._wire.drop(number)

    def pause(self, number: int) -> None:
        self._wire.pause(number)

    def resume(self, number: int) -> None:
        self._wire.resume(number)

    def listen(self) -> None:
        self._wire.listen()

    def close(self) -> None:
        self._wire.close()


class HttpWire:
    """The wire of one link. See :class:`mcptunnel.core.wire.Wire`."""

    def __init__(self, upstream: HttpUpstream, link: Link, otherwise: Callable[[int], bool] | None = None) -> None:
        self.upstream: Final = upstream
        self.link: Final = link
        # Whether somebody else asks again for a call whose request the server does not understand.
        self.otherwise: Final = otherwise
        self.session: bytes | None = None
        self._transfers: Final[dict[int, Transfer]] = {}
        self._telling: Final[set[Transfer]] = set()
        self._returning: Final[dict[int, IDelayedCall]] = {}
        self._paused: Final[set[int]] = set()
        self._held: list[tuple[bytes, int | None, Exchange | None]] | None = None
        self._standing: Standing | None = None
        self._closed = False

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        """POST ``raw``. What follows ``notifications/initialized`` waits until the server has taken that."""
        if self._held is not None:
            self._held.append((raw, number, exchange))
            return
        if number is None or exchange is None:
            self._tell(raw)
            return
        lines = self._lines()
        if exchange.era == "modern":
            lines = _modern_lines(exchange)
        transfer = self.upstream.post(lines, raw, Answer(self, number))
        if number in self.link.calls:
            self._transfers[number] = transfer

    def _lines(self) -> bytes:
        lines = b"" if self.session is None else b"Mcp-Session-Id: %b\r\n" % self.session
        if self.link.version is not None:
            lines += b"MCP-Protocol-Version: %b\r\n" % self.link.version.encode("latin-1", "replace")
        return lines

    def _tell(self, raw: bytes) -> None:
        if self.link.era == "modern":
            # A client sends no responses in this revision, and cancels by closing the stream.
            return
        receiver = Told(self, opening=b'"notifications/initialized"' in raw)
        if receiver.opening:
            self._held = []
        transfer = self.upstream.post(self._lines(), raw, receiver)
        if not receiver.over:
            receiver.transfer = transfer
            self._telling.add(transfer)

    def told(self, receiver: Told) -> None:
        """A notification or response has been taken, or was not: send what waited for it."""
        if receiver.transfer is not None:
            self._telling.discard(receiver.transfer)
        if receiver.opening:
            held, self._held = self._held, None
            for raw, number, exchange in held or ():
                self.send(raw, number, exchange)

    def leave(self, number: int) -> None:
        """Nothing more is wanted of call ``number``: give its stream a moment to end by itself."""
        transfer = self._transfers.get(number)
        if transfer is not None and transfer.until is None:
            transfer.until = self.upstream.clock.seconds() + LEAVE_SECONDS

    def drop(self, number: int) -> bool:
        if self.link.era == "legacy":
            # The server ends that stream by itself once it has read the notification; nothing of it is passed on.
            self.leave(number)
            return False
        transfer = self._transfers.pop(number, None)
        if transfer is not None:
            # MCP 2026-07-28, Cancellation: over HTTP the client closes the response stream.
            transfer.abort()
        return True

    def come_back(self, number: int, seconds: float, last: bytes, answer: Answer) -> None:
        """Ask for the rest of the stream of call ``number``, as its server wants it (2025-11-25, "polling")."""

        def ask() -> None:
            del self._returning[number]
            if number not in self.link.calls:
                # Cancelled or timed out; the server knows.
                return
            transfer = self.upstream.get(self._lines() + b"Last-Event-ID: %b\r\n" % last, answer)
            if number in self.link.calls:
                self._transfers[number] = transfer
                if number in self._paused:
                    transfer.pause()

        self._returning[number] = self.upstream.clock.callLater(seconds, ask)

    def transfer_of(self, number: int) -> Transfer | None:
        """The request and answer under way for call ``number``."""
        return self._transfers.get(number)

    def settled(self, number: int) -> None:
        """The answer to ``number`` is complete."""
        self._transfers.pop(number, None)

    def pause(self, number: int) -> None:
        self._paused.add(number)
        transfer = self._transfers.get(number)
        if transfer is not None:
            transfer.pause()

    def resume(self, number: int) -> None:
        self._paused.discard(number)
        transfer = self._transfers.get(number)
        if transfer is not None:
            transfer.resume()

    def listen(self) -> None:
        if self._standing is None and not self._closed and self.link.era == "legacy" and self.link.version is not None:
            self._standing = Standing(self, self._lines())

    def lost_session(self, session: bytes, number: int | None) -> None:
        """The server has forgotten ``session``, under which call ``number`` was sent; nothing of it was delivered."""
        if self.session == session:
            self.session = None
            if self._standing is not None:
                self._standing.stop()
                self._standing = None
            self.link.renew(number, _FORGOTTEN)
        elif number is not None and (exchange := self.link.calls.pop(number, None)) is not None:
            # Another call has noticed already.
            self.link.repeat(exchange, _FORGOTTEN)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for transfer in [*self._transfers.values(), *self._telling]:
            transfer.abort()
        self._transfers.clear()
        self._telling.clear()
        for later in self._returning.values():
            later.cancel()
        self._returning.clear()
        if self._standing is not None:
            self._standing.stop()
        if self.session is not None:
            self.upstream.delete(self._lines(), Nobody())


def _modern_lines(exchange: Exchange) -> bytes:
    """The headers that repeat the body (MCP 2026-07-28, Transports, "Standard headers")."""
    message = exchange.message
    span = message.meta().get(VERSION_KEY)
    version = MODERN_VERSIONS[-1] if span is None else str(message.at(span))
    lines = f"MCP-Protocol-Version: {encode_header(version)}\r\nMcp-Method: {encode_header(message.method or '')}\r\n"
    name = subject(message)
    if name is not None:
        lines += f"Mcp-Name: {encode_header(name)}\r\n"
    extra = b"".join(b"%b: %b\r\n" % line for line in exchange.params_headers or ())
    return lines.encode("ascii") + extra
