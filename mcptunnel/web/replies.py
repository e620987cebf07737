"""What answers MCP over HTTP: the reply to one POST, the standing stream of one GET, and what keeps both alive.

A reply starts as nothing. When the response is the first thing there is, it goes out as one JSON body with the status
that belongs to it; when a message comes before it, or fifteen seconds pass, an event stream begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from mcptunnel.core import sse
from mcptunnel.core.errors import RpcError, modern_status
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.session import BACKLOG, Session
from mcptunnel.web.request import Request

__all__ = ["JSON", "KEEPALIVE_SECONDS", "SSE", "Reply", "Standing", "Streams"]

# Below the shortest idle limit of common proxies (30 s), and what the official SDK does.
KEEPALIVE_SECONDS: Final = 15.0

JSON: Final = b"application/json"
SSE: Final = b"text/event-stream"
_STREAM_HEADERS: Final = (
    # nginx buffers what does not say this; `no-transform` keeps compressors away, which buffer too.
    (b"X-Accel-Buffering", b"no"),
    (b"Cache-Control", b"no-cache, no-transform"),
)


class _Quiet(Protocol):
    touched: float

    def keep_alive(self) -> None:
        """Fifteen seconds have passed without a byte."""


class Streams:
    """Every reply that waits or streams, so that one sweep keeps them all alive.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock: Final = clock
        self._open: Final[set[_Quiet]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: _Quiet) -> None:
        """Keep ``stream`` alive from now on."""
        stream.touched = self.clock()
        self._open.add(stream)

    def discard(self, stream: _Quiet) -> None:
        """``stream`` has ended."""
        self._open.discard(stream)

    def sweep(self) -> None:
        """Called about once a second."""
        due = self.clock() - KEEPALIVE_SECONDS
        for stream in [s for s in self._open if s.touched <= due]:
            stream.keep_alive()


@implementer(IPushProducer)
class Reply:
    """The reply to one POST; the sink of its exchange, and the brake on it when the client reads slowly."""

    def __init__(self, request: Request, streams: Streams, session: Session | None) -> None:
        self.touched = 0.0
        self.exchange: Exchange | None = None
        self._request: Final = request
        self._streams: Final = streams
        self._session: Final = session
        self._streaming = False
        self._lost = False
        request.on_lost = self._gone

    # --- Sink

    def message(self, raw: bytes) -> None:
        if self._lost:
            # The client may still read it on its standing stream.
            if self._session is not None:
                self._session.say(raw)
            return
        self._stream()
        self._write(sse.encode(raw, event=b"message"))

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._streams.discard(self)
        session, request = self._session, self._request
        headers: list[tuple[bytes, bytes]] = []
        if session is not None and self._opening():
            if code is None:
                headers.append((b"Mcp-Session-Id", session.id.encode("ascii")))
            else:
                session.close()
        if self._lost:
            return
        if self._streaming:
            request.write(sse.encode(raw, event=b"message"))
            request.unregisterProducer()  # type: ignore[no-untyped-call]
            request.finish()
            return
        if error is not None:
            headers.extend(error.headers)
            status = error.legacy_status if session is not None else error.status
        else:
            status = 200 if code is None or session is not None else modern_status(code)
        request.respond(status, JSON, raw, headers)

    def cancelled(self) -> None:
        """End the reply without a response: nobody waits for one (MCP, Cancellation, "Behavior Requirements")."""
        self._streams.discard(self)
        if not self._lost:
            self._stream()
            self._request.unregisterProducer()  # type: ignore[no-untyped-call]
            self._request.finish()

    def _opening(self) -> bool:
        return self.exchange is not None and self.exchange.message.method == "initialize"

    # --- keeping alive

    def keep_alive(self) -> None:
        if self._opening() and not self._streaming:
            # The session id can only travel in the head, and only once there is a result.
            self.touched = self._streams.clock()
            return
        self._stream()
        self._write(sse.COMMENT)

    def _stream(self) -> None:
        if not self._streaming:
            self._streaming = True
            self._request.start_stream(200, SSE, _STREAM_HEADERS)
            self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]

    def _write(self, data: bytes) -> None:
        self.touched = self._streams.clock()
        self._request.write(data)

    # --- backpressure

    def pauseProducing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause()

    def resumeProducing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume()

    def stopProducing(self) -> None:
        self.pauseProducing()

    def _gone(self) -> None:
        self._lost = True
        self._streams.discard(self)
        if self.exchange is not None:
            if self._session is None:
                # MCP 2026-07-28, Cancellation: closing the stream cancels. In the legacy era it does not.
                self.exchange.abandon(b'"the client closed the stream"')
                self.exchange.record.error = "client_closed"
            elif self._opening():
                # It will never learn the id of this session.
                self._session.close()
            else:
                self.exchange.resume()


@implementer(IPushProducer)
class Standing:
    """The reply to a GET: messages of a session that belong to no request."""

    def __init__(self, request: Request, streams: Streams, session: Session) -> None:
        self.touched = 0.0
        self._request: Final = request
        self._streams: Final = streams
        self._session: Final = session
        self._paused = False
        # While the client reads slowly the oldest message makes room: none of these is a response.
        self._waiting: Final[deque[bytes]] = deque(maxlen=BACKLOG)

    def start(self) -> None:
        """Send the head and a first byte at once: proxies and clients withhold a head without one."""
        request = self._request
        request.on_lost = self._gone
        request.start_stream(200, SSE, _STREAM_HEADERS)
        request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        request.write(sse.COMMENT)
        self._streams.add(self)

    def message(self, raw: bytes) -> None:
        if self._paused:
            self._waiting.append(raw)
        else:
            self.touched = self._streams.clock()
            self._request.write(sse.encode(raw, event=b"message"))

    def end(self) -> None:
        """The session has ended."""
        self._streams.discard(self)
        self._request.on_lost = None
        self._request.write(b": the session has ended\n\n")
        self._request.unregisterProducer()  # type: ignore[no-untyped-call]
        self._request.finish()

    def keep_alive(self) -> None:
        self.touched = self._streams.clock()
        if not self._paused:
            self._request.write(sse.COMMENT)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._waiting and not self._paused:
            self.message(self._waiting.popleft())

    def stopProducing(self) -> None:
        self._paused = True

    def _gone(self) -> None:
        self._streams.discard(self)
        self._session.detach(self)
