"""Tests for mcptunnel.services.heartbeat: once a second, whatever happens."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.services.heartbeat import Heartbeat


class HeartbeatTests(SynchronousTestCase):
    """The one timer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.beats: list[str] = []

    def test_it_beats_every_second_while_it_runs(self) -> None:
        """Not at once, not after it has stopped."""
        service = Heartbeat([lambda: self.beats.append("a"), lambda: self.beats.append("b")], self.clock)
        service.startService()
        self.assertEqual(self.beats, [])
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.beats, ["a", "b"] * 3)
        self.successResultOf(service.stopService())  # type: ignore[arg-type]
        self.clock.advance(5.0)
        self.assertEqual((len(self.beats), self.clock.getDelayedCalls()), (6, []))

    def test_a_beat_that_fails_stops_neither_itself_nor_the_others(self) -> None:
        """It is logged each time."""

        def fail() -> None:
            self.beats.append("failed")
            raise ZeroDivisionError

        service = Heartbeat([fail, lambda: self.beats.append("fine")], self.clock)
        service.startService()
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.beats, ["failed", "fine"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        service.stopService()

    def test_it_can_be_stopped_before_it_was_started_and_started_again(self) -> None:
        """Services are."""
        service = Heartbeat([lambda: self.beats.append("x")], self.clock)
        service.stopService()
        for _ in range(2):
            service.startService()
            self.clock.advance(1.0)
            service.stopService()
        self.assertEqual(self.beats, ["x", "x"])
