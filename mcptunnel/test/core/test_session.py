"""Tests for mcptunnel.core.session: one client, its servers, and whose answer is whose."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.link import Link
from mcptunnel.core.principal import ANONYMOUS
from mcptunnel.core.routing import Target
from mcptunnel.core.session import BACKLOG, Session
from mcptunnel.testing import (
    FakeUpstream,
    FakeWire,
    RecordingSink,
    make_exchange,
    notification,
    request,
    response,
    surroundings,
)


class Case(SynchronousTestCase):
    """A session with one server called a, unless a test says otherwise."""

    servers: tuple[str, ...] = ("a",)

    def setUp(self) -> None:
        self.now = 0.0
        self.ended: list[Session] = []
        self.upstreams = {name: FakeUpstream(name) for name in self.servers}
        self.session = Session(
            "id",
            ANONYMOUS,
            Target(self.servers, len(self.servers) > 1),
            surroundings(self.upstreams, lambda: self.now),
            self.ended.append,
        )

    def wire(self, server: str = "a") -> FakeWire:
        return self.upstreams[server].wire

    def ask(self, raw: bytes) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(raw)
        self.session.request(exchange)
        return exchange, sink

    def tell(self, method: str, params: Any = None) -> None:
        self.session.notification(decode(notification(method, params)))

    def attach(self) -> RecordingSink:
        sink = RecordingSink()
        self.session.attach(sink)
        return sink


class RequestTests(Case):
    """From the client."""

    def test_a_request_is_answered_and_forgotten(self) -> None:
        """Its id may be used again then."""
        for _ in range(2):
            _, sink = self.ask(request("tools/call", 7, {"name": "t"}))
            self.assertEqual(list(self.session.active), [7])
            self.wire().answer({"ok": 1})
            self.assertEqual((sink.answer["result"], self.session.active), ({"ok": 1}, {}))
        self.assertEqual(len(self.upstreams["a"].wires), 1)

    def test_an_id_in_flight_cannot_be_used_again(self) -> None:
        """The first request is untouched; 1 and "1" are two ids."""
        _, first = self.ask(request("tools/call", 1, {"name": "t"}))
        _, second = self.ask(request("tools/call", 1, {"name": "t"}))
        _, other = self.ask(request("tools/call", "1", {"name": "t"}))
        self.assertEqual(second.answer["error"]["code"], -32600)
        self.assertEqual(second.answer["id"], 1)
        self.wire().answer({"n": 1}, number=1)
        self.wire().answer({"n": 2}, number=2)
        self.assertEqual((first.answer["result"], other.answer["result"]), ({"n": 1}, {"n": 2}))
        self.assertEqual(self.session.active, {})

    def test_a_refusal_is_an_answer(self) -> None:
        """Nothing stays in flight."""
        _, sink = self.ask(request("tools/call", 1, {}))
        self.assertEqual((sink.answer["error"]["code"], self.session.active), (-32602, {}))

    def test_cancelling_names_a_request_of_this_client(self) -> None:
        """By its own id, exactly; the server hears its number."""
        _, sink = self.ask(request("tools/call", 1, {"name": "t"}))
        others: tuple[Any, ...] = ("1", 2, True, 1.0, None, [1], {"id": 1}, [[]])
        for wanted in others:
            self.tell("notifications/cancelled", {"requestId": wanted})
        self.tell("notifications/cancelled", {})
        self.tell("notifications/cancelled")
        self.assertEqual(len(self.wire().sent), 1)
        self.tell("notifications/cancelled", {"requestId": 1, "reason": 'no "more"'})
        self.assertEqual(self.wire().last.body["params"], {"requestId": 1, "reason": 'no "more"'})
        self.wire().answer(number=1)
        self.assertEqual((sink.answered, self.session.active), (False, {}))

    def test_initialize_cannot_be_cancelled(self) -> None:
        """MCP forbids it."""
        _, sink = self.ask(request("initialize", 1))
        self.tell("notifications/cancelled", {"requestId": 1})
        self.wire().answer({"protocolVersion": "2025-06-18"})
        self.assertTrue(sink.answered)

    def test_other_notifications_go_to_every_server(self) -> None:
        """Byte for byte."""
        self.ask(request("ping", 1))
        raw = b'{"jsonrpc":"2.0", "method":"notifications/roots/list_changed"}'
        self.session.notification(decode(raw))
        self.assertEqual(self.wire().last.raw, raw)

    def test_the_standing_stream_is_asked_for_once_there_is_a_revision(self) -> None:
        """When the client attaches; or after initialized where it attached before."""
        self.ask(request("initialize", 1))
        self.attach()
        self.wire().answer({"protocolVersion": "2025-06-18"})
        listening = self.wire().listening
        self.tell("notifications/initialized")
        self.assertEqual(self.wire().listening, listening + 1)

    def test_using_it_is_remembered(self) -> None:
        """Whatever the client says counts."""
        self.now = 5.0
        self.ask(request("ping", 1))
        self.assertEqual(self.session.used, 5.0)
        self.now = 6.0
        self.tell("notifications/x")
        self.assertEqual(self.session.used, 6.0)
        self.now = 7.0
        self.session.response(decode(response(1)))
        self.assertEqual(self.session.used, 7.0)


class ServerRequestTests(Case):
    """From the servers: requests under numbers of ours."""

    servers = ("a", "b")

    def setUp(self) -> None:
        super().setUp()
        self.call, self.sink = self.ask(request("tools/call", 1, {"name": "a__t"}))
        self.other, self.other_sink = self.ask(request("tools/call", 2, {"name": "b__t"}))

    def test_the_answer_goes_to_the_server_that_asked_under_its_own_id(self) -> None:
        """Both used the same id."""
        self.wire("a").say(request("sampling/createMessage", "q", {"for": "a"}), 1)
        self.wire("b").say(request("roots/list", "q"), 1)
        (to_a,) = self.sink.heard
        (to_b,) = self.other_sink.heard
        self.assertEqual((to_a["params"], type(to_a["id"])), ({"for": "a"}, int))
        self.assertNotEqual(to_a["id"], to_b["id"])
        self.session.response(decode(b'{"jsonrpc":"2.0" , "id":%d,"result":{"x":1.0}}' % to_b["id"]))
        self.assertEqual(self.wire("b").last.raw, b'{"jsonrpc":"2.0" , "id":"q","result":{"x":1.0}}')
        self.assertEqual(len(self.wire("a").sent), 1)
        self.session.response(decode(response(to_a["id"], error={"code": -1, "message": "no"})))
        self.assertEqual(
            self.wire("a").last.body, {"jsonrpc": "2.0", "id": "q", "error": {"code": -1, "message": "no"}}
        )

    def test_an_answer_that_nobody_asked_for_goes_nowhere(self) -> None:
        """Nor does a second one, nor one under the server's own id."""
        self.wire("a").say(request("roots/list", "q"), 1)
        number = self.sink.heard[0]["id"]
        for id_ in ("q", number + 1, str(number), None, 0):
            self.session.response(decode(response(id_, error={"code": 1, "message": ""})))
        self.assertEqual(len(self.wire("a").sent), 1)
        self.session.response(decode(response(number)))
        self.session.response(decode(response(number)))
        self.assertEqual(len(self.wire("a").sent), 2)

    def test_a_ping_is_answered_by_us(self) -> None:
        """The client hears nothing."""
        self.wire("a").say(request("ping", "p"), 1)
        self.assertEqual(self.wire("a").last.body, {"jsonrpc": "2.0", "id": "p", "result": {}})
        self.assertEqual(self.sink.messages, [])

    def test_a_request_that_came_on_no_stream_goes_with_the_latest_call(self) -> None:
        """Or to the standing stream if there are several it could be about."""
        self.wire("a").say(request("roots/list", 1))
        self.assertEqual(len(self.sink.messages), 1)
        _, more = self.ask(request("tools/call", 3, {"name": "a__t"}))
        self.wire("a").say(request("roots/list", 2))
        self.assertEqual((len(self.sink.messages), len(more.messages)), (1, 1))
        standing = self.attach()
        self.wire("a").say(request("roots/list", 3))
        self.assertEqual([m["method"] for m in standing.heard], ["roots/list"])

    def test_progress_of_the_client_goes_back_under_the_servers_token(self) -> None:
        """Tokens of others, and none, go nowhere."""
        self.wire("a").say(request("sampling/createMessage", "q", {"_meta": {"progressToken": "tok"}}), 1)
        asked = self.sink.heard[0]
        self.assertEqual(asked["params"]["_meta"]["progressToken"], asked["id"])
        for token in (99, "tok", True, None, [1], {"x": 1}):
            self.tell("notifications/progress", {"progressToken": token, "progress": 1})
        self.tell("notifications/progress")
        self.assertEqual(len(self.wire("a").sent), 1)
        self.tell("notifications/progress", {"progressToken": asked["id"], "progress": 1})
        self.assertEqual(self.wire("a").last.body["params"], {"progressToken": "tok", "progress": 1})
        self.assertEqual(len(self.wire("b").sent), 1)

    def test_a_withdrawn_request_is_withdrawn_under_our_number_where_it_went(self) -> None:
        """A late answer then goes nowhere."""
        self.wire("a").say(request("roots/list", "q"), 1)
        number = self.sink.heard[0]["id"]
        for wanted in ("x", number):
            self.wire("a").say(notification("notifications/cancelled", {"requestId": wanted}), 1)
        self.wire("b").say(notification("notifications/cancelled", {"requestId": "q"}), 1)
        self.assertEqual(len(self.sink.messages), 1)
        self.wire("a").say(notification("notifications/cancelled", {"requestId": "q", "reason": "r"}), 1)
        self.assertEqual(self.sink.heard[1]["params"], {"requestId": number, "reason": "r"})
        self.session.response(decode(response(number)))
        self.assertEqual(len(self.wire("a").sent), 1)

    def test_a_withdrawal_after_the_call_has_ended_goes_to_the_standing_stream(self) -> None:
        """The call's own stream is closed."""
        standing = self.attach()
        self.wire("a").say(request("roots/list", "q"), 1)
        self.wire("a").answer(number=1)
        self.wire("a").say(notification("notifications/cancelled", {"requestId": "q"}))
        self.assertEqual([m["method"] for m in standing.heard], ["notifications/cancelled"])

    def test_a_request_whose_stream_ends_unanswered_is_answered_by_us(self) -> None:
        """The server must not wait for a client that has no other stream."""
        self.wire("a").say(request("roots/list", "q"), 1)
        number = self.sink.heard[0]["id"]
        self.wire("a").answer(number=1)
        self.assertEqual((self.wire("a").last.body["id"], "error" in self.wire("a").last.body), ("q", True))
        self.session.response(decode(response(number)))
        self.assertEqual(len(self.wire("a").sent), 2)

    def test_a_client_with_a_standing_stream_may_still_answer_after_the_call(self) -> None:
        """It has the request, and a way to be reached."""
        self.attach()
        self.wire("a").say(request("roots/list", "q"), 1)
        self.wire("a").answer(number=1)
        self.assertEqual(len(self.wire("a").sent), 1)
        self.session.response(decode(response(self.sink.heard[0]["id"])))
        self.assertEqual(self.wire("a").last.body["id"], "q")

    def test_what_a_lost_server_asked_is_forgotten(self) -> None:
        """The other server's requests stay."""
        self.attach()
        self.wire("a").say(request("roots/list", "q"), 1)
        self.wire("b").say(request("roots/list", "q"), 1)
        self.wire("a").lose()
        for sink in (self.sink, self.other_sink):
            self.session.response(decode(response(sink.heard[0]["id"])))
        self.assertEqual((len(self.wire("a").sent), len(self.wire("b").sent)), (1, 2))


