"""One request and its reply, under twisted.web's Request contract and without its cost.

Whatever a resource of twisted.web or autobahn may ask for is here, but only made when it asks: header objects, cookies,
arguments, addresses. Resources of our own use the short way: ``header``, ``body``, ``respond``, ``start_stream``.

The client is whom :attr:`Request.identity` names; forwarding headers are gone before anybody sees the request. The one
thing not done is parsing ``multipart/form-data`` into ``args``: it stays in ``content``.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import cached_property
from inspect import iscoroutine
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, ITransport
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.error import UnsupportedMethod
from twisted.web.http_headers import Headers

from mcptunnel.core.errors import RequestError
from mcptunnel.core.forwarded import Identity
from mcptunnel.core.hosts import DEFAULT_PORTS
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.record import Record
from mcptunnel.web.head import Head
from mcptunnel.web.reply import Reply
from mcptunnel.web.respond import respond_error

if TYPE_CHECKING:
    from mcptunnel.web.channel import HTTPChannel

__all__ = ["Request"]

_FORM: Final = b"application/x-www-form-urlencoded"


class Request(Reply):
    """See the module.

    Attributes:
        identity: Who sent it, after the forwarded headers.
        principal: Who the credential says the caller is; set by whoever admits the request.
        body: The whole content, at the time of ``render``.
    """

    principal: Principal = ANONYMOUS
    body: bytes = b""

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

    def common_headers(self) -> tuple[tuple[str, str], ...]:
        """The lines that go with every response, for a reply to this request that somebody else writes."""
        lines = self.site.common.lines(self._https, self.site.seconds())
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in lines)

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
        # twisted's own: the standard library's takes bytes for ASCII.
        args: dict[bytes, list[bytes]] = http.parse_qs(self.uri.partition(b"?")[2], keep_blank_values=True)  # type: ignore[no-untyped-call]
        kind = self.head.fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self.method == b"POST" and kind == _FORM:
            args.update(http.parse_qs(self.body, keep_blank_values=True))  # type: ignore[no-untyped-call]
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
        if self._disconnected:
            return
        if type(outcome) is bytes:
            self._whole(outcome)
        elif outcome is server.NOT_DONE_YET:
            if self._held is not None and not self._begun:
                held, self._held = self._held, None
                self._begin((), None, held)
        elif iscoroutine(outcome) or isinstance(outcome, Deferred):
            self._follow(outcome)
        elif not self.finished:
            raise TypeError(f"render returned {type(outcome).__name__}, not bytes or NOT_DONE_YET")

    def _follow(self, outcome: Coroutine[Any, Any, Any] | Deferred[Any]) -> None:
        deferred = outcome if isinstance(outcome, Deferred) else Deferred.fromCoroutine(outcome)
        self._outcome = deferred
        deferred.addCallback(self._settle).addErrback(self.processingFailed)

    def processingFailed(self, reason: Failure) -> None:
        """Answer with what went wrong if it was meant for the client, otherwise log it and answer 500."""
        if isinstance(reason.value, RequestError):
            respond_error(self, reason.value)
        elif not (self._disconnected and isinstance(reason.value, CancelledError)):
            self._log.failure("request for {path} failed", failure=reason, path=self.head.text)
            respond_error(self, RequestError(500, "internal", "The request could not be handled; the log says why."))


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
