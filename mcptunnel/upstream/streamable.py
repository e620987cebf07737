"""An MCP server behind Streamable HTTP (2025-03-26 … 2025-11-25 and 2026-07-28), as a wire of a link.

Every message is a POST of its own; its answer is JSON or an event stream and belongs to that call. In the legacy era
the server's session id, the negotiated revision and the standing GET stream live here.

Nothing of the client's HTTP request travels on: the head is built anew from the message and the configuration, so
neither the client's credential, cookies, host, origin nor session id can reach a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mcptunnel.core import sse
from mcptunnel.core.errors import UPSTREAM_UNAVAILABLE, UpstreamError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import loads
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import MODERN_VERSIONS, VERSION_KEY, encode_header, subject
from mcptunnel.upstream.client import Pool, Receiver, Transfer

__all__ = ["HttpUpstream"]

# MCP, Session Management: visible ASCII only.
_SESSION_ID: Final = re.compile(rb"[\x21-\x7e]{1,1024}")
# Waits between attempts to open the standing stream again.
LISTEN_BACKOFF: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
# How long a server may keep a stream open after the response, or after the call has been cancelled.
LEAVE_SECONDS: Final = 5.0
# Until we ask for the rest of a stream that a server has ended early: what it says, within bounds, or this.
RETURN_SECONDS: Final = 1.0
_RETURN_BOUNDS: Final = (0.1, 30.0)
# Returns in a row that brought no event at all, not even one without data: then nothing will come.
RETURNS: Final = 3
# An event id goes into a header of the next request.
_EVENT_ID: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?")


class HttpUpstream:
    """One server with a ``url``.

    Args:
        name: Its key in ``mcpServers``.
        target: Path and query of its address.
        host: Value of the Host header.
        headers: Configured header lines; secret.
        pool: Connections to its origin.
        clock: For waiting before the standing stream is opened again.
        max_bytes: Longest message it may send.
    """

    def __init__(
        self,
        name: str,
        *,
        target: bytes,
        host: bytes,
        headers: Mapping[str, str],
        pool: Pool,
        clock: IReactorTime,
        max_bytes: int,
    ) -> None:
        self.name: Final = name
        self.pool: Final = pool
        self.clock: Final = clock
        self.max_bytes: Final = max_bytes
        fixed = b"".join(b"%b: %b\r\n" % (k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items())
        self._post: Final = (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\n%b" % (target, host, fixed)
        )
        self._get: Final = b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: text/event-stream\r\n%b" % (target, host, fixed)
        self._delete: Final = b"DELETE %b HTTP/1.1\r\nHost: %b\r\n%b" % (target, host, fixed)

    def __repr__(self) -> str:
        return f"<HttpUpstream {self.name}>"

    def connect(self, link: Link) -> HttpWire:
        """A wire for ``link``; connections are opened when there is something to send."""
        return HttpWire(self, link)

    def post(self, lines: bytes, body: bytes, receiver: Receiver) -> Transfer:
        """Send one message."""
        return self.pool.request(b"%b%bContent-Length: %d\r\n\r\n%b" % (self._post, lines, len(body), body), receiver)

    def get(self, lines: bytes, receiver: Receiver) -> Transfer:
        """Open the standing stream."""
        return self.pool.request(b"%b%b\r\n" % (self._get, lines), receiver)

    def delete(self, lines: bytes, receiver: Receiver) -> Transfer:
        """End the session."""
        return self.pool.request(b"%b%b\r\n" % (self._delete, lines), receiver)


class HttpWire:
    """The wire of one link. See :class:`mcptunnel.core.link.Wire`."""

    def __init__(self, upstream: HttpUpstream, link: Link) -> None:
        self.upstream: Final = upstream
        self.link: Final = link
        self.session: bytes | None = None
        self._transfers: Final[dict[int, Transfer]] = {}
        self._telling: Final[set[Transfer]] = set()
        self._returning: Final[dict[int, IDelayedCall]] = {}
        self._paused: Final[set[int]] = set()
        self._held: list[tuple[bytes, int | None, Exchange | None]] | None = None
        self._standing: _Standing | None = None
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
        transfer = self.upstream.post(lines, raw, _Answer(self, number))
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
        receiver = _Told(self, opening=b'"notifications/initialized"' in raw)
        if receiver.opening:
            self._held = []
        transfer = self.upstream.post(self._lines(), raw, receiver)
        if not receiver.over:
            receiver.transfer = transfer
            self._telling.add(transfer)

    def told(self, receiver: _Told) -> None:
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

    def come_back(self, number: int, seconds: float, last: bytes, answer: _Answer) -> None:
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
            self._standing = _Standing(self, self._lines())

    def lost_session(self) -> None:
        """The server has forgotten our session (404)."""
        self.session = None
        self.link.lost("it has ended the session (404)")
        self.close()

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
            self.upstream.delete(self._lines(), _Nobody())


def _modern_lines(exchange: Exchange) -> bytes:
    """The headers that repeat the body (MCP 2026-07-28, Transports, "Standard headers")."""
    message = exchange.message
    span = message.meta().get(VERSION_KEY)
    version = MODERN_VERSIONS[-1] if span is None else str(message.at(span))
    lines = f"MCP-Protocol-Version: {encode_header(version)}\r\nMcp-Method: {encode_header(message.method or '')}\r\n"
    name = subject(message)
    if name is not None:
        lines += f"Mcp-Name: {encode_header(name)}\r\n"
    extra = b"".join(b"%b: %b\r\n" % line for line in exchange.params_headers)
    return lines.encode("ascii") + extra


class _Answer:
    """Takes the answer to one call."""

    def __init__(self, wire: HttpWire, number: int) -> None:
        self._wire: Final = wire
        self._number: Final = number
        self._status = 0
        self._body: list[bytes] = []
        self._size = 0
        self._events: sse.Decoder | None = None
        self._json = False
        self._last: bytes | None = None
        self._retry = RETURN_SECONDS
        self._in_vain = 0

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._events = None
        wire = self._wire
        exchange = wire.link.calls.get(self._number)
        opening = exchange is not None and exchange.message.method == "initialize"
        kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"mcp-session-id" and opening and status == 200 and _SESSION_ID.fullmatch(value):
                wire.session = value
        self._json = kind == b"application/json"
        if status == 200 and kind == b"text/event-stream":
            self._events = sse.Decoder(wire.upstream.max_bytes)
            if exchange is not None:
                exchange.streamed = True

    def data(self, chunk: bytes) -> None:
        if self._events is not None:
            events: list[sse.Event] = []
            try:
                events = self._events.feed(chunk)
                self._in_vain = 0 if events else self._in_vain
                for event in events:
                    if event.id is not None and _EVENT_ID.fullmatch(event.id):
                        self._last = event.id
                    if event.retry is not None:
                        self._retry = event.retry / 1000
                    if event.data:
                        self._wire.link.received(event.data, self._number)
            except ValueError as e:
                self._abort(str(e))
            exchange = self._wire.link.calls.get(self._number)
            if exchange is None:
                self._wire.leave(self._number)
            elif events:
                exchange.begin_stream()
            return
        self._size += len(chunk)
        if self._size > self._wire.upstream.max_bytes:
            self._abort(
                f"its answer is longer than {self._wire.upstream.max_bytes} bytes (server.limits.message_bytes)"
            )
            return
        self._body.append(chunk)

    def _abort(self, why: str) -> None:
        transfer = self._wire._transfers.get(self._number)
        self.failed(why)
        if transfer is not None:
            transfer.abort()

    def end(self) -> None:
        link, number, status = self._wire.link, self._number, self._status
        self._wire.settled(number)
        body = b"".join(self._body)
        exchange = link.calls.get(number)
        if (
            self._events is not None
            and self._last is not None
            and self._in_vain < RETURNS
            and exchange is not None
            and link.era == "legacy"
        ):
            self._in_vain += 1
            shortest, longest = _RETURN_BOUNDS
            self._wire.come_back(number, min(max(self._retry, shortest), longest), self._last, self)
            exchange.break_stream()
        elif self._events is not None:
            # Nothing when the response has been among the events.
            link.failed(number, "it closed the event stream without a response")
        elif status in (401, 403):
            link.failed(number, f"it refuses our credential ({status}); see mcpServers.{link.server}.headers")
        elif status == 404 and self._wire.session is not None:
            # MCP 2025-03-26, Session Management. The official SDKs put a JSON-RPC error into the body as well.
            self._wire.lost_session()
        elif 300 <= status < 400:
            link.failed(number, f"it redirects ({status}), which is not followed; give its final address as url")
        elif self._json and (status == 200 or _is_rpc_error(body)):
            link.received(body, number)
            if number in link.calls:
                link.failed(number, "it answered with a message that is no response to the request")
        else:
            # A client error stays one, so that a client that probes for the era understands the answer.
            link.refused(
                number,
                UpstreamError(
                    UPSTREAM_UNAVAILABLE,
                    f"server {link.server} is unavailable: it answered with HTTP status {status}"
                    + ("" if status != 200 else " and a body that is neither JSON nor an event stream"),
                    reason="upstream_status",
                    status=400 if status in (400, 404, 405, 406, 415) else None,
                ),
            )

    def failed(self, why: str) -> None:
        self._wire.settled(self._number)
        self._wire.link.failed(self._number, why)


def _is_rpc_error(body: bytes) -> bool:
    try:
        value = loads(body)
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("error"), dict)


class _Nobody:
    """Takes an answer that nobody waits for."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        pass

    def data(self, chunk: bytes) -> None:
        pass

    def end(self) -> None:
        pass

    def failed(self, why: str) -> None:
        pass