class StandingTests(Case):
    """Messages that belong to no request."""

    def test_they_wait_for_a_stream_in_order_and_the_oldest_makes_room(self) -> None:
        """Bounded."""
        self.ask(request("ping", 1))
        for n in range(BACKLOG + 5):
            self.wire().say(notification("notifications/message", {"n": n}))
        standing = self.attach()
        self.assertEqual([m["params"]["n"] for m in standing.heard], list(range(5, BACKLOG + 5)))
        self.wire().say(notification("notifications/message", {"n": "now"}))
        self.assertEqual(standing.heard[-1]["params"]["n"], "now")

    def test_only_the_stream_that_is_attached_can_detach(self) -> None:
        """An old connection that ends late does not take the new one along."""
        old, new = self.attach(), self.attach()
        self.session.detach(old)
        self.assertTrue(self.session.attached)
        self.session.detach(new)
        self.assertFalse(self.session.attached)

    def test_attaching_opens_the_servers_standing_streams(self) -> None:
        """Where there are links."""
        self.attach()
        self.ask(request("ping", 1))
        self.attach()
        self.assertEqual(self.wire().listening, 1)


class EndTests(Case):
    """The end of a session, and of its servers."""

    def test_closing_answers_what_is_in_flight_and_ends_the_links(self) -> None:
        """Once."""
        _, sink = self.ask(request("tools/call", 1, {"name": "t"}))
        standing = self.attach()
        self.session.close()
        self.session.close()
        self.assertEqual(sink.answer["error"]["message"], "the session has ended")
        self.assertEqual((self.wire().closed, standing.ended, self.ended), (True, True, [self.session]))
        self.assertEqual((self.session.links, self.session.attached), ({}, False))

    def test_a_session_outlives_its_only_server(self) -> None:
        """The calls hear why; the next one goes to a server that has been told what the client had said."""
        self.ask(request("initialize", 0, {"capabilities": {"roots": {}}}))
        self.wire().answer({"protocolVersion": "2025-11-25"})
        _, sink = self.ask(request("tools/call", 1, {"name": "t"}))
        self.wire().lose("it exited")
        self.assertEqual(sink.answer["error"]["message"], "server a is unavailable: it exited")
        self.assertEqual((self.ended, self.session.closed), ([], False))
        _, sink = self.ask(request("tools/call", 2, {"name": "t"}))
        (hello,) = self.wire().bodies
        self.assertEqual((hello["method"], hello["params"]), ("initialize", {"capabilities": {"roots": {}}}))
        self.wire().answer({"protocolVersion": "2025-11-25"})
        self.assertEqual(
            [body["method"] for body in self.wire().bodies[1:]], ["notifications/initialized", "tools/call"]
        )
        self.wire().answer({"content": []})
        self.assertEqual(sink.answer["result"], {"content": []})

    def test_a_server_that_cannot_be_started_says_why(self) -> None:
        """Not that a session has ended which never began."""
        self.upstreams["a"].refuses = "no such command"
        _, sink = self.ask(request("initialize", 1))
        self.assertEqual(sink.answer["error"]["message"], "server a is unavailable: no such command")
        self.assertEqual(self.session.links, {})

    def test_a_repr_names_the_principal_and_no_id(self) -> None:
        """The id is a secret."""
        self.assertEqual(repr(self.session), "<Session of anonymous 0 active>")


