"""Tests for mcptunnel.core.modern_on_legacy, hub and listening: clients of 2026-07-28 on a legacy server."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.mcp import CAPABILITIES_KEY, LEVEL_KEY, SUBSCRIPTION_KEY
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.rules import Rules
from mcptunnel.core.session import Session
from mcptunnel.test.core.bridges import BridgeCase
from mcptunnel.testing import FakeSeal, FakeUpstream, RecordingSink, make_exchange, notification, request

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


class Case(BridgeCase):
    """A server that speaks the legacy era only, with a session that is open."""

    rules = Rules(era="legacy")

    def open(self, capabilities: Any = None) -> None:
        """The server's answer to our ``initialize``."""
        offers = {"logging": {}, "resources": {"subscribe": True}, "tools": {"listChanged": True}}
        self.wire.answer(
            {"protocolVersion": "2025-11-25", "capabilities": capabilities or offers, "serverInfo": {"name": "srv"}},
            number=1,
        )

    def call(self, can: Any = None, id_: int | str = 1, **params: Any) -> RecordingSink:
        meta = {CAPABILITIES_KEY: {"elicitation": {}} if can is None else can}
        return self.modern("tools/call", {"name": "t", "arguments": {"n": 1}, "_meta": meta, **params}, id_)[1]

    def asked(self, can: Any = None) -> RecordingSink:
        """A call in whose middle the server asks for a name."""
        sink = self.call(can)
        self.open()
        self.wire.say(request("elicitation/create", "q1", {"message": "Name?"}))
        return sink

    def answers(self, **answers: Any) -> Any:
        return {"inputResponses": answers}

    def back(self, sink: RecordingSink, id_: int = 2, **params: Any) -> RecordingSink:
        """The client repeats the call."""
        return self.call(id_=id_, requestState=sink.answer["result"]["requestState"], **params)

    def responses(self) -> list[Any]:
        return [body for body in self.wire.bodies if "method" not in body]


