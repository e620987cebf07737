"""What stands behind the TLS layer until the handshake is over, and then makes way for the HTTP channel.

A client that never completes a handshake costs no channel, and its failure is told to one who can say why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Creator", "Handshake"]


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """Waits for one handshake.

    Args:
        context: Made for the name that the client asks for.
        completed: Called once with the TLS layer when the handshake is complete.
        failed: Called once with the TLS layer and the reason when it is never going to be.
    """

    def __init__(
        self,
        context: SSL.Context,
        completed: Callable[[TLSMemoryBIOProtocol], None],
        failed: Callable[[TLSMemoryBIOProtocol, BaseException], None],
    ) -> None:
        self.context = context
        self._completed = completed
        self._failed = failed

    def handshakeCompleted(self) -> None:
        tls: Any = self.transport
        self._completed(tls)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        tls: Any = self.transport
        self._failed(tls, reason.value)


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """Gives each connection the context that its :class:`Handshake` has brought along."""

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(tlsProtocol.wrappedProtocol.context, None)
        connection.set_accept_state()
        return connection
