"""Tests for mcptunnel.core.relay: whose session, how many, how long, and the end of everything."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target
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
