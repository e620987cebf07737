"""Tests for mcptunnel.core.legacy_on_modern, rounds and changes: a legacy client of a server of 2026-07-28."""

from __future__ import annotations

from typing import Any

from mcptunnel.core.mcp import CAPABILITIES_KEY, INFO_KEY, LEVEL_KEY, SUBSCRIPTION_KEY, VERSION_KEY
from mcptunnel.core.rules import Rules
from mcptunnel.core.session import Session
from mcptunnel.test.core.bridges import BridgeCase
from mcptunnel.testing import RecordingSink, notification, request

DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "tasks": {}},
    "instructions": "Be kind.",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "srv", "version": "2"}},
}
ACK = "notifications/subscriptions/acknowledged"


class Case(BridgeCase):
    """A session with a server that speaks the modern era only."""

    rules = Rules(era="modern")

    def opened(self, capabilities: Any = None) -> Session:
        session = self.session(capabilities)
        _, self.welcome = self.legacy(session, self.hello)
        self.wire.answer(DISCOVERED)
        return session

    def ask(self, session: Session, method: str, params: Any = None, id_: int = 5) -> RecordingSink:
        return self.legacy(session, request(method, id_, params))[1]

    def meta(self) -> Any:
        return self.wire.last.body["params"]["_meta"]


class EnvelopeTests(Case):
    """What a session stands for goes with every request."""

    def test_initialize_is_answered_from_what_the_server_says_of_itself(self) -> None:
        """In the client's revision; capabilities that nobody carries are left out."""
        session = self.opened({"roots": {}})
        self.assertEqual(
            self.welcome.answer["result"],
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}},
                "serverInfo": {"name": "srv", "version": "2"},
                "instructions": "Be kind.",
            },
        )
        sink = self.ask(session, "tools/list")
        meta = self.meta()
        self.assertEqual((meta[VERSION_KEY], meta[CAPABILITIES_KEY]), ("2026-07-28", {"roots": {}}))
        self.assertEqual((meta[INFO_KEY], LEVEL_KEY in meta), ({"name": "c", "version": "1"}, False))
        self.wire.answer({"tools": [], "resultType": "complete"})
        self.assertEqual((sink.answer["id"], sink.answer["result"]["tools"]), (5, []))

    def test_what_only_the_older_era_has_is_answered_here(self) -> None:
        """The level is said with every later request; one that there is not is refused."""
        session = self.opened()
        sent = len(self.wire.sent)
        self.assertEqual(self.ask(session, "ping").answer["result"], {})
        self.assertEqual(self.ask(session, "logging/setLevel", {"level": "warning"}).answer["result"], {})
        self.assertEqual(self.ask(session, "logging/setLevel", {"level": "loud"}).answer["error"]["code"], -32602)
        self.assertEqual(len(self.wire.sent), sent)
        self.ask(session, "tools/list")
        self.assertEqual(self.meta()[LEVEL_KEY], "warning")

    def test_errors_are_translated(self) -> None:
        """A missing resource has a code of its own in this era; the same code elsewhere means what it says."""
        session = self.opened()
        for method, params, code in (
            ("resources/read", {"uri": "x:1"}, -32002),
            ("tools/call", {"name": "t"}, -32602),
        ):
            sink = self.ask(session, method, params)
            self.wire.answer(error={"code": -32602, "message": "no", "data": 1.0})
            self.assertEqual((sink.answer["error"]["code"], sink.answer["error"]["data"]), (code, 1.0))

    def test_progress_and_log_lines_of_a_call_reach_it(self) -> None:
        """Under the client's token."""
        session = self.opened()
        sink = self.ask(session, "tools/call", {"name": "t", "_meta": {"progressToken": "mine"}})
        number = self.number("tools/call")
        self.wire.say(notification("notifications/progress", {"progressToken": number, "progress": 1}), number)
        self.wire.say(notification("notifications/message", {"level": "info", "data": "x"}), number)
        self.assertEqual([m["params"].get("progressToken") for m in sink.heard], ["mine", None])

    def test_cancelling_reaches_the_server(self) -> None:
        """And nothing more is said."""
        session = self.opened()
        sink = self.ask(session, "tools/call", {"name": "t"})
        self.tell(session, "notifications/cancelled", {"requestId": 5})
        self.assertEqual((self.wire.last.body["method"], sink.cancellations), ("notifications/cancelled", 1))


