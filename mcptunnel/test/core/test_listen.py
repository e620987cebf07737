"""Tests for mcptunnel.core.listen: one subscription to several servers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.aggregate import to_many
from mcptunnel.core.directory import Directory
from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.listen import HELD
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.routing import PATIENCE_SECONDS, Target
from mcptunnel.test.core.test_dispatch import OneLink
from mcptunnel.testing import FakeWire, RecordingSink, make_exchange, notification, request

KEY = "io.modelcontextprotocol/subscriptionId"
ACK = "notifications/subscriptions/acknowledged"
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


class Case(SynchronousTestCase):
    """Two servers, a and b."""

    def setUp(self) -> None:
        self.links = OneLink(era="modern")
        self.directory = Directory()

    def listen(
        self, wanted: Any, principal: Principal = ANONYMOUS, id_: int | str = "l-1"
    ) -> tuple[Exchange, RecordingSink]:
        raw = request("subscriptions/listen", id_, {"notifications": wanted}, modern=True)
        exchange, sink = make_exchange(raw, principal=principal, era="modern")
        exchange.patience = 0
        to_many(self.links, exchange, Target(("a", "b"), True), self.directory, {"name": "us", "version": "0"})
        return exchange, sink

    def wire(self, server: str) -> FakeWire:
        return self.links.wire(server)

    def asked(self, server: str) -> Any:
        """What ``server`` was asked for, or None."""
        if server not in self.links.upstreams:
            return None
        return self.wire(server).last.body["params"]["notifications"]

    def say(self, server: str, method: str, **params: Any) -> None:
        """A message of ``server`` on its latest subscription."""
        number = self.wire(server).last.number
        self.wire(server).say(notification(method, {"_meta": {KEY: number}, **params}), number)

    def acknowledge(self, server: str, **honoured: Any) -> None:
        self.say(server, ACK, notifications=honoured)

    def end(self, server: str) -> None:
        """A graceful end by ``server``."""
        self.wire(server).answer({"_meta": {KEY: self.wire(server).last.number}})


def said(method: str, id_: int | str = "l-1", **params: Any) -> Any:
    return {"jsonrpc": "2.0", "method": method, "params": {"_meta": {KEY: id_}, **params}}


class OpenTests(Case):
    """Who is asked for what, and what the client hears first."""

    def test_the_client_hears_once_what_all_honour_together(self) -> None:
        """When the last has acknowledged, under the client's id in its type; then what has waited."""
        for id_ in ("l-1", 7):
            self.setUp()
            _, sink = self.listen({"toolsListChanged": True, "promptsListChanged": True, "x": True}, id_=id_)
            self.acknowledge("a", toolsListChanged=True)
            self.say("a", TOOLS)
            self.say("a", TOOLS)
            self.assertEqual(sink.heard, [])
            self.acknowledge("b", toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True)
            honoured = {"toolsListChanged": True, "promptsListChanged": True}
            self.assertEqual(sink.heard, [said(ACK, id_, notifications=honoured), said(TOOLS, id_)])
            self.say("b", TOOLS)
            self.acknowledge("b", toolsListChanged=True)
            self.assertEqual(sink.heard[2:], [said(TOOLS, id_)])
            self.assertFalse(sink.answered)

    def test_a_resource_is_subscribed_at_its_owner(self) -> None:
        """And at all servers when nobody is known to own it; each hears of nobody else's."""
        self.directory.learn("x:a", "a")
        self.directory.learn("x:b", "b")
        self.directory.learn("x:gone", "c")
        _, sink = self.listen({"resourceSubscriptions": ["x:b", "x:a", "x:?", "x:gone"], "toolsListChanged": True})
        self.assertEqual(self.asked("a"), {"resourceSubscriptions": ["x:a", "x:?", "x:gone"], "toolsListChanged": True})
        self.assertEqual(self.asked("b"), {"resourceSubscriptions": ["x:b", "x:?", "x:gone"], "toolsListChanged": True})
        self.acknowledge("a", resourceSubscriptions=["x:?", "x:a"])
        self.acknowledge("b", resourceSubscriptions=["x:b", "x:?", "other"])
        honoured = {"resourceSubscriptions": ["x:b", "x:a", "x:?"]}
        self.assertEqual(sink.heard, [said(ACK, notifications=honoured)])
        self.say("b", UPDATED, uri="x:b")
        self.assertEqual(sink.heard[1:], [said(UPDATED, uri="x:b")])

    def test_a_server_of_which_nothing_is_wanted_is_left_alone(self) -> None:
        """All that was asked for belongs to the other."""
        self.directory.learn("x:a", "a")
        _, sink = self.listen({"resourceSubscriptions": ["x:a"], "toolsListChanged": False})
        self.assertEqual(set(self.links.open), {"a"})
        self.acknowledge("a", resourceSubscriptions=["x:a"])
        self.assertEqual(len(sink.heard), 1)

    def test_nothing_wanted_is_asked_of_all(self) -> None:
        """The server has the say about an empty filter."""
        _, sink = self.listen({})
        self.acknowledge("a")
        self.acknowledge("b")
        self.assertEqual(sink.heard, [said(ACK, notifications={})])

    def test_what_the_principal_may_not_see_is_asked_of_nobody(self) -> None:
        """With nothing left it is unknown."""
        principal = Principal(name="p", allow=("a__*", "b__y:*"))
        self.listen({"resourceSubscriptions": ["x:1", "y:1"]}, principal)
        self.assertEqual(self.asked("a"), {"resourceSubscriptions": ["x:1", "y:1"]})
        self.assertEqual(self.asked("b"), {"resourceSubscriptions": ["y:1"]})
        self.directory.learn("x:1", "b")
        error = self.assertRaises(RpcError, self.listen, {"resourceSubscriptions": ["x:1"]}, principal)
        self.assertEqual((error.code, error.message), (-32602, "Unknown resource: x:1"))

    def test_what_cannot_be_read_is_refused(self) -> None:
        """Before anybody is asked."""
        wrong: tuple[Any, ...] = (None, [], 7, {"resourceSubscriptions": "x:1"}, {"resourceSubscriptions": [1]})
        for wanted in wrong:
            self.assertEqual(self.assertRaises(RpcError, self.listen, wanted).code, -32602)
        self.assertEqual(self.links.open, {})

    def test_a_server_that_speaks_without_acknowledging_holds_nobody_up(self) -> None:
        """It honours nothing that could be told; an acknowledgement that cannot be read is none."""
        _, sink = self.listen({"toolsListChanged": True})
        self.acknowledge("a", toolsListChanged=True)
        self.say("b", TOOLS)
        self.assertEqual(sink.heard, [said(ACK, notifications={"toolsListChanged": True}), said(TOOLS)])
        for malformed in (7, {"toolsListChanged": [1]}):
            self.setUp()
            _, sink = self.listen({"toolsListChanged": True})
            self.acknowledge("a")
            self.say("b", ACK, notifications=malformed)
            self.assertEqual(sink.heard[0]["method"], ACK)

    def test_what_waits_is_bounded(self) -> None:
        """The client is told what is known by then."""
        _, sink = self.listen({"resourceSubscriptions": ["x:1"]})
        self.acknowledge("a", resourceSubscriptions=["x:1"])
        for number in range(HELD):
            self.assertEqual(sink.messages, [])
            self.say("a", UPDATED, uri="x:1", n=number)
        self.assertEqual(len(sink.heard), HELD + 1)
        self.acknowledge("b", resourceSubscriptions=["x:1"])
        self.say("b", UPDATED, uri="x:1")
        self.assertEqual(sink.heard[HELD + 1 :], [said(UPDATED, uri="x:1")])


