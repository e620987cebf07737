"""An HTTP/1.1 client for the hot path: persistent connections, answers handed on as they arrive, backpressure.

It knows nothing of MCP. Requests are complete byte strings; answers go to a :class:`Receiver`. It follows no redirect
and decodes no content coding, so what a server sends is what is passed on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from typing import Protocol as TypingProtocol

import httptools
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Pool", "Receiver", "Transfer"]

# Below the shortest keep-alive of common servers (5 s: uvicorn, Node.js), so that we close first and no request is
# lost in a connection that the server is just closing.
IDLE_SECONDS: Final = 4.0
# Response heads beyond this are refused: nothing in MCP needs them.
MAX_HEAD: Final = 65_536
CONNECT_SECONDS: Final = 10.0


class Receiver(TypingProtocol):
    """Takes one answer. Exactly one of :meth:`end` and :meth:`failed` is called last."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The status and the header lines, names in lower case."""

    def data(self, chunk: bytes) -> None:
        """Some of the body."""

    def end(self) -> None:
        """The answer is complete."""

    def failed(self, why: str) -> None:
        """There will be no (complete) answer; ``why`` is for people."""


class Transfer:
    """One request and its answer under way.

    Attributes:
        receiver: Who takes the answer; None once nobody does.
        until: When its connection is closed if the answer has not ended by then; None for never.
    """

    __slots__ = ("_connection", "_paused", "receiver", "until")

    def __init__(self, receiver: Receiver) -> None:
        self.receiver: Receiver | None = receiver
        self.until: float | None = None
        self._connection: _Connection | None = None
        self._paused = False

    def begin(self, connection: _Connection, request: bytes) -> None:
        self._connection = connection
        if self._paused:
            connection.pause()
        connection.start(self, request)

    def abort(self) -> None:
        """Forget it: the connection is closed, the receiver hears nothing more."""
        self.receiver = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    def done(self) -> Receiver | None:
        """Detach: the receiver to tell the end, if anybody still listens."""
        if self._paused:
            self.resume()
        receiver, self.receiver, self._connection = self.receiver, None, None
        return receiver


