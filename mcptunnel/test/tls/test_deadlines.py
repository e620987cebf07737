"""Tests for mcptunnel.tls.deadlines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.tls.deadlines import Deadlines


class DeadlinesTests(SynchronousTestCase):
    """One timer, any number of things."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[str] = []
        self.deadlines = Deadlines(self.clock, 5.0, self.late.append)

    def test_each_is_late_exactly_after_its_own_time(self) -> None:
        """Not before, and not in one heap with those that came later."""
        self.deadlines.add("a")
        self.clock.advance(2)
        self.deadlines.add("b")
        self.clock.advance(2.9)
        self.assertEqual(self.late, [])
        self.clock.advance(0.1)
        self.assertEqual(self.late, ["a"])
        self.clock.advance(1.9)
        self.assertEqual(self.late, ["a"])
        self.clock.advance(0.2)
        self.assertEqual(self.late, ["a", "b"])
        self.assertEqual(len(self.deadlines), 0)

    def test_who_made_it_is_never_late(self) -> None:
        """Removing twice, or a stranger, is nothing."""
        self.deadlines.add("a")
        self.deadlines.add("b")
        self.deadlines.remove("a")
        self.deadlines.remove("a")
        self.deadlines.remove("stranger")
        self.clock.advance(10)
        self.assertEqual(self.late, ["b"])

    def test_there_is_one_timer_and_none_when_nobody_waits(self) -> None:
        """A thousand connections cost one delayed call."""
        for number in range(1000):
            self.deadlines.add(str(number))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(5)
        self.assertEqual(len(self.late), 1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_gives_back_who_waits_and_leaves_no_timer(self) -> None:
        """So that they can be told."""
        self.deadlines.add("a")
        self.assertEqual(self.deadlines.stop(), ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.deadlines.stop(), [])
        self.clock.advance(10)
        self.assertEqual(self.late, [])

    def test_being_late_may_remove_and_add_others(self) -> None:
        """What is called may change what is waited for."""

        def late(one: str) -> None:
            self.late.append(one)
            deadlines.remove("c")
            deadlines.add(one + "!")

        deadlines = Deadlines(self.clock, 5.0, late)
        deadlines.add("a")
        self.clock.advance(1)
        deadlines.add("c")
        self.clock.advance(4)
        self.clock.advance(4)
        self.assertEqual(self.late, ["a"])
        self.clock.advance(1)
        self.assertEqual(self.late, ["a", "a!"])

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
    def test_everybody_is_late_once_or_has_made_it(self, steps: list[tuple[int, bool]]) -> None:
        """Whatever the order of coming and going."""
        clock, late = Clock(), dict[int, float]()
        deadlines: Deadlines[int] = Deadlines(clock, 5.0, lambda one: late.update({one: clock.seconds()}))
        came: dict[int, float] = {}
        for number, (wait, made_it) in enumerate(steps):
            clock.pump([1.0] * wait)
            deadlines.add(number)
            if made_it:
                deadlines.remove(number)
            else:
                came[number] = clock.seconds()
        clock.pump([1.0] * 6)
        self.assertEqual(late, {number: at + 5.0 for number, at in came.items()})
