"""One HTTP/1.1 connection of a client: bytes in, requests to resources, one at a time and in order.

The whole head is gathered and read at once, the body is bounded as it arrives, and a resource is asked when both are
complete. There is no timer per request: the channel knows until when it waits, and its site looks once a second.

Invariants: after the first byte that cannot be read nothing is read any more, and there is one answer. At most one
request is in flight. What a client sends ahead is bounded, and so is what it does not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IPullProducer,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcptunnel.core.addresses import UNIX_PEER, peer_address
from mcptunnel.core.errors import RequestError
from mcptunnel.core.forwarded import FORWARDING, Identity, strip
from mcptunnel.core.plaintext import Decide, PlainRequest, Redirect
from mcptunnel.core.record import Record
from mcptunnel.web.body import ChunkedBody, too_large
from mcptunnel.web.head import CHUNKED, Head, parse_head
from mcptunnel.web.request import Request
from mcptunnel.web.respond import respond_error

if TYPE_CHECKING:
    from mcptunnel.web.site import Site

__all__ = ["HTTPChannel", "peer_text"]

# What a connection is waiting for. From _BUSY on nothing that arrives is looked at for now.
_IDLE, _HEAD, _BODY, _SKIP, _BUSY, _LINGER, _CLOSING, _GONE = range(8)

# Input that is kept while a request is in flight, beyond which reading pauses: enough to notice a client that leaves
# (twisted.web keeps as much), little enough that nobody parks data here.
_AHEAD_BYTES: Final = 16 * 1024
# Slower senders and readers are attacks or lost causes: Apache's mod_reqtimeout has the same 500 B/s.
_MINIMUM_RATE: Final = 500.0
# After a last answer that the client may not expect yet: without reading on, the kernel would reset the connection
# and take the answer with it (RFC 9112 §9.6).
_LINGER_SECONDS: Final = 2.0
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


@implementer(IPushProducer, IConsumer)
class HTTPChannel(Protocol):
    """See the module. To a request it is twisted.web's channel, to the transport a push producer.

    Args:
        refuse: Decides on every request before the site's ``admit`` does. What it refuses is answered and the
            connection closed; what it lets pass goes on as usual.

    Attributes:
        peer: The socket's other end as text.
        tls: TLS ends here.
        wire: The transport; None once somebody has taken it over.
    """

    _log = Logger()
    peer = ""
    tls = False
    wire: Any = None

    def __init__(self, site: Site, refuse: Decide | None = None) -> None:
        self.site: Final = site
        self._refuse: Final = refuse
        self._phase = _IDLE
        self._deadline = inf
        self._pending = b""
        self._scanned = 0
        self._advancing = False
        self._reading = True
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
        self._producer: IPushProducer | None = None
        self._pulling = False
        # The window in which a full transport is judged: its begin, and the bytes that were waiting then.
        self._full: tuple[float, int] | None = None

    # -- the connection -----------------------------------------------------------------------------------------

    @property
    def transport(self) -> Any:
        """The transport. autobahn's resource sets None: from then on the connection is its own."""
        return self.wire

    @transport.setter
    def transport(self, transport: Any) -> None:
        if transport is None and self.wire is not None:
            self._hand_over()
        self.wire = transport

    def connectionMade(self) -> None:
        wire = self.wire
        self.peer = peer_text(wire.getPeer())
        self.tls = ISSLTransport.providedBy(wire)
        # A transport over TLS says it is TCP, even on a UNIX socket.
        with suppress(AttributeError, OSError):
            wire.setTcpNoDelay(True)
        wire.registerProducer(self, True)
        self._deadline = self.site.seconds() + self.site.limits.idle_timeout
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._phase == _GONE:
            return
        self._phase = _GONE
        request, self._request = self._request, None
        self._known = self._direct = self._decoder = self._producer = None
        self._parts = []
        self._pending = b""
        if request is not None:
            request.record.error = request.record.error or "client_gone"
            request.connectionLost(reason)
            self.site.report(request.record)
        self.site.closed(self)

    def _hand_over(self) -> None:
        """The transport has a new owner. What becomes of the exchange is for it to say, if it said it would."""
        self._phase = _GONE
        self.wire.unregisterProducer()
        request, self._request = self._request, None
        if request is not None and request.record.protocol == "http":
            request.record.status = 101
            self.site.report(request.record)
        self.site.closed(self)

    def abort(self) -> None:
        """End the connection now; what is still unsent is lost."""
        if self._phase < _GONE:
            self._phase, self._deadline = _CLOSING, inf
            self.wire.abortConnection()

    def loseConnection(self) -> None:
        """End the connection as soon as everything is sent."""
        self._close(linger=False)

    def _close(self, *, linger: bool) -> None:
        """Stop serving.

        Args:
            linger: The client may still be sending. Read on and ignore it for a while, or the kernel resets the
                connection and the client never sees our answer (RFC 9112 §9.6).
        """
        if self._phase >= _CLOSING:
            return
        wire, now = self.wire, self.site.seconds()
        self._known = None
        self._pending = b""
        self._full = None
        if self._phase != _LINGER:
            # A registered producer would keep the transport from closing.
            wire.unregisterProducer()
        if linger:
            self._phase, self._deadline = _LINGER, now + _LINGER_SECONDS
            self._resume_reading()
            # Through TLS this would end the stream without a word, as an attacker would (RFC 8446 §6.1).
            if not self.tls and hasattr(wire, "loseWriteConnection"):
                wire.loseWriteConnection()
        else:
            self._phase, self._deadline = _CLOSING, now + self.site.limits.write_timeout
            wire.loseConnection()

    def drain(self) -> None:
        """Close if nothing has been asked; a request on its way is still answered, and closes then."""
        if self._phase == _IDLE:
            self._close(linger=False)

    @property
    def busy(self) -> bool:
        """A request has been admitted and is not yet answered."""
        return self._request is not None

    # -- deadlines ----------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Called about once a second: end what has lasted too long."""
        if self._full is not None and self._phase < _GONE:
            self._judge_drain(now, *self._full)
        if now >= self._deadline:
            self._expire(now)
        elif self._phase in (_BODY, _SKIP):
            elapsed = now - self._window
            if elapsed >= self.site.limits.body_timeout:
                if self._received < _MINIMUM_RATE * elapsed:
                    self._expire(now)
                self._window, self._received = now, 0

    def _expire(self, now: float) -> None:
        phase, self._deadline = self._phase, inf
        if phase in (_HEAD, _BODY):
            # RFC 9110 §15.5.9.
            self._fail(RequestError(408, "request_timeout", "The request took too long to arrive."))
        elif phase in (_IDLE, _SKIP, _LINGER):
            self._close(linger=False)
        elif phase == _CLOSING:
            self.abort()

    def _judge_drain(self, now: float, since: float, waiting: int) -> None:
        """A client that refuses to read, or hardly does, holds memory that others need."""
        elapsed = now - since
        if elapsed < self.site.limits.write_timeout:
            return
        unsent = _unsent(self.wire)
        if unsent and waiting - unsent < _MINIMUM_RATE * elapsed:
            self.abort()
        else:
            self._full = (now, unsent)

    # -- input --------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._phase >= _BUSY:
            if self._phase == _BUSY:
                self._hold(data)
            return
        if self._pending:
            data, self._pending = self._pending + data, b""
        self._consume(data)

    def _hold(self, data: bytes) -> None:
        """Keep what a client sends ahead of the reply, and no more than that."""
        self._pending += data
        if len(self._pending) > _AHEAD_BYTES and self._reading:
            self._reading = False
            self.wire.pauseProducing()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.wire.resumeProducing()

    def _consume(self, data: bytes) -> None:
        """Serve as many requests as are complete in ``data``, one after the other; keep the rest."""
        wire = self.wire
        self._advancing = True
        try:
            while data:
                phase = self._phase
                if phase == _BODY:
                    data = self._read_body(data)
                elif phase == _SKIP:
                    data = self._skip_body(data)
                elif phase >= _BUSY or self._full is not None:
                    break
                else:
                    data = self._read_head(data)
        except RequestError as error:
            self._fail(error)
            return
        finally:
            self._advancing = False
        if data:
            if self._phase <= _BUSY:
                self._hold(data)
            elif self.wire is None:
                # Sent before the upgrade was answered: nobody knows in which protocol (RFC 9110 §7.8).
                wire.abortConnection()

    def _proceed(self) -> None:
        """Go on with what was held, if there is reason to."""
        if self._advancing or self._phase >= _BUSY or self._full is not None:
            return
        self._resume_reading()
        if self._pending:
            data, self._pending = self._pending, b""
            self._consume(data)

    def _fail(self, error: RequestError) -> None:
        """Framing is lost, or the client too slow: one answer, and nothing after it is read."""
        request = self._request or self._start(_NO_HEAD, _nobody(self.peer, self.tls), self.tls)
        request.persistent = False
        self._decoder, self._parts = None, []
        self._phase, self._unread = _BUSY, True
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
        if self._phase == _IDLE:
            self._phase = _HEAD
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
        self._await_body(_BODY, length, self.site.limits.body_bytes)
        return rest

    def _refused(self, request: Request, decide: Decide, rest: bytes) -> bool:
        """Ask ``decide``; answer and close if it says no."""
        head = request.head
        decision = decide(
            PlainRequest(
                method=head.method,
                target=head.target,
                host=head.host,
                headers=frozenset(head.fields),
                peer=self.peer,
            )
        )
        if decision is None:
            return False
        request.persistent = False
        self._phase, self._unread = _BUSY, self._outstanding(head, rest)
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
                self._phase, self._unread = _BUSY, True
                respond_error(request, error)
                return b""
            self._await_body(_SKIP, head.length, _SKIPPED_BYTES)
            respond_error(request, error)
            return rest
        self._phase = _BUSY
        respond_error(request, error)
        return rest[head.length :]

    @staticmethod
    def _outstanding(head: Head, rest: bytes) -> bool:
        return head.length == CHUNKED or head.length > len(rest)

    def _dispatch(self, request: Request, body: bytes) -> None:
        request.body = body
        request.record.received = len(body)
        self._phase, self._deadline = _BUSY, inf
        request.process()

    def request_done(self, request: Request) -> None:
        """The reply to ``request`` is complete."""
        site = self.site
        now = site.seconds()
        record = request.record
        record.duration = now - record.started
        self._request = None
        site.report(record)
        phase = self._phase
        if phase >= _CLOSING:
            return
        if site.draining or not request.persistent:
            self._close(linger=self._unread or phase == _SKIP)
        elif phase == _BUSY:
            self._phase, self._deadline = _IDLE, now + site.limits.idle_timeout
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
        self._phase, self._deadline = _IDLE, self.site.seconds() + self.site.limits.idle_timeout
        return rest

    def _body_arrived(self, count: int) -> None:
        self._received += count
        self._deadline = self.site.seconds() + self.site.limits.body_timeout

    # -- output: what twisted.web's Request asks of its channel ----------------------------------------------------

    def write(self, data: bytes) -> None:
        self.wire.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.wire.write(b"".join(iovec))

    def getPeer(self) -> IAddress:
        return self.wire.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        return self.wire.getHost()  # type: ignore[no-any-return]

    def isSecure(self) -> bool:
        return self.tls

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` of the reply follow the transport's pace."""
        if streaming:
            self._producer = producer
            if self._full is not None:
                producer.pauseProducing()
        else:
            self._pulling = True
            self.wire.unregisterProducer()
            self.wire.registerProducer(_Pull(self, producer), False)

    def unregisterProducer(self) -> None:
        self._producer = None
        if self._pulling:
            self._pulling, self._full = False, None
            self.wire.unregisterProducer()
            if self._phase < _LINGER:
                self.wire.registerProducer(self, True)

    def pulled(self) -> None:
        """A pull producer has written what it was asked for: from now on it is for the client to read it."""
        if self._pulling:
            self._full = (self.site.seconds(), _unsent(self.wire))

    # What the transport calls.

    def pauseProducing(self) -> None:
        if self._full is None:
            self._full = (self.site.seconds(), _unsent(self.wire))
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._full = None
        if self._producer is not None:
            self._producer.resumeProducing()
        self._proceed()

    def stopProducing(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()


@define(eq=False)
@implementer(IPullProducer)
class _Pull:
    """A pull producer of the reply, with an eye on whether the client keeps reading."""

    channel: HTTPChannel
    producer: Any

    def resumeProducing(self) -> None:
        self.producer.resumeProducing()
        self.channel.pulled()

    def stopProducing(self) -> None:
        self.producer.stopProducing()


def peer_text(address: IAddress) -> str:
    """The socket's other end as the resolver wants it: an IP address, or ``unix:``."""
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host
    return UNIX_PEER if isinstance(address, UNIXAddress) else str(address)


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


def _unsent(wire: Any) -> int:
    """Bytes that wait in a Twisted transport (or in the one below TLS); 1 where that cannot be known."""
    try:
        return len(wire.dataBuffer) - wire.offset + wire._tempDataLen  # type: ignore[no-any-return]
    except AttributeError:
        return 1
