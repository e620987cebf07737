"""What answers MCP over HTTP: the reply to one POST, the standing stream of one GET, and what keeps both alive.

A reply starts as nothing. When the response is the first thing there is, it goes out as one body with the status that
belongs to it: JSON, or in a session an event stream when the server's answer was one. When a message comes before it,
or fifteen seconds pass, an event stream begins. In a session its events have ids, and it outlives its connection: a
client that comes back with ``Last-Event-ID`` gets the rest of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from mcptunnel.core import sse
from mcptunnel.core.errors import RpcError, modern_status
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.replay import Trail
from mcptunnel.core.session import BACKLOG, Session
from mcptunnel.web.request import Request

__all__ = [
    "JSON",
    "KEEPALIVE_SECONDS",
    "SSE",
    "STREAM_HEADERS",
    "Past",
    "Post",
    "Reply",
    "Standing",
    "Streams",
    "replay",
]

# Id and data of events.
Past = Sequence[tuple[bytes, bytes]]

# Below the shortest idle limit of common proxies (30 s), and what the official SDK does.
KEEPALIVE_SECONDS: Final = 15.0

# From a request until its event stream begins with nothing to say. A proxy that uses Go's client (Traefik, Caddy) may
# not have noticed that it has sent the whole request; a head that comes before makes it close the connection.
BEGIN_SECONDS: Final = 0.1

JSON: Final = b"application/json"
SSE: Final = b"text/event-stream"
STREAM_HEADERS: Final = (
    # nginx buffers what does not say this; `no-transform` keeps compressors away, which buffer too.
    (b"X-Accel-Buffering", b"no"),
    (b"Cache-Control", b"no-store, no-transform"),
)


class _Quiet(Protocol):
    touched: float

    def keep_alive(self) -> None:
        """Fifteen seconds have passed without a byte."""


class Streams:
    """Every reply that waits or streams, so that one sweep keeps them all alive.

    Args:
        clock: Seconds, monotonic.
        later: Calls a function after some seconds.
    """

    def __init__(self, clock: Callable[[], float], later: Callable[[float, Callable[[], None]], object]) -> None:
        self.clock: Final = clock
        self._later: Final = later
        self._open: Final[set[_Quiet]] = set()
        # What is to begin, and when; one timer for all of it.
        self._beginning: Final[deque[tuple[float, Reply]]] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: _Quiet) -> None:
        """Keep ``stream`` alive from now on."""
        stream.touched = self.clock()
        self._open.add(stream)

    def discard(self, stream: _Quiet) -> None:
        """``stream`` has ended."""
        self._open.discard(stream)

    def begin(self, reply: Reply) -> None:
        """Let ``reply`` begin soon, if it has not ended by then."""
        self._beginning.append((self.clock() + BEGIN_SECONDS, reply))
        if len(self._beginning) == 1:
            self._later(BEGIN_SECONDS, self._begin)

    def _begin(self) -> None:
        now = self.clock()
        while self._beginning and self._beginning[0][0] <= now:
            self._beginning.popleft()[1].show_life()
        if self._beginning:
            self._later(max(0.0, self._beginning[0][0] - now), self._begin)

    def sweep(self) -> None:
        """Called about once a second."""
        due = self.clock() - KEEPALIVE_SECONDS
        for stream in [s for s in self._open if s.touched <= due]:
            stream.keep_alive()


def _events(past: Past) -> bytes:
    return b"".join([sse.encode(raw, event=b"message", id_=id_) for id_, raw in past])


def _beginning(session: Session, trail: Trail, past: Past) -> bytes:
    """The first bytes of a stream. The place comes last: whoever has read it has read ``past``."""
    return _events(past) + (trail.prime() if session.primes else sse.COMMENT)


def replay(request: Request, past: Past) -> None:
    """Answer a GET with what is kept of a stream that is over."""
    request.respond(200, SSE, _events(past), STREAM_HEADERS)


@implementer(IPushProducer)
class Post:
    """What answers one POST: its event stream, if it becomes one, and the brake on the work when the client is slow.

    Attributes:
        exchanges: The requests that it answers.
    """

    def __init__(self, request: Request, streams: Streams, session: Session | None) -> None:
        self.touched = 0.0
        self.exchanges: Final[list[Exchange]] = []
        self._request = request
        self._streams: Final = streams
        self._session: Final = session
        self._streaming = False
        self._lost = False
        # Where events are kept for a client that may come back.
        self._trail: Trail | None = None
        request.on_lost = self._gone
        streams.add(self)

    def resume(self, request: Request, past: Past) -> None:
        """Go on with the stream in the reply to ``request``, a GET that asked for what follows ``past``."""
        if not self._lost:
            # The client has given that connection up; nobody has told us.
            earlier = self._request
            earlier.on_lost = None
            _finish(earlier)
        self.resumeProducing()
        self._request, self._lost = request, False
        request.on_lost = self._gone
        self._streams.add(self)
        self._open()
        if self._session is not None and self._trail is not None:
            self._write(_beginning(self._session, self._trail, past))

    # --- what the kinds of reply have in common

    def _say(self, raw: bytes) -> None:
        """One more message on the event stream."""
        if self._lost and self._trail is None:
            # The client can still read it on its standing stream.
            if self._session is not None:
                self._session.say(raw)
            return
        lead = self._begin()
        id_ = None if self._trail is None else self._trail.add(raw)
        if not self._lost:
            self._write(lead + sse.encode(raw, event=b"message", id_=id_))

    def _begin(self) -> bytes:
        """Begin the event stream, if it has not begun; returns what goes first on it, often nothing."""
        if self._streaming:
            return b""
        self._streaming = True
        self._open()
        session = self._session
        if session is None:
            return b""
        self._trail = session.replay.begin(self)
        return self._trail.prime() if session.primes else b""

    def _open(self) -> None:
        self._request.start_stream(200, SSE, STREAM_HEADERS)
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        """The event stream is complete."""
        if self._trail is not None:
            self._trail.end()
        if not self._lost:
            _finish(self._request)

    def _write(self, data: bytes) -> None:
        self.touched = self._streams.clock()
        self._request.write(data)

    # --- keeping alive

    def keep_alive(self) -> None:
        """Fifteen seconds have passed without a byte."""
        self._write(self._begin() or sse.COMMENT)

    # --- backpressure

    def pauseProducing(self) -> None:
        for exchange in self.exchanges:
            exchange.pause()

    def resumeProducing(self) -> None:
        for exchange in self.exchanges:
            exchange.resume()

    def stopProducing(self) -> None:
        self.pauseProducing()

    def _gone(self) -> None:
        self._lost = True
        self._streams.discard(self)
        self.resumeProducing()


class Reply(Post):
    """The reply to one request; the sink of its exchange."""

    def take(self, exchange: Exchange) -> None:
        """Answer ``exchange``."""
        self.exchanges.append(exchange)
        if self._session is not None and not self._opening():
            exchange.on_stream = self._server_streams
            exchange.on_break = self._break_off

    # --- Sink

    def message(self, raw: bytes) -> None:
        self._say(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._streams.discard(self)
        session, request = self._session, self._request
        headers: list[tuple[bytes, bytes]] = []
        if session is not None and self._opening():
            if code is None:
                headers.append((b"Mcp-Session-Id", session.id.encode("ascii")))
                session.agree(raw)
            else:
                session.close()
        if self._streaming:
            self._say(raw)
            self._end()
            return
        if self._lost:
            return
        if error is not None:
            headers.extend(error.headers)
            status = error.legacy_status if session is not None else error.status
        elif session is None:
            status = 200 if code is None else modern_status(code)
        elif self.exchanges[0].streamed and not self._opening():
            # As the server has it. One event, so it needs no id: whoever has read that has read everything.
            request.respond(200, SSE, sse.encode(raw, event=b"message"), STREAM_HEADERS)
            return
        else:
            status = 200
        request.respond(status, JSON, raw, headers)

    def cancelled(self) -> None:
        """End the reply without a response: nobody waits for one (MCP, Cancellation, "Behavior Requirements")."""
        self._streams.discard(self)
        if not self._lost:
            self._begin()
        if self._trail is not None:
            # A client that came back for more would come back for ever.
            self._trail.forget()
        self._end()

    def _opening(self) -> bool:
        return self.exchanges[0].message.method == "initialize"

    def begin_soon(self) -> None:
        """Begin the event stream of a call that may last, so that a client whose connection breaks can come back."""
        exchange, session = self.exchanges[0], self._session
        if exchange.streamed and not exchange.done and session is not None and session.primes and not self._opening():
            self._streams.begin(self)

    def _server_streams(self) -> None:
        """The server's own stream lives, and the response is not there yet."""
        if not self._streaming:
            self._streams.begin(self)

    def show_life(self) -> None:
        """Begin the event stream, if the reply is not over or begun."""
        if not self._lost and not self._streaming and not self.exchanges[0].done:
            self.keep_alive()

    def _break_off(self) -> None:
        """As the server does: a client that was given the place comes back for the rest (2025-11-25, "polling")."""
        if self._session is not None and self._session.primes and not self._lost:
            self.show_life()
            self._request.on_lost = None
            _finish(self._request)
            super()._gone()

    def keep_alive(self) -> None:
        if self._opening() and not self._streaming:
            # The session id can only travel in the head, and only once there is a result.
            self.touched = self._streams.clock()
            return
        super().keep_alive()

    def _gone(self) -> None:
        super()._gone()
        exchange = self.exchanges[0]
        if self._session is None:
            # MCP 2026-07-28, Cancellation: closing the stream cancels. In the legacy era it does not.
            exchange.abandon(b'"the client closed the stream"')
            exchange.record.error = "client_closed"
        elif self._opening():
            # It will never learn the id of this session.
            self._session.close()


def _finish(request: Request) -> None:
    request.unregisterProducer()  # type: ignore[no-untyped-call]
    request.finish()


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

    def start(self, past: Past = ()) -> None:
        """Send the head and a first byte at once: proxies and clients withhold a head without one.

        Args:
            past: What the client has missed on an earlier connection.
        """
        request = self._request
        request.on_lost = self._gone
        request.start_stream(200, SSE, STREAM_HEADERS)
        request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        request.write(_beginning(self._session, self._session.replay.standing, past))
        self._streams.add(self)

    def message(self, raw: bytes) -> None:
        if self._paused:
            self._waiting.append(raw)
        else:
            self.touched = self._streams.clock()
            id_ = self._session.replay.standing.add(raw)
            self._request.write(sse.encode(raw, event=b"message", id_=id_))

    def end(self) -> None:
        """The session has ended, or the client has opened another stream."""
        self._streams.discard(self)
        self._request.on_lost = None
        self._request.write(b": this stream has ended\n\n")
        _finish(self._request)
        self._hand_back()

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
        self._hand_back()

    def _hand_back(self) -> None:
        """What the client was too slow for is for whoever listens next."""
        while self._waiting:
            self._session.say(self._waiting.popleft())
