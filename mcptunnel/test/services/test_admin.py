"""Tests for mcptunnel.services.admin: the operator's listener as it is put together."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import AdminConfig, LimitsConfig
from mcptunnel.core.errors import ConfigError
from mcptunnel.observe.figures import Figures
from mcptunnel.services.admin import admin_from
from mcptunnel.services.adminside import AdminSide
from mcptunnel.tls.front import FrontFactory


class Wire(StringTransport):
    """A TCP transport."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Not looked at."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Not looked at."""

    def abortConnection(self) -> None:
        self.disconnecting = True


class AdminFromTests(SynchronousTestCase):
    """From ``admin`` to what answers."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.reactor.advance(1_800_000_000.0)

    def admin(self, *, limits: LimitsConfig | None = None, **config: Any) -> AdminSide:
        def reload() -> Deferred[dict[str, Any]]:
            return succeed({"taken": True, "problems": []})

        return admin_from(AdminConfig(**config), limits or LimitsConfig(), self.reactor, Figures, reload)

    def ask(self, admin: AdminSide, line: str, *lines: str) -> bytes:
        wire = Wire(peerAddress=IPv4Address("TCP", "127.0.0.1", 4000))
        assert isinstance(admin.listener.factory, FrontFactory)
        front: Any = admin.listener.factory.buildProtocol(wire.getPeer())
        front.makeConnection(wire)
        head = "".join(f"{each}\r\n" for each in (f"{line} HTTP/1.1", "Host: localhost", *lines))
        front.dataReceived(f"{head}\r\n".encode())
        answer: bytes = wire.value()
        return answer

    def test_metrics_and_reload_and_nothing_else(self) -> None:
        """The token is that of the configuration, or of the file that it names."""
        file = Path(self.mktemp())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("from-a-file-0123456789\n")
        cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({"token": "sesame-sesame-sesame"}, "sesame-sesame-sesame"),
            ({"token_file": str(file)}, "from-a-file-0123456789"),
        )
        for config, token in cases:
            admin = self.admin(**config)
            self.assertEqual(self.ask(admin, "GET /metrics")[9:12], b"200")
            self.assertEqual(self.ask(admin, "POST /admin/reload")[9:12], b"401")
            reply = self.ask(admin, "POST /admin/reload", f"Authorization: Bearer {token}")
            self.assertEqual(reply[9:12], b"200")
            self.assertEqual(self.ask(admin, "GET /mcp", f"Authorization: Bearer {token}")[9:12], b"404")
            self.assertNotIn(sha256(token.encode()).hexdigest(), repr(admin))

    def test_a_token_file_that_cannot_be_read_is_refused(self) -> None:
        """At start, by name."""
        error = self.assertRaises(ConfigError, self.admin, token_file="/no/such")
        self.assertIn("/no/such", str(error))

    def test_its_connections_have_bounds(self) -> None:
        """As those of everybody else."""
        admin = self.admin(limits=LimitsConfig(connections=1, client_connections=1))
        factory: Any = admin.listener.factory
        peer = IPv4Address("TCP", "127.0.0.1", 4000)
        self.assertIsNotNone(factory.buildProtocol(peer))
        self.assertIsNone(factory.buildProtocol(peer))

    def test_it_promises_no_https(self) -> None:
        """It speaks http on this machine."""
        self.assertNotIn(b"Strict-Transport-Security", self.ask(self.admin(), "GET /metrics"))
