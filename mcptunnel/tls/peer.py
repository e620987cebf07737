"""The other end of a connection, as a transport shows it when a PROXY header has named somebody else."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from zope.interface import directlyProvides, providedBy

__all__ = ["PeerTransport", "address_of"]


def address_of(host: str, port: int) -> IPv4Address | IPv6Address:
    """The TCP address for a canonical IP address."""
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


class PeerTransport:
    """A transport that is another one in everything but ``getPeer``.

    Not a ProtocolWrapper: bytes that come in never pass through it, and what goes out takes the other transport's own
    bound method, so that a PROXY header costs nothing after it was read.
    """

    def __init__(self, transport: Any, peer: IAddress) -> None:
        self._transport = transport
        self._peer = peer
        self.write = transport.write
        self.writeSequence = transport.writeSequence
        directlyProvides(self, providedBy(transport))

    def getPeer(self) -> IAddress:
        return self._peer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
