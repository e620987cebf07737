"""The daemon as it is put together from a configuration."""

from __future__ import annotations

import json
import os
from typing import Any

from attrs import evolve
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.config.schema import Config, HstsRampConfig, LoggingConfig, ServerConfig, TlsConfig
from mcptunnel.core.errors import CertificateError
from mcptunnel.core.record import Record
from mcptunnel.core.routing import targets
from mcptunnel.services.daemon import Daemon
from mcptunnel.services.root import build
from mcptunnel.test.tls.certs import LONG, NOW, Authority, mint
from mcptunnel.testing import know_both_eras, make_exchange, request, response
from mcptunnel.tls.tally import HandshakeKey


class RootCase(SynchronousTestCase):
    """Builds daemons on a reactor in memory."""

    def build(self, config: Config) -> Daemon:
        reactor: Any = MemoryReactorClock()
        reactor.advance(NOW)
        return build(config, reactor)

    def secure(self, *names: str, public_url: str | None = None, **tls: Any) -> Config:
        """Mode application with a certificate for ``names``."""
        pair = mint(names[0], names=names, **LONG).write(self.mktemp())
        return Config(
            server=ServerConfig(
                public_url=public_url,
                tls=TlsConfig(mode="application", cert_file=pair.cert_file, key_file=pair.key_file, **tls),
            )
        )

    def warnings(self, config: Config) -> list[str]:
        """What is said aloud while the daemon is built."""
        with capturedLogs() as events:
            self.build(config)
        return [event["text"] for event in events if event["log_level"] is LogLevel.warn]


class CoverTests(RootCase):
    def test_a_certificate_that_does_not_name_us_is_warned_about(self) -> None:
        """With both names, and the remedy."""
        (warning,) = self.warnings(self.secure("a.test", "b.test", public_url="https://mcp.example.com:8443/x"))
        self.assertIn("no certificate in service names mcp.example.com", warning)
        self.assertIn("(named: a.test, b.test)", warning)
        self.assertIn("server.tls.certificates", warning)

    def test_a_certificate_that_names_us_is_not(self) -> None:
        """By name, by wildcard, by address; whatever the case and the port."""
        for name, url in (
            ("mcp.example.com", "https://MCP.example.com:8443"),
            ("*.example.com", "https://mcp.example.com"),
            ("192.0.2.1", "https://192.0.2.1"),
            ("2001:db8::1", "https://[2001:DB8::1]:3000/"),
        ):
            self.assertEqual(self.warnings(self.secure(name, public_url=url)), [])

    def test_one_of_several_is_enough(self) -> None:
        """They are chosen by name."""
        other = mint("mcp.example.com", names=["mcp.example.com"], **LONG).write(self.mktemp(), "other")
        config = self.secure("a.test", public_url="https://mcp.example.com", certificates=(other,))
        self.assertEqual(self.warnings(config), [])

    def test_without_a_public_url_there_is_nothing_to_compare(self) -> None:
        """We do not guess what clients call us."""
        self.assertEqual(self.warnings(self.secure("a.test")), [])


class TransportTests(RootCase):
    """The promise of https, and challenges."""

    def promised(self, daemon: Daemon) -> str | None:
        return dict(daemon.site.common.lines(True, NOW)).get(b"Strict-Transport-Security", b"").decode() or None

    def test_the_site_promises_what_is_configured(self) -> None:
        """Whole, for subdomains, not at all."""
        for settings, value in (
            ({}, "max-age=63072000"),
            ({"hsts_max_age": 60, "hsts_include_subdomains": True}, "max-age=60; includeSubDomains"),
            ({"hsts_enabled": False}, None),
        ):
            self.assertEqual(self.promised(self.build(self.secure("a.test", **settings))), value)

    def test_a_ramp_follows_the_certificates_in_service(self) -> None:
        """From the first step on; health has the step."""
        pair = Authority.root().issue("a.test", **LONG).write(self.mktemp())
        tls = TlsConfig(
            mode="application", cert_file=pair.cert_file, key_file=pair.key_file, hsts_ramp=HstsRampConfig(steps=(5, 7))
        )
        daemon = self.build(Config(server=ServerConfig(tls=tls)))
        self.assertEqual(self.promised(daemon), "max-age=5")
        ramp = daemon.ramp
        assert ramp is not None
        ramp.startService()
        assert daemon.store is not None
        self.assertEqual(ramp.state.fingerprint, daemon.store.facts()[0].fingerprint)
        for step, age in ((1, 7), (2, 63_072_000)):
            ramp.renewed(f"{step}", NOW + step, NOW + 100)
            self.assertEqual(self.promised(daemon), f"max-age={age}")
            self.assertEqual(daemon.details()["hsts"], {"max_age": age, "step": step})

    def test_a_ramp_on_a_self_signed_certificate_is_refused(self) -> None:
        """The daemon is not even built."""
        config = self.secure("a.test", hsts_ramp=HstsRampConfig())
        error = self.assertRaises(CertificateError, self.build, config)
        self.assertIn("server.tls.hsts_ramp", str(error))

    def test_a_webroot_that_is_not_there_is_warned_about(self) -> None:
        """It may still be made; one that is there is not."""
        missing = self.mktemp()
        (warning,) = self.warnings(Config(server=ServerConfig(tls=TlsConfig(acme_webroot=missing))))
        self.assertIn("server.tls.acme_webroot", warning)
        self.assertIn(missing, warning)
        os.mkdir(missing)
        self.assertEqual(self.warnings(Config(server=ServerConfig(tls=TlsConfig(acme_webroot=missing)))), [])