class QuestionTests(Case):
    """The server wants to know something in the middle of a call."""

    def test_a_question_ends_the_request_and_the_answer_goes_on_with_the_call(self) -> None:
        """The server has been asked once; the result has the id of the repetition."""
        sink = self.asked()
        result = sink.answer["result"]
        self.assertEqual(result["resultType"], "input_required")
        ((key, question),) = result["inputRequests"].items()
        self.assertEqual(question, {"method": "elicitation/create", "params": {"message": "Name?"}})
        again = self.back(sink, **self.answers(**{key: {"action": "accept"}}))
        self.assertEqual(self.responses(), [{"jsonrpc": "2.0", "id": "q1", "result": {"action": "accept"}}])
        self.wire.answer({"content": []})
        self.assertEqual((again.answer["id"], again.answer["result"]["resultType"]), (2, "complete"))
        self.assertEqual(len(self.sent("tools/call")), 1)

    def test_a_second_question_is_another_round(self) -> None:
        """Also one that came while nobody was there; what was not answered is asked again."""
        sink = self.asked()
        self.wire.say(request("elicitation/create", "q2", {"message": "Age?"}))
        (first,) = sink.answer["result"]["inputRequests"]
        again = self.back(sink, **self.answers(**{first: {"action": "accept"}}))
        ((second, question),) = again.answer["result"]["inputRequests"].items()
        self.assertEqual(question["params"], {"message": "Age?"})
        third = self.back(again, 3)
        self.assertEqual(list(third.answer["result"]["inputRequests"]), [second])
        last = self.back(third, 4, **self.answers(**{second: {"action": "decline"}, "made-up": {}}))
        self.assertEqual([body["id"] for body in self.responses()], ["q1", "q2"])
        self.wire.answer({"content": []})
        self.assertEqual(last.answer["id"], 4)

    def test_an_answer_that_is_there_before_the_client_is_kept_for_it(self) -> None:
        """Servers lose patience."""
        sink = self.asked()
        self.wire.answer({"content": [{"type": "text", "text": "never mind"}]})
        again = self.back(sink)
        self.assertEqual(again.answer["result"]["content"][0]["text"], "never mind")

    def test_what_the_client_cannot_do_it_is_not_asked(self) -> None:
        """The server is told so, and the call goes on."""
        sink = self.call({"roots": {}})
        self.open()
        self.assertEqual(self.wire.bodies[0]["params"]["capabilities"], {"roots": {}})
        for id_, method in (("q1", "elicitation/create"), ("q2", "no/such")):
            self.wire.say(request(method, id_))
        self.assertEqual([body["error"]["code"] for body in self.responses()], [-32601, -32601])
        self.assertFalse(sink.answered)

    def test_progress_goes_to_the_token_of_the_latest_request(self) -> None:
        """Nothing where it has none, or nobody is there."""
        sink = self.call(_meta={CAPABILITIES_KEY: {"elicitation": {}}, "progressToken": "first"})
        self.open()
        number = self.number("tools/call")

        def progress() -> None:
            self.wire.say(notification("notifications/progress", {"progressToken": number, "progress": 1}))

        progress()
        self.wire.say(request("elicitation/create", "q1", {}))
        progress()
        again = self.back(sink, _meta={CAPABILITIES_KEY: {"elicitation": {}}, "progressToken": "second"})
        # It has brought no answer: it is asked once more.
        (key,) = again.answer["result"]["inputRequests"]
        last = self.back(again, 3, **self.answers(**{key: {}}))
        progress()
        tokens = [[m["params"]["progressToken"] for m in one.heard] for one in (sink, again, last)]
        self.assertEqual(tokens, [["first"], [], []])

    def test_a_client_that_does_not_come_back_is_given_up(self) -> None:
        """The server is told twice: no answer, and no need to go on."""
        sink = self.asked()
        self.now += 60.1
        self.relay.sweep()
        self.assertEqual(self.responses()[0]["error"]["code"], -32601)
        self.assertEqual(self.wire.last.body["method"], "notifications/cancelled")
        self.assertEqual(self.back(sink).answer["error"]["code"], -32602)

    def test_there_are_only_so_many(self) -> None:
        """The next one is refused, and its server does not wait."""
        self.asked()
        self.call(id_=2)
        self.wire.say(request("elicitation/create", "q2", {}))
        third = self.call(id_=3)
        self.wire.say(request("elicitation/create", "q3", {}))
        self.assertIn("server.limits.parked", third.answer["error"]["message"])
        self.assertIn("q3", [body["id"] for body in self.responses()])

    def test_a_state_is_good_once_for_one_principal_and_one_call(self) -> None:
        """Whatever is wrong with it, the same is said."""
        sink = self.asked()
        state = sink.answer["result"]["requestState"]
        said = set()
        for params, principal in (
            ({"name": "t", "arguments": {"n": 2}}, ANONYMOUS),
            ({"name": "u", "arguments": {"n": 1}}, ANONYMOUS),
            ({"name": "t", "arguments": {"n": 1}}, Principal(name="somebody")),
        ):
            _, refused = self.modern("tools/call", {**params, "requestState": state}, 9, principal)
            said.add((refused.answer["error"]["code"], refused.answer["error"]["message"]))
        refused = self.call(id_=9, requestState="made-up")
        said.add((refused.answer["error"]["code"], refused.answer["error"]["message"]))
        self.assertEqual(len(said), 1)
        self.back(sink)
        self.assertEqual(self.back(sink, 3).answer["error"]["code"], -32602)

    def test_answers_that_cannot_be_read_end_the_call(self) -> None:
        """The server does not wait for better ones."""
        sink = self.asked()
        again = self.back(sink, inputResponses=[1])
        self.assertIn("error", again.answer)
        self.assertEqual(self.wire.last.body["method"], "notifications/cancelled")

    def test_a_server_that_dies_meanwhile_fails_the_call_when_the_client_comes(self) -> None:
        """By name."""
        sink = self.asked()
        self.wire.lose("it exited")
        self.assertIn("it exited", self.back(sink).answer["error"]["message"])

    def test_who_may_not_ask_is_told(self) -> None:
        """Lists have no rounds."""
        _, sink = self.modern("tools/list", {"_meta": {CAPABILITIES_KEY: {"elicitation": {}}}})
        self.open()
        self.wire.say(request("elicitation/create", "q", {}))
        self.assertEqual((self.responses()[0]["error"]["code"], sink.answered), (-32601, False))


