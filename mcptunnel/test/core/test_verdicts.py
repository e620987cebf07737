"""Tests for mcptunnel.core.verdicts."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.certificates import DAY, Facts, Thresholds
from mcptunnel.core.verdicts import Change, Verdicts, days

YEAR = Facts(
    file="a.pem",
    role="leaf",
    subject="CN=a",
    issuer="CN=b",
    serial="1",
    not_before=0.0,
    not_after=365 * DAY,
    fingerprint="f1",
)
RENEWED = evolve(YEAR, serial="2", fingerprint="f2", not_after=730 * DAY)


class VerdictsTests(SynchronousTestCase):
    """What is told, and how often."""

    def setUp(self) -> None:
        self.verdicts = Verdicts(thresholds=Thresholds())
        self.reminders = 0

    def at(self, day: float, *facts: Facts) -> list[tuple[str, str, str | None]]:
        """A look; what has changed: which certificate, before, after."""
        return [(change.facts.fingerprint, change.before, change.after) for change in self.changes(day, *facts)]

    def changes(self, day: float, *facts: Facts) -> list[Change]:
        changes, reminders = self.verdicts.judge([(one, None) for one in facts], day * DAY)
        self.reminders += len(reminders)
        return changes

    def test_each_change_is_told_once(self) -> None:
        """From good to worst; nothing of what is good from the start."""
        told = [self.at(day, YEAR) for day in (100, 300, 300.5, 340, 340.5, 366, 366.5)]
        self.assertEqual(
            told,
            [
                [],
                [("f1", "ok", "warning")],
                [],
                [("f1", "warning", "critical")],
                [],
                [("f1", "critical", "expired")],
                [],
            ],
        )

    def test_what_is_not_good_is_said_again_after_a_day(self) -> None:
        """A change counts as having said so."""
        for hour in range(24):
            self.at(300 + hour / 24, YEAR)
        self.assertEqual(self.reminders, 0)
        self.at(301, YEAR)
        self.assertEqual(self.reminders, 1)
        self.at(301.9, YEAR)
        self.assertEqual(self.reminders, 1)
        self.at(340, YEAR)
        self.assertEqual(self.reminders, 1)

    def test_a_renewal_ends_the_trouble_there_was(self) -> None:
        """The new certificate stands in the place of the old one."""
        self.at(340, YEAR)
        self.assertEqual(self.at(341, RENEWED), [("f2", "critical", "ok")])
        self.assertEqual(self.at(342, RENEWED), [])

    def test_a_renewal_in_time_is_no_news(self) -> None:
        """Nor is one by another that is as bad."""
        self.at(100, YEAR)
        self.assertEqual(self.at(101, RENEWED), [])
        self.verdicts = Verdicts(thresholds=Thresholds())
        self.at(340, YEAR)
        self.assertEqual(self.at(340.1, evolve(YEAR, fingerprint="f3")), [])

    def test_another_file_or_role_is_another_place(self) -> None:
        """There nothing has been renewed."""
        self.at(340, YEAR)
        for other in (evolve(RENEWED, file="b.pem"), evolve(RENEWED, role="intermediate")):
            verdicts = Verdicts(thresholds=Thresholds())
            verdicts.judge([(YEAR, None)], 340 * DAY)
            changes, _ = verdicts.judge([(other, None)], 341 * DAY)
            self.assertEqual([(c.facts.fingerprint, c.before, c.after) for c in changes], [("f1", "critical", None)])

    def test_what_is_not_in_use_any_more_is_told_if_it_was_trouble(self) -> None:
        """Once."""
        good = evolve(YEAR, file="b.pem", not_after=2000 * DAY)
        self.at(340, YEAR, good)
        self.assertEqual(self.at(341), [("f1", "critical", None)])
        self.assertEqual(self.at(342), [])

    def test_several_in_one_file_keep_their_order(self) -> None:
        """An authority that is removed from a bundle is not mistaken for those that stay."""
        bundle = [
            evolve(YEAR, role="client_ca", fingerprint=f"c{n}", not_after=(300 + n * 500) * DAY) for n in range(3)
        ]
        self.assertEqual(self.at(301, *bundle), [("c0", "ok", "expired")])
        self.assertEqual(self.at(302, *bundle[1:]), [("c0", "expired", None)])

    def test_the_same_certificate_counts_once_for_a_file_and_a_role(self) -> None:
        """As when two servers are trusted by one file."""
        self.assertEqual(self.at(340, YEAR, YEAR), [("f1", "ok", "critical")])
        self.assertEqual(len(self.verdicts.findings), 1)
        self.at(340, YEAR, evolve(YEAR, role="upstream_client"))
        self.assertEqual(len(self.verdicts.findings), 2)

    def test_a_certificate_without_a_fingerprint_is_known_by_its_serial(self) -> None:
        """Which is unique for its issuer."""
        one, other = evolve(YEAR, fingerprint=""), evolve(YEAR, fingerprint="", serial="9")
        self.at(340, one, other)
        self.assertEqual(len(self.verdicts.findings), 2)


class MessageTests(SynchronousTestCase):
    """What the log and an alert say."""

    def said(self, day: float, facts: Facts = YEAR) -> str:
        ((change, *_), _) = Verdicts(thresholds=Thresholds()).judge([(facts, None)], day * DAY)
        return change.message

    def test_one_sentence_for_each_verdict(self) -> None:
        """With what is left, or what is wrong."""
        for day, facts, message in (
            (300, YEAR, "certificate CN=a (leaf, a.pem) is warning: 65.0 days of life are left"),
            (360, YEAR, "certificate CN=a (leaf, a.pem) is critical: 5.0 days of life are left"),
            (366, YEAR, "certificate CN=a (leaf, a.pem) has expired 1.0 days ago"),
            (-2, YEAR, "certificate CN=a (leaf, a.pem) is not yet valid: its life begins in 2.0 days"),
            (
                9,
                evolve(YEAR, role="upstream", file="mcpServers.x", flaw="it does not name x, but y"),
                "certificate CN=a (upstream, mcpServers.x) is invalid: it does not name x, but y",
            ),
            (366, evolve(YEAR, role="crl"), "revocation list of CN=a (crl, a.pem) has expired 1.0 days ago"),
            (366, evolve(YEAR, role="client_ca"), "certificate CN=a (client ca, a.pem) has expired 1.0 days ago"),
        ):
            self.assertEqual(self.said(day, facts), message)

    def test_good_news(self) -> None:
        """Renewed, or gone."""
        verdicts = Verdicts(thresholds=Thresholds())
        verdicts.judge([(YEAR, None)], 360 * DAY)
        ((change,), _) = verdicts.judge([(RENEWED, None)], 361 * DAY)
        self.assertEqual(change.message, "certificate CN=a (leaf, a.pem) is ok again: 369.0 days of life are left")
        verdicts.judge([(YEAR, None)], 366 * DAY)
        ((change,), _) = verdicts.judge([], 367 * DAY)
        self.assertEqual(change.message, "certificate CN=a (leaf, a.pem) is not in use any more; it was expired")

    def test_a_finding_says_the_same_as_a_change(self) -> None:
        """For the reminder."""
        verdicts = Verdicts(thresholds=Thresholds())
        verdicts.judge([(YEAR, None)], 360 * DAY)
        _, (reminder,) = verdicts.judge([(YEAR, "gone fishing")], 361.5 * DAY)
        self.assertEqual(reminder.message, "certificate CN=a (leaf, a.pem) is critical: 3.5 days of life are left")
        self.assertEqual(reminder.unseen, "gone fishing")

    def test_days_to_a_tenth(self) -> None:
        """Negative when they are over."""
        self.assertEqual([days(DAY * 1.26), days(-DAY * 0.5)], [1.3, -0.5])
