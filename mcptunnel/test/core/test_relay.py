"""Tests for mcptunnel.core.relay: whose session, how many, how long, and the end of everything."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.session_ids import LIFE_SECONDS
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
    FakeWire,
    RecordingSink,
    know_both_eras,
    make_exchange,
    notification,
    request,
)

ONE = Target(("a",), False)
BOTH = Target(("a", "b"), True)


class Case(SynchronousTestCase):
    """Two servers."""

    def setUp(self) -> None:
        self.now = 100.0
        self.seal = FakeSeal()
        self.upstreams = {name: FakeUpstream(name) for name in "ab"}
        self.relay = Relay(
            self.upstreams,
            Bounds(sessions=2, session_idle=60.0, silence=10.0, longest=50.0),
            lambda: self.now,
            self.seal,
            {"name": "us", "version": "0"},
            lambda server, why: self.missing.append((server, why)),
        )
        know_both_eras(self.relay.eras, "ab")
        self.missing: list[tuple[str, str | None]] = []

    def wire(self, server: str = "a") -> FakeWire:
        return self.upstreams[server].wire

    def ask(self, raw: bytes, target: Target = ONE) -> tuple[Exchange, RecordingSink]:
        """A modern request."""
        exchange, sink = make_exchange(raw, era="modern")
        self.relay.stateless(exchange, target)
        return exchange, sink


class SessionsTests(Case):
    """Finding, counting, ending."""

    def test_a_session_is_found_by_who_opened_it_where_it_was_opened(self) -> None:
        """Everybody else reads what they would read if it did not exist."""
        me, you = Principal(name="me"), Principal(name="you")
        session = self.relay.open(me, ONE)
        self.assertIs(self.relay.find(session.id, me, ONE), session)
        messages = set()
        for id_, principal, target in (
            (session.id, you, ONE),
            (session.id, ANONYMOUS, ONE),
            (session.id, me, BOTH),
            ("session-9", me, ONE),
            ("", me, ONE),
        ):
            error = self.assertRaises(RpcError, self.relay.find, id_, principal, target)
            self.assertEqual((error.status, error.code, error.legacy_status), (404, -32001, 404))
            messages.add(error.message)
        session.close()
        messages.add(self.assertRaises(RpcError, self.relay.find, session.id, me, ONE).message)
        self.assertEqual(len(messages), 1)

    def test_there_are_only_so_many(self) -> None:
        """The refusal says when to come back; an ended one makes room."""
        first, _ = self.relay.open(ANONYMOUS, ONE), self.relay.open(ANONYMOUS, ONE)
        error = self.assertRaises(RpcError, self.relay.open, ANONYMOUS, ONE)
        self.assertEqual((error.status, error.headers), (503, ((b"Retry-After", b"30"),)))
        self.assertIn("server.limits.sessions", error.message)
        first.close()
        self.relay.open(ANONYMOUS, ONE)

    def test_an_unused_session_ends_and_a_busy_one_does_not(self) -> None:
        """In seconds of the clock."""
        idle, busy = self.relay.open(ANONYMOUS, ONE), self.relay.open(ANONYMOUS, ONE)
        exchange, _ = make_exchange(request("subscriptions/listen", 1))
        exchange.patience = 0
        busy.request(exchange)
        self.now += 60.0
        self.relay.sweep()
        self.assertFalse(idle.closed)
        self.now += 0.1
        self.relay.sweep()
        self.assertEqual((idle.closed, busy.closed, list(self.relay.sessions)), (True, False, [busy.id]))

    def test_the_sweep_ends_calls_that_take_too_long(self) -> None:
        """In sessions and in the commons."""
        session = self.relay.open(ANONYMOUS, ONE)
        exchange, legacy = make_exchange(request("tools/call", 1, {"name": "t"}))
        session.request(exchange)
        _, modern = self.ask(request("tools/call", 1, {"name": "t"}, modern=True))
        self.now += 10.1
        self.relay.sweep()
        self.assertEqual([sink.answer["error"]["code"] for sink in (legacy, modern)], [-32011, -32011])
        self.assertEqual(self.relay.in_flight, 0)


class CommonsTests(Case):
    """Stateless calls."""

    def test_one_link_serves_everybody(self) -> None:
        """Whatever ids they use."""
        sinks = [self.ask(request("tools/call", 1, {"name": "t"}, modern=True))[1] for _ in range(3)]
        self.assertEqual((len(self.upstreams["a"].wires), self.relay.in_flight), (1, 3))
        for n in (3, 1, 2):
            self.wire().answer({"n": n}, number=n)
        self.assertEqual([sink.answer["result"]["n"] for sink in sinks], [1, 2, 3])

    def test_a_lost_link_is_opened_again_by_the_next_call(self) -> None:
        """Its calls have failed."""
        _, sink = self.ask(request("tools/list", 1, modern=True))
        self.wire().lose()
        self.assertTrue(sink.answered)
        _, sink = self.ask(request("tools/list", 1, modern=True))
        self.wire().answer({"tools": []})
        self.assertEqual((sink.answer["result"], len(self.upstreams["a"].wires)), ({"tools": []}, 2))

    def test_a_server_that_cannot_be_started_is_tried_again(self) -> None:
        """A link that never was is not kept."""
        self.upstreams["a"].refuses = "no such command"
        for _ in range(2):
            _, sink = self.ask(request("tools/list", 1, modern=True))
            self.assertIn("no such command", sink.answer["error"]["message"])
        self.assertEqual(len(self.upstreams["a"].wires), 2)

    def test_refusals_are_answers(self) -> None:
        """From one server and from many."""
        for target in (ONE, BOTH):
            _, sink = self.ask(request("tools/call", "x", {}, modern=True), target)
            self.assertEqual((sink.answer["id"], sink.answer["error"]["code"]), ("x", -32602))

    def test_a_subscription_may_be_silent_for_ever_and_holds_up_no_stop(self) -> None:
        """Silence is what it is made of."""
        _, sink = self.ask(request("subscriptions/listen", 1, {"notifications": {}}, modern=True))
        self.now += 100_000.0
        self.relay.sweep()
        self.assertEqual((sink.answered, self.relay.in_flight), (False, 0))

    def test_a_request_of_a_server_is_refused(self) -> None:
        """This revision has none."""
        self.ask(request("tools/call", 1, {"name": "t"}, modern=True))
        self.wire().say(request("roots/list", "q"))
        self.assertEqual((self.wire().last.body["id"], self.wire().last.body["error"]["code"]), ("q", -32601))

    def test_a_log_line_of_a_shared_pipe_goes_to_a_lone_call_only(self) -> None:
        """With two it could be anybody's; subscriptions are not counted."""
        self.upstreams["a"].streams = False
        self.ask(request("subscriptions/listen", 9, {"notifications": {}}, modern=True))
        _, one = self.ask(request("tools/call", 1, {"name": "t"}, modern=True))
        line = notification("notifications/message", {"level": "info"})
        self.wire().say(line)
        _, two = self.ask(request("tools/call", 2, {"name": "t"}, modern=True))
        self.wire().say(line)
        self.assertEqual((one.messages, two.messages), ([line], []))


