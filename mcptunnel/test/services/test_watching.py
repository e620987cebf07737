"""Tests for mcptunnel.services.watching: which certificates a configuration has watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.services.daemon import Daemon
from mcptunnel.services.root import build
from mcptunnel.services.shown import rfc3339
from mcptunnel.test.tls.certs import NOW, Authority
from mcptunnel.test.tls.test_trust import revocation_list


class WatchingTests(SynchronousTestCase):
    """From sections to sources."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp())
        self.place.mkdir()
        self.root = Authority.root()
        self.ca, self.crl = self.place / "ca.pem", self.place / "crl.pem"
        self.ca.write_bytes(self.root.pem)
        self.crl.write_bytes(revocation_list(self.root))
        self.pair = self.root.issue("a.test", until=100 * 86400.0, since=0.0).write(self.place)

    def daemon(self, text: str) -> Daemon:
        reactor: Any = MemoryReactorClock()
        reactor.advance(NOW)
        return build(load_text(text, name="f", environ={}), reactor)

    def test_what_is_served(self) -> None:
        """With its chain; nothing more is looked at."""
        watch = self.daemon(
            f"server: {{tls: {{mode: auto, cert_file: {self.pair.cert_file}, key_file: {self.pair.key_file}}}}}"
        ).watch
        self.assertEqual(watch.errors, {"server.tls": None})
        watch.look()
        self.assertEqual([(f.facts.role, f.verdict) for f in watch.findings], [("leaf", "ok")])

    def test_in_the_modes_without_tls_servers_are_watched_all_the_same(self) -> None:
        """Those that are enabled and spoken to over TLS, whom we trust for them, and what we show them."""
        daemon = self.daemon(
            "mcpServers:\n"
            f"  docs: {{url: 'https://a.test/', ca_file: {self.ca}, cert_file: {self.pair.cert_file}, "
            f"key_file: {self.pair.key_file}}}\n"
            "  socket: {url: 'wss://a.test/'}\n"
            "  plain: {url: 'http://a.test/'}\n"
            "  child: {command: cat}\n"
            "  off: {url: 'https://a.test/', enabled: false}\n"
        )
        self.assertEqual(
            list(daemon.watch.errors),
            ["mcpServers.docs.ca_file", "mcpServers.docs.cert_file", "mcpServers.docs", "mcpServers.socket"],
        )
        daemon.watch.look()
        self.assertEqual([f.facts.role for f in daemon.watch.findings], ["upstream_ca", "upstream_client"])

    def test_clients_authorities_and_their_revocation_lists(self) -> None:
        """Read again at each look; one that cannot be read is told of and the rest stays."""
        daemon = self.daemon(
            f"server: {{tls: {{mode: auto, cert_file: {self.pair.cert_file}, key_file: {self.pair.key_file}, "
            f"client_auth: optional, ca_file: {self.ca}, crl_file: {self.crl}}}}}"
        )
        daemon.watch.look()
        roles = ["leaf", "client_ca", "crl"]
        self.assertEqual([f.facts.role for f in daemon.watch.findings], roles)
        self.crl.write_bytes(b"")
        daemon.watch.look()
        self.assertEqual([f.facts.role for f in daemon.watch.findings], roles)
        details = daemon.details()
        reason = f"{self.crl}: no PEM revocation list in it"
        self.assertEqual(details["certificate_sources"]["server.tls.crl_file"], reason)
        self.assertEqual([shown["unseen"] for shown in details["certificates"]], [None, None, reason])
        self.crl.write_bytes(revocation_list(self.root, since=NOW - 30 * 86400.0))
        daemon.watch.look()
        self.assertEqual(daemon.details()["certificate_verdict"], "expired")
        self.assertEqual(daemon.reasons(), [])

    def test_what_health_says_of_a_certificate(self) -> None:
        """All that one needs to find it and to know when it ends."""
        daemon = self.daemon(
            f"server: {{tls: {{mode: auto, cert_file: {self.pair.cert_file}, key_file: {self.pair.key_file}}}}}"
        )
        daemon.watch.look()
        (shown,) = daemon.details()["certificates"]
        self.assertEqual(
            {key: shown[key] for key in shown if key not in ("serial", "fingerprint")},
            {
                "subject": "CN=a.test",
                "names": ["a.test"],
                "file": self.pair.cert_file,
                "role": "leaf",
                "verdict": "ok",
                "days_left": 100.0,
                "not_after": rfc3339(NOW + 100 * 86400.0),
                "flaw": None,
                "unseen": None,
            },
        )
        self.assertEqual(len(shown["fingerprint"]), 64)

    def test_moments_are_written_in_utc(self) -> None:
        """RFC 3339, to the second."""
        self.assertEqual(rfc3339(NOW), "2027-01-15T08:00:00Z")

    def test_a_daemon_is_not_ready_when_what_it_serves_has_expired(self) -> None:
        """Since it started."""
        daemon = self.daemon(
            f"server: {{tls: {{mode: auto, cert_file: {self.pair.cert_file}, key_file: {self.pair.key_file}}}}}"
        )
        daemon.clock.advance(101 * 86400.0)
        daemon.watch.look()
        self.assertEqual(daemon.reasons(), ["certificate_expired"])
