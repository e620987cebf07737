"""The daemon calls itself after every change of certificates: what a client is shown must be what the files say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint

from mcptunnel.core.addresses import UNIX_PEER, Trust, local_way
from mcptunnel.core.certificates import Facts
from mcptunnel.tls.chain import fingerprint
from mcptunnel.tls.probe import Probe
from mcptunnel.tls.probing import look

__all__ = ["SelfCheck"]

# On this machine a handshake takes milliseconds.
_SECONDS: Final = 5.0
# Stands for any name below a wildcard.
_ANY: Final = "mcptunnel-self-check"
# PROXY protocol, version 2, command LOCAL: a connection of the proxy's own, such as a health check.
_LOCAL: Final = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


@define(eq=False)
class SelfCheck:
    """Handshakes with our own listener.

    Attributes:
        reactor: Connects.
        address: Where we listen; None while we do not.
        trust: Who has to send a PROXY header: nobody where ``server.proxy_protocol`` is not ``required``.
    """

    reactor: Any
    address: Callable[[], IAddress | None]
    trust: Trust
    # A connection ends at its other end a little later: the latest are remembered.
    _own: deque[IAddress] = field(init=False, factory=partial(deque, maxlen=64))

    def is_own(self, peer: IAddress) -> bool:
        """Whether a connection that comes from ``peer`` is one of ours."""
        return peer in self._own

    async def differences(self, leaves: Sequence[Facts]) -> list[str]:
        """What clients are shown instead of ``leaves``, one line for each; empty when all is as it should be.

        Args:
            leaves: The certificates in service, the default one first.
        """
        address = self.address()
        if address is None:
            return []
        found: list[str] = []
        taken: set[str] = set()
        for number, leaf in enumerate(leaves):
            # A client that asks for no name gets the first; of two for a name the first counts.
            names = [name for name in leaf.names if name not in taken and _is_name(name)]
            taken.update(leaf.names)
            for name in ([None] if number == 0 else []) + names[:1]:
                found.extend(await self._compare(address, leaf, name))
        return found

    async def _compare(self, address: IAddress, leaf: Facts, name: str | None) -> list[str]:
        endpoint, peer = self._way(address)
        probe = Probe(None if name is None else name.replace("*", _ANY), trust=())
        before = _LOCAL if self.trust.holds(peer) else b""
        try:
            presented = await look(endpoint, probe, self.reactor, _SECONDS, before=before, connected=self._own.append)
        except Exception as error:
            return [f"{leaf.file}: the daemon could not connect to itself to see what it shows: {error}"]
        shown = fingerprint(presented.chain[0])
        if shown == leaf.fingerprint:
            return []
        asking = f"ask for {name}" if name else "ask for no name"
        return [f"{leaf.file}: clients that {asking} are shown {shown[:16]}… instead of {leaf.fingerprint[:16]}…"]

    def _way(self, address: IAddress) -> tuple[IStreamClientEndpoint, str]:
        """How to get there, and how the listener sees us then."""
        if isinstance(address, UNIXAddress):
            return UNIXClientEndpoint(self.reactor, address.name), UNIX_PEER  # type: ignore[no-untyped-call]
        assert isinstance(address, IPv4Address | IPv6Address)
        host = local_way(address.host)
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        return kind(self.reactor, host, address.port), host


def _is_name(name: str) -> bool:
    """Whether it can be asked for: RFC 6066 §3 knows no addresses."""
    try:
        ip_address(name)
    except ValueError:
        return True
    return False