class MissingTests(Case):
    """Lists that have to go without a server."""

    def answer(self, server: str) -> None:
        self.wire(server).answer({"tools": []})

    def listed(self) -> None:
        """A list without session."""
        self.ask(request("tools/list", 1, modern=True), BOTH)

    def test_a_server_is_told_of_once_until_it_is_back(self) -> None:
        """The reason that is kept is the latest."""
        for _ in range(2):
            self.listed()
            self.answer("b")
            self.wire("a").lose("no route")
        self.assertEqual(self.missing, [("a", "server a is unavailable: no route")])
        self.listed()
        self.answer("b")
        self.wire("a").answer(error={"code": -32603, "message": "secret"})
        self.assertEqual(self.relay.missing, {"a": "it answered tools/list with error -32603"})
        self.assertEqual(len(self.missing), 1)
        self.listed()
        self.answer("a")
        self.assertEqual((self.missing[1:], self.relay.missing), ([("a", None)], {}))

    def test_a_server_with_one_list_that_fails_is_told_of_once(self) -> None:
        """However often its other lists come: it is back when all that failed have come."""
        for _ in range(2):
            self.listed()
            self.answer("a")
            self.answer("b")
            self.ask(request("prompts/list", 1, modern=True), BOTH)
            self.wire("a").answer(error={"code": -32603, "message": "no"})
            self.wire("b").answer({"prompts": []})
        self.assertEqual(self.missing, [("a", "it answered prompts/list with error -32603")])
        self.ask(request("prompts/list", 1, modern=True), BOTH)
        self.wire("a").answer({"prompts": []})
        self.assertEqual((self.missing[1:], self.relay.missing), ([("a", None)], {}))

    def test_sessions_and_stateless_calls_count_alike(self) -> None:
        """It is the same server; one that does not answer in time is missing too."""
        exchange, _ = make_exchange(request("tools/list", 1))
        self.relay.open(ANONYMOUS, BOTH).request(exchange)
        self.answer("b")
        self.now += 10.1
        self.relay.sweep()
        self.assertEqual([server for server, _ in self.missing], ["a"])
        self.assertIn("no sign of life", self.relay.missing["a"])
        self.listed()
        self.answer("a")
        self.assertEqual(self.missing[1:], [("a", None)])

    def test_a_server_that_has_no_such_list_is_not_missing(self) -> None:
        """Nor is one whose client has left, or everything when the daemon stops."""
        self.listed()
        self.wire("a").answer(error={"code": -32601, "message": "no prompts here"})
        exchange, _ = self.ask(request("tools/list", 2, modern=True), BOTH)
        exchange.abandon()
        self.listed()
        self.relay.close()
        self.assertEqual((self.missing, self.relay.missing), ([], {}))


