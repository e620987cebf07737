"""Tests for mcptunnel.services.certwatch."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcptunnel.core.certificates import DAY, Facts, Thresholds
from mcptunnel.services.certwatch import CertificateWatch

YEAR = Facts(file="a.pem", role="leaf", subject="CN=a", issuer="CN=b", serial="1", not_before=0.0, not_after=365 * DAY)


class CertificateWatchTests(SynchronousTestCase):
    """Looks, says, and never stops looking."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.served: list[Facts] = [YEAR]
        self.watch = CertificateWatch(
            facts=lambda: tuple(self.served), thresholds=Thresholds(), interval=3600.0, clock=self.clock
        )
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def start_with(self, days_left: float) -> None:
        self.clock.advance(365 * DAY - days_left * DAY)
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def said(self) -> list[tuple[str, LogLevel]]:
        return [(event["verdict"], event["log_level"]) for event in self.events if "verdict" in event]

    def test_it_is_a_service(self) -> None:
        """That starts and stops as often as one likes."""
        self.assertTrue(verifyObject(IService, self.watch))
        for _ in range(2):
            self.watch.startService()
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            stopped = self.watch.stopService()
            assert stopped is not None
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_looks_at_start_and_says_nothing_of_a_good_certificate(self) -> None:
        """Silence is fine; health knows."""
        self.start_with(100)
        self.assertEqual(self.said(), [])
        (finding,) = self.watch.findings
        self.assertEqual((finding.verdict, finding.remaining, finding.facts), ("ok", 100 * DAY, YEAR))
        self.assertEqual(self.watch.worst, "ok")

    def test_it_says_when_a_verdict_changes(self) -> None:
        """A quarter, a tenth, the end; each louder than the one before."""
        self.start_with(365 / 4 + 0.01)
        self.clock.advance(3600)
        self.assertEqual(self.said(), [("warning", LogLevel.warn)])
        self.events.clear()
        self.clock.pump([3600.0] * 24 * 92)
        levels = list(dict.fromkeys(self.said()))
        self.assertEqual(
            levels,
            [("warning", LogLevel.warn), ("critical", LogLevel.error), ("expired", LogLevel.critical)],
        )
        self.assertEqual(self.watch.worst, "expired")

    def test_it_repeats_itself_once_a_day(self) -> None:
        """Not every hour for thirty days."""
        self.start_with(60)
        self.assertEqual(len(self.said()), 1)
        self.clock.pump([3600.0] * 23)
        self.assertEqual(len(self.said()), 1)
        self.clock.advance(3600)
        self.assertEqual(len(self.said()), 2)

    def test_a_renewed_certificate_is_good_news(self) -> None:
        """The new one is looked at, the old one forgotten."""
        self.start_with(5)
        self.assertEqual(self.watch.worst, "critical")
        self.served[:] = [evolve(YEAR, serial="2", not_after=700 * DAY)]
        self.clock.advance(3600)
        self.assertEqual(self.watch.worst, "ok")
        self.assertEqual(len(self.said()), 1)

    def test_a_warning_that_goes_away_is_said_too(self) -> None:
        """As when a wrong clock is set right."""
        self.start_with(5)
        self.served[:] = [evolve(YEAR, not_after=700 * DAY)]
        self.clock.advance(3600)
        self.assertEqual(self.said()[-1], ("ok", LogLevel.info))

    def test_an_intermediate_counts(self) -> None:
        """Clients refuse the chain all the same."""
        self.served.append(evolve(YEAR, role="intermediate", serial="9", not_after=270 * DAY))
        self.start_with(100)
        self.assertEqual([finding.verdict for finding in self.watch.findings], ["ok", "critical"])

    def test_it_survives_its_own_errors(self) -> None:
        """What failed is logged, and the next look is made."""
        self.start_with(5)
        good = self.watch.facts

        def broken() -> tuple[Facts, ...]:
            raise RuntimeError("no facts today")

        self.watch.facts = broken
        self.clock.advance(3600)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.watch.worst, "critical")
        self.watch.facts = good
        self.served[:] = []
        self.clock.advance(3600)
        self.assertEqual(self.watch.findings, ())
