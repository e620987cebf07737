"""Tests for mcptunnel.core.wishes: what a server has granted is remembered until it is taken back."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.wishes import Wishes
from mcptunnel.testing import make_exchange, request, response


class WishesTests(SynchronousTestCase):
    """Requests of one client to one server."""

    def setUp(self) -> None:
        self.wishes = Wishes()

    def ask(self, method: str, params: Any, *, error: bool = False) -> bytes:
        raw = request(method, 1, params)
        exchange, _ = make_exchange(raw)
        self.wishes.watch(exchange)
        exchange.finish(decode(response(1, error={"code": -32602, "message": "no"} if error else None)))
        return raw

    def test_the_latest_level_and_every_subscription_are_said_again(self) -> None:
        """In the client's own bytes; each resource once."""
        self.ask("logging/setLevel", {"level": "debug"})
        level = self.ask("logging/setLevel", {"level": "error"})
        one = self.ask("resources/subscribe", {"uri": "x:1"})
        self.ask("resources/subscribe", {"uri": "x:1"})
        two = self.ask("resources/subscribe", {"uri": "x:2"})
        self.assertEqual(self.wishes.requests(), [level, one, two])
        self.ask("resources/unsubscribe", {"uri": "x:1"})
        self.ask("resources/unsubscribe", {"uri": "x:9"})
        self.assertEqual(self.wishes.requests(), [level, two])

    def test_what_was_refused_is_not_said_again(self) -> None:
        """Nor taken back by a refusal."""
        self.ask("logging/setLevel", {"level": "x"}, error=True)
        self.ask("resources/subscribe", {"uri": "x:1"}, error=True)
        self.assertEqual(self.wishes.requests(), [])
        raw = self.ask("resources/subscribe", {"uri": "x:1"})
        self.ask("resources/unsubscribe", {"uri": "x:1"}, error=True)
        self.assertEqual(self.wishes.requests(), [raw])

    def test_what_failed_or_was_cancelled_is_not_said_again(self) -> None:
        """Nobody knows whether the server has granted it."""
        for method, params in (("logging/setLevel", {"level": "info"}), ("resources/subscribe", {"uri": "x"})):
            for end in (lambda e: e.fail(RpcError(-32010, "gone")), lambda e: e.abandon()):
                exchange, _ = make_exchange(request(method, 1, params))
                self.wishes.watch(exchange)
                end(exchange)
        self.assertEqual(self.wishes.requests(), [])

    def test_what_does_not_last_or_names_nothing_is_no_wish(self) -> None:
        """Whatever its params."""
        self.ask("tools/call", {"name": "t"})
        self.ask("resources/subscribe", None)
        self.ask("resources/subscribe", {"uri": 5})
        self.ask("resources/subscribe", [1])
        self.assertEqual(self.wishes.requests(), [])
