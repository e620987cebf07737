"""Tests for mcptunnel.services.stragglers."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import Config, ServerConfig, TlsConfig
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.plaintext import HttpsPolicy
from mcptunnel.core.record import Record
from mcptunnel.services.stragglers import PlaintextReport, reports

URL = "https://mcp.example.com"


def record(**fields: Any) -> Record:
    defaults = {"verb": "POST", "path": "/mcp", "host": "mcp.example.com", "peer": "192.0.2.1", "client": "192.0.2.1"}
    return Record(**{**defaults, **fields})


class ReportTests(SynchronousTestCase):
    """From records to health and log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.seen: list[Record] = []

    def report(self, url: str | None = URL, port: int | None = 3000) -> PlaintextReport:
        https = HttpsPolicy.from_config(url, HostPolicy.build(public_url=url), lambda: port)
        return PlaintextReport(https=https, clock=self.clock.seconds, then=self.seen.append)

    def said(self, *records: Record, **policy: Any) -> list[str]:
        report = self.report(**policy)
        with capturedLogs() as events:
            for one in records:
                report(one)
        self.assertEqual({event["log_level"] for event in events} - {LogLevel.info}, set())
        return [formatEvent(event) for event in events]

    def test_health_tells_who_and_when_the_latest_first(self) -> None:
        """And every record goes on to the next one."""
        report = self.report()
        report(record())
        self.clock.advance(60)
        report(record())
        report(record(client="192.0.2.2", principal="ci", credential=True, verb="GET", path="/health"))
        self.assertEqual(
            report.shown(),
            [
                {
                    "client": "192.0.2.2",
                    "principal": "ci",
                    "credential": True,
                    "count": 1,
                    "first": "2027-01-15T08:01:00Z",
                    "last": "2027-01-15T08:01:00Z",
                    "host": "mcp.example.com",
                    "request": "GET /health",
                },
                {
                    "client": "192.0.2.1",
                    "principal": None,
                    "credential": False,
                    "count": 2,
                    "first": "2027-01-15T08:00:00Z",
                    "last": "2027-01-15T08:01:00Z",
                    "host": "mcp.example.com",
                    "request": "POST /mcp",
                },
            ],
        )
        self.assertEqual(len(self.seen), 3)

    def test_what_does_not_come_in_plaintext_or_has_to_is_not_noted(self) -> None:
        """https, what could not be read, an authority that looks for a challenge."""
        report = self.report()
        for one in (record(scheme="https"), record(verb=""), record(path="/.well-known/acme-challenge/x")):
            report(one)
        self.assertEqual((report.shown(), len(self.seen)), ([], 3))

    def test_clients_of_one_network_are_one_and_a_local_socket_is_too(self) -> None:
        """As connections are counted."""
        report = self.report()
        for client in ("2001:db8::1", "2001:db8::2"):
            report(record(client=client))
        report(record(client=None, peer="unix:"))
        self.assertEqual([one["client"] for one in report.shown()], ["unix:", "2001:db8::"])

    def test_health_shows_a_hundred(self) -> None:
        """The table holds more."""
        report = self.report()
        for number in range(150):
            report(record(client=f"192.0.2.{number}"))
        self.assertEqual((len(report.shown()), report.shown()[0]["client"]), (100, "192.0.2.149"))

    def test_the_log_says_who_where_to_and_what_to_change(self) -> None:
        """Once; with the credential that has to be replaced."""
        (line,) = self.said(record(principal="ci", credential=True), record())
        self.assertEqual(
            line,
            "192.0.2.1 (ci) still comes in plaintext, POST /mcp on mcp.example.com: let it use "
            "https://mcp.example.com, and replace its credential, which could be read on the way",
        )

    def test_the_advice_fits(self) -> None:
        """The port where there is no name; the proxy, if it is the proxy's doing."""
        for advice, fields, policy in (
            ("let it use https://mcp.example.com", {}, {}),
            ("let it use https on port 3000", {}, {"url": None}),
            ("let it use https://localhost:3000", {"host": "localhost"}, {"url": None}),
            ("let it use https", {}, {"url": None, "port": None}),
            ("it came so to the proxy 10.0.0.5, let it use https://mcp.example.com", {"verdict": "forwarded"}, {}),
            ("it is a listed proxy that names no scheme, let it send X-Forwarded-Proto", {"verdict": "trusted"}, {}),
        ):
            (line,) = self.said(record(**{"peer": "10.0.0.5", **fields}), **policy)
            self.assertEqual(line.partition(": ")[2], advice)

    def test_it_reports_where_there_is_https(self) -> None:
        """Served, or promised; not where a proxy decides how clients come."""
        for mode, url, expected in (
            ("auto", None, True),
            ("application", None, True),
            ("disabled", URL, True),
            ("disabled", "http://mcp.example.com", False),
            ("disabled", None, False),
            ("behind_proxy", URL, False),
        ):
            config = Config(server=ServerConfig(public_url=url, tls=TlsConfig(mode=mode)))  # type: ignore[arg-type]
            self.assertEqual(reports(config), expected, (mode, url))
