"""Tests for mcptunnel.core.certificates."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.certificates import DAY, Facts, Threshold, Thresholds, Verdict, covers, judge, wildcard_of, worst_of


def facts(life: float = 90 * DAY, *names: str) -> Facts:
    """A certificate whose life begins at 0."""
    return Facts(
        file="a.pem",
        role="leaf",
        subject="CN=a",
        issuer="CN=b",
        serial="1",
        names=names,
        not_before=0.0,
        not_after=life,
    )


class JudgeTests(SynchronousTestCase):
    """The verdict follows from the remaining life alone."""

    def assert_verdict(self, remaining: float, verdict: Verdict, life: float = 365 * DAY) -> None:
        self.assertEqual(judge(facts(life), life - remaining, Thresholds()), verdict, f"{remaining / DAY} days left")

    def test_a_quarter_and_a_tenth_of_the_life_decide(self) -> None:
        """To the second, whatever the life is: six days, ninety, a year."""
        for life in (6 * DAY, 47 * DAY, 90 * DAY, 365 * DAY):
            self.assert_verdict(life, "ok", life)
            self.assert_verdict(life / 4, "ok", life)
            self.assert_verdict(life / 4 - 1, "warning", life)
            self.assert_verdict(life / 10 + 1, "warning", life)
            self.assert_verdict(life / 10 - 1, "critical", life)

    def test_days_count_where_they_are_fewer(self) -> None:
        """With a year to live 30 and 7 days decide, with six days still their share."""
        days = Thresholds(
            warning=Threshold(share=1 / 4, seconds=30 * DAY), critical=Threshold(share=1 / 10, seconds=7 * DAY)
        )
        for life, remaining, verdict in (
            (365 * DAY, 30 * DAY, "ok"),
            (365 * DAY, 30 * DAY - 1, "warning"),
            (365 * DAY, 7 * DAY - 1, "critical"),
            (6 * DAY, 2 * DAY, "ok"),
            (6 * DAY, DAY, "warning"),
        ):
            self.assertEqual(judge(facts(life), life - remaining, days), verdict, (life, remaining))

    def test_a_long_life_counts_as_four_hundred_days(self) -> None:
        """An authority of ten years is no worry for its last two and a half; days that were named are kept to."""
        life = 3650 * DAY
        self.assert_verdict(100 * DAY, "ok", life)
        self.assert_verdict(100 * DAY - 1, "warning", life)
        self.assert_verdict(40 * DAY - 1, "critical", life)
        named = Thresholds(warning=Threshold(share=1 / 4, seconds=300 * DAY))
        self.assertEqual(judge(facts(life), life - 300 * DAY + 1, named), "warning")

    def test_nothing_is_critical_before_it_is_a_warning(self) -> None:
        """An operator who names a late warning only is not told sooner."""
        late = Thresholds(warning=Threshold(share=1 / 4, seconds=DAY))
        self.assertEqual(judge(facts(365 * DAY), 363 * DAY, late), "ok")
        self.assertEqual(judge(facts(365 * DAY), 364.5 * DAY, late), "critical")

    def test_a_flaw_counts_within_its_life(self) -> None:
        """What has expired is called so."""
        flawed = evolve(facts(), flaw="it is not trusted")
        self.assertEqual(judge(flawed, 1.0, Thresholds()), "invalid")
        self.assertEqual(judge(flawed, 91 * DAY, Thresholds()), "expired")

    def test_the_worst_of_many(self) -> None:
        """Of none it is ok."""
        self.assertEqual(worst_of(["ok", "critical", "warning"]), "critical")
        self.assertEqual(worst_of(["expired", "invalid"]), "invalid")
        self.assertEqual(worst_of([]), "ok")

    def test_it_has_expired_at_the_last_second(self) -> None:
        """notAfter itself is the end."""
        self.assert_verdict(0, "expired")
        self.assert_verdict(-DAY, "expired")

    def test_before_its_life_it_is_not_yet_valid(self) -> None:
        """notBefore itself is the beginning."""
        self.assertEqual(judge(facts(), -1.0, Thresholds()), "not_yet_valid")
        self.assertEqual(judge(facts(), 0.0, Thresholds()), "ok")

    @settings(max_examples=100, deadline=None)
    @given(st.floats(1, 1e9), st.floats(-1e9, 2e9), st.floats(0, 1e8))
    def test_a_verdict_never_improves_with_time(self, life: float, now: float, later: float) -> None:
        """Once valid, a certificate only gets worse."""
        order = ["ok", "warning", "critical", "expired"]
        first, second = (judge(facts(life), moment, Thresholds()) for moment in (now, now + later))
        if first != "not_yet_valid":
            self.assertLessEqual(order.index(first), order.index(second))


class CoverTests(SynchronousTestCase):
    """Names as clients compare them (RFC 9525)."""

    def test_exact_names_and_addresses(self) -> None:
        """Case, a final dot and brackets do not count."""
        leaf = facts(DAY, "mcp.example.com", "127.0.0.1", "::1")
        for host in ("mcp.example.com", "MCP.Example.com", "mcp.example.com.", "127.0.0.1", "::1", "[::1]", "0:0::1"):
            self.assertTrue(covers(leaf, host), host)
        for host in ("example.com", "a.mcp.example.com", "127.0.0.2", "", "::2"):
            self.assertFalse(covers(leaf, host), host)

    def test_a_wildcard_stands_for_one_label(self) -> None:
        """Neither for none nor for two."""
        leaf = facts(DAY, "*.example.com")
        self.assertTrue(covers(leaf, "a.example.com"))
        self.assertFalse(covers(leaf, "example.com"))
        self.assertFalse(covers(leaf, "a.b.example.com"))

    def test_no_wildcard_stands_for_a_name_under_a_top_level_domain(self) -> None:
        """``*.com`` is nobody's."""
        self.assertIsNone(wildcard_of("example.com"))
        self.assertIsNone(wildcard_of("localhost"))
        self.assertEqual(wildcard_of("a.example.com"), "*.example.com")
