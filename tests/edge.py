"""A whole daemon on real sockets in this process, and blocking clients in threads beside it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve, frozen
from twisted.internet import reactor as _reactor  # noqa: TID251  # the outside tests run on the real one
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from mcptunnel.config.schema import Config, LoggingConfig, ServerConfig, TlsConfig
from mcptunnel.services.root import Daemon, build
from mcptunnel.test.tls.certs import LONG, Authority, Issued, KeyKind

reactor: Any = _reactor
T = TypeVar("T")

# Two clients on loopback: what is configured as a trusted proxy, and everybody else.
PROXY = "127.0.0.2"
STRANGER = "127.0.0.1"
SECONDS = 20.0


def get(path: str = "/health/live", *lines: str, method: str = "GET", host: str = "localhost") -> bytes:
    """A request after which the connection is closed."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode("ascii")


def proxy_v1(source: str) -> bytes:
    """A PROXY v1 header."""
    family, here = ("TCP6", "::1") if ":" in source else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {source} {here} 5555 443\r\n".encode("ascii")


def proxy_v2(source: str) -> bytes:
    """A PROXY v2 header, with a TLV that nobody needs."""
    address = ip_address(source)
    block = address.packed + ip_address("::1" if address.version == 6 else "127.0.0.1").packed
    block += struct.pack("!HH", 5555, 443) + b"\x04\x00\x02ok"
    head = b"\r\n\r\n\x00\r\nQUIT\n\x21" + (b"\x21" if address.version == 6 else b"\x11")
    return head + struct.pack("!H", len(block)) + block


@frozen(kw_only=True)
class Reply:
    """What a client received until the connection ended.

    Attributes:
        data: All bytes.
        reset: It ended with a reset, not with an end of stream.
        error: Why the TLS handshake or the reading failed, in OpenSSL's words.
        version: TLS version, None in the clear.
        cipher: Suite, None in the clear.
    """

    data: bytes = b""
    reset: bool = False
    error: str | None = None
    version: str | None = None
    cipher: str | None = None

    @property
    def status(self) -> int:
        """Status code; 0 without a response."""
        return int(self.data[9:12]) if self.data.startswith(b"HTTP/1.1 ") else 0

    def header(self, name: str) -> str | None:
        """Value of a header; None without it."""
        for line in self.data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    @property
    def problem(self) -> dict[str, Any]:
        """The JSON body."""
        parsed: dict[str, Any] = json.loads(self.data.partition(b"\r\n\r\n")[2])
        return parsed


class EdgeTestCase(TestCase):
    """Starts daemons, talks to them, and looks at their access records."""

    timeout = 120

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.authority = Authority.root()
        self.ca_file = str(self.directory / "root.pem")
        Path(self.ca_file).write_bytes(self.authority.pem)
        self.records: list[dict[str, Any]] = []

        def observe(event: dict[str, Any]) -> None:
            if event.get("log_namespace") == "access":
                self.records.append(json.loads(event["line"]))

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def issue(self, kind: KeyKind = "p256", *, depth: int = 1) -> Issued:
        """A server certificate for this machine, ``depth`` intermediates below the root."""
        authority = self.authority
        for level in range(depth):
            authority = authority.intermediate(f"Level {level}")
        return authority.issue("localhost", "127.0.0.1", "::1", kind=kind, **LONG)

    def tls(self, mode: Any, **others: Any) -> TlsConfig:
        """``server.tls`` with a certificate where the mode needs one, and :data:`PROXY` trusted."""
        if mode in ("application", "auto") and "cert_file" not in others:
            pair = self.issue().write(self.directory)
            others = {"cert_file": pair.cert_file, "key_file": pair.key_file, **others}
        return TlsConfig(mode=mode, **{"trusted_proxies": (PROXY,), **others})

    def build(self, tls: TlsConfig, **server: Any) -> Daemon:
        """A daemon that does not run."""
        server_config = ServerConfig(**{"port": 0, **server}, tls=tls)
        return build(Config(server=server_config, logging=LoggingConfig(access="json")), reactor)

    def start(self, tls: TlsConfig, **server: Any) -> Daemon:
        """A daemon that listens, until the test is over."""
        daemon = self.build(tls, **server)
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(daemon.stopService)
        return daemon

    def port(self, daemon: Daemon) -> int:
        """Where it listens."""
        address: Any = daemon.listener.address
        return int(address.port)

    def trusting(self, **settings: Any) -> ssl.SSLContext:
        """A client that verifies everything, as strictly as OpenSSL can."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        for name, value in settings.items():
            setattr(context, name, value)
        return context

    def ask(
        self,
        daemon: Daemon,
        request: bytes,
        *,
        source: str = STRANGER,
        context: ssl.SSLContext | None = None,
        before: bytes = b"",
        bytewise: bool = False,
        to: str = "127.0.0.1",
        server_name: str = "localhost",
    ) -> Deferred[Reply]:
        """One connection: ``before`` in the clear, then a handshake with ``context``, then ``request``."""
        return deferToThread(talk, to, self.port(daemon), request, source, context, before, bytewise, server_name)

    async def each(self, calls: Sequence[Callable[[], Deferred[T]]]) -> list[T]:
        """All at once."""
        results: list[T] = await gatherResults([call() for call in calls], consumeErrors=True)
        return results


def talk(
    host: str,
    port: int,
    request: bytes,
    source: str,
    context: ssl.SSLContext | None,
    before: bytes,
    bytewise: bool,
    server_name: str,
) -> Reply:
    """Connect, send, read to the end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as raw:
        raw.settimeout(SECONDS)
        if family == socket.AF_INET:
            raw.bind((source, 0))
        raw.connect((host, port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            send(raw, before, bytewise)
            if context is None:
                send(raw, request, bytewise)
                return receive(raw, Reply())
            with context.wrap_socket(raw, server_hostname=server_name) as secure:
                cipher = secure.cipher()
                assert cipher is not None
                start = Reply(version=secure.version(), cipher=cipher[0])
                secure.sendall(request)
                return receive(secure, start)
        except ConnectionResetError:
            return Reply(reset=True)
        except BrokenPipeError:
            return Reply(reset=True)
        except ssl.SSLError as error:
            return Reply(error=reason(error))


def reason(error: ssl.SSLError) -> str:
    """OpenSSL's words for what went wrong; Python knows a constant for the older ones only."""
    words = error.reason.replace("_", " ") if error.reason else str(error)
    return re.sub(r"^\[SSL\] | \(_ssl.*", "", words).lower()


def send(connection: socket.socket, data: bytes, bytewise: bool) -> None:
    """In one segment, or in as many as there are bytes."""
    for piece in [data[at : at + 1] for at in range(len(data))] if bytewise else [data] if data else []:
        connection.sendall(piece)


def receive(connection: socket.socket, reply: Reply) -> Reply:
    """Read to the end."""
    data = bytearray()
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        return evolve(reply, data=bytes(data), reset=True)
    except ssl.SSLError as error:
        return evolve(reply, data=bytes(data), error=reason(error))
    return evolve(reply, data=bytes(data))
