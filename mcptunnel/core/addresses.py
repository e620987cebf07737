"""Network addresses as text: one spelling for each, strict parsing of what headers claim, and who is trusted.

Not here: what trust leads to (:mod:`mcptunnel.core.forwarded`). Invariant: two spellings of one address never differ
in their canonical form, and nothing that is not exactly an address ever becomes one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import field, frozen

__all__ = ["UNIX_PEER", "Node", "Trust", "canon", "is_unix", "local_way", "parse_node", "peer_address", "peer_text"]

# How the other end of a UNIX socket is written where an address is expected; a path may follow.
UNIX_PEER: Final = "unix:"

# The rule that trusts every peer on a UNIX socket.
_UNIX_RULE: Final = "unix"

# ::ffff:0:0/96, the IPv4-mapped addresses of RFC 4291 §2.5.5.2.
_MAPPED: Final = IPv6Network("::ffff:0:0/96")

# Peers whose trust is remembered: more than any sane number of proxies, and under 1 MiB.
_REMEMBERED: Final = 4096

# RFC 7239 §6: obfnode and obfport.
_OBFUSCATED: Final = re.compile(r"_[A-Za-z0-9._-]+")
_BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(.*))?")
# Digits without a leading zero: what no reader can take for octal.
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")


def canon(text: str, *, peer: bool = False) -> str:
    """The one spelling of an IP address.

    IPv4-mapped IPv6 becomes IPv4, whatever its spelling. Translated prefixes (``64:ff9b::/96``, ``2002::/16``) stay
    as they are: anybody may write any IPv4 address into them.

    Args:
        text: An address without port and brackets.
        peer: The text comes from the socket: a zone (``%eth0``) is cut off. Elsewhere a zone is an error, since it
            means nothing on another host (RFC 4007 §11.2).

    Raises:
        ValueError: It is not an address; short forms and leading zeros are not.
    """
    if peer:
        text = text.partition("%")[0]
    elif "%" in text:
        raise ValueError(f"{text!r} has a zone, which means nothing here")
    address = ip_address(text)
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)


def is_unix(peer: str) -> bool:
    """Whether a peer's text stands for the other end of a UNIX socket."""
    return peer.startswith(UNIX_PEER)


def local_way(bound: str) -> str:
    """The address at which this machine reaches a listener on ``bound``: for one on all of them, loopback."""
    host = bound.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def peer_text(address: object) -> str:
    """A transport's address as :class:`Trust` and the resolver read it: an IP address, ``unix:``, or nothing known.

    Args:
        address: An address object of the network layer: one with a ``host`` is a TCP peer, one with only a ``name``
            (a path, or None for a client's unnamed end) is a UNIX socket.
    """
    host = getattr(address, "host", None)
    if isinstance(host, str):
        return host
    return UNIX_PEER if hasattr(address, "name") else ""


def peer_address(peer: str) -> str | None:
    """The canonical address of a socket's other end, or None where it has none (a UNIX socket)."""
    try:
        return canon(peer, peer=True)
    except ValueError:
        return None


@frozen(kw_only=True)
class Node:
    """One party named in a forwarded header: an address, or an identifier that stands for one.

    Attributes:
        address: Canonical address; None when the sender keeps it to itself.
        opaque: ``unknown`` or an obfuscated identifier; None beside an address.
        port: None when absent or obfuscated.
    """

    address: str | None = None
    opaque: str | None = None
    port: int | None = None


