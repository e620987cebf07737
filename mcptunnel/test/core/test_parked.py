"""Tests for mcptunnel.core.parked: calls that wait for their own client, and not for ever."""

from __future__ import annotations

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.parked import Parked
from mcptunnel.core.principal import Principal

ME, YOU = Principal(name="me"), Principal(name="you")


@define(eq=False)
class Call:
    """A call that counts."""

    principal: Principal = ME
    back: list[Exchange] = field(factory=list)
    given_up: int = 0

    def come_back(self, exchange: Exchange) -> None:
        self.back.append(exchange)

    def give_up(self) -> None:
        self.given_up += 1


class ParkedTests(SynchronousTestCase):
    """Two may wait, for ten seconds."""

    def setUp(self) -> None:
        self.now = 100.0
        self.parked = Parked(lambda: self.now, 2, 10.0)

    def test_a_call_is_taken_once_by_whose_it_is(self) -> None:
        """Others read the same as for one that is not there, and take nothing away."""
        call = Call()
        number = self.parked.add(call)
        messages = {self.assertRaises(RpcError, self.parked.take, number, YOU).message}
        self.assertEqual(len(self.parked), 1)
        self.assertIs(self.parked.take(number, ME), call)
        for gone in (number, "99", ""):
            error = self.assertRaises(RpcError, self.parked.take, gone, ME)
            self.assertEqual((error.code, error.reason), (-32602, "invalid_state"))
            messages.add(error.message)
        self.assertEqual((len(messages), len(self.parked), call.given_up), (1, 0, 0))

    def test_there_are_only_so_many(self) -> None:
        """One that was taken makes room; no number is given twice."""
        first, second = self.parked.add(Call()), self.parked.add(Call())
        error = self.assertRaises(RpcError, self.parked.add, Call())
        self.assertEqual((error.status, error.reason), (503, "too_many_parked"))
        self.assertIn("server.limits.parked", error.message)
        self.parked.take(second, ME)
        self.assertNotIn(self.parked.add(Call()), (first, second))

    def test_who_does_not_come_is_given_up(self) -> None:
        """Once, when the time is over and not before; the number is worth nothing then."""
        early, late = Call(), Call()
        number = self.parked.add(early)
        self.now += 5.0
        self.parked.add(late)
        self.now += 5.0
        self.parked.sweep()
        self.assertEqual((early.given_up, late.given_up), (0, 0))
        self.now += 0.1
        self.parked.sweep()
        self.parked.sweep()
        self.assertEqual((early.given_up, late.given_up, len(self.parked)), (1, 0, 1))
        self.assertRaises(RpcError, self.parked.take, number, ME)

    def test_the_end_gives_everything_up(self) -> None:
        """Once."""
        calls = [Call(), Call()]
        for call in calls:
            self.parked.add(call)
        self.parked.close()
        self.parked.close()
        self.assertEqual([call.given_up for call in calls], [1, 1])