class DetailsTests(RootCase):
    def test_details_of_a_daemon_without_tls(self) -> None:
        """JSON, with nothing in it yet."""
        details = json.loads(json.dumps(self.build(Config()).details()))
        self.assertEqual(
            {key: details[key] for key in ("mode", "outcomes", "handshakes", "generation", "certificates", "servers")},
            {
                "mode": "disabled",
                "outcomes": {},
                "handshakes": [],
                "generation": None,
                "certificates": [],
                "servers": {},
            },
        )

    def test_details_of_connections_and_handshakes(self) -> None:
        """Counted by what became of them, by version and by group."""
        daemon = self.build(self.secure("a.test"))
        daemon.front.tally.counts.update(serve_tls=3, handshake_failed=1)
        daemon.front.tally.handshakes.update(
            {
                HandshakeKey("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", False): 2,
                HandshakeKey("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "x25519", True): 1,
            }
        )
        details = json.loads(json.dumps(daemon.details()))
        self.assertEqual(details["outcomes"], {"handshake_failed": 1, "serve_tls": 3})
        self.assertEqual(
            details["handshakes"],
            [
                {
                    "version": "TLSv1.2",
                    "cipher": "ECDHE-RSA-AES128-GCM-SHA256",
                    "group": "x25519",
                    "resumed": True,
                    "count": 1,
                },
                {
                    "version": "TLSv1.3",
                    "cipher": "TLS_AES_128_GCM_SHA256",
                    "group": "X25519MLKEM768",
                    "resumed": False,
                    "count": 2,
                },
            ],
        )

    def test_details_say_which_generation_of_certificates_is_in_service(self) -> None:
        """One more at each swap."""
        daemon = self.build(self.secure("a.test"))
        assert daemon.store is not None
        self.assertEqual(daemon.details()["generation"], 1)
        daemon.store.swap([mint("b.test", names=["b.test"], **LONG).material(self.mktemp())])
        self.assertEqual(daemon.details()["generation"], 2)

    def test_a_server_that_is_missing_from_lists_is_named_in_details_and_log(self) -> None:
        """With the reason; and again when it is back."""
        config = load_text("mcpServers: {a: {url: 'http://127.0.0.1:1/mcp'}, b: {url: 'http://127.0.0.1:2/mcp'}}")
        daemon = self.build(config)
        know_both_eras(daemon.relay.eras, "ab")
        exchange, _ = make_exchange(request("tools/list", 1, modern=True), era="modern")
        daemon.relay.stateless(exchange, targets(["a", "b"])["/mcp"])
        link = next(link for link in daemon.relay.links() if link.server == "a")
        with capturedLogs() as events:
            link.lost("no route")
        (event,) = [event for event in events if event.get("server") == "a"]
        self.assertEqual(
            (event["log_level"], formatEvent(event)),
            (LogLevel.warn, "lists of several servers go without a: server a is unavailable: no route"),
        )
        servers = json.loads(json.dumps(daemon.details()))["servers"]
        both = {"legacy": True, "modern": True}
        why = "server a is unavailable: no route"
        self.assertEqual(servers["a"], {"links": 0, "missing": why, "eras": both})
        self.assertEqual(servers["b"], {"links": 1, "missing": None, "eras": both})
        exchange, _ = make_exchange(request("tools/list", 1, modern=True), era="modern")
        daemon.relay.stateless(exchange, targets(["a", "b"])["/mcp"])
        link = next(link for link in daemon.relay.links() if link.server == "a")
        with capturedLogs() as events:
            link.received(response(next(iter(link.calls)), {"tools": []}))
        self.assertEqual(
            [formatEvent(event) for event in events], ["lists of several servers have the part of a again"]
        )


class LevelTests(RootCase):
    def test_only_at_level_debug_is_each_connection_told_of(self) -> None:
        """It costs a line each."""
        for level in ("debug", "info", "warn", "error"):
            config = load_text(f"logging: {{level: {level}}}")
            self.assertEqual(self.build(config).front.tally.debug, level == "debug")
        self.assertEqual(LoggingConfig().level, "info")

    def test_access_records_go_to_the_namespace_that_no_level_hides(self) -> None:
        """Unless they have a file of their own."""
        daemon = self.build(evolve(Config(), logging=LoggingConfig(access="text")))
        with capturedLogs() as events:
            daemon.site.report(daemon_record())
        self.assertEqual([event["log_namespace"] for event in events], ["access"])


def daemon_record() -> Record:
    """Of a request that was answered."""
    return Record(verb="GET", path="/health", client="192.0.2.1", status=200)