class TranslationTests(Case):
    """What the eras say differently."""

    def test_discover_is_answered_from_initialize(self) -> None:
        """The server is asked nothing more."""
        _, sink = self.modern("server/discover")
        self.open({"tools": {}, "tasks": {}})
        result = sink.answer["result"]
        self.assertEqual((result["supportedVersions"], result["capabilities"]), (["2026-07-28"], {"tools": {}}))
        self.assertEqual((result["ttlMs"], result["cacheScope"]), (0, "private"))
        self.assertEqual(self.methods(), ["initialize", "notifications/initialized"])

    def test_what_the_newer_era_has_removed_is_unknown(self) -> None:
        """Although the server knows it."""
        for method in ("ping", "logging/setLevel", "resources/subscribe", "tasks/get"):
            self.assertEqual(self.modern(method, {"uri": "x:"})[1].answer["error"]["code"], -32601)

    def test_a_missing_resource(self) -> None:
        """Under the code of the newer era."""
        _, sink = self.modern("resources/read", {"uri": "x:1"})
        self.open()
        self.wire.answer(error={"code": -32002, "message": "no", "data": {"uri": "x:1"}})
        self.assertEqual(sink.answer["error"], {"code": -32602, "message": "no", "data": {"uri": "x:1"}})

    def test_a_page_that_has_to_be_visited(self) -> None:
        """Becomes a question, and the call is made anew; for a client that shows no pages it is an error."""
        page = {"mode": "url", "elicitationId": "e", "url": "https://x", "message": "go"}
        error = {"code": -32042, "message": "visit", "data": {"elicitations": [page]}}
        sink = self.call({"elicitation": {"url": {}}})
        self.open()
        self.wire.answer(error=error)
        self.assertEqual(
            sink.answer["result"]["inputRequests"], {"elicitation-1": {"method": "elicitation/create", "params": page}}
        )
        again = self.call(
            {"elicitation": {"url": {}}}, 2, requestState=sink.answer["result"]["requestState"], inputResponses={}
        )
        self.assertEqual(self.wire.last.body["params"], {"name": "t", "arguments": {"n": 1}})
        self.wire.answer({"content": []})
        self.assertEqual(again.answer["result"]["resultType"], "complete")
        self.setUp()
        sink = self.call({"elicitation": {}})
        self.open()
        self.wire.answer(error=error)
        self.assertEqual(sink.answer["error"]["code"], -32602)

    def test_log_lines_from_the_level_on_that_the_request_names(self) -> None:
        """The server is told before the call is made; a request that names none gets none."""
        sink = self.call(_meta={CAPABILITIES_KEY: {}, LEVEL_KEY: "warning"})
        self.open()
        self.assertEqual(self.methods()[-1], "logging/setLevel")
        self.wire.answer({})
        self.assertEqual(self.methods()[-1], "tools/call")
        link = self.wire.link
        for number in (self.number("tools/call"), None):
            for level in ("info", "error"):
                raw = notification("notifications/message", {"level": level, "data": level})
                link.received(raw, number)
        self.assertEqual([m["params"]["level"] for m in sink.heard], ["error", "error"])
        # With a second call nobody can say whose a line on the pipe is.
        other = self.call(id_=2, _meta={CAPABILITIES_KEY: {}, LEVEL_KEY: "warning"})
        link.received(notification("notifications/message", {"level": "error", "data": "?"}))
        self.assertEqual((len(sink.messages), other.messages), (2, []))


