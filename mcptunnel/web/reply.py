"""The reply to one request: whole in one write, or a head at once and the rest in pieces.

Two ways in: ``respond`` and ``start_stream`` for resources of our own; ``write`` and ``finish``, with all that may have
been set before, for those of twisted.web.

Invariant: what is on the wire is one response, framed as its head says, or a connection that ends. A resource that
gets its length wrong, fails in the middle, or sets framing headers of its own cannot change that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import NO_BODY_CODES, NO_CONTENT, datetimeToString

from mcptunnel.core.record import Record
from mcptunnel.web.head import Head
from mcptunnel.web.respond import header_block, reply_start, status_line

if TYPE_CHECKING:
    from mcptunnel.web.channel import HTTPChannel
    from mcptunnel.web.site import Site

__all__ = ["Reply"]

_UNKNOWN_LENGTH: Final = -1
# What a resource may have set for the reply to come; none of it is there on the short way.
_DRESSED: Final = frozenset(("responseHeaders", "cookies", "lastModified", "etag"))
_PREPARED: Final = _DRESSED | {"code", "code_message"}


class Reply(server.Request):
    """The outgoing half of :class:`~mcptunnel.web.request.Request`.

    Attributes:
        head: What is answered.
        record: What will be remembered of the exchange.
        persistent: The connection goes on after this exchange. A resource may set it to False before it responds.
        on_lost: Called without arguments if the client is gone before the reply is finished. Like ``notifyFinish``,
            for one listener and nearly free.
    """

    channel: HTTPChannel | None  # type: ignore[assignment]
    site: Site  # type: ignore[assignment]
    head: Head
    record: Record
    persistent: bool
    on_lost: Callable[[], None] | None = None
    _log = Logger()
    _https: bool
    # The reply so far: nothing, a first write that may turn out to be all of it, a head that is on its way.
    _rendering = False
    _held: bytes | None = None
    _begun = False
    _chunked = False
    _bodiless = False
    _left = _UNKNOWN_LENGTH
    # What render() returned, while it is not finished.
    _outcome: Deferred[Any] | None = None

    # -- what resources of our own use --------------------------------------------------------------------------

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
        start = None if headers or content_type is None else reply_start(status, content_type)
        if start is None or self.head.method == b"HEAD" or not self.__dict__.keys().isdisjoint(_DRESSED):
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
            channel.wire.write(b"%bContent-Length: %d\r\n%b\r\n%b" % (start, len(body), common, body))
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

    # -- what twisted.web's resources use -----------------------------------------------------------------------

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
            elif self._left > 0 and not self._bodiless:
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

    def _whole(self, body: bytes) -> None:
        if self._held is not None or self._encoder is not None or self._begun:
            self.write(body)
            self.finish()
        elif body and self.defaultContentType and self.__dict__.keys().isdisjoint(_PREPARED):
            self.respond(self.code, self.defaultContentType, body)
        else:
            # To HEAD a resource may give nothing and tell the length itself, or not tell it.
            self._begin((), None if self.head.method == b"HEAD" and not body else len(body), body)
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
        if length is not None and code not in NO_BODY_CODES and (not self._bodiless or self._left == _UNKNOWN_LENGTH):
            self._left = length
        framing = b""
        if self._left != _UNKNOWN_LENGTH:
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
        decided = self.site.common.decided
        kept = [
            line for line in lines if (low := line[0].lower()) not in decided and not self._take_framing(low, line[1])
        ]
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
        self.channel = self.on_lost = self._outcome = None
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
