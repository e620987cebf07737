"""Tests for mcptunnel.services.certwatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcptunnel.core.certificates import DAY, Facts, Role, Thresholds
from mcptunnel.core.errors import CertificateError
from mcptunnel.core.verdicts import Change
from mcptunnel.services.certwatch import SETTLE_SECONDS, CertificateWatch, Source

YEAR = Facts(file="a.pem", role="leaf", subject="CN=a", issuer="CN=b", serial="1", not_before=0.0, not_after=365 * DAY)


class WatchCase(SynchronousTestCase):
    """A watch over one certificate of a year."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.served: list[Facts] = [YEAR]
        self.changes: list[Change] = []
        self.watch = self.watch_over(Source(name="served", facts=lambda: tuple(self.served)))
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def watch_over(self, *sources: Source) -> CertificateWatch:
        watch = CertificateWatch(sources=sources, thresholds=Thresholds(), interval=3600.0, clock=self.clock)
        watch.listeners.append(self.changes.append)
        return watch

    def start_with(self, days_left: float) -> None:
        self.clock.advance(365 * DAY - days_left * DAY)
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def said(self) -> list[tuple[str, LogLevel]]:
        return [(event["verdict"], event["log_level"]) for event in self.events if "verdict" in event]


class CertificateWatchTests(WatchCase):
    """Looks, says, and never stops looking."""

    def test_it_is_a_service(self) -> None:
        """That starts and stops as often as one likes."""
        self.assertTrue(verifyObject(IService, self.watch))
        for _ in range(2):
            self.watch.startService()
            self.assertEqual(len(self.clock.getDelayedCalls()), 2)
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
        self.assertEqual(self.said(), [("critical", LogLevel.error), ("ok", LogLevel.info)])
        self.assertEqual([(c.before, c.after) for c in self.changes], [("ok", "critical"), ("critical", "ok")])

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

    def test_only_what_we_serve_makes_us_refused(self) -> None:
        """An upstream's certificate that has expired does not."""
        cases: tuple[tuple[Role, bool], ...] = (
            ("leaf", True),
            ("intermediate", True),
            ("client_ca", False),
            ("upstream", False),
        )
        for role, refused in cases:
            self.served[:] = [evolve(YEAR, role=role, not_after=10 * DAY)]
            self.clock.advance(11 * DAY)
            self.watch.look()
            self.assertEqual((self.watch.serves_expired, self.watch.worst), (refused, "expired"), role)

    def test_listeners_hear_of_changes_but_not_of_reminders(self) -> None:
        """And one that fails does not keep the others from it."""

        def deaf(change: Change) -> None:
            raise RuntimeError("not now")

        self.watch.listeners.insert(0, deaf)
        self.start_with(60)
        self.clock.pump([3600.0] * 72)
        self.assertEqual(len(self.said()), 4)
        (change,) = self.changes
        self.assertEqual(
            (change.facts, change.before, change.after, change.remaining), (YEAR, "ok", "warning", 60 * DAY)
        )
        self.assertEqual(change.when, 305 * DAY)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class SourcesTests(WatchCase):
    """Several of them, some of which fail."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Deferred[Sequence[Facts]]] = []
        self.cancelled: list[int] = []
        self.broken: Exception | None = None

    def slow(self) -> Deferred[Sequence[Facts]]:
        self.asked.append(Deferred(lambda _: self.cancelled.append(1)))
        return self.asked[-1]

    def fragile(self) -> Sequence[Facts]:
        if self.broken is not None:
            raise self.broken
        return [evolve(YEAR, file="fragile")]

    def start(self) -> None:
        self.watch = self.watch_over(
            Source(name="fragile", facts=self.fragile),
            Source(name="slow", facts=self.slow, cheap=False, patience=30.0),
            Source(name="last", facts=lambda: self.served),
        )
        self.start_with(5)

    def reasons(self, source: str = "fragile") -> list[str]:
        return [event["reason"] for event in self.events if "reason" in event and event["source"] == source]

    def test_one_that_fails_is_told_of_once_and_stops_nothing(self) -> None:
        """What it has found stays, marked; it grows older all the same."""
        self.start()
        self.broken = CertificateError("fragile.pem: Permission denied")
        self.served.append(evolve(YEAR, serial="new"))
        self.clock.pump([3600.0] * 3)
        self.assertEqual(self.reasons(), ["fragile.pem: Permission denied"])
        found = {(f.facts.file, f.facts.serial): (f.verdict, f.unseen) for f in self.watch.findings}
        self.assertEqual(
            found,
            {
                ("fragile", "1"): ("critical", "fragile.pem: Permission denied"),
                ("a.pem", "1"): ("critical", None),
                ("a.pem", "new"): ("critical", None),
            },
        )
        self.assertEqual(self.watch.errors["fragile"], "fragile.pem: Permission denied")
        self.clock.advance(5 * DAY)
        self.assertEqual({f.verdict for f in self.watch.findings}, {"expired"})

    def test_another_reason_and_the_recovery_are_told(self) -> None:
        """Each once."""
        self.start()
        for broken in (CertificateError("one"), CertificateError("one"), CertificateError("two"), None, None):
            self.broken = broken
            self.clock.advance(3600)
        self.assertEqual(self.reasons(), ["one", "two"])
        again = [e for e in self.events if "again" in e["log_format"] and "source" in e]
        self.assertEqual([e["source"] for e in again], ["fragile"])
        self.assertEqual(self.watch.errors, {"fragile": None, "slow": "no answer within 30 s", "last": None})

    def test_an_error_of_ours_is_logged_with_its_traceback(self) -> None:
        """Once; and the next look is made."""
        self.start()
        self.broken = KeyError("oops")
        self.clock.pump([3600.0] * 2)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.watch.errors["fragile"], "KeyError: 'oops'")

    def test_what_takes_its_time_is_asked_after_the_start(self) -> None:
        """And not at a reload."""
        self.start()
        self.assertEqual(self.asked, [])
        self.watch.look()
        self.assertEqual(self.asked, [])
        self.clock.advance(SETTLE_SECONDS)
        (asked,) = self.asked
        asked.callback([evolve(YEAR, file="slow")])
        self.assertEqual([f.facts.file for f in self.watch.findings], ["fragile", "slow", "a.pem"])
        self.assertEqual(self.changes[-1].facts.file, "slow")
        self.clock.advance(3600 - SETTLE_SECONDS)
        self.assertEqual(len(self.asked), 2)

    def test_one_that_is_late_is_cancelled(self) -> None:
        """And told of as any other failure; it is not asked twice at a time."""
        self.start()
        self.clock.advance(SETTLE_SECONDS)
        self.clock.advance(29.9)
        self.assertEqual(self.cancelled, [])
        self.clock.advance(0.1)
        self.assertEqual((self.cancelled, self.reasons("slow")), ([1], ["no answer within 30 s"]))
        self.assertEqual(self.watch.errors["slow"], "no answer within 30 s")

    def test_a_look_that_is_not_over_is_not_begun_again(self) -> None:
        """Whatever the interval."""
        self.watch = CertificateWatch(
            sources=[Source(name="slow", facts=self.slow, cheap=False)],
            thresholds=Thresholds(),
            interval=1.0,
            clock=self.clock,
        )
        self.start_with(5)
        self.clock.pump([1.0] * 20)
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback([])
        self.clock.advance(1.0)
        self.assertEqual(len(self.asked), 2)

    def test_the_end_of_the_daemon_cancels_and_says_nothing(self) -> None:
        """No timer is left either."""
        self.start()
        self.clock.advance(SETTLE_SECONDS)
        self.watch.stopService()
        self.assertEqual((self.cancelled, self.reasons("slow"), self.clock.getDelayedCalls()), ([1], [], []))
