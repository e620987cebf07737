"""What every server in reach of a link must do, whatever carries the bytes: the fake passes the same tests.

A test case mixes :class:`UpstreamContract` in and says how to be the server.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import Era
from mcptunnel.core.wire import Upstream
from mcptunnel.testing import RecordingSink, make_exchange, notification, request, response


class Collecting:
    """An owner that remembers."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.lost: list[Link] = []

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        self.said.append(json.loads(message.raw))

    def session_lost(self, link: Link) -> bool:
        return False

    def doubted(self, link: Link) -> None:
        """Nothing is known here of eras."""

    def link_lost(self, link: Link) -> None:
        self.lost.append(link)


class UpstreamContract(SynchronousTestCase, ABC):
    """The tests. Subclasses make ``upstream`` in :meth:`setUp` and play its server."""

    upstream: Upstream
    now = 0.0

    @abstractmethod
    def taken(self) -> list[Any]:
        """The messages that the server has received since the last time, decoded."""

    @abstractmethod
    def say(self, raw: bytes, number: int) -> None:
        """Say ``raw`` about call ``number``; a response ends that call's stream where there is one."""

    @abstractmethod
    def gone(self) -> None:
        """End the connection from the server's side."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether the server has been told that this connection is over."""

    # --- the tests

    def open(self, era: Era = "legacy") -> Link:
        self.owner = Collecting()
        return Link.open(self.upstream, era, self.owner, lambda: self.now)

    def ask(self, link: Link, raw: bytes) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(raw, era=link.era)
        link.request(exchange)
        return exchange, sink

    def test_contract_a_request_arrives_and_its_answer_comes_back(self) -> None:
        """Under our number there, under the client's id here."""
        link = self.open()
        _, sink = self.ask(link, request("tools/call", "c", {"name": "a", "arguments": {"x": "é\n"}}))
        self.assertEqual(
            self.taken(),
            [{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "arguments": {"x": "é\n"}}}],
        )
        self.say(response(1, {"ok": "é"}), 1)
        self.assertEqual(sink.answer, {"jsonrpc": "2.0", "id": "c", "result": {"ok": "é"}})

    def test_contract_answers_may_come_in_any_order(self) -> None:
        """Each finds its request."""
        link = self.open()
        sinks = [self.ask(link, request("tools/call", 1, {"name": str(n)}))[1] for n in range(3)]
        for number in (2, 3, 1):
            self.say(response(number, {"n": number}), number)
        self.assertEqual([sink.answer["result"]["n"] for sink in sinks], [1, 2, 3])

    def test_contract_progress_comes_before_the_answer(self) -> None:
        """With the client's token."""
        link = self.open()
        _, sink = self.ask(link, request("tools/call", 1, {"_meta": {"progressToken": "t"}}))
        self.say(notification("notifications/progress", {"progressToken": 1, "progress": 1}), 1)
        self.say(response(1, {}), 1)
        self.assertEqual([m["params"]["progressToken"] for m in sink.heard], ["t"])
        self.assertTrue(sink.answered)

    def test_contract_notifications_arrive(self) -> None:
        """They are no call."""
        link = self.open()
        link.tell(notification("notifications/roots/list_changed"))
        self.assertEqual([m["method"] for m in self.taken()], ["notifications/roots/list_changed"])

    def test_contract_a_cancelled_call_is_told_and_its_late_answer_swallowed(self) -> None:
        """In the legacy era by notification, everywhere."""
        link = self.open()
        exchange, sink = self.ask(link, request("tools/call", 1, {"name": "a"}))
        self.taken()
        exchange.abandon(b'"r"')
        self.assertEqual([m["params"] for m in self.taken()], [{"requestId": 1, "reason": "r"}])
        self.say(response(1, {}), 1)
        self.assertFalse(sink.answered)

    def test_contract_when_the_server_goes_its_calls_fail(self) -> None:
        """At once, each once."""
        link = self.open()
        sinks = [self.ask(link, request("tools/call", n, {"name": "a"}))[1] for n in range(2)]
        self.gone()
        for sink in sinks:
            self.assertEqual(sink.answer["error"]["code"], -32010)
        self.assertEqual(link.calls, {})

    def test_contract_closing_ends_the_connection_in_silence(self) -> None:
        """The calls belong to whoever closes; twice is once."""
        link = self.open()
        _, sink = self.ask(link, request("tools/call", 1, {"name": "a"}))
        link.close()
        link.close()
        self.assertTrue(self.ended())
        self.gone()
        self.assertEqual((sink.answered, self.owner.lost), (False, []))

    def test_contract_pausing_is_undone_by_the_end_of_the_call(self) -> None:
        """The next call is read."""
        link = self.open()
        exchange, _ = self.ask(link, request("tools/call", 1, {"name": "a"}))
        exchange.pause()
        exchange.abandon()
        _, sink = self.ask(link, request("tools/call", 2, {"name": "a"}))
        self.say(response(2, {}), 2)
        self.assertTrue(sink.answered)

    def test_contract_junk_harms_no_other_call(self) -> None:
        """Whatever it costs the one it was said about."""
        link = self.open()
        self.ask(link, request("tools/call", 1, {"name": "a"}))
        _, other = self.ask(link, request("tools/call", 2, {"name": "a"}))
        self.say(b'{"jsonrpc":"2.0","id":[]}', 1)
        self.say(response(2, {}), 2)
        self.assertEqual(other.answer["result"], {})
