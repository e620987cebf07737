"""Tests for mcptunnel.core.stragglers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.record import Record
from mcptunnel.core.stragglers import Stragglers

DAY = 86_400.0


def record(**fields: Any) -> Record:
    return Record(**{"verb": "GET", "path": "/mcp", "host": "mcp.test", "verdict": "direct", "peer": "a", **fields})


class StragglersTests(SynchronousTestCase):
    """Who came, how often, and when that is said."""

    def test_a_client_is_known_by_its_latest_request(self) -> None:
        """Its count goes on, and so does what is known of its credential."""
        table = Stragglers()
        table.note("a", record(principal="ci", credential=True, path="/one"), 5.0)
        table.note("a", record(verb="POST", path="/two", host="other.test"), 7.0)
        (known,) = table.newest(10)
        self.assertEqual((known.count, known.first, known.last), (2, 5.0, 7.0))
        self.assertEqual((known.verb, known.path, known.host), ("POST", "/two", "other.test"))
        self.assertEqual((known.principal, known.credential), ("ci", True))

    def test_the_newest_come_first_and_the_oldest_are_forgotten(self) -> None:
        """By their last request, not by their first."""
        table = Stragglers(3)
        for at, client in enumerate("abcad"):
            table.note(client, record(), float(at))
        self.assertEqual(([one.client for one in table.newest(10)], len(table)), (["d", "a", "c"], 3))
        self.assertEqual([one.client for one in table.newest(2)], ["d", "a"])

    def test_each_client_is_said_once_a_day(self) -> None:
        """Counted from when it was said."""
        table = Stragglers()
        said = [table.note("a", record(), at) is not None for at in (0.0, 1.0, DAY - 1, DAY, DAY + 1, 2 * DAY)]
        self.assertEqual(said, [True, False, False, True, False, True])

    def test_so_many_clients_a_day_and_no_more_are_said(self) -> None:
        """However many come, and are forgotten and come again."""
        table = Stragglers(3)
        said = [client for at, client in enumerate("abcdeabc") if table.note(client, record(), DAY + at) is not None]
        self.assertEqual(said, ["a", "b", "c"])
        self.assertIsNotNone(table.note("e", record(), 2 * DAY))

    def test_what_a_client_chooses_is_cut(self) -> None:
        """A thousand of them shall not fill memory."""
        table = Stragglers()
        known = table.note("a", record(verb="V" * 10_000, path="/" * 10_000, host="h" * 10_000), 0.0)
        assert known is not None
        self.assertEqual((len(known.verb), len(known.path), len(known.host)), (200, 200, 200))
