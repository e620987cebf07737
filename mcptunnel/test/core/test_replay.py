"""Tests for mcptunnel.core.replay: whose events, which, and how many."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.replay import EVENTS, KEPT_BYTES, Budget, Replay


class ReplayTests(SynchronousTestCase):
    """Two streams of one session, and a session that is another's."""

    def setUp(self) -> None:
        self.replay = Replay("session-1", Budget())
        self.one, self.two = self.replay.begin(self), self.replay.begin(self)

    def test_what_came_after_an_event_of_its_stream_is_replayed(self) -> None:
        """In order, under the ids that it had; nothing of another stream."""
        ids = [self.one.add(b"a"), self.two.add(b"x"), self.one.add(b"b"), self.one.add(b"c")]
        self.assertEqual(self.replay.find(ids[0]), (self.one, [(ids[2], b"b"), (ids[3], b"c")]))
        self.assertEqual(self.replay.find(ids[1]), (self.two, []))
        self.assertEqual(self.replay.find(ids[3]), (self.one, []))
        self.assertEqual(len(set(ids)), 4)

    def test_the_place_before_the_first_event_has_an_id(self) -> None:
        """An event with the id, the time to wait, and empty data."""
        prime = self.one.prime()
        self.assertRegex(prime, rb"\Aretry: 1000\nid: [0-9a-f]{12}-1-0\ndata: \n\n\Z")
        id_ = self.one.add(b"a")
        self.assertEqual(self.replay.find(prime.split(b"\n")[1][4:]), (self.one, [(id_, b"a")]))
        self.assertIn(id_, self.one.prime())

    def test_an_id_of_another_session_is_none(self) -> None:
        """Nor is one of an event that has not been, or something else altogether."""
        id_ = self.one.add(b"a")
        other = Replay("session-2", Budget())
        other.begin(self).add(b"secret")
        self.assertIsNone(other.find(id_))
        name = id_[:12]
        for wrong in (b"", b"1", name, name + b"-1-2", name + b"-3-0", name + b"-01-1", name + b"-1--1", id_ + b"\n"):
            self.assertIsNone(self.replay.find(wrong), wrong)
        self.assertNotIn(b"session", id_)

    def test_the_oldest_event_makes_room(self) -> None:
        """By number and by size; what is left is replayed."""
        first = self.one.prime().split(b"\n")[1][4:]
        for n in range(EVENTS + 10):
            self.one.add(b"%d" % n)
        found = self.replay.find(first)
        assert found is not None
        self.assertEqual([data for _, data in found[1]], [b"%d" % n for n in range(10, EVENTS + 10)])
        last = self.one.add(bytes(KEPT_BYTES))
        found = self.replay.find(first)
        assert found is not None
        self.assertEqual([id_ for id_, _ in found[1]], [last])

    def test_one_event_is_kept_however_long_it_is(self) -> None:
        """It may be the response."""
        first = self.one.add(b"a")
        last = self.one.add(bytes(2 * KEPT_BYTES))
        self.assertEqual(self.replay.find(first), (self.one, [(last, bytes(2 * KEPT_BYTES))]))
        self.assertEqual(len(self.replay), 1)

    def test_a_stream_that_is_over_is_known_while_something_of_it_is_kept(self) -> None:
        """One that goes on is known without that, and so is the standing one."""
        over, going = self.one.add(b"a"), self.two.add(b"b")
        standing = self.replay.standing.add(b"c")
        self.one.end()
        self.assertIsNotNone(self.replay.find(over))
        for _ in range(EVENTS):
            self.replay.standing.add(b"d")
        self.assertIsNone(self.replay.find(over))
        self.assertEqual(self.replay.find(going), (self.two, []))
        self.two.end()
        self.assertIsNone(self.replay.find(going))
        self.assertIsNotNone(self.replay.find(standing))

    def test_a_stream_that_is_forgotten_is_none(self) -> None:
        """At once; what it held still makes room in its turn."""
        id_ = self.one.add(b"a")
        self.one.forget()
        self.assertIsNone(self.replay.find(id_))
        for _ in range(EVENTS + 1):
            self.two.add(b"b")
        self.assertEqual(len(self.replay), EVENTS)

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 1000, KEPT_BYTES // 2])), max_size=40))
    def test_each_replay_is_the_end_of_its_stream(self, said: list[tuple[int, int]]) -> None:
        """Whatever was said where, and however much had to go."""
        replay = Replay("s", Budget())
        trails = [replay.standing, replay.begin(self), replay.begin(self)]
        told: list[list[tuple[bytes, bytes]]] = [[], [], []]
        for n, (which, size) in enumerate(said):
            data = b"%d" % n + bytes(size)
            told[which].append((trails[which].add(data), data))
        for trail, events in zip(trails, told, strict=True):
            for place, (id_, _) in enumerate(events):
                found = replay.find(id_)
                assert found is not None
                self.assertIs(found[0], trail)
                later = events[place + 1 :]
                self.assertEqual(found[1], later[len(later) - len(found[1]) :])
        kept = sum(len(data) for trail in trails for _, data in trail.after(0) or [])
        self.assertLessEqual(kept, max(KEPT_BYTES, *(len(d) for e in told for _, d in e), 0))


class BudgetTests(SynchronousTestCase):
    """All sessions together."""

    def test_beyond_the_budget_each_session_keeps_its_latest_event(self) -> None:
        """A session that comes late is not the one to suffer more than others; nobody goes without."""
        budget = Budget(100)
        first, second = Replay("s1", budget), Replay("s2", budget)
        for _ in range(3):
            first.standing.add(b"x" * 30)
        self.assertEqual((len(first), budget.used), (3, 90))
        second.standing.add(b"y" * 30)
        self.assertEqual((len(first), len(second), budget.used), (3, 1, 120))
        first.standing.add(b"x" * 30)
        self.assertEqual((len(first), len(second), budget.used), (2, 1, 90))

    def test_a_session_that_ends_gives_back_what_it_kept(self) -> None:
        """Once."""
        budget = Budget(100)
        replay = Replay("s", budget)
        replay.standing.add(b"x" * 60)
        replay.close()
        replay.close()
        self.assertEqual(budget.used, 0)