class RoundTests(Case):
    """A server that wants to know something."""

    def asked(self, **more: Any) -> tuple[Session, RecordingSink]:
        session = self.opened({"elicitation": {}, "sampling": {}})
        sink = self.ask(session, "tools/call", {"name": "t", "arguments": {"n": 1}})
        self.wire.answer(
            {
                "resultType": "input_required",
                "inputRequests": {
                    "who": {"method": "elicitation/create", "params": {"message": "Name?"}},
                    "roots": {"method": "roots/list"},
                },
                "requestState": "opaque",
                **more,
            }
        )
        return session, sink

    def test_questions_come_as_requests_and_the_call_is_made_again_with_the_answers(self) -> None:
        """Under a new id, with the same parameters and the same state."""
        session, sink = self.asked()
        first, second = sink.heard
        self.assertEqual((first["method"], first["params"]), ("elicitation/create", {"message": "Name?"}))
        self.assertEqual(second["method"], "roots/list")
        before = self.number("tools/call")
        self.respond(session, second["id"], {"roots": []})
        self.assertEqual(self.number("tools/call"), before)
        self.respond(session, first["id"], {"action": "accept", "content": {"name": "Ada"}})
        params = self.wire.last.body["params"]
        self.assertEqual((params["name"], params["arguments"], params["requestState"]), ("t", {"n": 1}, "opaque"))
        self.assertEqual(params["inputResponses"]["who"], {"action": "accept", "content": {"name": "Ada"}})
        self.assertEqual(params["inputResponses"]["roots"], {"roots": []})
        self.assertNotEqual(self.number("tools/call"), before)
        self.wire.answer({"content": []})
        self.assertEqual(sink.answer, {"jsonrpc": "2.0", "id": 5, "result": {"content": []}})

    def test_a_client_that_will_not_answer_ends_the_call(self) -> None:
        """The server has no way to be told."""
        session, sink = self.asked()
        sent = len(self.wire.sent)
        self.respond(session, sink.heard[0]["id"], error={"code": -1, "message": "User rejected"})
        self.assertEqual((sink.answer["id"], sink.answer["error"]["message"]), (5, "User rejected"))
        self.respond(session, sink.heard[1]["id"], {"roots": []})
        self.assertEqual(len(self.wire.sent), sent)

    def test_a_question_that_nobody_answers_fails_the_call_in_time(self) -> None:
        """The message says which setting decides."""
        _, sink = self.asked()
        self.now += 60.0
        self.relay.sweep()
        self.assertFalse(sink.answered)
        self.now += 0.1
        self.relay.sweep()
        self.assertEqual(sink.answer["error"]["code"], -32011)
        self.assertIn("server.limits.input_timeout", sink.answer["error"]["message"])

    def test_a_call_that_is_cancelled_meanwhile_is_over(self) -> None:
        """Answers that still come go nowhere."""
        session, sink = self.asked()
        sent = len(self.wire.sent)
        self.tell(session, "notifications/cancelled", {"requestId": 5})
        for question in sink.heard:
            self.respond(session, question["id"], {})
        self.assertEqual((sink.cancellations, len(self.wire.sent)), (1, sent))

    def test_a_server_that_asks_nothing_is_called_again_but_not_for_ever(self) -> None:
        """It may want to shed load (2026-07-28)."""
        session = self.opened()
        sink = self.ask(session, "tools/call", {"name": "t"})
        for turn in range(17):
            self.assertFalse(sink.answered, turn)
            self.wire.answer({"resultType": "input_required", "requestState": f"s{turn}"})
        self.assertIn("again and again", sink.answer["error"]["message"])
        self.assertEqual(self.wire.last.body["params"]["requestState"], "s15")

    def test_the_same_words_in_another_result_are_no_question(self) -> None:
        """Lists cannot ask."""
        session = self.opened()
        sink = self.ask(session, "tools/list")
        self.wire.answer({"resultType": "input_required", "tools": []})
        self.assertEqual(sink.answer["result"]["tools"], [])


