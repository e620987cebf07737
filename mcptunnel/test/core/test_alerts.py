"""Tests for mcptunnel.core.alerts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.alerts import Alert, told
from mcptunnel.core.certificates import Facts, Verdict
from mcptunnel.core.verdicts import Change


def alert(before: Verdict, verdict: Verdict | None) -> Alert:
    """A change, whatever it is about."""
    return Alert(event="reload_refused", verdict=verdict, before=before, message="m", when=1.0)


class ToldTests(SynchronousTestCase):
    """Who wants to know."""

    def test_trouble_from_the_least_on_and_its_end(self) -> None:
        """A recovery is told if the trouble was."""
        cases: tuple[tuple[Verdict, Verdict | None, bool, bool], ...] = (
            ("ok", "warning", True, False),
            ("ok", "critical", True, True),
            ("warning", "critical", True, True),
            ("critical", "expired", True, True),
            ("ok", "not_yet_valid", True, True),
            ("ok", "invalid", True, True),
            ("invalid", "ok", True, True),
            ("critical", "ok", True, True),
            ("critical", "warning", True, True),
            ("warning", "ok", True, False),
            ("warning", None, True, False),
            ("expired", None, True, True),
        )
        for before, verdict, warned, alarmed in cases:
            self.assertEqual(
                (told(alert(before, verdict), "warning"), told(alert(before, verdict), "critical")),
                (warned, alarmed),
                (before, verdict),
            )

    def test_nothing_is_nobodys_concern(self) -> None:
        """From good to good."""
        self.assertFalse(told(alert("ok", "ok"), "warning"))

    def test_a_change_of_a_verdict_as_an_alert(self) -> None:
        """With the certificate and its sentence."""
        facts = Facts(
            file="a.pem", role="leaf", subject="CN=a", issuer="CN=b", serial="1", not_before=0.0, not_after=99.0
        )
        change = Change(facts=facts, before="ok", after="critical", remaining=5.0, when=94.0)
        made = Alert.of(change)
        self.assertEqual(
            (made.event, made.verdict, made.before, made.when, made.facts, made.message),
            ("certificate_verdict", "critical", "ok", 94.0, facts, change.message),
        )
