"""Which hosts we answer for, and which web pages may call us: the defence against DNS rebinding.

A page on ``evil.test`` whose name suddenly resolves to 127.0.0.1 can make a browser send anything to a local port; what
it cannot change is the name in ``Host`` and in ``Origin``. Not here: finding the host behind forwarded headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self
from urllib.parse import urlsplit

from attrs import frozen

__all__ = ["DEFAULT_PORTS", "LOOPBACK_NAMES", "HostPolicy", "authority", "normal_origin", "split_host"]

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# What a client on this machine may call it.
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.-]+)(?::([1-9][0-9]{0,4}))?")
# RFC 1123 §2.1 with the underscore that container networks use in names.
_LABEL: Final = re.compile(r"[0-9a-z_](?:[0-9a-z_-]{0,61}[0-9a-z_])?")
# A name that ends so is read as an IPv4 address by browsers (WHATWG URL, "ends in a number checker").
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")


def split_host(host: str) -> tuple[str, int | None]:
    """Cut ``host[:port]`` (RFC 9110 §7.2) into a normal name and a port.

    The name comes back in lower case, without a final dot, IPv6 compressed and in brackets.

    Raises:
        ValueError: It is not a DNS name, an IPv4 address in four decimal parts or an IPv6 address in brackets, or
            the port is not within 1 to 65535. Percent-encoding and user names are not accepted.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        raise ValueError(f"{host[:80]!r} is not host or host:port")
    port = int(match[2]) if match[2] else None
    if port is not None and port > 65535:
        raise ValueError(f"{port} is not a port")
    name = match[1].lower()
    if name.startswith("["):
        return f"[{IPv6Address(name[1:-1])}]", port
    labels = name.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return str(IPv4Address(name)), port
    if len(name) > 254 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{name[:80]!r} is not a DNS name")
    return name.removesuffix("."), port


def authority(name: str, port: int | None, scheme: str) -> str:
    """``name[:port]``, without the port where ``scheme`` implies it (RFC 9110 §4.2.3)."""
    return name if port is None or port == DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def normal_origin(origin: str) -> str:
    """``scheme://host[:port]`` in its one spelling (RFC 6454 §6.2): lower case, default port left out.

    Raises:
        ValueError: It is not an origin; a path, a user name or the word ``null`` is not.
    """
    scheme, separator, rest = origin.partition("://")
    scheme = scheme.lower()
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"{origin[:80]!r} is not scheme://host or scheme://host:port")
    return f"{scheme}://{authority(*split_host(rest), scheme)}"


