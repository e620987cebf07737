"""HTTP+SSE, the transport of MCP 2024-11-05, downstream: a client hears at ``…/sse`` and speaks to ``…/messages``.

A GET opens the stream. Its first event, ``endpoint``, is the address to which the client posts its messages; each is
answered with 202, and what there is to say to it comes on the stream. The stream is the session: when it ends, so does
everything that is in progress. Messages of the modern era pass here too, as on WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from mcptunnel.core import sse
from mcptunnel.core.conversation import Conversation
from mcptunnel.core.errors import INVALID_REQUEST, SESSION_NOT_FOUND, RequestError, RpcError
from mcptunnel.core.jsonrpc import Message, decode, error_reply
from mcptunnel.core.principal import Principal, reaches
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.web.mcp import accepts
from mcptunnel.web.replies import JSON, SSE, STREAM_HEADERS, Streams
from mcptunnel.web.request import Request

__all__ = ["MessagesResource", "SseResource"]

_ID: Final = b"session_id="


@implementer(IPushProducer)
class _Stream:
    """The stream of one client: the line of its conversation, and the brake on it."""

    _log = Logger()

    def __init__(
        self, request: Request, relay: Relay, target: Target, streams: Streams, on_end: Callable[[], None]
    ) -> None:
        self.touched = 0.0
        self.principal: Final[Principal] = request.principal
        self._request: Final = request
        self._relay: Final = relay
        self._streams: Final = streams
        self._on_end: Final = on_end
        self._conversation: Final = Conversation(self, relay, target, request.principal, request.site.report)
        self._paused = False
        self._over = False

    def start(self, endpoint: str) -> None:
        """Send the head and the first event at once."""
        request = self._request
        request.on_lost = self._close
        request.start_stream(200, SSE, STREAM_HEADERS)
        request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        request.write(sse.encode(endpoint.encode("ascii"), event=b"endpoint"))
        self._streams.add(self)
        self._relay.guests.add(self)

    def take(self, message: Message, record: Record) -> None:
        """A message that was posted to this stream. It has been accepted: nothing that goes wrong is raised."""
        try:
            self._conversation.take(message, record)
        except Exception:
            self._log.failure("a message that was posted could not be handled")
            self.end()

    # --- line of the conversation

    def send(self, raw: bytes) -> None:
        if not self._over:
            self.touched = self._streams.clock()
            self._request.write(sse.encode(raw, event=b"message"))

    def end(self) -> None:
        if not self._over:
            request = self._request
            request.on_lost = None
            request.write(b": the session has ended\n\n")
            request.unregisterProducer()  # type: ignore[no-untyped-call]
            self._close()
            request.finish()

    def _close(self) -> None:
        self._over = True
        self._streams.discard(self)
        self._relay.guests.discard(self)
        self._on_end()
        self._conversation.close()

    # --- keeping alive

    def keep_alive(self) -> None:
        self.touched = self._streams.clock()
        if not self._paused:
            self._request.write(sse.COMMENT)

    # --- backpressure

    def pauseProducing(self) -> None:
        self._paused = True
        self._conversation.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        self._conversation.resume()

    def stopProducing(self) -> None:
        """The connection is going down; ``on_lost`` follows."""


class SseResource(Resource):
    """What a client hears at one address.

    Args:
        relay: Where requests go.
        target: What this address shows.
        streams: Keeps streams alive.
        mint: Makes an unguessable session id of characters that need no escaping in a URI.
    """

    isLeaf = True

    def __init__(self, relay: Relay, target: Target, streams: Streams, mint: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._relay: Final = relay
        self._target: Final = target
        self._streams: Final = streams
        self._mint: Final = mint
        self._open: Final[dict[str, _Stream]] = {}

    def render(self, request: Request) -> int:
        """Open a stream.

        Raises:
            RequestError: 404, 405, 406 or 503.
        """
        _check_access(request, self._target, b"GET")
        if not accepts(request, (SSE,)):
            raise RequestError(406, "not_acceptable", "GET here needs Accept: text/event-stream.")
        if self._relay.closing:
            raise RequestError(503, "stopping", "The daemon is stopping.")
        id_ = self._mint()
        stream = _Stream(request, self._relay, self._target, self._streams, lambda: self._forget(id_))
        self._open[id_] = stream
        # Relative to the address of the GET, so that it holds under whatever name and path a proxy shows us; clients
        # refuse another origin.
        up = "../" if request.path.endswith(b"/") else ""
        stream.start(f"{up}messages?session_id={id_}")
        return NOT_DONE_YET

    def _forget(self, id_: str) -> None:
        del self._open[id_]

    def find(self, id_: str, principal: Principal) -> _Stream:
        """The stream of a session.

        Raises:
            RpcError: 404, for ids that are unknown, ended, another principal's or another address's alike.
        """
        stream = self._open.get(id_)
        if stream is None or stream.principal.name != principal.name:
            raise RpcError(
                SESSION_NOT_FOUND,
                "Session not found: open a new stream",
                reason="unknown_session",
                status=404,
            )
        return stream


class MessagesResource(Resource):
    """What a client says at one address.

    Args:
        target: What this address shows.
        sessions: What it hears.
    """

    isLeaf = True

    def __init__(self, target: Target, sessions: SseResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._target: Final = target
        self._sessions: Final = sessions

    def render(self, request: Request) -> int:
        """Take one message.

        Raises:
            RequestError: 404 or 405.
        """
        _check_access(request, self._target, b"POST")
        try:
            stream = self._session(request)
            kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
            if kind != JSON:
                raise RpcError(
                    INVALID_REQUEST, "expected Content-Type: application/json", reason="media_type", status=415
                )
            message = decode(request.body)
        except RpcError as e:
            record = request.record
            record.error, record.code = e.reason, e.code
            request.respond(e.status, JSON, error_reply(e, None), e.headers)
        else:
            request.respond(202, b"text/plain", b"Accepted")
            stream.take(message, request.record)
        return NOT_DONE_YET

    def _session(self, request: Request) -> _Stream:
        # Ids need no escaping: what is not the same bytes is not the same id.
        query = request.uri.partition(b"?")[2].split(b"&")
        ids = [pair[len(_ID) :] for pair in query if pair.startswith(_ID)]
        if len(ids) != 1:
            raise RpcError(
                INVALID_REQUEST,
                "expected one session_id: post to the address that the stream has named",
                reason="no_session",
                status=400,
            )
        return self._sessions.find(ids[0].decode("latin-1"), request.principal)


def _check_access(request: Request, target: Target, method: bytes) -> None:
    request.record.protocol = "sse"
    if not any(reaches(request.principal, server) for server in target.servers or ("",)):
        raise RequestError(404, "not_found", "There is nothing at this address.")
    if request.method != method:
        raise RequestError(
            405, "method_not_allowed", f"Only {method.decode('ascii')} can be served here.", ((b"Allow", method),)
        )
