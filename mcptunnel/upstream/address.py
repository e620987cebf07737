"""The address of an HTTP server: what every request to it says, and which other addresses are the same server's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

from attrs import evolve, field, frozen

from mcptunnel.upstream.proxies import Proxy

__all__ = ["Address", "origin_of", "shown"]

# What may stand in a request line; a longer one serves nobody.
_REFERENCE: Final = re.compile(r"[!-\[\]-~]{1,8192}")
# Of a URL that a server names, in a message.
_SHOWN: Final = 200
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@frozen(kw_only=True)
class Address:
    """An address with the header lines that go there.

    Attributes:
        url: Absolute; may hold secrets in its query.
        lines: Host, the configured header lines, and what a proxy on the way asks for; secret.
        proxied: Requests name the whole URL, for a proxy (RFC 9112 §3.2.2).
    """

    url: str = field(repr=False)
    lines: bytes = field(repr=False)
    proxied: bool = False

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str], proxy: Proxy | None = None) -> Address:
        """The address ``url``, reached through ``proxy`` if that passes on single requests."""
        lines = b"Host: %b\r\n" % urlsplit(url).netloc.encode("ascii")
        lines += b"".join(b"%b: %b\r\n" % (k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items())
        if proxy is not None:
            lines += proxy.line
        return cls(url=url, lines=lines, proxied=proxy is not None)

    def request(self, method: bytes, lines: bytes, body: bytes | None = None) -> bytes:
        """A complete request with ``lines`` beside our own."""
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if self.proxied:
            target = f"{parts.scheme}://{parts.netloc}{target}"
        head = b"%b %b HTTP/1.1\r\n%b%b" % (method, target.encode("ascii"), self.lines, lines)
        return head + (b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def at(self, reference: str) -> Address:
        """Where ``reference``, named by the server, leads.

        Raises:
            ValueError: It is no URL, or leads to another server.
        """
        if not _REFERENCE.fullmatch(reference):
            raise ValueError("it is no URL")
        url = urljoin(self.url, reference).partition("#")[0]
        if origin_of(url) != origin_of(self.url):
            raise ValueError("it is another server")
        return evolve(self, url=url)

    def named(self, reference: str) -> str:
        """``reference`` for a message: absolute, without query."""
        try:
            return shown(urljoin(self.url, reference))
        except ValueError:
            return "something that is no URL"


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port.

    Raises:
        ValueError: It has none, or holds a user name.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.hostname:
        raise ValueError("it is no URL of a server")
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def shown(url: str) -> str:
    """``url`` for a message: without user name, query and fragment, and not too long."""
    parts = urlsplit(url)
    text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
