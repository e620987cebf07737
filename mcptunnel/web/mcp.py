"""Streamable HTTP, downstream: the resource at ``/mcp`` and ``/servers/NAME/mcp``, for clients of both eras.

It reads requests and hands them to the relay; :mod:`mcptunnel.web.replies` answers them.
"""

from __future__ import annotations

from typing import Final

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mcptunnel.core.batch import BATCH_VERSION, decode_batch
from mcptunnel.core.errors import INVALID_REQUEST, RequestError, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, decode, error_reply
from mcptunnel.core.mcp import LEGACY_VERSIONS, check_headers, check_legacy_version, era_of_request
from mcptunnel.core.principal import reaches
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.session import Session
from mcptunnel.web.batch import Batch
from mcptunnel.web.replies import JSON, SSE, Post, Reply, Standing, Streams, replay
from mcptunnel.web.request import Request

__all__ = ["McpResource", "accepts"]


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
            request.respond(e.status, JSON, error_reply(e, None), e.headers)
        return NOT_DONE_YET

    def _post(self, request: Request) -> None:
        _check_types(request)
        try:
            message = decode(request.body)
        except RpcError:
            if not self._batch(request):
                raise
            return
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
            request.respond(e.status if e.status != 200 else 400, JSON, error_reply(e, message.id_raw), e.headers)

    def _batch(self, request: Request) -> bool:
        """Serve the body as a batch; False when it is none, or the session is not of the revision that has them."""
        if request.body.lstrip(b" \t\n\r")[:1] != b"[" or request.header(b"mcp-session-id") is None:
            return False
        lines = request.headers_named(b"mcp-protocol-version")
        if lines not in ([], [BATCH_VERSION.encode()]):
            return False
        session = self._session(request)
        if session.version != BATCH_VERSION:
            return False
        messages = decode_batch(request.body)
        for message in messages:
            era_of_request(request.headers_named, message)
        request.record.era = "legacy"
        Batch(request, self._streams, session).serve(messages)
        return True

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
            self._begin(request, message, self._relay.open(request.principal, self._target, message.raw))
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
        extra: tuple[tuple[bytes, bytes], ...] | None = None,
    ) -> None:
        reply = Reply(request, self._streams, session)
        exchange = Exchange(
            message=message,
            principal=request.principal,
            era="modern" if session is None else "legacy",
            sink=reply,
            record=request.record,
            params_headers=extra,
        )
        reply.take(exchange)
        if session is None:
            self._relay.stateless(exchange, self._target)
        else:
            session.request(exchange)
            reply.begin_soon()

    def _session(self, request: Request) -> Session:
        id_ = request.header(b"mcp-session-id")
        if id_ is None:
            raise RpcError(
                INVALID_REQUEST, "Mcp-Session-Id is missing: initialize first", reason="no_session", status=400
            )
        version = request.header(b"mcp-protocol-version")
        known = None if version is None else version.decode("latin-1")
        return self._relay.find(
            id_.decode("latin-1"), request.principal, self._target, known if known in LEGACY_VERSIONS else None
        )

    def _get(self, request: Request) -> None:
        request.record.era = era = era_of_request(request.headers_named, None)
        if era == "modern":
            raise _not_allowed(b"POST")
        if not accepts(request, (SSE,)):
            raise RpcError(
                INVALID_REQUEST, "GET here needs Accept: text/event-stream", reason="not_acceptable", status=406
            )
        check_legacy_version(request.headers_named)
        session = self._session(request)
        last = request.header(b"last-event-id")
        if last is not None:
            self._resume(request, session, last)
            return
        if session.attached:
            raise RpcError(INVALID_REQUEST, "the session has a stream already", reason="second_stream", status=409)
        standing = Standing(request, self._streams, session)
        standing.start()
        session.attach(standing)

    def _resume(self, request: Request, session: Session, last: bytes) -> None:
        """Go on where a connection broke; that one, if it is still open, ends (MCP, Transports, "Resumability")."""
        found = session.replay.find(last)
        if found is None:
            # Not 404, which would end the session for the client; not an empty stream, which it would ask for again.
            raise RpcError(INVALID_REQUEST, "Last-Event-ID: no such event", reason="unknown_event", status=400)
        trail, past = found
        if trail is session.replay.standing:
            standing = Standing(request, self._streams, session)
            standing.start(past)
            session.attach(standing)
        elif isinstance(trail.holder, Post):
            trail.holder.resume(request, past)
        else:
            replay(request, past)

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
    if kind != JSON:
        raise RpcError(INVALID_REQUEST, "expected Content-Type: application/json", reason="media_type", status=415)
    if not accepts(request, (JSON, SSE)):
        raise RpcError(
            INVALID_REQUEST,
            "expected Accept: application/json, text/event-stream",
            reason="not_acceptable",
            status=406,
        )


def accepts(request: Request, wanted: tuple[bytes, ...]) -> bool:
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
