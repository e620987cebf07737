"""``HOST[:PORT]`` on a command line: a name, an address, or a URL that somebody has copied."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

import idna
from attrs import frozen

from mcptunnel.core.hosts import split_host

__all__ = ["Target", "parse"]

_PORTS: Final = {"https": 443, "wss": 443}
_PORT: Final = re.compile(r"(.*):([0-9]{1,5})")


@frozen(kw_only=True)
class Target:
    """Where to connect.

    Attributes:
        host: A name in ASCII (xn-- form), or an address without brackets.
        port: TCP port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether ``host`` is an address: nothing to ask for in SNI (RFC 6066 §3)."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


def parse(text: str) -> Target:
    """The target that ``text`` means: ``mcp.example.com``, ``[::1]:8443``, ``::1``, ``https://mcp.example.com/mcp``.

    Raises:
        ValueError: It means none; says why.
    """
    port = 443
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme not in _PORTS:
            raise ValueError(f"{parts.scheme}:// has no TLS; write https:// or HOST:PORT")
        if "@" in parts.netloc:
            raise ValueError("a user name does not belong here")
        text, port = parts.netloc, _PORTS[parts.scheme]
    try:
        return Target(host=str(IPv6Address(text)), port=port)
    except ValueError:
        pass
    match = _PORT.fullmatch(text)
    host, said = (match[1], int(match[2])) if match else (text, port)
    name, given = split_host(f"{_to_ascii(host)}:{said}")
    return Target(host=name.removeprefix("[").removesuffix("]"), port=given or port)


def _to_ascii(name: str) -> str:
    """A host name in the form that DNS and certificates have (RFC 5891); what is ASCII comes back as it is.

    Raises:
        ValueError: It cannot be a name.
    """
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"{name!r} is not a host name: {error}") from None
