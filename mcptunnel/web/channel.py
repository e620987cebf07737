"""One HTTP/1.1 connection of a client: bytes in, requests to resources, one at a time and in order.

The whole head is gathered and read at once, the body is bounded as it arrives, and a resource is asked when both are
complete.

Invariants: after the first byte that cannot be read nothing is read any more, and there is one answer. At most one
request is in flight. What a client sends ahead is bounded, and so is what it does not read.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING, Final

from attrs import define
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcptunnel.core.addresses import peer_address
from mcptunnel.core.errors import RequestError
from mcptunnel.core.forwarded import FORWARDING, Identity, strip
from mcptunnel.core.plaintext import Decide, PlainRequest, Redirect
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.web.body import ChunkedBody, too_large
from mcptunnel.web.connection import BODY, BUSY, CLOSING, GONE, HEAD, IDLE, MINIMUM_RATE, SKIP, Connection
from mcptunnel.web.head import CHUNKED, Head, parse_head
from mcptunnel.web.reply import Reply
from mcptunnel.web.request import Request
from mcptunnel.web.respond import respond_error

if TYPE_CHECKING:
    from mcptunnel.web.site import Site

__all__ = ["HTTPChannel"]

# Input that is kept while a request is in flight, beyond which reading pauses: enough to notice a client that leaves
# (twisted.web keeps as much), little enough that nobody parks data here.
_AHEAD_BYTES: Final = 16 * 1024
# A refused body up to this size is read and thrown away, so that the connection survives a 401 or 429.
_SKIPPED_BYTES: Final = 64 * 1024
# Longer heads are not compared with the one before.
_REMEMBERED_BYTES: Final = 2048

_TLS_RECORD: Final = 0x16
_HTTP2_PREFACE: Final = b"PRI * HTTP/2"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# Stands for the head of what could not be read.
_NO_HEAD: Final = Head(
    method=b"",
    target=b"",
    path=b"",
    version=b"HTTP/1.1",
    host=b"",
    lines=(),
    fields={},
    repeated=frozenset(),
    nominated=frozenset(),
    length=0,
    keep_alive=False,
    expects=False,
    verb="",
    text="",
)


@define(eq=False)
class _Known:
    """The latest head of a connection and what follows from it: clients send the same one over and over."""

    raw: bytes
    head: Head
    identity: Identity
    promises_https: bool


class HTTPChannel(Connection):
    """See the module; :class:`~mcptunnel.web.connection.Connection` has the transport's side.

    Args:
        refuse: Decides on every request before the site's ``admit`` does. What it refuses is answered and the
            connection closed; what it lets pass goes on as usual.
    """

    _log = Logger()

    # Whom the client's certificate stands for; set by whoever has shaken hands with it.
    certified: Principal | None = None

    def __init__(self, site: Site, refuse: Decide | None = None) -> None:
        super().__init__(site)
        self._refuse: Final = refuse
        self._pending = b""
        self._scanned = 0
        self._advancing = False
        # The client may go on sending what will not be read: close with patience.
        self._unread = False
        self._known: _Known | None = None
        self._direct: _Known | None = None
        self._request: Request | None = None
        self._decoder: ChunkedBody | None = None
        self._parts: list[bytes] = []
        self._left = 0
        # The window in which a body's rate is judged: its begin, and the bytes received in it.
        self._window = 0.0
        self._received = 0

    # -- the connection -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._phase == GONE:
            return
        self._phase = GONE
        request, self._request = self._request, None
        self._producer = None
        self._forget()
        if request is not None:
            request.record.error = request.record.error or "client_gone"
            request.connectionLost(reason)
            self._report(request.record)
        self.site.closed(self)

    def _handed_over(self) -> None:
        """What becomes of the exchange is for the new owner to say, if it said that it would."""
        request, self._request = self._request, None
        self._forget()
        if request is not None and request.record.protocol == "http":
            request.record.status = 101
            self._report(request.record)
        self.site.closed(self)

    def _report(self, record: Record) -> None:
        record.duration = self.site.seconds() - record.started
        self.site.report(record)

    def _forget(self) -> None:
        """Free what input has left behind."""
        self._known = self._direct = self._decoder = None
        self._parts = []
        self._pending = b""

    def drain(self) -> None:
        """Close if nothing has been asked; a request on its way is still answered, and closes then."""
        if self._phase == IDLE:
            self._close(linger=False)

    @property
    def busy(self) -> bool:
        """A request has been admitted and is not yet answered."""
        return self._request is not None

    # -- deadlines ----------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        super().look(now)
        if self._phase in (BODY, SKIP):
            elapsed = now - self._window
            if elapsed >= self.site.limits.body_timeout:
                if self._received < MINIMUM_RATE * elapsed:
                    self._expired()
                self._window, self._received = now, 0

    def _expired(self) -> None:
        if self._phase in (HEAD, BODY):
            # RFC 9110 §15.5.9.
            self._fail(RequestError(408, "request_timeout", "The request took too long to arrive."))
        else:
            self._close(linger=False)

    # -- input --------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._phase >= BUSY:
            if self._phase == BUSY:
                self._hold(data)
            return
        if self._pending:
            data, self._pending = self._pending + data, b""
        self._consume(data)

    def _hold(self, data: bytes) -> None:
        """Keep what a client sends ahead of the reply, and no more than that."""
        self._pending += data
        if len(self._pending) > _AHEAD_BYTES:
            self._pause_reading()

    def _consume(self, data: bytes) -> None:
        """Serve as many requests as are complete in ``data``, one after the other; keep the rest."""
        wire = self.wire
        self._advancing = True
        try:
            while data:
                phase = self._phase
                if phase == BODY:
                    data = self._read_body(data)
                elif phase == SKIP:
                    data = self._skip_body(data)
                elif phase >= BUSY or self._full is not None:
                    break
                else:
                    data = self._read_head(data)
        except RequestError as error:
            self._fail(error)
            return
        finally:
            self._advancing = False
        if data:
            if self._phase <= BUSY:
                self._hold(data)
            elif self.wire is None:
                # Sent before the upgrade was answered: nobody knows in which protocol (RFC 9110 §7.8).
                wire.abortConnection()

    def _proceed(self) -> None:
        """Go on with what was held, if there is reason to."""
        if self._advancing or self._phase >= BUSY or self._full is not None:
            return
        self._resume_reading()
        if self._pending:
            data, self._pending = self._pending, b""
            self._consume(data)

    def _fail(self, error: RequestError) -> None:
        """Framing is lost, or the client too slow: one answer, and nothing after it is read."""
        request = self._request or self._start(_NO_HEAD, _nobody(self.peer, self.tls), self.tls)
        request.persistent = False
        self._forget()
        self._phase, self._unread = BUSY, True
        respond_error(request, error)

    # -- the head -----------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> bytes:
        """Read one head at the beginning of ``data`` and begin its request; returns what is left of ``data``."""
        known = self._known
        if known is not None and data.startswith(known.raw):
            return self._begin(known, data[len(known.raw) :])
        if data[0] == _TLS_RECORD or data.startswith(_HTTP2_PREFACE):
            # Another protocol: an answer in ours would not be understood.
            self.abort()
            return b""
        # RFC 9112 §2.2: one empty line before a request is tolerated.
        start = 2 if data.startswith(b"\r\n") else 0
        end = data.find(b"\r\n\r\n", max(start, self._scanned))
        size = (end + 4 if end >= 0 else len(data)) - start
        if size > self.site.limits.header_bytes:
            raise self._head_too_large(data, start)
        if end < 0:
            self._await_head(data)
            return b""
        self._scanned = 0
        raw = data[start : end + 4]
        head = parse_head(raw, self.site.limits)
        rest = data[end + 4 :]
        try:
            known = self._identify(raw, head)
        except RequestError as error:
            return self._turn_away(self._start(head, _nobody(self.peer, self.tls), self.tls), error, rest)
        if len(raw) <= _REMEMBERED_BYTES:
            self._known = known
        return self._begin(known, rest)

    def _await_head(self, data: bytes) -> None:
        if self._phase == IDLE:
            self._phase = HEAD
            self._deadline = self.site.seconds() + self.site.limits.header_timeout
        # A head with bare line feeds never ends: say so now, not when its time is up.
        if _BARE_LF.search(data, max(0, self._scanned)) is not None:
            raise RequestError(400, "bad_request_line", "Lines of the request head end with LF instead of CR LF.")
        # The last three bytes may be the beginning of the empty line, and a CR may precede the next LF.
        self._scanned = max(0, len(data) - 3)
        self._pending = data

    def _head_too_large(self, data: bytes, start: int) -> RequestError:
        limit = self.site.limits.header_bytes
        if data.find(b"\r\n", start, start + limit) < 0:
            return RequestError(414, "uri_too_long", f"The request line exceeds server.limits.header_bytes, {limit}.")
        return RequestError(431, "head_too_large", f"The request head exceeds server.limits.header_bytes, {limit}.")

    def _identify(self, raw: bytes, head: Head) -> _Known:
        resolve = self.site.resolver.resolve
        if not head.nominated and FORWARDING.isdisjoint(head.fields):
            # Peer, TLS and Host decide, and the first two do not change.
            direct = self._direct
            if direct is None or direct.head.host != head.host:
                identity = resolve(self.peer, self.tls, head.lines)
                direct = self._direct = _Known(raw, head, identity, _promises_https(identity))
            return _Known(raw, head, direct.identity, direct.promises_https)
        identity = resolve(self.peer, self.tls, head.lines)
        return _Known(raw, head.only(strip(head.lines)), identity, _promises_https(identity))

    # -- one request --------------------------------------------------------------------------------------------

    def _start(self, head: Head, identity: Identity, promises_https: bool) -> Request:
        record = Record(
            started=self.site.seconds(),
            peer=identity.peer,
            client=identity.client_ip,
            scheme=identity.scheme,
            host=identity.host,
            verdict=identity.verdict,
            verb=head.verb,
            path=head.text,
        )
        request = self._request = Request(self, head, identity, record, promises_https)
        return request

    def _begin(self, known: _Known, rest: bytes) -> bytes:
        """Admit a request whose head is complete, then take its body from ``rest``; returns what is left."""
        head = known.head
        length = head.length
        request = self._start(head, known.identity, known.promises_https)
        try:
            if length > self.site.limits.body_bytes:
                raise too_large(self.site.limits.body_bytes)
            if self._refuse is not None and self._refused(request, self._refuse, rest):
                return b""
            if self.site.admit is not None:
                self.site.admit(request)
        except RequestError as error:
            return self._turn_away(request, error, rest)
        except Exception:
            self._log.failure("admission of {path} failed", path=head.text)
            failed = RequestError(500, "internal", "The request could not be judged; the log says why.")
            return self._turn_away(request, failed, rest)
        if length == 0:
            self._dispatch(request, b"")
            return rest
        if head.expects:
            self.wire.write(_CONTINUE)
        if 0 < length <= len(rest):
            self._dispatch(request, rest[:length])
            return rest[length:]
        self._await_body(BODY, length, self.site.limits.body_bytes)
        return rest

    def _refused(self, request: Request, decide: Decide, rest: bytes) -> bool:
        """Ask ``decide``; answer and close if it says no."""
        head = request.head
        asked = PlainRequest(
            method=head.method,
            target=head.target,
            host=head.host,
            headers=frozenset(head.fields),
            peer=self.peer,
            scheme=request.identity.scheme,
        )
        request.record.credential = asked.credential
        decision = decide(asked)
        if decision is None:
            return False
        request.persistent = False
        self._phase, self._unread = BUSY, self._outstanding(head, rest)
        if isinstance(decision, Redirect):
            request.respond(308, None, b"", ((b"Location", decision.location),))
        else:
            respond_error(request, decision)
        return True

    def _turn_away(self, request: Request, error: RequestError, rest: bytes) -> bytes:
        """Answer with ``error`` at once. The connection goes on if what is left of the body is worth skipping."""
        head = request.head
        if self._outstanding(head, rest):
            # Whether a client that waits for 100 still sends its body after another answer is its choice
            # (RFC 9110 §10.1.1): what comes next could be either.
            if head.expects or head.length > _SKIPPED_BYTES or not request.persistent:
                request.persistent = False
                self._phase, self._unread = BUSY, True
                respond_error(request, error)
                return b""
            self._await_body(SKIP, head.length, _SKIPPED_BYTES)
            respond_error(request, error)
            return rest
        self._phase = BUSY
        respond_error(request, error)
        return rest[head.length :]

    @staticmethod
    def _outstanding(head: Head, rest: bytes) -> bool:
        return head.length == CHUNKED or head.length > len(rest)

    def _dispatch(self, request: Request, body: bytes) -> None:
        request.body = body
        request.record.received = len(body)
        self._phase, self._deadline = BUSY, inf
        request.process()

    def request_done(self, request: Reply) -> None:
        """The reply to ``request`` is complete."""
        site = self.site
        now = site.seconds()
        record = request.record
        record.duration = now - record.started
        self._request = None
        site.report(record)
        phase = self._phase
        if phase >= CLOSING:
            return
        if site.draining or not request.persistent:
            self._close(linger=self._unread or phase == SKIP)
        elif phase == BUSY:
            self._phase, self._deadline = IDLE, now + site.limits.idle_timeout
            if self._pending or not self._reading:
                self._proceed()

    # -- the body -----------------------------------------------------------------------------------------------

    def _await_body(self, phase: int, length: int, limit: int) -> None:
        now = self.site.seconds()
        self._phase = phase
        self._window, self._received = now, 0
        self._deadline = now + self.site.limits.body_timeout
        if length == CHUNKED:
            self._decoder = ChunkedBody(limit, self.site.limits.header_bytes)
        else:
            self._left = length

    def _read_body(self, data: bytes) -> bytes:
        request = self._request
        assert request is not None
        decoder = self._decoder
        if decoder is not None:
            rest = decoder.feed(data)
            if rest is None:
                self._body_arrived(len(data))
                return b""
            self._decoder = None
            self._dispatch(request, bytes(decoder.content))
            return rest
        part = data[: self._left]
        self._left -= len(part)
        self._parts.append(part)
        if self._left:
            self._body_arrived(len(part))
            return b""
        body, self._parts = b"".join(self._parts), []
        self._dispatch(request, body)
        return data[len(part) :]

    def _skip_body(self, data: bytes) -> bytes:
        """Throw away the body of a request that has been answered."""
        decoder = self._decoder
        if decoder is not None:
            try:
                rest = decoder.feed(data)
            except RequestError:
                # There has been an answer; a second one would be read as that to the next request.
                self._close(linger=True)
                return b""
            decoder.content.clear()
            if rest is None:
                self._body_arrived(len(data))
                return b""
            self._decoder = None
        else:
            rest = data[self._left :]
            self._left -= len(data) - len(rest)
            if self._left:
                self._body_arrived(len(data))
                return b""
        self._phase, self._deadline = IDLE, self.site.seconds() + self.site.limits.idle_timeout
        return rest

    def _body_arrived(self, count: int) -> None:
        self._received += count
        self._deadline = self.site.seconds() + self.site.limits.body_timeout


def _nobody(peer: str, tls: bool) -> Identity:
    """What is known of a client whose head could not be read or believed."""
    return Identity(
        client_ip=peer_address(peer), scheme="https" if tls else "http", host="", verdict="direct", peer=peer
    )


def _promises_https(identity: Identity) -> bool:
    """Whether Strict-Transport-Security makes sense: RFC 6797 §7.2 over https only, §8.1.1 not for an address."""
    if identity.scheme != "https":
        return False
    name = identity.host.partition(":")[0]
    return not (name.startswith("[") or name.rpartition(".")[2].isdecimal())