class ListenTests(Case):
    """``subscriptions/listen``."""

    def listen(self, id_: str = "l", **wanted: Any) -> tuple[Exchange, RecordingSink]:
        return self.modern("subscriptions/listen", {"notifications": wanted}, id_)

    def test_what_the_server_offers_is_subscribed_and_acknowledged(self) -> None:
        """Changes come with the name of the subscription, after the acknowledgement, and only those asked for."""
        _, sink = self.listen(toolsListChanged=True, promptsListChanged=True, resourceSubscriptions=["x:1", "x:2"])
        self.open()
        one, two = self.sent("resources/subscribe")
        self.assertEqual([one["params"]["uri"], two["params"]["uri"]], ["x:1", "x:2"])
        self.wire.say(notification("notifications/resources/updated", {"uri": "x:1"}))
        self.wire.answer({}, number=one["id"])
        self.wire.answer(error={"code": -32002, "message": "no"}, number=two["id"])
        ack, updated = sink.heard
        self.assertEqual(
            ack["params"],
            {
                "_meta": {SUBSCRIPTION_KEY: "l"},
                "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["x:1"]},
            },
        )
        self.assertEqual(updated["params"], {"uri": "x:1", "_meta": {SUBSCRIPTION_KEY: "l"}})
        for method in ("tools", "prompts"):
            self.wire.say(notification(f"notifications/{method}/list_changed"))
        self.wire.say(notification("notifications/resources/updated", {"uri": "x:2"}))
        self.assertEqual([m["method"] for m in sink.heard[2:]], ["notifications/tools/list_changed"])
        self.assertEqual(self.wire.listening, 1)

    def test_one_subscription_upstream_serves_all_who_want_it(self) -> None:
        """Until the last of them has left."""
        first, _ = self.listen(resourceSubscriptions=["x:1"])
        self.open()
        second, other = self.listen("m", resourceSubscriptions=["x:1"])
        self.assertEqual((len(self.sent("resources/subscribe")), other.messages), (1, []))
        self.wire.answer({})
        self.assertEqual(len(other.messages), 1)
        self.wire.say(notification("notifications/resources/updated", {"uri": "x:1"}))
        self.assertEqual(len(other.messages), 2)
        first.abandon()
        self.assertEqual(self.sent("resources/unsubscribe"), [])
        second.abandon()
        self.assertEqual(len(self.sent("resources/unsubscribe")), 1)

    def test_the_loss_of_the_server_ends_it_by_name(self) -> None:
        """The client can subscribe anew."""
        _, sink = self.listen(toolsListChanged=True)
        self.open()
        self.wire.lose("it exited")
        self.assertIn("it exited", sink.answer["error"]["message"])
        self.assertEqual(self.relay.in_flight, 0)


class HubTests(Case):
    """The sessions that are kept with the server."""

    def test_one_for_each_principal_and_set_of_capabilities(self) -> None:
        """Whatever their spelling."""
        clients: list[tuple[Principal, Any]] = [
            (ANONYMOUS, {"sampling": {}, "roots": {}}),
            (ANONYMOUS, {"roots": {}, "sampling": {}}),
            (Principal(name="p"), {"sampling": {}, "roots": {}}),
            (ANONYMOUS, {}),
        ]
        for principal, can in clients:
            self.modern("tools/list", {"_meta": {CAPABILITIES_KEY: can}}, principal=principal)
        self.assertEqual(len(self.upstream.wires), 3)

    def test_one_that_nobody_uses_is_closed(self) -> None:
        """Not while it is used."""
        _, sink = self.listen()
        self.open()
        self.now += 700.0
        self.relay.sweep()
        self.assertFalse(self.wire.closed)
        sink.ended = True
        self.exchange.abandon()
        self.now += 700.0
        self.relay.sweep()
        self.assertTrue(self.wire.closed)

    def listen(self) -> tuple[Exchange, RecordingSink]:
        self.exchange, sink = self.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        return self.exchange, sink


