"""What became of connections: counted always, logged where somebody has to hear of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from attrs import define, field, frozen
from twisted.logger import Logger

from mcptunnel.core.handshakes import PLAIN_HTTP, TIMEOUT, Cause

__all__ = ["EXPLAINED", "HandshakeKey", "Tally"]

# Ends that an operator has to hear of once, since the other side sees a reset connection and nothing else.
EXPLAINED: Final[Mapping[str, str]] = {
    "proxy_untrusted": "it sent a PROXY header but is not in server.tls.trusted_proxies",
    "proxy_missing": "server.proxy_protocol is required, and it sent no PROXY header",
    "proxy_malformed": "its PROXY header is malformed",
    "proxy_twice": "it sent two PROXY headers",
    "unexpected_proxy": "it sent a PROXY header, and server.proxy_protocol is off",
    "unexpected_tls": "it speaks TLS, and this port serves plaintext only",
    "connections": "server.limits.connections is reached",
    "client_connections": "its share of connections, server.limits.client_connections, is reached",
}


@frozen
class HandshakeKey:
    """What complete handshakes are counted by.

    Attributes:
        version: Such as ``TLSv1.3``.
        cipher: OpenSSL's name of the suite.
        group: Of the key exchange; empty where there was none.
        resumed: Whether a session was resumed.
    """

    version: str
    cipher: str
    group: str
    resumed: bool


@define(eq=False, kw_only=True)
class Tally:
    """Counts of one listener.

    Attributes:
        debug: Log what becomes of every connection, and why. Off unless somebody asks: twistd's log shows every level.
        counts: How often connections came to each end or beginning.
        handshakes: Complete handshakes.
        failures: Failed handshakes by label, see :mod:`mcptunnel.core.handshakes`.
    """

    debug: bool = False
    counts: Counter[str] = field(init=False, factory=Counter)
    handshakes: Counter[HandshakeKey] = field(init=False, factory=Counter)
    failures: Counter[str] = field(init=False, factory=Counter)
    _said: set[str] = field(init=False, factory=set)

    _log = Logger()

    def note(self, what: str, peer: str, why: str) -> None:
        """Count what became of a connection. What an operator has to know of is logged the first time it happens."""
        self.counts[what] += 1
        if what in EXPLAINED and self._first(what):
            self._log.warn(
                "connection of {peer} was reset ({what}): {why}; further ones are counted, not logged",
                what=what,
                peer=peer,
                why=why,
            )
        elif self.debug:
            self._log.debug("connection of {peer}: {what}: {why}", what=what, peer=peer, why=why)

    def failed(self, cause: Cause, peer: str) -> None:
        """Count a handshake that failed; the first of each cause is logged with what to do about it."""
        # A client that speaks plain HTTP is answered, and counted as such.
        if cause.label != PLAIN_HTTP:
            self.counts["handshake_timeout" if cause.label == TIMEOUT else "handshake_failed"] += 1
        self.failures[cause.label] += 1
        if self._first(f"handshake {cause.label}"):
            self._log.warn(
                "TLS handshake of {peer} failed ({label}): {hint}; further ones are counted, not logged",
                label=cause.label,
                peer=peer,
                hint=cause.hint,
            )
        elif self.debug:
            self._log.debug(
                "TLS handshake of {peer} failed ({label}): {hint}", label=cause.label, peer=peer, hint=cause.hint
            )

    def _first(self, what: str) -> bool:
        if what in self._said:
            return False
        self._said.add(what)
        return True