def parse_node(text: str, *, rfc7239: bool = False) -> Node:
    """Read one entry of a forwarded header, strictly.

    Args:
        text: The entry without surrounding white space.
        rfc7239: Read it by the grammar of RFC 7239 §6: IPv6 only in brackets, and ports may be obfuscated and may
            follow an identifier. Otherwise as ``X-Forwarded-For`` has it: a bare IPv6 address is one as well.

    Raises:
        ValueError: It is no node. Whoever calls this must refuse the request, never skip the entry.
    """
    if match := _BRACKETED.fullmatch(text):
        if ":" not in match[1]:
            raise ValueError(f"{text!r} has brackets around something other than IPv6")
        return Node(address=canon(match[1]), port=_port(match[2], rfc7239))
    if text.count(":") > 1 and not rfc7239:
        return Node(address=canon(text))
    name, colon, port_text = text.partition(":")
    if name.lower() == "unknown" or _OBFUSCATED.fullmatch(name):
        if colon and not rfc7239:
            raise ValueError(f"{text!r} has a port after an identifier")
        return Node(opaque=name, port=_port(port_text if colon else None, rfc7239))
    return Node(address=canon(name), port=_port(port_text if colon else None, rfc7239))


def _port(text: str | None, rfc7239: bool) -> int | None:
    if text is None or (rfc7239 and _OBFUSCATED.fullmatch(text)):
        return None
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _texts(rules: Iterable[str]) -> tuple[str, ...]:
    return tuple(rules)


@frozen
class Trust:
    """The peers whose word counts: the entries of ``trusted_proxies``.

    Attributes:
        rules: CIDR networks, single addresses, or ``unix``, as the operator wrote them.

    Raises:
        ValueError: A rule is none of these; the message says which and how to write it.
    """

    rules: tuple[str, ...] = field(default=(), converter=_texts)
    _networks: tuple[tuple[IPv4Network | IPv6Network, str], ...] = field(init=False, eq=False, repr=False)
    _remember: Callable[[str], str | None] = field(init=False, eq=False, repr=False)

    @_networks.default
    def _parse(self) -> tuple[tuple[IPv4Network | IPv6Network, str], ...]:
        return tuple((_network(rule), rule) for rule in self.rules if rule != _UNIX_RULE)

    @_remember.default
    def _remembering(self) -> Callable[[str], str | None]:
        return lru_cache(maxsize=_REMEMBERED)(self._match)

    def __bool__(self) -> bool:
        """Whether anybody is trusted at all."""
        return bool(self.rules)

    def matching(self, ip: str) -> str | None:
        """The rule that trusts ``ip`` (any spelling, or ``unix:``), or None when none does."""
        return self._remember(ip)

    def holds(self, ip: str) -> bool:
        """Whether ``ip`` is trusted. The answers for the last few thousand addresses are remembered."""
        return self._remember(ip) is not None

    @property
    def everybody(self) -> tuple[str, ...]:
        """The rules that trust every address of a family, which only ``trust_any_peer`` may permit."""
        return tuple(rule for network, rule in self._networks if network.prefixlen == 0)

    @property
    def wide(self) -> tuple[str, ...]:
        """The rules that trust more than one site: wider than /16 in IPv4 or /48 in IPv6."""
        return tuple(
            rule for network, rule in self._networks if network.prefixlen < (16 if network.version == 4 else 48)
        )

    def _match(self, ip: str) -> str | None:
        if is_unix(ip):
            return _UNIX_RULE if _UNIX_RULE in self.rules else None
        try:
            address = ip_address(canon(ip, peer=True))
        except ValueError:
            return None
        return next((rule for network, rule in self._networks if address in network), None)


def _network(rule: str) -> IPv4Network | IPv6Network:
    _, slash, length = rule.partition("/")
    if "%" in rule or (slash and not (length.isascii() and length.isdecimal())):
        raise ValueError(f"{rule!r} is not a network such as 10.0.0.0/8, an address, or 'unix'")
    try:
        network = ip_network(rule, strict=False)
    except ValueError:
        raise ValueError(f"{rule!r} is not a network such as 10.0.0.0/8, an address, or 'unix'") from None
    if slash and ip_address(rule.partition("/")[0]) != network.network_address:
        raise ValueError(f"{rule!r} has bits set beyond its prefix; the network is written {network}")
    # Peers are compared unmapped, so a network of mapped addresses has to be the IPv4 network that it means.
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network
