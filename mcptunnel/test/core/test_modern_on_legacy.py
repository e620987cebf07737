"""Tests for mcptunnel.core.modern_on_legacy: clients of 2026-07-28 on a legacy server."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.mcp import LEVEL_KEY
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.rules import Rules
from mcptunnel.testing import FakeSeal, FakeUpstream, RecordingSink, make_exchange, request

CALL: dict[str, Any] = {"name": "t"}


class CallTests(SynchronousTestCase):
    """Calls at a relay with one legacy server."""

    def setUp(self) -> None:
        self.upstream = FakeUpstream("a", rules=Rules(era="legacy"))
        self.relay = Relay({"a": self.upstream}, Bounds(), lambda: 100.0, FakeSeal(), {"name": "us", "version": "0"})

    def ask(self, params: Any, id_: int = 1) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(request("tools/call", id_, params, modern=True), era="modern")
        self.relay.stateless(exchange, Target(("a",), False))
        return exchange, sink

    def open(self) -> None:
        self.upstream.wire.answer({"protocolVersion": "2025-11-25", "capabilities": {"logging": {}}}, number=1)

    def methods(self) -> list[str]:
        return [body.get("method") for body in self.upstream.wire.bodies]

    def test_a_call_waits_for_the_session_and_its_result_is_complete(self) -> None:
        """In the client's id."""
        _, sink = self.ask(CALL, 7)
        self.assertEqual(self.methods(), ["initialize"])
        self.open()
        self.assertEqual(self.methods(), ["initialize", "notifications/initialized", "tools/call"])
        self.upstream.wire.answer({"content": []})
        self.assertEqual((sink.answer["id"], sink.answer["result"]["resultType"]), (7, "complete"))

    def test_a_result_that_is_none_is_an_error(self) -> None:
        """The client is answered all the same."""
        _, sink = self.ask(CALL)
        self.open()
        self.upstream.wire.answer([1])
        self.assertIn("error", sink.answer)

    def test_who_leaves_before_the_session_is_open_sets_no_level(self) -> None:
        """The server is asked nothing for it."""
        exchange, _ = self.ask({**CALL, "_meta": {LEVEL_KEY: "debug"}})
        exchange.abandon()
        self.open()
        self.assertEqual(self.methods(), ["initialize", "notifications/initialized"])
