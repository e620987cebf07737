"""Twisted's TLS layer without what it does twice, or in vain, for each connection of a server.

It reaches below Twisted's interface, so :mod:`mcptunnel.test.tls.test_layer` holds it to what Twisted's own layer does.
"""

from __future__ import annotations

from typing import Any, Final, cast

from OpenSSL import SSL
from twisted.internet.interfaces import ITransport
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

__all__ = ["Layer"]

# Four full records: one call into OpenSSL, and one into the kernel.
_BATCH: Final = 4 * 2**14
# RFC 8446 §5.2: a record is at most so much longer than what it carries. Room for tickets beside them.
_SEALED: Final = _BATCH + 4 * (256 + 5) + 4096
# Writes above this leave memory behind that is worth a new buffer.
_SMALL: Final = 4096


class Layer(TLSMemoryBIOProtocol):
    """The server's end of one connection, which is given its first bytes as soon as it is connected."""

    transport: Any

    def makeConnection(self, transport: ITransport) -> None:
        """As in Twisted, without a handshake that has nothing to read yet."""
        layer: Any = self
        layer._tlsConnection = layer.factory._creatorCallable(self)
        layer._appSendBuffer = []
        ProtocolWrapper.makeConnection(layer, transport)  # type: ignore[no-untyped-call]

    def _flushSendBIO(self) -> None:
        layer: Any = self
        more = True
        while more:
            try:
                sealed = layer._tlsConnection.bio_read(_SEALED)
            except SSL.WantReadError:
                return
            self.transport.write(sealed)
            more = len(sealed) == _SEALED

    def _write(self, data: bytes) -> None:
        """As in Twisted, which takes a record at a time."""
        layer: Any = self
        if layer._lostTLSConnection:
            return
        at = 0
        while at < len(data):
            try:
                at += layer._tlsConnection.send(data[at : at + _BATCH])
            except SSL.WantReadError:
                layer._bufferedWrite(data[at:])
                return
            except SSL.Error:
                layer._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
                return
            self._flushSendBIO()
        if len(data) > _SMALL:
            _shrink(layer._tlsConnection)


def _shrink(connection: Any) -> None:
    """Give back the buffer for outgoing bytes, which must be empty. By itself it never shrinks.

    Below pyOpenSSL, which makes one for each connection and no second one.
    """
    library, null = cast(Any, SSL)._lib, cast(Any, SSL)._ffi.NULL
    fresh = library.BIO_new(library.BIO_s_mem())
    if fresh == null:
        return
    # With the buffer for incoming bytes as it was, this frees the old one and takes the new one over (SSL_set_bio(3)).
    library.SSL_set_bio(connection._ssl, connection._into_ssl, fresh)
    connection._from_ssl = fresh