class SharedTests(Case):
    """``sharing: shared``: legacy sessions and modern clients on one connection."""

    rules = Rules(era="legacy", sharing="shared")

    def opened(self, capabilities: Any = None) -> tuple[Session, RecordingSink]:
        """A legacy session, and what it hears."""
        session = self.session(capabilities)
        self.legacy(session, self.hello)
        if len(self.wire.sent) == 1:
            self.open()
        standing = RecordingSink()
        session.attach(standing)
        self.tell(session, "notifications/initialized")
        return session, standing

    def test_one_connection_serves_all_with_the_same_capabilities(self) -> None:
        """Calls are kept apart; the server is introduced once."""
        (one, _), (two, _) = self.opened(), self.opened()
        sinks = [self.legacy(session, request("tools/call", 1, {"name": "t"}))[1] for session in (one, two)]
        first, second = self.sent("tools/call")
        self.wire.answer({"n": 2}, number=second["id"])
        self.wire.answer({"n": 1}, number=first["id"])
        self.assertEqual([sink.answer["result"]["n"] for sink in sinks], [1, 2])
        self.assertEqual((len(self.upstream.wires), len(self.sent("initialize"))), (1, 1))

    def test_changes_reach_all_and_updates_those_who_want_them(self) -> None:
        """A log line belongs to nobody who can be told."""
        (one, hears), (_, hears_too) = self.opened(), self.opened()
        _, sink = self.legacy(one, request("resources/subscribe", 1, {"uri": "x:1"}))
        self.wire.answer({})
        self.assertEqual(sink.answer["result"], {})
        self.wire.say(notification("notifications/tools/list_changed"))
        self.wire.say(notification("notifications/resources/updated", {"uri": "x:1"}))
        self.wire.say(notification("notifications/message", {"level": "error", "data": "x"}))
        self.assertEqual((len(hears.messages), len(hears_too.messages)), (2, 1))

    def test_a_question_goes_to_whom_it_can_only_be_for(self) -> None:
        """With calls of two sessions in flight, to nobody."""
        (one, hears), (two, hears_too) = self.opened(), self.opened()
        _, sink = self.legacy(one, request("tools/call", 1, {"name": "t"}))
        self.wire.say(request("elicitation/create", "q1", {}))
        self.assertEqual(len(sink.messages), 1)
        self.respond(one, sink.heard[0]["id"], {"action": "cancel"})
        self.assertEqual(self.responses(), [{"jsonrpc": "2.0", "id": "q1", "result": {"action": "cancel"}}])
        self.legacy(two, request("tools/call", 1, {"name": "t"}))
        self.wire.say(request("elicitation/create", "q2", {}))
        self.assertEqual(self.responses()[-1]["error"]["code"], -32601)
        self.assertEqual((len(sink.messages), hears.messages, hears_too.messages), (1, [], []))

    def test_the_most_verbose_level_is_the_servers(self) -> None:
        """Each hears from its own level on, where a line can only be about its call."""
        (one, hears), (two, _) = self.opened(), self.opened()
        for session, level in ((one, "error"), (two, "debug")):
            _, sink = self.legacy(session, request("logging/setLevel", 1, {"level": level}))
            self.wire.answer({})
            self.assertEqual(sink.answer["result"], {})
        self.assertEqual([b["params"]["level"] for b in self.sent("logging/setLevel")], ["error", "debug"])
        self.legacy(one, request("tools/call", 2, {"name": "t"}))
        for level in ("info", "error"):
            self.wire.say(notification("notifications/message", {"level": level, "data": level}))
        self.assertEqual([m["params"]["level"] for m in hears.heard], ["error"])

    def test_a_connection_that_is_lost_is_opened_again_for_all(self) -> None:
        """Also for a session that has no stream of its own; what it wanted is asked for again."""
        session = self.session()
        self.legacy(session, self.hello)
        self.open()
        self.legacy(session, request("resources/subscribe", 1, {"uri": "x:1"}))
        self.wire.answer({})
        self.wire.lose("it exited")
        _, sink = self.legacy(session, request("tools/call", 2, {"name": "t"}))
        self.assertEqual(self.methods(), ["initialize"])
        self.open()
        self.assertEqual(len(self.sent("resources/subscribe")), 1)
        self.wire.answer({"ok": 1}, number=self.number("tools/call"))
        self.assertEqual(sink.answer["result"], {"ok": 1})

    def test_a_session_that_ends_takes_only_its_own_along(self) -> None:
        """Its subscription, not the connection."""
        (one, _), (two, _) = self.opened(), self.opened()
        self.legacy(one, request("resources/subscribe", 1, {"uri": "x:1"}))
        self.wire.answer({})
        one.close()
        self.assertEqual((len(self.sent("resources/unsubscribe")), self.wire.closed), (1, False))
        _, sink = self.legacy(two, request("ping", 1))
        self.assertEqual(sink.answer["result"], {})
