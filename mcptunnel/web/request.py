"""One request and its reply, under twisted.web's Request contract and without its cost.

Whatever a resource of twisted.web or autobahn may ask for is here, but only made when it asks: header objects, cookies,
arguments, addresses. Resources of our own use the short way: ``header``, ``body``, ``respond``, ``start_stream``.

The client is whom :attr:`Request.identity` names; forwarding headers are gone before anybody sees the request. The one
thing not done is parsing ``multipart/form-data`` into ``args``: it stays in ``content``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import cached_property
from inspect import iscoroutine
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.error import UnsupportedMethod
from twisted.web.http import NO_BODY_CODES, NO_CONTENT, datetimeToString
from twisted.web.http_headers import Headers

from mcptunnel.core.errors import RequestError
from mcptunnel.core.forwarded import Identity
from mcptunnel.core.hosts import DEFAULT_PORTS
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.record import Record
from mcptunnel.web.head import Head
from mcptunnel.web.respond import header_block, respond_error, status_line

if TYPE_CHECKING:
    from mcptunnel.web.channel import HTTPChannel
    from mcptunnel.web.site import Site

__all__ = ["Request"]

_FORM: Final = b"application/x-www-form-urlencoded"
_UNKNOWN_LENGTH: Final = -1
# What a resource may have set for the reply to come; none of it is there on the short way.
_DRESSED: Final = frozenset(("responseHeaders", "cookies", "lastModified", "etag"))
_PREPARED: Final = _DRESSED | {"code", "code_message"}


class Request(server.Request):
    """See the module.

    Attributes:
        identity: Who sent it, after the forwarded headers.
        record: What will be remembered of it; resources fill in what they know.
        principal: Who the credential says the caller is; set by whoever admits the request.
        body: The whole content, at the time of ``render``.
        persistent: The connection goes on after this exchange. A resource may set it to False before it responds.
        on_lost: Called without arguments if the client is gone before the reply is finished. Like ``notifyFinish``,
            for one listener and nearly free.
    """

    channel: HTTPChannel | None  # type: ignore[assignment]
    site: Site  # type: ignore[assignment]
    principal: Principal = ANONYMOUS
    body: bytes = b""
    on_lost: Callable[[], None] | None = None
    _log = Logger()
    # The reply so far: nothing, a first write that may turn out to be all of it, a head that is on its way.
    _rendering = False
    _held: bytes | None = None
    _begun = False
    _chunked = False
    _bodiless = False
    _left = _UNKNOWN_LENGTH
    _outcome: Deferred[Any] | None = None

    def __init__(
        self, channel: HTTPChannel, head: Head, identity: Identity, record: Record, promises_https: bool
    ) -> None:
        # None of the parents' __init__: they build what nearly nobody asks for. See the cached properties.
        self.channel = channel
        self.site = channel.site
        self.head = head
        self.identity = identity
        self.record = record
        self.method = head.method
        self.uri = head.target
        self.path = head.path
        self.clientproto = head.version
        self.persistent = head.keep_alive
        self._https = promises_https

    # -- what resources of our own use --------------------------------------------------------------------------

    @property
    def lines(self) -> tuple[tuple[bytes, bytes], ...]:
        """Header lines in wire order, names in lower case, without forwarding headers."""
        return self.head.lines

    def header(self, name: bytes) -> bytes | None:
        """The value of header ``name`` (lower case), or None if there is none.

        Raises:
            RequestError: 400; the header occurs more than once, and two readers could pick different ones.
        """
        head = self.head
        if head.repeated and name in head.repeated:
            raise RequestError(400, "duplicate_header", f"The header {name.decode('latin-1')} occurs more than once.")
        return head.fields.get(name)

    def headers_named(self, name: bytes) -> list[bytes]:
        """All values of header ``name`` (lower case), in wire order. For headers that are lists by nature."""
        return [value for known, value in self.head.lines if known == name]

    def respond(
        self, status: int, content_type: bytes | None, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send the whole reply in one write. Nothing happens if the client is gone.

        Args:
            status: HTTP status.
            content_type: None for none.
            body: All of the content.
            headers: Further lines; they replace the site's own of the same name.

        Raises:
            RuntimeError: The reply has already begun.
            ValueError: A header line is none.
        """
        channel = self.channel
        if self._begun or self.finished:
            raise RuntimeError("the reply has already begun")
        if channel is None:
            return
        if headers or content_type is None or self.method == b"HEAD" or not self.__dict__.keys().isdisjoint(_DRESSED):
            self.defaultContentType = None
            self.setResponseCode(status)
            self._begin(_typed(content_type, headers), len(body), body)
        else:
            site = self.site
            self._begun = True
            self.startedWriting = 1
            self.code = self.record.status = status
            self.sentLength = len(body)
            common = site.common.block(self._https, site.seconds())
            if not self.persistent or site.draining or self.clientproto != b"HTTP/1.1":
                common += self._connection_line()
            channel.wire.write(
                b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b"
                % (status_line(status), content_type, len(body), common, body)
            )
        self._done()

    def start_stream(self, status: int, content_type: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send the head of a reply at once; :meth:`write` and :meth:`finish` do the rest.

        Raises:
            RuntimeError: The reply has already begun.
        """
        if self._begun or self.finished:
            raise RuntimeError("the reply has already begun")
        if self.channel is not None:
            self.setResponseCode(status)
            self._begin(_typed(content_type, headers), None, b"")

    def respond_or_abort(
        self, status: int, content_type: bytes, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Like :meth:`respond`, but for errors: drop what was prepared, or cut the reply if it has begun."""
        if self._begun or self.startedWriting:
            self.abort()
        elif self.channel is not None:
            self._held = self._encoder = None
            self._left, self._chunked = _UNKNOWN_LENGTH, False
            for prepared in _PREPARED:
                self.__dict__.pop(prepared, None)
            self.respond(status, content_type, body, headers)

    def abort(self) -> None:
        """End the connection in the middle of the reply, so that nobody takes it for a whole one."""
        if self.channel is not None:
            self.channel.abort()

    # -- what twisted.web's contract adds: made when asked for ---------------------------------------------------

    @cached_property
    def requestHeaders(self) -> Headers:  # type: ignore[override]
        headers = Headers()
        for name, value in self.head.lines:
            headers.addRawHeader(name, value)
        return headers

    @cached_property
    def responseHeaders(self) -> Headers:  # type: ignore[override]
        return Headers()

    @cached_property
    def notifications(self) -> list[Deferred[None]]:  # type: ignore[override]
        return []

    @cached_property
    def cookies(self) -> list[bytes]:  # type: ignore[override]
        return []

    @cached_property
    def received_cookies(self) -> dict[bytes, bytes]:  # type: ignore[override]
        cookies: dict[bytes, bytes] = {}
        self.__dict__["received_cookies"] = cookies
        self.parseCookies()  # type: ignore[no-untyped-call]
        return cookies

    @cached_property
    def content(self) -> BytesIO:  # type: ignore[override]
        return BytesIO(self.body)

    @cached_property
    def args(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        args = parse_qs(self.uri.partition(b"?")[2], keep_blank_values=True)
        kind = self.head.fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self.method == b"POST" and kind == _FORM:
            args.update(parse_qs(self.body, keep_blank_values=True))
        return args

    @cached_property
    def prepath(self) -> list[bytes]:  # type: ignore[override]
        return _segments(self.path)

    @cached_property
    def postpath(self) -> list[bytes]:  # type: ignore[override]
        return []

    @cached_property
    def sitepath(self) -> list[bytes]:
        return []

    @cached_property
    def transport(self) -> ITransport | None:  # type: ignore[override]
        return None if self.channel is None else self.channel.transport

    @cached_property
    def client(self) -> IAddress:
        address = self.identity.client_ip
        if address is None:
            return UNIXAddress(None)
        kind = IPv6Address if ":" in address else IPv4Address
        return kind("TCP", address, self.identity.client_port or 0)

    @cached_property
    def host(self) -> IAddress:
        """The socket's own address, with the port that the client used: URLs are made of it."""
        own = None if self.channel is None else self.channel.getHost()
        address = own.host if isinstance(own, IPv4Address | IPv6Address) else "127.0.0.1"
        _, port = _split_port(self.identity.host)
        kind = IPv6Address if ":" in address else IPv4Address
        return kind("TCP", address, port or DEFAULT_PORTS[self.identity.scheme])

    @cached_property
    def _adapterCache(self) -> dict[str, Any]:  # type: ignore[override]
        return {}

    def isSecure(self) -> bool:
        return bool(self._forceSSL) or self.identity.scheme == "https"

    def getRequestHostname(self) -> bytes:
        if "requestHeaders" in self.__dict__ and self._forceSSL:
            # setHost() has spoken last.
            return super().getRequestHostname()  # type: ignore[no-untyped-call, no-any-return]
        return _split_port(self.identity.host)[0].strip("[]").encode("ascii")

    def gotLength(self, length: int | None) -> None:
        """Nothing: the body is in :attr:`body`."""

    # -- rendering ----------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Find the resource and let it render. Nothing that it raises gets further than here."""
        try:
            resource = self.site.routes.get(self.path)
            if resource is None:
                if self.path == b"*":
                    self._handleStar()  # type: ignore[no-untyped-call]
                    return
                self.prepath, self.postpath = [], _segments(self.path)
                resource = self.site.getResourceFor(self)
            encoder_for = getattr(resource, "getEncoder", None)
            if encoder_for is not None:
                self._encoder = encoder_for(self)
            self.render(resource)
        except Exception:
            self.processingFailed(Failure())  # type: ignore[no-untyped-call]

    def render(self, resrc: Any) -> None:
        self._rendering = True
        try:
            try:
                outcome = resrc.render(self)
            except UnsupportedMethod as e:
                # RFC 9110 §9.1: GET and HEAD go together.
                if self.method != b"HEAD" or b"GET" not in e.allowedMethods:
                    raise _not_allowed(e) from None
                self.method = b"GET"
                outcome = resrc.render(self)
        finally:
            self.method = self.head.method
            self._rendering = False
        self._settle(outcome)

    def _settle(self, outcome: Any) -> None:
        if type(outcome) is bytes:
            self._whole(outcome)
        elif outcome is server.NOT_DONE_YET:
            if self._held is not None and not self._begun and self.channel is not None:
                held, self._held = self._held, None
                self._begin((), None, held)
        elif iscoroutine(outcome) or isinstance(outcome, Deferred):
            self._follow(outcome)
        elif not (self.finished or self._disconnected):
            raise TypeError(f"render returned {type(outcome).__name__}, not bytes or NOT_DONE_YET")

    def _follow(self, outcome: Coroutine[Any, Any, Any] | Deferred[Any]) -> None:
        deferred = outcome if isinstance(outcome, Deferred) else Deferred.fromCoroutine(outcome)
        self._outcome = deferred
        deferred.addCallback(self._settle).addErrback(self.processingFailed)

    def _whole(self, body: bytes) -> None:
        if self._held is not None or self._encoder is not None or self._begun:
            self.write(body)
            self.finish()
        elif body and self.defaultContentType and self.__dict__.keys().isdisjoint(_PREPARED):
            self.respond(self.code, self.defaultContentType, body)
        else:
            self._begin((), len(body), body)
            self._done()

    def processingFailed(self, reason: Failure) -> None:
        """Answer with what went wrong if it was meant for the client, otherwise log it and answer 500."""
        if isinstance(reason.value, RequestError):
            respond_error(self, reason.value)
        elif not (self._disconnected and isinstance(reason.value, CancelledError)):
            self._log.failure("request for {path} failed", failure=reason, path=self.head.text)
            respond_error(self, RequestError(500, "internal", "The request could not be handled; the log says why."))

    # -- the reply ----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.finished:
            raise RuntimeError("Request.write called on a request after Request.finish was called.")
        if self._disconnected:
            return
        if self._encoder is not None:
            data = self._encoder.encode(data)
        if self._begun or self.startedWriting:
            self._send(data)
        elif self._rendering and self._held is None and not self.responseHeaders.hasHeader(b"content-length"):
            # finish() may follow at once: then the length is known.
            self._held = data
        else:
            held, self._held = self._held or b"", None
            self._begin((), None, held + data)

    def finish(self) -> None:
        if self._disconnected:
            raise RuntimeError(
                "Request.finish called on a request after its connection was lost; "
                "use Request.notifyFinish to keep track of this."
            )
        if self.finished:
            warnings.warn("Warning! request.finish called twice.", stacklevel=2)
            return
        if self._encoder is not None:
            tail = self._encoder.finish()
            self._encoder = None
            self.write(tail)
        if self._begun:
            if self._chunked:
                self._transmit(b"0\r\n\r\n")
            elif self._left > 0:
                self._log.error("reply for {path} is {left} bytes short", path=self.head.text, left=self._left)
                self.abort()
                return
        elif self.startedWriting:
            # A resource that writes its own head knows where the reply ends; the client can only see it end.
            self.persistent = False
        else:
            held, self._held = self._held or b"", None
            self._begin((), len(held), held)
        self._done()

    def _begin(self, headers: Iterable[tuple[bytes, bytes]], length: int | None, data: bytes) -> None:
        """Send the head and ``data`` in one write.

        Args:
            headers: Lines that replace those in ``responseHeaders``.
            length: Bytes of the whole content; None if only its end will tell.
            data: The beginning of the content.
        """
        channel, site, code = self.channel, self.site, self.code
        assert channel is not None
        lines, names = self._own_lines(headers, length)
        self._bodiless = self.head.method == b"HEAD" or code in NO_BODY_CODES
        framing = b""
        if self._left != _UNKNOWN_LENGTH or (length is not None and code not in NO_BODY_CODES):
            if self._left == _UNKNOWN_LENGTH:
                self._left = length or 0
            framing = b"Content-Length: %d\r\n" % self._left
        elif not self._bodiless:
            if self.clientproto == b"HTTP/1.1":
                self._chunked = True
                framing = b"Transfer-Encoding: chunked\r\n"
            else:
                # RFC 9112 §6.3: nothing but the connection's end tells an older client where the content ends.
                self.persistent = False
        head = b"%b%b%b%b%b\r\n" % (
            status_line(code, self.code_message),
            header_block(lines),
            framing,
            self._connection_line(),
            site.common.block_without(names, self._https, site.seconds()),
        )
        # Not before: whoever answers for a header line that is none has to find the reply unbegun.
        self._begun = True
        self.startedWriting = 1
        self.record.status = code
        channel.wire.write(head + self._framed(data))

    def _own_lines(
        self, headers: Iterable[tuple[bytes, bytes]], length: int | None
    ) -> tuple[list[tuple[bytes, bytes]], set[bytes]]:
        """What the resource wants to send, without the framing, which is ours; and the names of it in lower case."""
        lines = list(headers)
        names = {name.lower() for name, _ in lines}
        for name, values in self.responseHeaders.getAllRawHeaders():
            if name.lower() not in names:
                lines.extend((name, value) for value in values)
        if self.lastModified is not None:
            lines.append((b"Last-Modified", datetimeToString(self.lastModified)))  # type: ignore[no-untyped-call]
        if self.etag is not None:
            lines.append((b"ETag", self.etag))
        lines.extend((b"Set-Cookie", cookie) for cookie in self.cookies)
        kept = [line for line in lines if not self._take_framing(line[0].lower(), line[1])]
        names = {name.lower() for name, _ in kept}
        if (
            b"content-type" not in names
            and self.defaultContentType is not None
            and self.code not in NO_BODY_CODES
            and (self._left if self._left != _UNKNOWN_LENGTH else length) != 0
        ):
            kept.append((b"Content-Type", self.defaultContentType))
        return kept, names

    def _take_framing(self, name: bytes, value: bytes) -> bool:
        """Whether a header line is about framing; if so its meaning is taken and the line left out."""
        if name == b"content-length":
            # RFC 9110 §8.6: never in a 204; in a 304 it tells the length of what is not sent.
            if value.isdigit() and self.code != NO_CONTENT:
                self._left = int(value)
            return True
        if name == b"connection":
            options = {option.strip() for option in value.lower().split(b",")}
            if b"close" in options:
                self.persistent = False
            return bool(options & {b"close", b"keep-alive"})
        return name == b"transfer-encoding"

    def _connection_line(self) -> bytes:
        if self.site.draining or not self.persistent:
            self.persistent = False
            return b"Connection: close\r\n"
        return b"" if self.clientproto == b"HTTP/1.1" else b"Connection: keep-alive\r\n"

    def _framed(self, data: bytes) -> bytes:
        """What goes on the wire for ``data``. Never more than was announced: the rest would be read as a reply."""
        if self._bodiless or not data:
            return b""
        if self._left != _UNKNOWN_LENGTH:
            if len(data) > self._left:
                self._log.error("reply for {path} is longer than its Content-Length", path=self.head.text)
                data = data[: self._left]
            self._left -= len(data)
        self.sentLength += len(data)
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _send(self, data: bytes) -> None:
        if framed := self._framed(data):
            self._transmit(framed)

    def _transmit(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel.wire.write(data)

    def _done(self) -> None:
        channel = self.channel
        assert channel is not None
        if self.producer:
            self._log.error("producer was not unregistered for {path}", path=self.head.text)
            self.unregisterProducer()  # type: ignore[no-untyped-call]
        self.finished = 1
        self.channel = self.on_lost = None
        self.record.sent = self.sentLength
        channel.request_done(self)
        for waiting in self.__dict__.pop("notifications", ()):
            waiting.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self._disconnected = True
        self.channel = None
        self.record.sent = self.sentLength
        lost, self.on_lost = self.on_lost, None
        outcome, self._outcome = self._outcome, None
        if lost is not None:
            lost()
        if outcome is not None:
            outcome.cancel()
        for waiting in self.__dict__.pop("notifications", ()):
            waiting.errback(reason)


def _typed(content_type: bytes | None, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [*headers] if content_type is None else [(b"Content-Type", content_type), *headers]


def _segments(path: bytes) -> list[bytes]:
    return [unquote_to_bytes(segment) for segment in path[1:].split(b"/")]


def _split_port(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon and port.isdigit() else (host, None)


def _not_allowed(error: UnsupportedMethod) -> RequestError:
    # RFC 9110 §15.5.6: a 405 names what is allowed.
    allowed = b", ".join(error.allowedMethods)
    return RequestError(
        405, "method_not_allowed", f"This resource allows {allowed.decode('latin-1')}.", ((b"Allow", allowed),)
    )
