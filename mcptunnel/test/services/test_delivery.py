"""Tests for mcptunnel.services.delivery."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import DeliveryError
from mcptunnel.services.delivery import MOST, PAUSES, Delivery


class DeliveryTests(SynchronousTestCase):
    """A queue, and a target that takes, refuses, hangs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[float, bytes]] = []
        self.failures: list[Exception] = []
        self.delivery = Delivery(target="alerts[0] (x)", send=self.send, clock=self.clock)

    def send(self, document: bytes) -> Deferred[None]:
        self.sent.append((self.clock.seconds(), document))
        return fail(self.failures.pop(0)) if self.failures else succeed(None)

    def refuse(self, times: int) -> None:
        self.failures += [DeliveryError(f"no {n}") for n in range(times)]

    def test_it_is_sent_at_once(self) -> None:
        """And not again."""
        self.delivery.start()
        self.delivery.put(b"1")
        self.delivery.put(b"2")
        self.clock.advance(3600)
        self.assertEqual(self.sent, [(0.0, b"1"), (0.0, b"2")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_before_the_start_waits_for_it(self) -> None:
        """Nothing is lost."""
        self.delivery.put(b"1")
        self.assertEqual(self.sent, [])
        self.delivery.start()
        self.assertEqual(self.sent, [(0.0, b"1")])

    def test_it_is_tried_again_with_growing_pauses(self) -> None:
        """The others wait, so that the order stays."""
        self.delivery.start()
        self.refuse(3)
        self.delivery.put(b"1")
        self.delivery.put(b"2")
        self.clock.pump([0.5] * 200)
        self.assertEqual(self.sent, [(0.0, b"1"), (1.0, b"1"), (6.0, b"1"), (36.0, b"1"), (36.0, b"2")])

    def test_in_the_end_it_is_given_up_with_one_line(self) -> None:
        """And the next one has its own attempts."""
        self.delivery.start()
        self.refuse(len(PAUSES) + 1)
        with capturedLogs() as events:
            self.delivery.put(b"1")
            self.delivery.put(b"2")
            for pause in PAUSES:
                self.clock.advance(pause)
        self.assertEqual([document for _, document in self.sent], [b"1"] * 6 + [b"2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        loud = [formatEvent(event) for event in events if event["log_level"] is not LogLevel.debug]
        self.assertEqual(loud, ["alert target alerts[0] (x): an alert is given up after 6 attempts: no 5"])

    def test_the_oldest_make_room(self) -> None:
        """Counted, and said when there is something to say again."""
        for number in range(MOST + 3):
            self.delivery.put(b"%d" % number)
        self.assertEqual(self.delivery.counts["dropped"], 3)
        with capturedLogs() as events:
            self.delivery.start()
        self.assertEqual([document for _, document in self.sent], [b"%d" % n for n in range(3, MOST + 3)])
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["alert target alerts[0] (x): the oldest 3 of more than 100 waiting alerts were dropped"],
        )

    def test_the_end_breaks_off_a_pause(self) -> None:
        """No timer is left; what is lost is counted."""
        self.delivery.start()
        self.refuse(1)
        self.delivery.put(b"1")
        self.delivery.put(b"2")
        with capturedLogs() as events:
            self.delivery.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([event["left"] for event in events], [2])

    def test_the_end_breaks_off_what_is_being_sent(self) -> None:
        """Whatever its Deferred says to that."""
        for canceller in (None, lambda d: d.errback(DeliveryError("cut"))):
            hanging: Deferred[None] = Deferred(canceller)
            self.delivery = Delivery(target="x", send={b"1": hanging}.__getitem__, clock=self.clock)
            self.delivery.start()
            self.delivery.put(b"1")
            self.delivery.stop()
            self.assertTrue(hanging.called)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_idle_one_ends_without_a_word(self) -> None:
        """Nothing was lost."""
        self.delivery.start()
        self.delivery.put(b"1")
        with capturedLogs() as events:
            self.delivery.stop()
        self.assertEqual(events, [])

    def test_an_error_of_ours_loses_one_alert_and_not_the_next(self) -> None:
        """With its traceback in the log."""
        self.delivery.start()
        self.failures.append(KeyError("oops"))
        self.delivery.put(b"1")
        self.delivery.put(b"2")
        self.assertEqual([document for _, document in self.sent], [b"1", b"2"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
