"""One connection to a TLS server, to see what it presents: a blocking socket around :class:`mcptunnel.tls.probe.Probe`.

Every wait ends with one deadline. What comes instead of certificates is recognised: plain HTTP, another protocol, an
alert, silence.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeVar

from attrs import define, field, frozen
from cryptography import x509

from mcptunnel.tls.probe import Presented, Probe, ProbeError
from mcptunnel.upstream.proxies import Proxy

__all__ = ["DialError", "Seen", "Way", "all_at_once", "dial"]

T = TypeVar("T")

Kind = Literal["unresolved", "refused", "unreachable", "timeout", "http", "not_tls", "alert", "closed", "proxy"]

_MOST: Final = 65_536
# A proxy's answer to CONNECT.
_MAX_HEAD: Final = 16_384
# Of bytes that are no TLS, in a message.
_SHOWN: Final = 40
_THREADS: Final = 16
# RFC 8446 §5.1: what the first byte of a record can be here.
_ALERT, _HANDSHAKE = 0x15, 0x16
# RFC 8446 §6.2, what a server says instead of showing a certificate.
_ALERTS: Final = {
    10: "unexpected_message",
    40: "handshake_failure",
    47: "illegal_parameter",
    50: "decode_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    109: "missing_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}


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


@frozen(kw_only=True)
class Seen:
    """What a server showed.

    Attributes:
        peer: The address that answered.
        presented: Its certificates and the rest of the handshake.
        hung_up: It closed the connection as soon as the handshake was over, as servers do that miss a client
            certificate (in TLS 1.3 they can only say so afterwards).
    """

    peer: str
    presented: Presented
    hung_up: bool


def dial(
    way: Way,
    name: str | None,
    trust: Sequence[x509.Certificate] | None,
    *,
    seconds: float,
    linger: float = 0.0,
) -> Seen:
    """Shake hands once.

    Args:
        way: To the server.
        name: What is asked for in SNI; None for nothing.
        trust: Trust anchors; None for the system's.
        seconds: For all of it, but for the resolution of names, which the system bounds.
        linger: Seconds to wait for the server to hang up after the handshake.

    Raises:
        DialError: No certificate was seen.
    """
    call = _Call(until=time.monotonic() + seconds, seconds=seconds)
    with contextlib.closing(call.connect(way)) as connection:
        try:
            if way.proxy is not None:
                call.tunnel(connection, way, way.proxy)
            presented = call.shake_hands(connection, Probe(name, trust), way.before)
            hung_up = bool(linger) and _hangs_up(connection, linger)
            return Seen(peer=_written(connection), presented=presented, hung_up=hung_up)
        except TimeoutError:
            raise DialError("timeout", f"takes the connection and says nothing for {seconds:g} s") from None
        except OSError as error:
            raise DialError("closed", f"breaks the connection: {error.strerror or error}") from None


def all_at_once(jobs: Sequence[Callable[[], T]], seconds: float) -> list[T | Exception | None]:
    """Run blocking ``jobs`` side by side, at most sixteen at a time.

    Returns:
        What each returned or raised, in their order; None for one that was not done after ``seconds``. It is left
        behind, and does not keep the process alive.
    """
    results: list[T | Exception | None] = [None] * len(jobs)
    waiting = iter(range(len(jobs)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            try:
                results[number] = jobs[number]()
            except Exception as error:
                results[number] = error

    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, daemon=True) for _ in jobs[:_THREADS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(results)


@define(eq=False, kw_only=True)
class _Call:
    """One call and its deadline."""

    until: float
    seconds: float
    _first: bytes = field(init=False, default=b"")

    def left(self, share: int = 1) -> float:
        left = (self.until - time.monotonic()) / share
        if left <= 0:
            raise TimeoutError
        return left

    def connect(self, way: Way) -> socket.socket:
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
                connection.settimeout(self.left(len(places) - number))
                connection.connect(address)
                return connection
            except OSError as error:
                connection.close()
                problem = error
        raise _refusal(problem, where, self.seconds)

    def tunnel(self, connection: socket.socket, way: Way, proxy: Proxy) -> None:
        """Through an HTTP proxy (CONNECT, RFC 9110 §9.3.6)."""
        host = f"[{way.host}]" if ":" in way.host else way.host
        there = f"{host}:{way.port}".encode("ascii")
        self.send(connection, b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (there, there, proxy.line))
        head = b""
        while b"\r\n\r\n" not in head:
            # One by one: what follows is TLS, and not ours to take.
            data = self.receive(connection, 1)
            head += data
            if not data or len(head) > _MAX_HEAD:
                raise DialError("proxy", f"the proxy {proxy} sent no answer that could be read")
        status = head.split(b" ", 2)[1:2]
        if not head.startswith(b"HTTP/1.") or not status or not status[0].startswith(b"2"):
            said = head.partition(b"\r\n")[0][9:80].decode("ascii", "replace")
            raise DialError("proxy", f"the proxy {proxy} refuses to connect to the server ({said})")

    def shake_hands(self, connection: socket.socket, probe: Probe, before: bytes) -> Presented:
        self.send(connection, before + probe.start())
        while probe.result is None:
            data = self.receive(connection, _MOST)
            self._first += data[: max(0, 4 * _SHOWN - len(self._first))]
            try:
                if not data:
                    probe.lost()
                    break
                _check_tls(self._first)
                answer = probe.receive(data)
            except ProbeError as error:
                raise self._failure(str(error)) from None
            with contextlib.suppress(OSError):
                self.send(connection, answer)
        assert probe.result is not None
        return probe.result

    def _failure(self, says: str) -> DialError:
        # An alert in the clear is its own first record: type, version, length 2, level, description.
        if self._first[:1] == bytes([_ALERT]) and len(self._first) >= 7:
            alert = _ALERTS.get(self._first[6], f"number {self._first[6]}")
            return DialError("alert", f"refuses the handshake: {alert}", alert)
        if not self._first:
            return DialError("closed", "closes the connection without a word")
        return DialError("closed", f"gives up in the handshake: {says}")

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.settimeout(self.left())
        connection.sendall(data)

    def receive(self, connection: socket.socket, most: int) -> bytes:
        connection.settimeout(self.left())
        return connection.recv(most)


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


def _check_tls(first: bytes) -> None:
    """Raise a DialError when a server's first bytes are no TLS."""
    if first[0] in (_ALERT, _HANDSHAKE):
        return
    # Old and simple servers answer what they do not understand without a status line.
    if first.lower().startswith((b"http/", b"<!doctype html", b"<html")):
        raise DialError("http", "speaks plain HTTP there, not TLS")
    line = first.splitlines()[0] if first.strip() else first
    shown = "".join(c if c.isprintable() else "." for c in line[:_SHOWN].decode("latin-1"))
    raise DialError("not_tls", f"speaks no TLS there; it says: {shown}")


def _hangs_up(connection: socket.socket, seconds: float) -> bool:
    """Whether the server ends the connection within ``seconds``; session tickets that arrive meanwhile are nothing."""
    until = time.monotonic() + seconds
    try:
        while (wait := until - time.monotonic()) > 0:
            connection.settimeout(wait)
            if not connection.recv(_MOST):
                return True
    except TimeoutError:
        pass
    except OSError:
        return True
    return False


def _written(connection: socket.socket) -> str:
    try:
        peer = connection.getpeername()
    except OSError:
        return "?"
    if isinstance(peer, tuple):
        return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    return f"unix:{peer}" if isinstance(peer, str) else "unix:"