class ChangeTests(Case):
    """One subscription for what the session wants to hear."""

    def subscribed(self) -> tuple[Session, RecordingSink]:
        session = self.opened()
        standing = RecordingSink()
        session.attach(standing)
        self.tell(session, "notifications/initialized")
        return session, standing

    def acknowledge(self, **honoured: Any) -> int:
        number = self.number("subscriptions/listen")
        params = {"_meta": {SUBSCRIPTION_KEY: number}, "notifications": honoured}
        self.wire.say(notification(ACK, params), number)
        return number

    def change(self, number: int, method: str, **params: Any) -> None:
        self.wire.say(notification(method, {**params, "_meta": {SUBSCRIPTION_KEY: number}}), number)

    def wanted(self) -> list[Any]:
        return [body["params"]["notifications"] for body in self.sent("subscriptions/listen")]

    def test_changes_of_lists_are_heard_as_the_older_era_has_them(self) -> None:
        """As soon as the client is initialized; without the name of the subscription."""
        _, standing = self.subscribed()
        self.assertEqual(self.wanted(), [{"toolsListChanged": True}])
        self.change(self.acknowledge(toolsListChanged=True), "notifications/tools/list_changed")
        (heard,) = standing.heard
        self.assertEqual((heard["method"], heard.get("params")), ("notifications/tools/list_changed", {}))

    def test_a_resource_is_added_and_taken_away(self) -> None:
        """What was heard before is heard until the new subscription is acknowledged; then the old one ends."""
        session, standing = self.subscribed()
        old = self.acknowledge(toolsListChanged=True)
        sink = self.ask(session, "resources/subscribe", {"uri": "x:1"})
        self.assertEqual(self.wanted()[-1], {"toolsListChanged": True, "resourceSubscriptions": ["x:1"]})
        self.change(old, "notifications/tools/list_changed")
        self.assertFalse(sink.answered)
        new = self.acknowledge(toolsListChanged=True, resourceSubscriptions=["x:1"])
        self.assertEqual((sink.answer["result"], self.wire.dropped), ({}, [old]))
        self.change(new, "notifications/resources/updated", uri="x:1")
        self.assertEqual([m["method"][14:] for m in standing.heard], ["tools/list_changed", "resources/updated"])
        sink = self.ask(session, "resources/unsubscribe", {"uri": "x:1"}, 6)
        self.acknowledge(toolsListChanged=True)
        self.assertEqual((sink.answer["result"], self.wanted()[-1]), ({}, {"toolsListChanged": True}))

    def test_a_resource_that_the_server_does_not_honour_is_unknown(self) -> None:
        """To both who ask for it at once."""
        session, _ = self.subscribed()
        self.acknowledge(toolsListChanged=True)
        sinks = [self.ask(session, "resources/subscribe", {"uri": "x:1"}, id_) for id_ in (6, 7)]
        self.acknowledge(toolsListChanged=True)
        self.assertEqual([sink.answer["error"]["code"] for sink in sinks], [-32602, -32602])

    def test_a_client_that_changes_its_mind_gets_what_it_wanted_last(self) -> None:
        """Subscribed, taken back and subscribed again before the server has said anything; then taken back for good."""
        session, _ = self.subscribed()
        self.acknowledge(toolsListChanged=True)
        methods = ("subscribe", "unsubscribe", "subscribe")
        sinks = [self.ask(session, f"resources/{m}", {"uri": "x:1"}, 10 + n) for n, m in enumerate(methods)]
        self.assertEqual(self.wanted()[-1], {"toolsListChanged": True, "resourceSubscriptions": ["x:1"]})
        self.acknowledge(toolsListChanged=True, resourceSubscriptions=["x:1"])
        self.assertEqual([sink.answer["result"] for sink in sinks], [{}, {}, {}])
        sinks = [self.ask(session, f"resources/{m}", {"uri": "x:2"}, 20 + n) for n, m in enumerate(methods[:2])]
        self.acknowledge(toolsListChanged=True, resourceSubscriptions=["x:1"])
        self.assertEqual([sink.answer["result"] for sink in sinks], [{}, {}])

    def test_a_renewal_that_fails_is_tried_again(self) -> None:
        """Without what was refused; what was heard before is heard meanwhile."""
        session, standing = self.subscribed()
        old = self.acknowledge(toolsListChanged=True)
        sink = self.ask(session, "resources/subscribe", {"uri": "x:1"})
        self.wire.answer(error={"code": -32000, "message": "busy"}, number=self.number("subscriptions/listen"))
        self.assertIn("error", sink.answer)
        self.change(old, "notifications/tools/list_changed")
        self.assertEqual(len(standing.messages), 1)
        self.now += 1.0
        self.relay.sweep()
        self.assertEqual((len(self.wanted()), self.wanted()[-1]), (3, {"toolsListChanged": True}))

    def test_a_server_that_has_no_subscriptions_is_asked_once(self) -> None:
        """Although it has said that its lists change."""
        session, _ = self.subscribed()
        self.wire.answer(error={"code": -32601, "message": "no"}, number=self.number("subscriptions/listen"))
        session.attach(RecordingSink())
        self.now += 100.0
        self.relay.sweep()
        self.assertEqual(len(self.wanted()), 1)
        sink = self.ask(session, "resources/subscribe", {"uri": "x:1"})
        self.assertEqual(sink.answer["error"]["code"], -32601)

    def test_a_subscription_that_is_lost_is_taken_up_again(self) -> None:
        """Later and later, with all that was wanted."""
        session, _ = self.subscribed()
        self.acknowledge(toolsListChanged=True)
        self.ask(session, "resources/subscribe", {"uri": "x:1"})
        self.acknowledge(toolsListChanged=True, resourceSubscriptions=["x:1"])
        self.wire.lose("it exited")
        for wait in (1.0, 2.0, 5.0):
            opened = len(self.upstream.wires)
            self.now += wait - 0.1
            self.relay.sweep()
            self.assertEqual(len(self.upstream.wires), opened)
            self.now += 0.1
            self.relay.sweep()
            self.assertEqual(self.wanted(), [{"toolsListChanged": True, "resourceSubscriptions": ["x:1"]}])
            self.wire.lose("it exited")

    def test_a_server_that_tears_it_down_is_asked_again(self) -> None:
        """It may have had a reason to."""
        self.subscribed()
        number = self.acknowledge(toolsListChanged=True)
        self.wire.say(notification("notifications/cancelled", {"requestId": number}), number)
        self.now += 1.0
        self.relay.sweep()
        self.assertEqual(len(self.wanted()), 2)

    def test_the_end_of_the_session_ends_it(self) -> None:
        """The connection to the server is everybody's, and stays."""
        session, _ = self.subscribed()
        number = self.acknowledge(toolsListChanged=True)
        session.close()
        self.assertEqual((self.wire.dropped, self.wire.closed), ([number], False))