@frozen(kw_only=True)
class HostPolicy:
    """The decision about ``Host`` and ``Origin`` of a request.

    Attributes:
        hosts: Names in their normal spelling with a port, or with None for any port.
        origins: Origins in their normal spelling; ``null`` only if the operator listed it.
        local_names: Names whose pages may call us whatever their scheme and port.
        any_ip_literal: Any IP address will do as a host: rebinding needs a name, so an address proves there was none.
        any_host: Any well-formed host will do.
        explicit: The operator said what we are called (``security.allowed_hosts`` or ``server.public_url``); else
            the names are guessed from the address that is bound.
    """

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    origins: frozenset[str] = frozenset()
    local_names: frozenset[str] = frozenset()
    any_ip_literal: bool = False
    any_host: bool = False
    explicit: bool = False

    @classmethod
    def build(
        cls,
        *,
        public_url: str | None = None,
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        bound_host: str = "127.0.0.1",
    ) -> Self:
        """Derive the policy from the configuration.

        Args:
            public_url: What clients call us; its host is allowed unless ``allowed_hosts`` says otherwise, its origin
                always.
            allowed_hosts: ``host`` (any port), ``host:port``, or ``*`` for any; empty means ``public_url`` and the
                names that go with ``bound_host``.
            allowed_origins: ``scheme://host[:port]`` or ``null``; empty means ``public_url`` and pages on this machine.
            bound_host: Address or name that is listened on, or ``unix:…``, or ``systemd:…``.

        Raises:
            ValueError: An entry is not of these forms; the message shows it.
        """
        hosts = tuple(allowed_hosts)
        origins = {origin if origin == "null" else normal_origin(origin) for origin in allowed_origins}
        local = LOOPBACK_NAMES if not origins else frozenset[str]()
        names, any_ip_literal, any_host = _bound_names(bound_host)
        allowed: set[tuple[str, int | None]] = {split_host(host) for host in hosts if host != "*"}
        if public_url is not None:
            url = urlsplit(public_url)
            origins.add(normal_origin(f"{url.scheme}://{url.netloc}"))
            if not hosts:
                allowed.add(split_host(authority(*split_host(url.netloc), url.scheme)))
        if not hosts:
            allowed |= {(name, None) for name in names}
        return cls(
            hosts=frozenset(allowed),
            origins=frozenset(origins),
            local_names=local,
            any_ip_literal=any_ip_literal and not hosts,
            any_host="*" in hosts or (any_host and not hosts and public_url is None),
            explicit=bool(hosts) or public_url is not None,
        )

    def host_allowed(self, host: str) -> bool:
        """Whether ``host`` (``name[:port]``) is one of ours. A host without a port matches an entry with 80 or 443."""
        try:
            name, port = split_host(host)
        except ValueError:
            return False
        if self.any_host or (name, None) in self.hosts or (name, port) in self.hosts:
            return True
        if port is None and ((name, 80) in self.hosts or (name, 443) in self.hosts):
            return True
        return self.any_ip_literal and _is_ip(name)

    def admits(self, host: str, *, tls: bool, vouched: bool) -> bool:
        """Whether a request for ``host`` may go on, given how it came.

        While the operator has not said what we are called, two kinds of request are beyond rebinding: over TLS the
        browser has compared the name with the certificate, and a trusted proxy has chosen us for the name it saw.

        Args:
            host: ``name[:port]`` as the client named us.
            tls: The client's TLS ends here.
            vouched: The host comes from a trusted proxy.
        """
        return self.host_allowed(host) or (not self.explicit and (tls or vouched) and _well_formed(host))

    def origin_allowed(self, origin: str, own: str | None = None) -> bool:
        """Whether a page of ``origin`` may call us.

        Args:
            origin: The header's value.
            own: ``scheme://host`` of the request itself if its host was admitted: a page of ours may call us.
        """
        if origin in self.origins:
            return True
        try:
            normal = normal_origin(origin)
            if own is not None and normal == normal_origin(own):
                return True
        except ValueError:
            return False
        if normal in self.origins:
            return True
        scheme, _, rest = normal.partition("://")
        return scheme in ("http", "https") and split_host(rest)[0] in self.local_names


def _bound_names(bound_host: str) -> tuple[frozenset[str], bool, bool]:
    """The names that go with a bound address: (names, any IP literal, any host)."""
    if bound_host.startswith("unix:"):
        # No browser can be led to a UNIX socket.
        return LOOPBACK_NAMES, False, True
    if bound_host.startswith("systemd:") or bound_host in ("", "*"):
        return LOOPBACK_NAMES, True, False
    try:
        address = ip_address(bound_host.strip("[]").partition("%")[0])
    except ValueError:
        return LOOPBACK_NAMES | {split_host(bound_host)[0]}, False, False
    name = f"[{address}]" if address.version == 6 else str(address)
    return LOOPBACK_NAMES | {name}, address.is_unspecified, False


def _well_formed(host: str) -> bool:
    try:
        split_host(host)
    except ValueError:
        return False
    return True


def _is_ip(name: str) -> bool:
    # split_host lets no name end in a number unless it is an IPv4 address.
    return name.startswith("[") or name.rpartition(".")[2].isdecimal()