class EndTests(Case):
    """Servers that fail or end, and a client that leaves."""

    def test_a_server_that_fails_costs_its_part_only(self) -> None:
        """Down, without such a method, silent: before it has acknowledged, and after."""
        for fail in (
            lambda wire: wire.lose(),
            lambda wire: wire.answer(error={"code": -32601, "message": "no"}),
            lambda wire: wire.link.expire(PATIENCE_SECONDS + 1, 120.0, 3600.0),
        ):
            self.setUp()
            _, sink = self.listen({"toolsListChanged": True})
            self.acknowledge("a", toolsListChanged=True)
            fail(self.wire("b"))
            self.say("a", TOOLS)
            self.assertEqual(sink.heard, [said(ACK, notifications={"toolsListChanged": True}), said(TOOLS)])
            self.assertFalse(sink.answered)
        self.setUp()
        _, sink = self.listen({"toolsListChanged": True})
        self.acknowledge("a", toolsListChanged=True)
        self.acknowledge("b", toolsListChanged=True)
        self.wire("b").lose()
        self.say("a", TOOLS)
        self.assertEqual((len(sink.heard), sink.answered), (2, False))

    def test_a_server_that_tears_its_part_down_costs_that_only(self) -> None:
        """The client hears nothing of it until there is nothing left to hear."""
        _, sink = self.listen({"toolsListChanged": True})
        for server in "ab":
            self.acknowledge(server, toolsListChanged=True)
        self.wire("a").say(notification("notifications/cancelled", {"requestId": 1}), 1)
        self.say("b", TOOLS)
        self.assertEqual((sink.heard[1:], sink.answered), ([said(TOOLS)], False))
        self.wire("b").say(notification("notifications/cancelled", {"requestId": 1}), 1)
        self.assertEqual(sink.answer["error"]["code"], -32010)

    def test_silence_after_the_acknowledgement_is_borne_for_ever(self) -> None:
        """It is what a subscription is made of."""
        _, sink = self.listen({"toolsListChanged": True})
        self.acknowledge("a", toolsListChanged=True)
        self.acknowledge("b", toolsListChanged=True)
        for server in "ab":
            self.wire(server).link.expire(1e6, 120.0, 3600.0)
        self.assertFalse(sink.answered)

    def test_it_ends_gracefully_with_the_last_server(self) -> None:
        """Under the client's id; one that was lost before does not change that."""
        for first in (self.end, lambda server: self.wire(server).lose()):
            self.setUp()
            _, sink = self.listen({"toolsListChanged": True}, id_=5)
            self.acknowledge("a", toolsListChanged=True)
            self.acknowledge("b", toolsListChanged=True)
            first("a")
            self.assertFalse(sink.answered)
            self.end("b")
            self.assertEqual(sink.answer["result"], {"resultType": "complete", "_meta": {KEY: 5}})
            self.assertEqual(sink.answer["id"], 5)

    def test_an_end_without_acknowledgement_is_one_of_nothing(self) -> None:
        """The client is told so before the end."""
        _, sink = self.listen({"toolsListChanged": True})
        self.end("a")
        self.end("b")
        self.assertEqual(sink.heard, [said(ACK, notifications={})])
        self.assertIn("result", sink.answer)

    def test_when_all_fail_the_client_is_told_why(self) -> None:
        """A server's own refusal, or that they are down; also later."""
        exchange, sink = self.listen({})
        self.wire("a").lose()
        self.wire("b").answer(error={"code": -32601, "message": "no"})
        self.assertEqual(sink.answer["error"], {"code": -32601, "message": "no"})
        for acknowledged in (False, True):
            self.setUp()
            exchange, sink = self.listen({})
            if acknowledged:
                self.acknowledge("a")
            self.wire("b").lose()
            self.wire("a").lose()
            self.assertEqual((sink.answer["error"]["code"], exchange.record.error), (-32010, "upstream_unavailable"))
            self.assertEqual(len(sink.heard), int(acknowledged))

    def test_a_server_that_cannot_be_reached_at_all(self) -> None:
        """It fails while the question goes out."""
        self.links.link("a").closed = True
        _, sink = self.listen({"toolsListChanged": True})
        self.acknowledge("b", toolsListChanged=True)
        self.assertEqual(sink.heard, [said(ACK, notifications={"toolsListChanged": True})])

    def test_a_client_that_leaves_ends_every_part(self) -> None:
        """No server speaks on."""
        exchange, sink = self.listen({"toolsListChanged": True})
        self.acknowledge("a", toolsListChanged=True)
        exchange.abandon()
        self.assertEqual((self.wire("a").dropped, self.wire("b").dropped), ([1], [1]))
        self.say("a", TOOLS)
        self.assertEqual((sink.messages, sink.cancellations), ([], 1))

    def test_a_client_that_does_not_read_stops_every_part(self) -> None:
        """And reads on where it stopped."""
        exchange, sink = self.listen({"toolsListChanged": True})
        self.acknowledge("a", toolsListChanged=True)
        self.acknowledge("b", toolsListChanged=True)
        exchange.pause()
        self.say("a", TOOLS)
        self.assertEqual((self.wire("a").paused, self.wire("b").paused, len(sink.heard)), ({1}, {1}, 1))
        exchange.resume()
        self.assertEqual((self.wire("a").paused, len(sink.heard)), (set(), 2))