class CloseTests(Case):
    """The daemon stops."""

    def test_everything_is_answered_and_closed(self) -> None:
        """Sessions, calls of the commons, aggregates; nothing new begins."""
        session = self.relay.open(ANONYMOUS, ONE)
        exchange, legacy = make_exchange(request("tools/call", 1, {"name": "t"}))
        session.request(exchange)
        session_wire = self.wire()
        _, modern = self.ask(request("tools/call", 1, {"name": "t"}, modern=True))
        _, joined = self.ask(request("tools/list", 2, modern=True), BOTH)
        self.assertEqual(self.relay.in_flight, 3)
        self.relay.close()
        for sink in (legacy, modern):
            self.assertEqual(sink.answer["error"]["message"], "the daemon is stopping")
        self.assertIn("error", joined.answer)
        self.assertTrue(session_wire.closed and self.wire("a").closed and self.wire("b").closed)
        self.assertEqual((self.relay.sessions, list(self.relay.links()), self.relay.in_flight), ({}, [], 0))
        error = self.assertRaises(RpcError, self.relay.open, ANONYMOUS, ONE)
        self.assertEqual((error.status, error.reason), (503, "stopping"))
        _, late = self.ask(request("tools/list", 1, modern=True))
        self.assertEqual(late.answer["error"]["message"], "the daemon is stopping")