class _Told(_Nobody):
    """Takes the answer to a notification or response."""

    _log: Final = Logger()

    def __init__(self, wire: HttpWire, *, opening: bool) -> None:
        self._wire: Final = wire
        self._status = 0
        self.opening: Final = opening
        self.over = False
        self.transfer: Transfer | None = None

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status

    def end(self) -> None:
        self.over = True
        self._wire.told(self)
        if self._status >= 400:
            self._log.debug(
                "server {server} refused a notification with status {status}",
                server=self._wire.link.server,
                status=self._status,
            )

    def failed(self, why: str) -> None:
        self._log.debug("server {server} got no notification: {why}", server=self._wire.link.server, why=why)
        self.over = True
        self._wire.told(self)


class _Standing(_Nobody):
    """The standing GET stream, opened again when it ends, unless the server has none (405)."""

    def __init__(self, wire: HttpWire, lines: bytes) -> None:
        self._wire: Final = wire
        self._lines: Final = lines
        self._attempt = 0
        self._later: IDelayedCall | None = None
        self._events: sse.Decoder | None = None
        self._stopped = False
        self._transfer = wire.upstream.get(lines, self)

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if status == 200 and any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers):
            self._attempt = 0
            self._events = sse.Decoder(self._wire.upstream.max_bytes)
        elif 400 <= status < 500:
            self._stopped = True

    def data(self, chunk: bytes) -> None:
        if self._events is None:
            return
        try:
            for event in self._events.feed(chunk):
                if event.data:
                    self._wire.link.received(event.data)
        except ValueError:
            self._transfer.abort()
            self.end()

    def end(self) -> None:
        self._events = None
        if not self._stopped:
            delay = LISTEN_BACKOFF[min(self._attempt, len(LISTEN_BACKOFF) - 1)]
            self._attempt += 1
            self._later = self._wire.upstream.clock.callLater(delay, self._again)

    def failed(self, why: str) -> None:
        self.end()

    def _again(self) -> None:
        self._later = None
        self._transfer = self._wire.upstream.get(self._lines, self)

    def stop(self) -> None:
        self._stopped = True
        self._transfer.abort()
        if self._later is not None:
            self._later.cancel()
            self._later = None
