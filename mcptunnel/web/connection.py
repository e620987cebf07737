"""The transport's side of a channel: how long to wait, how fast to write, how to end. It knows no HTTP.

There is no timer per connection: it knows until when it waits, and its site looks at all of them once a second.

Invariants: every connection that is left alone ends. A client that does not read is not written for, and after a while
cut off. Nothing that a client has been told last is taken away from it by a reset.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from attrs import define
from twisted.internet.interfaces import IAddress, IConsumer, IPullProducer, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from mcptunnel.core.addresses import peer_text

if TYPE_CHECKING:
    from mcptunnel.web.site import Site

__all__ = [
    "BODY",
    "BUSY",
    "CLOSING",
    "GONE",
    "HEAD",
    "IDLE",
    "LINGER",
    "MINIMUM_RATE",
    "SKIP",
    "Connection",
]

# What a connection is waiting for: a request, the rest of a head, of a body, of a body that nobody wants; a reply; the
# client's end of the connection; its own end. From BUSY on nothing that arrives is looked at.
IDLE, HEAD, BODY, SKIP, BUSY, LINGER, CLOSING, GONE = range(8)

# Slower senders and readers are attacks or lost causes: Apache's mod_reqtimeout has the same 500 B/s.
MINIMUM_RATE: Final = 500.0
# nginx lingers for 5 s between packets; our answers are short, and clients that read them close by themselves.
_LINGER_SECONDS: Final = 2.0


@implementer(IPushProducer, IConsumer)
class Connection(Protocol, ABC):
    """See the module. To the transport a push producer, to the producer of a reply its consumer.

    Attributes:
        peer: The socket's other end as text.
        tls: TLS ends here.
        wire: The transport; None once somebody has taken it over.
    """

    peer = ""
    tls = False
    wire: Any = None

    def __init__(self, site: Site) -> None:
        self.site: Final = site
        self._phase = IDLE
        self._deadline = inf
        self._reading = True
        self._producer: IPushProducer | None = None
        self._pulling = False
        # While the transport is full: the begin of the window in which that is judged, and what was unsent then.
        self._full: tuple[float, int] | None = None

    # -- what a subclass does -----------------------------------------------------------------------------------

    @abstractmethod
    def _expired(self) -> None:
        """The deadline of a phase before CLOSING has passed."""

    @abstractmethod
    def _handed_over(self) -> None:
        """Somebody has taken the transport; nothing will be heard of the connection any more."""

    @abstractmethod
    def _proceed(self) -> None:
        """The transport takes bytes again."""

    # -- begin and end ------------------------------------------------------------------------------------------

    @property
    def transport(self) -> Any:
        """The transport. autobahn's resource sets None: from then on the connection is its own."""
        return self.wire

    @transport.setter
    def transport(self, transport: Any) -> None:
        if transport is None and self.wire is not None:
            self._phase = GONE
            self.wire.unregisterProducer()
            self._handed_over()
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

    def abort(self) -> None:
        """End the connection now; what is still unsent is lost."""
        if self._phase < GONE:
            self._phase, self._deadline = CLOSING, inf
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
        if self._phase >= CLOSING:
            return
        wire, now = self.wire, self.site.seconds()
        self._full = None
        if self._phase != LINGER:
            # A registered producer would keep the transport from closing.
            wire.unregisterProducer()
        if linger:
            self._phase, self._deadline = LINGER, now + _LINGER_SECONDS
            self._resume_reading()
            # Through TLS this would end the stream without a word, as an attacker would (RFC 8446 §6.1).
            if not self.tls and hasattr(wire, "loseWriteConnection"):
                wire.loseWriteConnection()
        else:
            self._phase, self._deadline = CLOSING, now + self.site.limits.write_timeout
            wire.loseConnection()

    def look(self, now: float) -> None:
        """Called about once a second: end what has lasted too long."""
        if self._full is not None and self._phase < GONE:
            self._judge_drain(now, *self._full)
        if now >= self._deadline:
            self._deadline = inf
            if self._phase == CLOSING:
                self.abort()
            else:
                self._expired()

    def _judge_drain(self, now: float, since: float, waiting: int) -> None:
        """A client that refuses to read, or hardly does, holds memory that others need."""
        elapsed = now - since
        if elapsed < self.site.limits.write_timeout:
            return
        unsent = _unsent(self.wire)
        if unsent and waiting - unsent < MINIMUM_RATE * elapsed:
            self.abort()
        else:
            self._full = (now, unsent)

    # -- input --------------------------------------------------------------------------------------------------

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.wire.pauseProducing()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.wire.resumeProducing()

    # -- output: what twisted.web's Request asks of its channel ---------------------------------------------------

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
            if self._phase < LINGER:
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

    connection: Connection
    producer: Any

    def resumeProducing(self) -> None:
        self.producer.resumeProducing()
        self.connection.pulled()

    def stopProducing(self) -> None:
        self.producer.stopProducing()


def _unsent(wire: Any) -> int:
    """Bytes that wait in a Twisted transport (or in the one below TLS); 1 where that cannot be known."""
    try:
        return len(wire.dataBuffer) - wire.offset + wire._tempDataLen  # type: ignore[no-any-return]
    except AttributeError:
        return 1
