"""What takes the answers of an MCP server over Streamable HTTP: to a call, to a notification, on the standing stream.

Made by the wire in :mod:`mcptunnel.upstream.streamable`; each is a :class:`~mcptunnel.upstream.client.Receiver`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mcptunnel.core import sse
from mcptunnel.core.errors import UPSTREAM_UNAVAILABLE, UpstreamError
from mcptunnel.core.jsonrpc import decode, loads
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.client import Transfer
from mcptunnel.upstream.redirects import location

if TYPE_CHECKING:
    from mcptunnel.upstream.streamable import HttpWire

__all__ = ["LISTEN_BACKOFF", "Answer", "Nobody", "Standing", "Told", "elsewhere"]

# MCP, Session Management: visible ASCII only.
_SESSION_ID: Final = re.compile(rb"[\x21-\x7e]{1,1024}")
# Waits between attempts to open the standing stream again.
LISTEN_BACKOFF: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
# Until we ask for the rest of a stream that a server has ended early: what it says, within bounds, or this.
RETURN_SECONDS: Final = 1.0
_RETURN_BOUNDS: Final = (0.1, 30.0)
# Returns in a row that brought no event at all, not even one without data: then nothing will come.
RETURNS: Final = 3
# A session that is gone, in the words of the official SDKs.
_EXCUSES: Final = (-32600, -32001, -32000)
_NO_SESSION: Final = re.compile(r"(?:Bad Request: )?(?:Session not found|Session terminated|No valid session)", re.I)
_LONGEST_EXCUSE: Final = 1000
# MCP 2025-11-25, "Backwards compatibility": what an HTTP+SSE server answers to a POST at the address of its stream.
_NOT_UNDERSTOOD: Final = (400, 404, 405)
# An event id goes into a header of the next request.
_EVENT_ID: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?")


class Answer:
    """Takes the answer to one call."""

    def __init__(self, wire: HttpWire, number: int) -> None:
        self._wire: Final = wire
        self._number: Final = number
        self._status = 0
        self._location = ""
        self._body: list[bytes] = []
        self._size = 0
        self._events: sse.Decoder | None = None
        self._json = False
        self._last: bytes | None = None
        self._retry = RETURN_SECONDS
        self._in_vain = 0
        # Under which it was sent.
        self._session: Final = wire.session

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._events = None
        self._location = location(headers)
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
        transfer = self._wire.transfer_of(self._number)
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
        elif self._session is not None and _forgotten(status, body):
            if self._last is None:
                self._wire.lost_session(self._session, number)
            else:
                # Some of it has been delivered before the stream broke: it must not be done twice.
                link.failed(number, "it has forgotten the session in the middle of the call (404)")
        elif 300 <= status < 400:
            link.failed(number, elsewhere(self._wire.upstream.address, status, self._location))
        elif self._json and (status == 200 or _is_rpc_error(body)):
            link.received(body, number)
            if status != 200 and number in link.calls:
                # Servers of the SDK from before 2026-07-28 refuse a request with an error under an id of their own
                # making, "server-error"; the status says that it is about this request.
                link.received(decode(body).with_id(b"%d" % number), number)
            if number in link.calls:
                link.failed(number, "it answered with a message that is no response to the request")
        elif status in _NOT_UNDERSTOOD and self._wire.otherwise is not None and self._wire.otherwise(number):
            # Asked again, in an older way.
            return
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


def elsewhere(address: Address, status: int, target: str) -> str:
    """What to say of a redirect that is not followed."""
    where = f" to {address.named(target)}" if target else ""
    return f"it redirects ({status}){where}, which is not followed; give its final address as url"


def _is_rpc_error(body: bytes) -> bool:
    return _rpc_error(body) is not None


def _rpc_error(body: bytes) -> dict[str, Any] | None:
    try:
        value = loads(body)
    except ValueError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else None


def _forgotten(status: int, body: bytes) -> bool:
    """Whether a server says that it has no such session: 404 (MCP 2025-03-26, Session Management), or what the official
    SDKs have said in its place.
    """
    if status == 404:
        return True
    if status not in (200, 400):
        return False
    error = _rpc_error(body) if len(body) < _LONGEST_EXCUSE else None
    return error is not None and error.get("code") in _EXCUSES and bool(_NO_SESSION.match(str(error.get("message"))))


class Nobody:
    """Takes an answer that nobody waits for."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        pass

    def data(self, chunk: bytes) -> None:
        pass

    def end(self) -> None:
        pass

    def failed(self, why: str) -> None:
        pass


class Told(Nobody):
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


class Standing(Nobody):
    """The standing GET stream, opened again when it ends, unless the server has none (405)."""

    def __init__(self, wire: HttpWire, lines: bytes) -> None:
        self._wire: Final = wire
        self._lines: Final = lines
        self._attempt = 0
        self._later: IDelayedCall | None = None
        self._events: sse.Decoder | None = None
        self._stopped = False
        self._session: Final = wire.session
        self._transfer = wire.upstream.get(lines, self)

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if status == 200 and any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers):
            self._attempt = 0
            self._events = sse.Decoder(self._wire.upstream.max_bytes)
        elif 400 <= status < 500:
            self._stopped = True
            if status == 404 and self._session is not None:
                self._wire.lost_session(self._session, None)

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
