"""An MCP server behind HTTP+SSE (2024-11-05), as a wire of a link.

One event stream per link brings everything that the server says; its first event names the address that takes what we
say, one POST for each message. Losing the stream is losing the session.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mcptunnel.core import sse
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.link import Link
from mcptunnel.core.rules import Rules
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.answers import Nobody, elsewhere
from mcptunnel.upstream.brake import Brake
from mcptunnel.upstream.client import Pool, Receiver, Transfer
from mcptunnel.upstream.redirects import follow, location

__all__ = ["ENDPOINT_SECONDS", "EventsUpstream"]

# From asking for the stream until its first event.
ENDPOINT_SECONDS: Final = 10.0
# Posts that a server has not answered yet, all calls of a link together.
MAX_POSTS: Final = 1000


class EventsUpstream:
    """One server with a ``url`` that is spoken to in the way of 2024-11-05.

    Args:
        name: Its key in ``mcpServers``.
        address: Where its stream is, and what every request to it says.
        pool: Connections to its origin.
        clock: For the time it has to name its other address.
        max_bytes: Longest message it may send.
        rules: How it is to be spoken to.

    Attributes:
        understood: It has opened a stream in this way before.
    """

    def __init__(
        self,
        name: str,
        *,
        address: Address,
        pool: Pool,
        clock: IReactorTime,
        max_bytes: int,
        rules: Rules = Rules(),  # noqa: B008  # frozen
    ) -> None:
        self.name: Final = name
        self.rules: Final = rules
        self.address: Final = address
        self.pool: Final = pool
        self.clock: Final = clock
        self.max_bytes: Final = max_bytes
        self.understood = False

    def __repr__(self) -> str:
        return f"<EventsUpstream {self.name}>"

    def connect(self, link: Link) -> EventsWire:
        """A wire for ``link``, whose stream is asked for at once."""
        wire = EventsWire(self, link)
        wire.open()
        return wire


class EventsWire:
    """The wire of one link, and the receiver of its stream. See :class:`mcptunnel.core.wire.Wire`."""

    def __init__(self, upstream: EventsUpstream, link: Link) -> None:
        self.link: Final = link
        self._upstream: Final = upstream
        self._address = upstream.address
        self._there: Address | None = None
        self._stream: Transfer | None = None
        self._events: sse.Decoder | None = None
        self._timer: IDelayedCall | None = None
        self._brake: Final = Brake(lambda: self._brake_stream(True), lambda: self._brake_stream(False))
        self._posts: Final[set[Posted]] = set()
        # What waits for the address, or for the server to take `notifications/initialized`; None when nothing must.
        self._held: list[tuple[bytes, int | None, Exchange | None]] | None = []
        self._size = 0
        self._closed = False

    def open(self) -> None:
        """Ask for the stream."""
        self._timer = self._upstream.clock.callLater(ENDPOINT_SECONDS, self._too_late)
        stream = follow(self._upstream.pool, self._upstream.address, self._ask, self)
        if not self._closed:
            self._stream = stream

    def _ask(self, address: Address) -> bytes:
        self._address = address
        return address.request(b"GET", b"Accept: text/event-stream\r\nCache-Control: no-cache\r\n")

    def _too_late(self) -> None:
        self._timer = None
        self._lose(f"it named no address for messages within {ENDPOINT_SECONDS:g} s (HTTP+SSE)")

    # --- the stream

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if status == 200 and kind.partition(b";")[0].strip().lower() == b"text/event-stream":
            self._events = sse.Decoder(self._upstream.max_bytes)
        elif 300 <= status < 400:
            self._lose(elsewhere(self._address, status, location(headers)))
        elif status in (401, 403):
            self._lose(f"it refuses our credential ({status}); see mcpServers.{self.link.server}.headers")
        else:
            what = "a body that is no event stream" if status == 200 else f"HTTP status {status}"
            self._lose(f"it answered with {what} when asked for its events (HTTP+SSE)")

    def data(self, chunk: bytes) -> None:
        if self._events is None:
            return
        try:
            events = self._events.feed(chunk)
        except ValueError as e:
            self._lose(f"{e} (server.limits.message_bytes)")
            return
        for event in events:
            if self._closed:
                return
            if event.event == b"endpoint":
                self._named(event.data)
            elif event.event == b"message" and event.data:
                self.link.received(event.data)

    def _named(self, reference: bytes) -> None:
        if self._there is not None:
            return
        text = reference.strip().decode("latin-1")
        try:
            self._there = self._address.at(text)
        except ValueError as e:
            self._lose(f"it wants messages at {self._address.named(text)}, which is not used: {e}")
            return
        self._upstream.understood = True
        self._stop_timer()
        self._release()

    def end(self) -> None:
        self._lose("it closed the event stream")

    def failed(self, why: str) -> None:
        self._lose(why)

    def _lose(self, why: str) -> None:
        if not self._closed:
            self.close()
            self.link.lost(why)

    # --- what we say

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        """POST ``raw``. What follows ``notifications/initialized`` waits until the server has taken that."""
        if exchange is not None:
            # More than the response may come.
            exchange.streamed = True
        if self._closed:
            return
        if self._held is not None:
            self._size += len(raw)
            if self._size > self._upstream.max_bytes:
                self._lose("it takes no messages, and too many wait for it")
            else:
                self._held.append((raw, number, exchange))
            return
        if len(self._posts) >= MAX_POSTS:
            self._lose("it does not answer what is posted to it")
            return
        assert self._there is not None
        posted = Posted(self, number, opening=number is None and b'"notifications/initialized"' in raw)
        self._posts.add(posted)
        if posted.opening:
            self._held = []
        transfer = self._post(raw, posted)
        if posted in self._posts:
            posted.transfer = transfer

    def _post(self, raw: bytes, receiver: Receiver) -> Transfer:
        assert self._there is not None
        lines = b"Content-Type: application/json\r\n"
        if self.link.version is not None:
            lines += b"MCP-Protocol-Version: %b\r\n" % self.link.version.encode("latin-1", "replace")
        return follow(self._upstream.pool, self._there, lambda there: there.request(b"POST", lines, raw), receiver)

    def taken(self, posted: Posted) -> None:
        """The server has answered a POST, or will not."""
        self._posts.discard(posted)
        if posted.opening and not self._closed:
            self._release()

    def _release(self) -> None:
        held, self._held, self._size = self._held or [], None, 0
        for raw, number, exchange in held:
            self.send(raw, number, exchange)

    def explain(self, status: int, target: str) -> str:
        """Why the server did not take a message."""
        if 300 <= status < 400:
            return elsewhere(self._there or self._address, status, target)
        if status in (401, 403):
            return f"it refuses our credential ({status}); see mcpServers.{self.link.server}.headers"
        return f"it answered a message with HTTP status {status}"

    # --- the rest of a wire

    def drop(self, number: int) -> bool:
        self.resume(number)
        return False

    def pause(self, number: int) -> None:
        self._brake.pause(number)

    def resume(self, number: int) -> None:
        self._brake.resume(number)

    def _brake_stream(self, on: bool) -> None:
        if self._stream is not None:
            (self._stream.pause if on else self._stream.resume)()

    def listen(self) -> None:
        """Nothing to do: the stream carries everything."""

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._events, self._held = None, None
        self._stop_timer()
        for posted in self._posts:
            if posted.transfer is not None:
                posted.transfer.abort()
        self._posts.clear()
        if self._stream is not None:
            self._stream.abort()


class Posted(Nobody):
    """Takes the answer to one POST: the server has the message, or not. Its content comes on the stream."""

    _log: Final = Logger()

    def __init__(self, wire: EventsWire, number: int | None, *, opening: bool) -> None:
        self._wire: Final = wire
        self._number: Final = number
        self._status = 0
        self._target = ""
        self.opening: Final = opening
        self.transfer: Transfer | None = None

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._target = location(headers)

    def end(self) -> None:
        if self._status < 300:
            self._wire.taken(self)
        else:
            self.failed(self._wire.explain(self._status, self._target))

    def failed(self, why: str) -> None:
        if self._number is not None:
            self._wire.link.failed(self._number, why)
        else:
            self._log.debug("server {server} got no notification: {why}", server=self._wire.link.server, why=why)
        self._wire.taken(self)
