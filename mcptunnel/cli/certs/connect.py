"""A blocking connection to a server, through a proxy if need be; every wait ends with one deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any, Final, Literal

from attrs import define, field, frozen

from mcptunnel.upstream.proxies import Proxy

__all__ = ["Connection", "DialError", "Way"]

Kind = Literal["unresolved", "refused", "unreachable", "timeout", "http", "not_tls", "alert", "closed", "proxy"]

# A proxy's answer to CONNECT.
_MAX_HEAD: Final = 16_384


class DialError(Exception):
    """No certificate was seen.

    Attributes:
        kind: What kept it from being seen.
        alert: The name of the server's alert, where it sent one.
    """

    def __init__(self, kind: Kind, says: str, alert: str = "") -> None:
        super().__init__(says)
        self.kind: Final = kind
        self.alert: Final = alert


@frozen(kw_only=True)
class Way:
    """How to get to the server.

    Attributes:
        host: Name or address; the path of a UNIX socket if ``port`` is None.
        port: TCP port.
        proxy: An HTTP proxy to go through.
        before: Bytes to send ahead of TLS, such as a PROXY header.
    """

    host: str
    port: int | None
    proxy: Proxy | None = None
    before: bytes = b""


@define(eq=False, kw_only=True)
class Connection:
    """One connection and its deadline.

    Attributes:
        seconds: How long all of it may take.
        wire: Its socket, once it is there.
    """

    seconds: float
    wire: socket.socket = field(init=False)
    _until: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds

    @classmethod
    def to(cls, way: Way, seconds: float) -> Connection:
        """Connect, to the first of its addresses that answers.

        Raises:
            DialError: It is not to be reached.
        """
        connection = cls(seconds=seconds)
        connection.wire = connection._connected(way)
        return connection

    def enter(self, way: Way) -> None:
        """Get through the proxy, and send what goes ahead of TLS.

        Raises:
            DialError: The proxy refuses.
            OSError: The connection broke, or the time is over.
        """
        if way.proxy is not None:
            self._tunnel(way, way.proxy)
        self.send(way.before)

    def close(self) -> None:
        """Close it."""
        self.wire.close()

    def send(self, data: bytes) -> None:
        """Send all of it; a TimeoutError when there is no time left."""
        self.wire.settimeout(self._left())
        self.wire.sendall(data)

    def receive(self, most: int) -> bytes:
        """Up to ``most`` bytes, none when the connection is closed; a TimeoutError when there is no time left."""
        self.wire.settimeout(self._left())
        return self.wire.recv(most)

    def hangs_up(self, seconds: float) -> bool:
        """Whether the server ends the connection within ``seconds``, whatever it says meanwhile."""
        until = time.monotonic() + seconds
        try:
            while (wait := until - time.monotonic()) > 0:
                self.wire.settimeout(wait)
                if not self.wire.recv(65_536):
                    return True
        except TimeoutError:
            pass
        except OSError:
            return True
        return False

    @property
    def peer(self) -> str:
        """The address of the other end."""
        try:
            peer = self.wire.getpeername()
        except OSError:
            return "?"
        if isinstance(peer, tuple):
            return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
        return f"unix:{peer}" if isinstance(peer, str) else "unix:"

    def _left(self, share: int = 1) -> float:
        left = (self._until - time.monotonic()) / share
        if left <= 0:
            raise TimeoutError
        return left

    def _connected(self, way: Way) -> socket.socket:
        """To the first of its addresses that answers."""
        places: list[tuple[int, Any]]
        if way.proxy is not None:
            where = f"the proxy {way.proxy}"
            places = list(_resolved(way.proxy.host, way.proxy.port))
        elif way.port is None:
            where, places = way.host, [(int(socket.AF_UNIX), way.host)]
        else:
            where, places = "", list(_resolved(way.host, way.port))
        problem: Exception = OSError("it has no address")
        for number, (family, address) in enumerate(places):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._left(len(places) - number))
                connection.connect(address)
                return connection
            except OSError as error:
                connection.close()
                problem = error
        raise _refusal(problem, where, self.seconds)

    def _tunnel(self, way: Way, proxy: Proxy) -> None:
        """Through an HTTP proxy (CONNECT, RFC 9110 §9.3.6)."""
        host = f"[{way.host}]" if ":" in way.host else way.host
        there = f"{host}:{way.port}".encode("ascii")
        self.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (there, there, proxy.line))
        head = b""
        while b"\r\n\r\n" not in head:
            # One by one: what follows is TLS, and not ours to take.
            data = self.receive(1)
            head += data
            if not data or len(head) > _MAX_HEAD:
                raise DialError("proxy", f"the proxy {proxy} sent no answer that could be read")
        status = head.split(b" ", 2)[1:2]
        if not head.startswith(b"HTTP/1.") or not status or not status[0].startswith(b"2"):
            said = head.partition(b"\r\n")[0][9:80].decode("ascii", "replace")
            raise DialError("proxy", f"the proxy {proxy} refuses to connect to the server ({said})")


def _resolved(host: str, port: int) -> Iterator[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DialError("unresolved", f"the name {host} cannot be resolved: {why}") from None
    for family, _, _, _, address in found:
        yield family, address


def _refusal(problem: Exception, where: str, seconds: float) -> DialError:
    subject = f"{where} " if where else ""
    if isinstance(problem, ConnectionRefusedError | FileNotFoundError):
        return DialError("refused", f"{subject}refuses the connection: nothing listens there")
    if isinstance(problem, TimeoutError):
        return DialError("timeout", f"{subject}does not answer within {seconds:g} s")
    return DialError("unreachable", f"{subject}cannot be reached: {getattr(problem, 'strerror', None) or problem}")
