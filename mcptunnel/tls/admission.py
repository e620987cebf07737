"""How many connections may be open at once: in all, and for one client."""

from __future__ import annotations

from ipaddress import IPv6Address

from attrs import define, field

from mcptunnel.core.addresses import peer_address

__all__ = ["Admission", "client_key"]


def client_key(peer: str) -> str | None:
    """What a client is counted under; None for peers without an address, who are on this machine.

    An IPv6 client counts by its /64, of which one host can use every address (RFC 7421 §2).
    """
    address = peer_address(peer)
    if address is None or ":" not in address:
        return address
    return str(IPv6Address(int(IPv6Address(address)) >> 64 << 64))


@define(eq=False)
class Admission:
    """Counts open connections against their bounds.

    Attributes:
        total: Connections in all.
        per_client: Connections of one client.
        open: Connections now.
    """

    total: int
    per_client: int
    open: int = field(init=False, default=0)
    _clients: dict[str, int] = field(init=False, factory=dict)

    def enter(self) -> bool:
        """Count one more connection; False, and nothing counted, when there are enough."""
        if self.open >= self.total:
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        """One connection less."""
        self.open -= 1

    def enter_client(self, key: str) -> bool:
        """Count one more connection of a client; False, and nothing counted, when it has enough."""
        count = self._clients.get(key, 0)
        if count >= self.per_client:
            return False
        self._clients[key] = count + 1
        return True

    def leave_client(self, key: str) -> None:
        """One connection of a client less. A client without any is forgotten, so that the table stays small."""
        count = self._clients[key] - 1
        if count:
            self._clients[key] = count
        else:
            del self._clients[key]
