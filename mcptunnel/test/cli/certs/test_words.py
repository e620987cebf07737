"""Tests for mcptunnel.cli.certs.words."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli.certs.words import as_json, left, name_of, names_of, status_of, worst
from mcptunnel.test.tls.certs import DAY, NOW, mint
from mcptunnel.tls.chain import facts_of


class WordsTests(SynchronousTestCase):
    """Statuses and words."""

    def test_statuses_are_those_of_monitoring_plugins(self) -> None:
        """Nagios: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""
        statuses = {
            "ok": 0,
            "warning": 1,
            "critical": 2,
            "expired": 2,
            "not_yet_valid": 2,
            "invalid": 2,
            "unknown": 3,
        }
        for outcome, status in statuses.items():
            self.assertEqual(status_of(outcome), status, outcome)  # type: ignore[arg-type]

    def test_what_is_broken_outweighs_what_is_unknown(self) -> None:
        """And that outweighs what is merely near its end."""
        self.assertEqual(worst([]), "ok")
        self.assertEqual(worst(["ok", "unknown", "warning"]), "unknown")
        self.assertEqual(worst(["unknown", "expired", "critical"]), "expired")

    def test_life_in_words(self) -> None:
        """Never rounded up."""
        for seconds, words in (
            (89.9 * DAY, "89 days"),
            (2 * DAY, "2 days"),
            (1.9 * DAY, "45 hours"),
            (3600, "1 hour"),
            (1800, "0 hours"),
            (-1800, "0 hours"),
            (-3.5 * DAY, "-3 days"),
            (float("inf"), "no end"),
        ):
            self.assertEqual(left(seconds), words)

    def test_what_a_certificate_is_called(self) -> None:
        """By its names if it is a server's, by its subject if it is an authority's."""
        certificate = mint("Subject", names=["a", "b", "c", "d"]).certificate
        leaf = facts_of("f", certificate, "leaf")
        self.assertEqual((name_of(leaf), names_of(leaf), names_of(leaf, 4)), ("a", "a, b, c and 1 more", "a, b, c, d"))
        for other in (facts_of("f", certificate, "client_ca"), facts_of("f", mint("Subject").certificate, "leaf")):
            self.assertEqual((name_of(other), names_of(other)), ("CN=Subject", "CN=Subject"))

    def test_json_has_no_infinity(self) -> None:
        """A revocation list may have no end."""
        facts = evolve(facts_of("f", mint("a", names=["a"]).certificate, "leaf"), not_after=float("inf"))
        shown = json.loads(json.dumps(as_json(facts, "ok", NOW), allow_nan=False))
        self.assertEqual((shown["not_after"], shown["days_left"]), (None, None))
