"""Which proxy is on the way to a server: the configured one, or what the environment says, read as curl reads it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from mcptunnel.config.syntax import is_loopback

__all__ = ["Proxy", "ProxyError", "proxy_for"]

# Which variables speak for which scheme, the first that is set.
_VARIABLES: Final = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "ws": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "wss": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}


class ProxyError(ValueError):
    """A variable of the environment names no proxy that can be used; the text says which and why."""


@frozen(kw_only=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        line: The header line of what it is logged in with, or nothing; secret.
    """

    host: str
    port: int
    line: bytes = field(default=b"", repr=False)

    @classmethod
    def at(cls, url: str) -> Proxy:
        """The proxy at ``url``.

        Raises:
            ValueError: It is no http URL.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("no http URL")
        user, sign, _ = parts.netloc.rpartition("@")
        name, colon, password = user.partition(":")
        login = unquote(name) + colon + unquote(password) if colon else unquote(name) + ":"
        line = b"Proxy-Authorization: Basic %b\r\n" % b64encode(login.encode()) if sign else b""
        # Without a port, the one of http: curl alone takes 1080.
        return cls(host=parts.hostname, port=parts.port or 80, line=line)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def proxy_for(url: str, configured: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to ``url``, None for no proxy.

    Args:
        url: Of the server.
        configured: URL of a proxy, ``none``, or None: the environment decides.
        environ: The environment.

    Raises:
        ProxyError: The environment names something that cannot be used.
    """
    if configured is not None:
        return None if configured == "none" else Proxy.at(configured)
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if is_loopback(host):
        return None
    for variable in _VARIABLES[parts.scheme]:
        value = environ.get(variable, "").strip()
        if not value:
            continue
        if _excepted(host, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
            return None
        try:
            return Proxy.at(value if "://" in value else f"http://{value}")
        except ValueError:
            raise ProxyError(
                f"{variable} of the environment names no HTTP proxy that can be used; write http://host:port, or "
                "say proxy: none in mcpServers"
            ) from None
    return None


def _excepted(host: str, exceptions: str) -> bool:
    """Whether NO_PROXY says that ``host`` is reached directly."""
    if exceptions.strip() == "*":
        return True
    return any(_meant(host, entry) for entry in _entries(exceptions))


def _entries(exceptions: str) -> Iterator[str]:
    for entry in exceptions.replace(",", " ").split():
        yield entry.lower().lstrip(".").rstrip(".").removeprefix("[").removesuffix("]")


def _meant(host: str, entry: str) -> bool:
    """One entry: a name and what is below it, an address, or a network (curl since 7.86)."""
    if not entry:
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return host == entry or host.endswith(f".{entry}")
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False