class SeveralServersTests(Case):
    """One of several may go."""

    servers = ("a", "b")

    def test_losing_one_of_several_servers_costs_its_calls_only(self) -> None:
        """The session goes on."""
        _, one = self.ask(request("tools/call", 1, {"name": "a__t"}))
        _, two = self.ask(request("tools/call", 2, {"name": "b__t"}))
        self.wire("a").lose()
        self.assertEqual((one.answered, two.answered, self.session.closed), (True, False, False))
        self.wire("b").answer({"ok": 1})
        self.assertEqual(two.answer["result"], {"ok": 1})

    def test_a_server_that_cannot_be_started_costs_its_part(self) -> None:
        """initialize goes on without it."""
        self.upstreams["a"].refuses = "no such command"
        _, sink = self.ask(request("initialize", 1, {"protocolVersion": "2025-06-18"}))
        self.wire("b").answer({"capabilities": {"tools": {}}})
        self.assertEqual(sink.answer["result"]["capabilities"], {"tools": {}})
        self.assertEqual(list(self.session.links), ["b"])


class IntroductionTests(Case):
    """A server that comes back has never heard of the client: it is told, and nothing goes before that."""

    servers = ("a", "b")
    hello = request("initialize", 1, {"protocolVersion": "2025-06-18", "capabilities": {"roots": {}}})

    def setUp(self) -> None:
        super().setUp()
        _, sink = self.ask(self.hello)
        for name in self.servers:
            self.wire(name).answer({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}})
        self.assertIn("result", sink.answer)
        self.tell("notifications/initialized")
        self.wire("a").lose()

    def methods(self, server: str = "a") -> list[str]:
        return [sent.body["method"] for sent in self.wire(server).sent]

    def test_it_hears_the_clients_own_words_first_and_the_call_last(self) -> None:
        """And on its standing stream it is listened to, if the client listens to us."""
        self.attach()
        _, sink = self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.assertEqual(self.methods(), ["initialize"])
        self.assertEqual(self.wire().sent[0].body["params"], json.loads(self.hello)["params"])
        self.wire().answer({"protocolVersion": "2025-06-18", "capabilities": {}})
        self.assertEqual(self.methods(), ["initialize", "notifications/initialized", "tools/call"])
        self.assertEqual(self.wire().listening, 1)
        self.wire().answer({"ok": 1})
        self.assertEqual(sink.answer["result"], {"ok": 1})

    def test_everything_waits_and_what_was_given_up_is_not_sent(self) -> None:
        """In the order of the client."""
        first, _ = self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.ask(request("tools/call", 3, {"name": "a__u"}))
        first.abandon()
        self.wire().answer({"protocolVersion": "2025-06-18"})
        sent = [sent.body.get("params", {}).get("name") for sent in self.wire().sent]
        self.assertEqual(sent, [None, None, "u"])

    def test_a_server_that_refuses_is_unavailable(self) -> None:
        """Named, at once, for each call that waits; the next call is another try."""
        _, sink = self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.wire().answer(error={"code": -32600, "message": "no"})
        self.assertIn("server a is unavailable", sink.answer["error"]["message"])
        self.assertTrue(self.wire().closed)
        self.ask(request("tools/call", 3, {"name": "a__t"}))
        self.assertEqual(self.methods(), ["initialize"])

    def test_a_server_that_is_lost_again_fails_what_waits(self) -> None:
        """With the reason of the loss."""
        _, sink = self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.wire().lose("it exited with status 1")
        self.assertIn("it exited with status 1", sink.answer["error"]["message"])
        self.assertFalse(self.session.closed)

    def test_a_server_that_does_not_answer_fails_what_waits(self) -> None:
        """After the time that any call may take."""
        _, sink = self.ask(request("tools/call", 2, {"name": "a__t"}))
        link = self.session.links["a"]
        assert isinstance(link, Link)
        link.expire(119.0, 120.0, 3600.0)
        self.assertFalse(sink.answered)
        link.expire(120.5, 120.0, 3600.0)
        self.assertIn("gave no sign of life", sink.answer["error"]["message"])
        self.assertTrue(self.wire().closed)

    def test_the_end_of_the_session_ends_what_waits(self) -> None:
        """Answered by the session, once."""
        _, sink = self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.session.close()
        self.assertIn("ended", sink.answer["error"]["message"])

    def test_the_clients_own_notification_is_not_said_twice(self) -> None:
        """Where we have said it already."""
        self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.wire().answer({"protocolVersion": "2025-06-18"})
        self.tell("notifications/initialized")
        self.assertEqual(self.methods().count("notifications/initialized"), 1)
        self.assertEqual(self.methods("b").count("notifications/initialized"), 2)

    def test_nobody_is_introduced_before_the_client_has_been(self) -> None:
        """A first initialize that fails leaves nothing to repeat."""
        super().setUp()
        _, sink = self.ask(self.hello)
        for name in self.servers:
            self.wire(name).lose()
        self.assertIn("error", sink.answer)
        self.ask(request("tools/call", 2, {"name": "a__t"}))
        self.assertEqual(self.methods(), ["tools/call"])
