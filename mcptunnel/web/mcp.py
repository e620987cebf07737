"""Streamable HTTP, downstream: the resource at ``/mcp`` and ``/servers/NAME/mcp``, for clients of both eras.

A reply starts as nothing. When the response is the first thing there is, it goes out as one JSON body with the status
that belongs to it; when a message comes before it, or fifteen seconds pass, an event stream begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from mcptunnel.core import sse
from mcptunnel.core.errors import INVALID_REQUEST, RequestError, RpcError, modern_status
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, decode, error_reply
from mcptunnel.core.mcp import check_headers, check_legacy_version, era_of_request
from mcptunnel.core.principal import reaches
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.session import BACKLOG, Session
from mcptunnel.web.request import Request

__all__ = ["KEEPALIVE_SECONDS", "McpResource", "Streams"]

# Below the shortest idle limit of common proxies (30 s), and what the official SDK does.
KEEPALIVE_SECONDS: Final = 15.0

_JSON: Final = b"application/json"
_SSE: Final = b"text/event-stream"
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
class _Reply:
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
        request.respond(status, _JSON, raw, headers)

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
            self._request.start_stream(200, _SSE, _STREAM_HEADERS)
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
            else:
                self.exchange.resume()


@implementer(IPushProducer)
class _Standing:
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
        request.start_stream(200, _SSE, _STREAM_HEADERS)
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


class McpResource(Resource):
    """One MCP address.

    Args:
        relay: Where requests go.
        target: What this address shows.
        streams: Keeps replies alive.
    """

    isLeaf = True

    def __init__(self, relay: Relay, target: Target, streams: Streams) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._relay: Final = relay
        self._target: Final = target
        self._streams: Final = streams

    def render(self, request: Request) -> int:
        """Serve POST, GET and DELETE; nothing here ever redirects."""
        method = request.method
        if not any(reaches(request.principal, server) for server in self._target.servers or ("",)):
            raise RequestError(404, "not_found", "There is nothing at this address.")
        try:
            if method == b"POST":
                self._post(request)
            elif method == b"GET":
                self._get(request)
            elif method == b"DELETE":
                self._delete(request)
            else:
                raise _not_allowed(b"GET, POST, DELETE")
        except RpcError as e:
            request.record.error = e.reason
            request.record.code = e.code
            request.respond(e.status, _JSON, error_reply(e, None), e.headers)
        return NOT_DONE_YET

    def _post(self, request: Request) -> None:
        _check_types(request)
        message = decode(request.body)
        record = request.record
        record.method = message.method
        try:
            record.era = era = era_of_request(request.headers_named, message)
            if era == "modern":
                self._modern(request, message)
            else:
                self._legacy(request, message)
        except RpcError as e:
            # From here on the id is known, and the client waits for an answer that carries it.
            record.error, record.code = e.reason, e.code
            request.respond(e.status if e.status != 200 else 400, _JSON, error_reply(e, message.id_raw), e.headers)

    def _modern(self, request: Request, message: Message) -> None:
        check_headers(message, request.headers_named)
        if message.kind == "notification":
            # A client's cancellation is closing the stream; a bare id must not reach another client's work.
            request.respond(202, None, b"")
            return
        extra = tuple((name, value) for name, value in request.lines if name.startswith(b"mcp-param-"))
        self._begin(request, message, None, extra)

    def _legacy(self, request: Request, message: Message) -> None:
        check_legacy_version(request.headers_named)
        if message.kind == "request" and message.method == "initialize":
            self._begin(request, message, self._relay.open(request.principal, self._target))
            return
        session = self._session(request)
        if message.kind == "request":
            self._begin(request, message, session)
            return
        if message.kind == "notification":
            session.notification(message)
        else:
            session.response(message)
        request.respond(202, None, b"")

    def _begin(
        self,
        request: Request,
        message: Message,
        session: Session | None,
        extra: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        reply = _Reply(request, self._streams, session)
        exchange = Exchange(
            message=message,
            principal=request.principal,
            era="modern" if session is None else "legacy",
            sink=reply,
            record=request.record,
            params_headers=extra,
        )
        reply.exchange = exchange
        self._streams.add(reply)
        if session is None:
            self._relay.stateless(exchange, self._target)
        else:
            session.request(exchange)

    def _session(self, request: Request) -> Session:
        id_ = request.header(b"mcp-session-id")
        if id_ is None:
            raise RpcError(
                INVALID_REQUEST, "Mcp-Session-Id is missing: initialize first", reason="no_session", status=400
            )
        return self._relay.find(id_.decode("latin-1"), request.principal, self._target)

    def _get(self, request: Request) -> None:
        request.record.era = era = era_of_request(request.headers_named, None)
        if era == "modern":
            raise _not_allowed(b"POST")
        if not _accepts(request, (_SSE,)):
            raise RpcError(
                INVALID_REQUEST, "GET here needs Accept: text/event-stream", reason="not_acceptable", status=406
            )
        check_legacy_version(request.headers_named)
        session = self._session(request)
        if session.attached:
            raise RpcError(INVALID_REQUEST, "the session has a stream already", reason="second_stream", status=409)
        standing = _Standing(request, self._streams, session)
        standing.start()
        session.attach(standing)

    def _delete(self, request: Request) -> None:
        request.record.era = era = era_of_request(request.headers_named, None)
        if era == "modern":
            raise _not_allowed(b"POST")
        self._session(request).close()
        request.respond(200, None, b"")


def _not_allowed(allow: bytes) -> RequestError:
    return RequestError(
        405, "method_not_allowed", f"Only {allow.decode('ascii')} can be served here.", ((b"Allow", allow),)
    )


def _check_types(request: Request) -> None:
    """MCP, Transports, "Sending Messages": what the client sends and what it must be ready to take."""
    kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != _JSON:
        raise RpcError(INVALID_REQUEST, "expected Content-Type: application/json", reason="media_type", status=415)
    if not _accepts(request, (_JSON, _SSE)):
        raise RpcError(
            INVALID_REQUEST,
            "expected Accept: application/json, text/event-stream",
            reason="not_acceptable",
            status=406,
        )


def _accepts(request: Request, wanted: tuple[bytes, ...]) -> bool:
    """Whether ``Accept`` (RFC 9110 §12.5.1) admits every one of ``wanted``; absent admits everything."""
    lines = request.headers_named(b"accept")
    if not lines:
        return True
    value = b",".join(lines).lower()
    # What every MCP client sends, without looking closer.
    if b"q=0" not in value and all(kind in value for kind in wanted):
        return True
    ranges = set()
    for part in value.split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        if not any(p.startswith(b"q=") and not p[2:].strip(b"0.") for p in parameters):
            ranges.add(kind)
    return all(kind in ranges or b"*/*" in ranges or kind.partition(b"/")[0] + b"/*" in ranges for kind in wanted)