class _Connection(Protocol):
    """One connection, one transfer at a time. The callbacks in snake_case are httptools'."""

    _log = Logger()

    def __init__(self, pool: Pool) -> None:
        self._pool: Final = pool
        self._transfer: Transfer | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        # Bytes received while the final head is not complete, and whether it is.
        self._size = 0
        self._headed = False
        # The answer is complete; whether the connection could serve another; what came after it.
        self._complete = False
        self._alive = False
        self._surplus = False
        self.idle_since = 0.0
        self.idle_for = IDLE_SECONDS

    def start(self, transfer: Transfer, request: bytes) -> None:
        self._transfer = transfer
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._size = 0
        self._headed = self._complete = self._surplus = False
        assert self.transport is not None
        self.transport.write(request)

    def abort(self) -> None:
        self._transfer = self._parser = None
        self._pool.forget(self)
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # ITCPTransport has it

    def look(self, now: float) -> None:
        """End an answer that ought to have ended."""
        transfer = self._transfer
        if transfer is not None and transfer.until is not None and now > transfer.until:
            self._break("it does not end its answer")

    def close(self) -> None:
        """Close an idle connection the polite way."""
        if self.transport is not None:
            self.transport.loseConnection()

    def pause(self) -> None:
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # IPushProducer

    def resume(self) -> None:
        if self.transport is not None:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # IPushProducer

    def dataReceived(self, data: bytes) -> None:
        if self._parser is None:
            # Nothing was asked: whatever this is, it must not be taken for the answer to the next request.
            self.abort()
            return
        why = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as e:
            # Raised by whoever takes the answer: a mistake of ours, and not to be hidden.
            self._log.failure("an answer could not be handled", Failure(e.__context__ or e))  # type: ignore[no-untyped-call]
            why = "its answer could not be handled"
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            why = f"it sent a malformed HTTP response ({e})"
        if self._complete:
            # Not before the parser has seen everything: what follows an answer in the same segment must not be taken
            # for the answer to a request that is sent because of this one.
            self._finish(reusable=self._alive and why is None and not self._surplus)
        elif why is not None:
            self._break(why)
        elif self._parser is not None and not self._headed:
            self._size += len(data)
            if self._size > MAX_HEAD:
                self._break(f"it sent a response head longer than {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        # Once the head is out these are the trailer fields of a chunked body, which nobody needs.
        if not self._headed:
            self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        parser, transfer = self._parser, self._transfer
        if parser is None or self._complete:
            return
        status = parser.get_status_code()
        if status < 200:
            # RFC 9110 §15.2: any number of interim responses may come first.
            self._headers = []
            return
        self._headed = True
        if transfer is not None and transfer.receiver is not None:
            transfer.receiver.head(status, self._headers)

    def on_body(self, chunk: bytes) -> None:
        transfer = self._transfer
        if transfer is not None and transfer.receiver is not None and not self._complete:
            transfer.receiver.data(chunk)

    def on_message_complete(self) -> None:
        if self._parser is not None and self._headed and not self._complete:
            self._complete = True
            self._alive = self._parser.should_keep_alive()

    def _finish(self, *, reusable: bool) -> None:
        transfer, self._transfer, self._parser = self._transfer, None, None
        if not (reusable and self._pool.put(self, self._headers)) and self.transport is not None:
            self.transport.loseConnection()
        receiver = None if transfer is None else transfer.done()
        if receiver is not None:
            receiver.end()

    def _break(self, why: str) -> None:
        transfer, self._transfer, self._parser = self._transfer, None, None
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # ITCPTransport has it
        receiver = None if transfer is None else transfer.done()
        if receiver is not None:
            receiver.failed(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._pool.forget(self)
        if self._parser is not None and self._headed and isinstance(reason.value, ConnectionDone):
            # A body without a length ends with the connection (RFC 9112 §6.3); any other body has been cut short.
            names = {name for name, _ in self._headers}
            if not names & {b"content-length", b"transfer-encoding"}:
                self._finish(reusable=False)
                return
        self._break(
            "it closed the connection without a complete answer"
            if isinstance(reason.value, ConnectionDone)
            else f"the connection broke ({reason.getErrorMessage()})"
        )


class Pool:
    """Connections to one origin.

    Args:
        endpoint: Makes an endpoint to the origin.
        clock: For the time of day and of connecting.
        reuse: Whether a connection serves another request when its answer is complete. Not through a proxy that passes
            on single requests: some close without saying so, and a request that meets that cannot be sent again.
    """

    def __init__(
        self, endpoint: Callable[[], IStreamClientEndpoint], clock: IReactorTime, *, reuse: bool = True
    ) -> None:
        self._reuse: Final = reuse
        self._endpoint: Final = endpoint
        self._clock: Final = clock
        self._idle: Final[list[_Connection]] = []
        self._open: Final[set[_Connection]] = set()
        self._closed = False
        self._factory: Final = Factory.forProtocol(lambda: _Connection(self))
        self._factory.noisy = False

    def request(self, request: bytes, receiver: Receiver) -> Transfer:
        """Send ``request``, a complete HTTP/1.1 request, on an idle connection or a new one."""
        transfer = Transfer(receiver)
        self._begin(transfer, request)
        return transfer

    def again(self, transfer: Transfer, request: bytes, receiver: Receiver) -> None:
        """Send ``request`` in continuation of ``transfer``, whose answer has just ended."""
        transfer.receiver = receiver
        self._begin(transfer, request)

    def _begin(self, transfer: Transfer, request: bytes) -> None:
        if self._idle:
            transfer.begin(self._idle.pop(), request)
            return
        connecting = self._endpoint().connect(self._factory)
        connecting.addTimeout(CONNECT_SECONDS, self._clock)

        def connected(connection: _Connection) -> None:
            self._open.add(connection)
            if transfer.receiver is None or self._closed:
                connection.abort()
            else:
                transfer.begin(connection, request)

        def refused(failure: Failure) -> None:
            receiver = transfer.done()
            if receiver is not None:
                receiver.failed(f"cannot connect ({failure.getErrorMessage() or type(failure.value).__name__})")

        connecting.addCallbacks(connected, refused)

    def put(self, connection: _Connection, headers: list[tuple[bytes, bytes]]) -> bool:
        """Take back a connection whose answer is complete. False when it must not be used again."""
        if self._closed or not self._reuse:
            return False
        connection.idle_since = self._clock.seconds()
        connection.idle_for = IDLE_SECONDS
        for name, value in headers:
            if name == b"keep-alive":
                for part in value.split(b","):
                    key, _, seconds = part.strip().partition(b"=")
                    if key.lower() == b"timeout" and seconds.isdigit():
                        connection.idle_for = max(0.0, min(60.0, int(seconds) - 1.0))
        self._idle.append(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        """``connection`` is gone."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close connections that have been idle too long, or are kept open for nothing. Called about once a second."""
        now = self._clock.seconds()
        for connection in list(self._open):
            connection.look(now)
        for connection in [c for c in self._idle if now - c.idle_since > c.idle_for]:
            self._idle.remove(connection)
            connection.close()

    def close(self) -> None:
        """Close every connection; transfers under way hear nothing more."""
        self._closed = True
        idle, self._idle[:] = set(self._idle), []
        for connection in list(self._open):
            if connection in idle:
                connection.close()
            else:
                connection.abort()