class RestartTests(Case):
    """Sessions of an earlier life of the daemon."""

    hello = request("initialize", 0, {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}})

    def restarted(self) -> Relay:
        """Another life, with the same keys."""
        seal = FakeSeal(life=self.seal.life + 1, kept=self.seal.kept)
        self.upstreams = {name: FakeUpstream(name) for name in "ab"}
        relay = Relay(self.upstreams, Bounds(sessions=2), lambda: self.now, seal, {"name": "us", "version": "0"})
        know_both_eras(relay.eras, "ab")
        return relay

    def test_a_session_is_gone_on_with_and_its_server_hears_what_the_client_had_said(self) -> None:
        """Before anything else."""
        id_ = self.relay.open(ANONYMOUS, ONE, self.hello).id
        session = self.restarted().find(id_, ANONYMOUS, ONE, "2025-11-25")
        self.assertEqual((session.id, session.version, session.primes), (id_, "2025-11-25", True))
        exchange, sink = make_exchange(request("tools/call", 5, {"name": "t"}))
        session.request(exchange)
        self.assertEqual([body["method"] for body in self.wire().bodies], ["initialize"])
        self.assertEqual(self.wire().bodies[0]["params"]["capabilities"], {"roots": {}})
        self.wire().answer({"protocolVersion": "2025-11-25"})
        self.wire().answer({"ok": 1})
        self.assertEqual(sink.answer["result"], {"ok": 1})

    def test_nobody_else_can_and_nowhere_else(self) -> None:
        """Nor for ever, nor twice after its end, nor without what the client has said."""
        id_ = self.relay.open(Principal(name="me"), ONE, self.hello).id
        silent = self.relay.open(Principal(name="me"), ONE).id
        relay = self.restarted()
        for shown, principal, target in (
            (id_, Principal(name="you"), ONE),
            (id_, Principal(name="me"), BOTH),
            (silent, Principal(name="me"), ONE),
            ("made-up", Principal(name="me"), ONE),
        ):
            self.assertRaises(RpcError, relay.find, shown, principal, target)
        relay.find(id_, Principal(name="me"), ONE).close()
        self.assertRaises(RpcError, relay.find, id_, Principal(name="me"), ONE)
        self.now += LIFE_SECONDS + 1
        self.assertRaises(RpcError, self.restarted().find, id_, Principal(name="me"), ONE)

    def test_a_session_of_this_life_that_has_ended_is_over(self) -> None:
        """Whatever its id holds."""
        session = self.relay.open(ANONYMOUS, ONE, self.hello)
        session.close()
        self.assertRaises(RpcError, self.relay.find, session.id, ANONYMOUS, ONE)

    def test_there_are_only_so_many_of_these_too(self) -> None:
        """As of new ones."""
        ids = [self.relay.open(ANONYMOUS, ONE, self.hello).id for _ in range(2)]
        relay = self.restarted()
        relay.open(ANONYMOUS, ONE)
        relay.find(ids[0], ANONYMOUS, ONE)
        error = self.assertRaises(RpcError, relay.find, ids[1], ANONYMOUS, ONE)
        self.assertEqual(error.status, 503)


class StateTests(Case):
    """``requestState`` of servers of 2026-07-28."""

    def asked(self, state: bytes = b'"their \\u0073tate"') -> str:
        """The state that the client gets."""
        _, sink = self.ask(request("tools/call", 1, {"name": "t", "arguments": {"b": 1, "a": 2}}, modern=True))
        raw = b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{},"requestState":%b}}'
        self.wire().link.received(raw % state, 1)
        sealed = sink.answer["result"]["requestState"]
        assert isinstance(sealed, str)
        return sealed

    def test_it_is_sealed_on_its_way_down_and_opened_on_its_way_up(self) -> None:
        """The server gets its own bytes; a client may write its arguments anew."""
        sealed = self.asked()
        self.assertNotIn("their", sealed)
        again = {"name": "t", "arguments": {"a": 2, "b": 1}, "requestState": sealed, "inputResponses": {}}
        self.ask(request("tools/call", 2, again, modern=True))
        self.assertIn(b'"requestState":"their \\u0073tate"', self.wire().last.raw)
        # Such a state is the server's: whether it may be shown twice is for the server to say.
        self.ask(request("tools/call", 3, again, modern=True))
        self.assertIn(b"their", self.wire().last.raw)

    def test_what_is_not_good_reaches_no_server(self) -> None:
        """Altered, for another call, for another method, too old, no text, somebody else's: they read the same."""
        sealed = self.asked()
        sent = len(self.wire().sent)
        good = {"name": "t", "arguments": {"b": 1, "a": 2}}
        answers = set()
        for method, params in (
            ("tools/call", {**good, "requestState": sealed + "x"}),
            ("tools/call", {**good, "requestState": 7}),
            ("tools/call", {**good, "arguments": {}, "requestState": sealed}),
            ("prompts/get", {**good, "requestState": sealed}),
        ):
            _, sink = self.ask(request(method, 2, params, modern=True))
            answers.add((sink.answer["error"]["code"], sink.answer["error"]["message"]))
        exchange, sink = make_exchange(
            request("tools/call", 2, {**good, "requestState": sealed}, modern=True),
            era="modern",
            principal=Principal(name="else"),
        )
        self.relay.stateless(exchange, ONE)
        answers.add((sink.answer["error"]["code"], sink.answer["error"]["message"]))
        self.now += 601.0
        _, sink = self.ask(request("tools/call", 2, {**good, "requestState": sealed}, modern=True))
        answers.add((sink.answer["error"]["code"], sink.answer["error"]["message"]))
        self.assertEqual((len(answers), len(self.wire().sent)), (1, sent))
        self.assertEqual(next(iter(answers))[0], -32602)
