"""Tests for mcptunnel.core.link: ids and tokens of our own, and servers that lie."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import SUBSCRIPTION_KEY, Era
from mcptunnel.testing import FakeUpstream, RecordingSink, make_exchange, notification, request, response

CANCELLED = "notifications/cancelled"


@define(eq=False)
class Owner:
    """Remembers what belongs to no call."""

    said: list[tuple[Any, Exchange | None]] = field(factory=list)
    lost: list[Link] = field(factory=list)

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        self.said.append((json.loads(message.raw), exchange))

    def session_lost(self, link: Link) -> bool:
        return False

    def doubted(self, link: Link) -> None:
        """Nothing is known here of eras."""

    def link_lost(self, link: Link) -> None:
        self.lost.append(link)


class Case(SynchronousTestCase):
    """A link on a clock of its own."""

    streams = True
    era: Era = "legacy"

    def setUp(self) -> None:
        self.now = 1000.0
        self.owner = Owner()
        self.upstream = FakeUpstream("srv", streams=self.streams)
        self.link = Link.open(self.upstream, self.era, self.owner, lambda: self.now)
        self.wire = self.upstream.wire

    def ask(self, raw: bytes) -> tuple[Exchange, RecordingSink]:
        """Send ``raw``."""
        exchange, sink = make_exchange(raw, era=self.era)
        self.link.request(exchange)
        return exchange, sink


class IdTests(Case):
    """Numbers of ours upstream, ids of theirs downstream."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.integers(-(10**30), 10**30) | st.text('ab1é"\\', max_size=4), min_size=1, max_size=6), st.randoms()
    )
    def test_every_client_gets_its_own_answer_under_its_own_id(self, ids: list[int | str], random: Any) -> None:
        """Whatever the ids, however often the same, in whatever order the answers come."""
        self.setUp()
        sinks = [self.ask(request("tools/call", id_, {"name": str(n)}))[1] for n, id_ in enumerate(ids)]
        numbers = [body["id"] for body in self.wire.bodies]
        self.assertEqual(numbers, list(range(1, len(ids) + 1)))
        order = list(range(len(ids)))
        random.shuffle(order)
        for n in order:
            self.wire.answer({"for": n}, number=numbers[n])
        for n, (id_, sink) in enumerate(zip(ids, sinks, strict=True)):
            self.assertEqual(sink.answer, {"jsonrpc": "2.0", "id": id_, "result": {"for": n}})
            self.assertIs(type(sink.answer["id"]), type(id_))
        self.assertEqual(self.link.calls, {})

    def test_all_other_bytes_travel_untouched(self) -> None:
        """Both ways: spaces, order, number spelling, unknown members."""
        raw = (
            b'{ "x":1.0e1, "params" : {"name":"a", "arguments":{"id":7, "n":1.00}}, '
            b'"id" : "\\u0061", "method":"tools/call","jsonrpc":"2.0" }'
        )
        _, sink = self.ask(raw)
        self.assertEqual(self.wire.last.raw, raw.replace(b'"\\u0061"', b"1"))
        self.link.received(b'{"result" : {"id":1, "v":2.50},\t"id" :1 ,"jsonrpc":"2.0"}', 1)
        self.assertEqual(sink.replies[0][0], b'{"result" : {"id":1, "v":2.50},\t"id" :"\\u0061" ,"jsonrpc":"2.0"}')

    def test_a_rewrite_gets_a_message_it_can_look_into(self) -> None:
        """Its spans fit its bytes, although the id has changed."""
        exchange, sink = make_exchange(request("tools/list", "a-long-id"))
        exchange.rewrite = lambda reply: reply.value("result") or b""
        self.link.request(exchange)
        self.wire.answer({"tools": []})
        self.assertEqual(sink.replies[0][0], b'{"tools":[]}')

    def test_the_negotiated_revision_is_remembered(self) -> None:
        """Only one that may stand in a header."""
        for version, remembered in (
            ("2025-06-18", "2025-06-18"),
            ("2024-10-07", "2024-10-07"),
            ("a\r\nX: y", None),
            ("", None),
            (5, None),
        ):
            self.setUp()
            _, sink = self.ask(request("initialize"))
            self.wire.answer({"protocolVersion": version})
            self.assertEqual(self.link.version, remembered)
            self.assertTrue(sink.answered)
        self.setUp()
        self.ask(request("initialize"))
        self.wire.answer(error={"code": -32602, "message": "no"})
        self.assertIsNone(self.link.version)


class LyingServerTests(Case):
    """What a server may say without reaching anybody it should not."""

    def test_answers_to_nothing_reach_nobody(self) -> None:
        """Unknown ids, ids of another type, ids of clients, answers twice."""
        _, sink = self.ask(request("tools/call", 99, {"name": "a"}))
        for id_ in (99, 2, 0, -1, "1", "99", None):
            self.link.received(response(id_))
            self.link.received(response(id_, error={"code": 1, "message": "x"}))
        self.assertFalse(sink.answered)
        self.link.received(response(1))
        self.link.received(response(1, {"second": 1}))
        self.assertEqual(sink.answer["result"], {})

    def test_an_answer_on_another_calls_stream_is_no_answer(self) -> None:
        """A stream belongs to one call; only an error without an id may stand for its own."""
        _, one = self.ask(request("tools/call", "one", {"name": "a"}))
        _, two = self.ask(request("tools/call", "two", {"name": "a"}))
        self.link.received(response(2), 1)
        self.link.received(response("1"), 1)
        self.assertFalse(one.answered or two.answered)
        self.link.received(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m"}}', 1)
        self.assertEqual(one.answer, {"jsonrpc": "2.0", "id": "one", "error": {"code": -32600, "message": "m"}})
        self.assertFalse(two.answered)

    def test_what_is_no_message_fails_the_call_it_came_for(self) -> None:
        """And is ignored where it came for none."""
        _, sink = self.ask(request("tools/call", 1, {"name": "a"}))
        for raw in (b"", b"junk", b"[]", b'{"jsonrpc":"2.0","id":1}', b'{"jsonrpc":"2.0","id":1,"id":1,"result":{}}'):
            self.link.received(raw)
        self.assertFalse(sink.answered)
        self.link.received(b"junk", 1)
        self.assertEqual(sink.answer["error"]["code"], -32010)
        self.assertIn("server srv is unavailable", sink.answer["error"]["message"])

    def test_a_result_that_cannot_be_read_where_it_must_be_fails_its_call(self) -> None:
        """Such a call must not hang: the id has been used up."""
        for method, result in (
            ("initialize", b'{"protocolVersion":"a","protocolVersion":"b"}'),
            ("initialize", b"[]"),
            ("initialize", b'{"protocolVersion":1e999}'),
        ):
            for number in (None, 1):
                self.setUp()
                _, sink = self.ask(request(method))
                self.link.received(b'{"jsonrpc":"2.0","id":1,"result":%b}' % result, number)
                self.assertEqual(sink.answer["error"]["code"], -32010)
                self.assertEqual(self.link.calls, {})

    def test_after_the_end_of_the_link_nothing_is_heard(self) -> None:
        """Lost or closed: what is still in the pipe has no meaning."""
        for end in (lambda link: link.lost("gone"), lambda link: link.close()):
            self.setUp()
            end(self.link)
            self.link.received(notification("notifications/x"))
            self.link.received(request("ping", 1))
            self.assertEqual(self.owner.said, [])


class ProgressTests(Case):
    """Tokens of ours upstream, tokens of theirs downstream."""

    def test_the_token_is_restored_in_its_own_spelling_and_type(self) -> None:
        """Integers and strings, escapes included."""
        for spelling in (b"7", b'"7"', b'"\\u0061"', b"-1", b'""'):
            self.setUp()
            _, sink = self.ask(
                b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"_meta":{"progressToken": %b ,"a":1}}}'
                % spelling
            )
            self.assertEqual(
                self.wire.last.raw,
                b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken": 1 ,"a":1}}}',
            )
            self.link.received(
                b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1, "progress":1.0}}', 1
            )
            self.assertEqual(
                sink.messages,
                [
                    b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b, "progress":1.0}}'
                    % spelling
                ],
            )

    def test_two_clients_with_the_same_token_get_their_own_progress(self) -> None:
        """Keyed by our number, not by theirs."""
        params = {"_meta": {"progressToken": "t"}}
        sinks = [self.ask(request("tools/call", 1, params))[1] for _ in range(2)]
        self.link.received(notification("notifications/progress", {"progressToken": 2, "progress": 5}))
        self.assertEqual([len(sink.messages) for sink in sinks], [0, 1])

    def test_unknown_late_and_uninvited_progress_is_dropped(self) -> None:
        """Also that of a client which sent no token."""
        _, sink = self.ask(request("tools/call", 1, {"name": "a", "_meta": {}}))
        _, other = self.ask(request("tools/call", 2, {"name": "a", "_meta": {"progressToken": 1}}))
        for token in (1, 3, "2", True, 2.0, None, [2], {"a": 2}):
            self.link.received(notification("notifications/progress", {"progressToken": token}))
        self.link.received(notification("notifications/progress", {}))
        self.link.received(notification("notifications/progress"))
        self.wire.answer(number=2)
        self.link.received(notification("notifications/progress", {"progressToken": 2}))
        self.assertEqual((sink.messages, other.messages, self.owner.said), ([], [], []))

    def test_an_unreadable_meta_refuses_the_request_before_it_is_sent(self) -> None:
        """Two tokens would be two readings."""
        raw = b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progressToken":1,"progressToken":2}}}'
        self.assertRaises(RpcError, self.ask, raw)
        self.assertEqual((self.wire.sent, self.link.calls), ([], {}))


class RelatedMessageTests(Case):
    """Notifications and requests of the server."""

    def test_notifications_on_a_calls_stream_are_the_calls(self) -> None:
        """Others are the owner's."""
        _, sink = self.ask(request("tools/call", 1, {"name": "a"}))
        note = notification("notifications/message", {"level": "info"})
        self.link.received(note, 1)
        self.link.received(note)
        self.link.received(note, 9)
        self.assertEqual(sink.messages, [note])
        self.assertEqual(self.owner.said, [(json.loads(note), None)] * 2)

    def test_requests_go_to_the_owner_with_their_call(self) -> None:
        """It knows to whom they may go."""
        exchange, _ = self.ask(request("tools/call", 1, {"name": "a"}))
        self.link.received(request("sampling/createMessage", 77), 1)
        self.link.received(request("ping", 78))
        self.assertEqual([(said["id"], whose) for said, whose in self.owner.said], [(77, exchange), (78, None)])

    def test_a_withdrawal_goes_to_the_owner(self) -> None:
        """Its id is the server's own."""
        exchange, sink = self.ask(request("tools/call", 1, {"name": "a"}))
        self.link.received(notification("notifications/cancelled", {"requestId": 1}), 1)
        self.assertEqual(sink.messages, [])
        self.assertEqual(self.owner.said[0][1], exchange)


class CancelTests(Case):
    """Stopping a call."""

    def test_the_server_is_told_our_number_and_the_clients_reason(self) -> None:
        """And what it still says is swallowed."""
        exchange, sink = self.ask(request("tools/call", "c", {"name": "a", "_meta": {"progressToken": 1}}))
        exchange.abandon(b'"enough"')
        self.assertEqual(
            self.wire.last.raw,
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"enough"}}',
        )
        self.assertIsNone(self.wire.last.number)
        self.link.received(notification("notifications/progress", {"progressToken": 1}))
        self.wire.answer(number=1)
        self.assertEqual((sink.messages, sink.replies), ([], []))

    def test_without_a_reason_there_is_none(self) -> None:
        """An empty one is not invented."""
        exchange, _ = self.ask(request("tools/call", 1))
        exchange.abandon()
        self.assertEqual(self.wire.last.body["params"], {"requestId": 1})

    def test_initialize_is_never_cancelled_by_notification(self) -> None:
        """MCP forbids it."""
        exchange, _ = self.ask(request("initialize"))
        exchange.abandon()
        self.assertEqual((len(self.wire.sent), self.wire.dropped), (1, [1]))

    def test_an_answered_call_cannot_be_cancelled(self) -> None:
        """Nothing is sent."""
        exchange, _ = self.ask(request("tools/call", 1))
        self.wire.answer()
        exchange.abandon()
        self.link.cancel(1, None)
        self.assertEqual((len(self.wire.sent), self.wire.dropped), (1, []))

    def test_pausing_pauses_the_call_on_the_wire(self) -> None:
        """And its end resumes it."""
        exchange, _ = self.ask(request("tools/call", 1))
        exchange.pause()
        self.assertEqual(self.wire.paused, {1})
        exchange.resume()
        self.assertEqual(self.wire.paused, set())
        exchange.pause()
        exchange.abandon()
        self.assertEqual(self.wire.paused, set())


class ModernTests(Case):
    """2026-07-28: closing is cancelling where each call has its stream, and subscriptions have names."""

    era: Era = "modern"

    def test_dropping_a_call_is_telling_the_server(self) -> None:
        """No notification follows."""
        exchange, _ = self.ask(request("tools/call", 1, modern=True))
        exchange.abandon()
        self.assertEqual((self.wire.dropped, len(self.wire.sent)), ([1], 1))

    def test_a_subscription_is_named_by_the_clients_id_below(self) -> None:
        """In its acknowledgement, its notifications and its end; type and spelling are the client's."""
        for id_ in (b"7", b'"7"', b'"\\u0061"'):
            self.setUp()
            raw = request("subscriptions/listen", 1, {"notifications": {"toolsListChanged": True}}, modern=True)
            _, sink = self.ask(raw.replace(b'"id":1', b'"id":' + id_))
            for method in ("notifications/subscriptions/acknowledged", "notifications/tools/list_changed"):
                self.link.received(notification(method, {"_meta": {SUBSCRIPTION_KEY: 1}}), 1)
                self.assertIn(b'"%b":%b' % (SUBSCRIPTION_KEY.encode(), id_), sink.messages[-1])
            self.link.received(response(1, {"_meta": {SUBSCRIPTION_KEY: 1}}), 1)
            self.assertIn(b'"%b":%b' % (SUBSCRIPTION_KEY.encode(), id_), sink.replies[0][0])

    def test_notifications_of_unknown_subscriptions_reach_nobody(self) -> None:
        """Wrong number, wrong type, over."""
        _, sink = self.ask(request("subscriptions/listen", 1, {}, modern=True))
        for named in (2, "1", True, None, [1]):
            self.link.received(notification("notifications/tools/list_changed", {"_meta": {SUBSCRIPTION_KEY: named}}))
        self.assertEqual((sink.messages, self.owner.said), ([], []))

    def test_a_subscription_that_the_server_tears_down_ends_without_a_result(self) -> None:
        """The client is told in the server's words, under its own id; the server hears nothing of it."""
        exchange, sink = self.ask(request("subscriptions/listen", "mine", {}, modern=True))
        self.link.received(notification("notifications/cancelled", {"requestId": 1, "reason": "bye"}), 1)
        (told,) = sink.heard
        self.assertEqual((told["method"], told["params"]), (CANCELLED, {"requestId": "mine", "reason": "bye"}))
        self.assertEqual((exchange.done, sink.cancellations, sink.answered, self.link.calls), (True, 1, False, {}))
        self.assertEqual(len(self.wire.sent), 1)
        for stranger in (1, 7, "1", None):
            self.link.received(notification("notifications/cancelled", {"requestId": stranger}))
        self.assertEqual(len(sink.messages), 1)

    def test_a_result_with_an_ambiguous_subscription_fails_its_call(self) -> None:
        """It must not hang."""
        _, sink = self.ask(request("subscriptions/listen", 1, {}, modern=True))
        meta = b'{"%b":1,"%b":1}' % (SUBSCRIPTION_KEY.encode(), SUBSCRIPTION_KEY.encode())
        self.link.received(b'{"jsonrpc":"2.0","id":1,"result":{"_meta":%b}}' % meta)
        self.assertEqual(sink.answer["error"]["code"], -32010)


class ModernPipeTests(Case):
    """2026-07-28 over one pipe."""

    streams = False
    era: Era = "modern"

    def test_cancelling_is_a_notification(self) -> None:
        """There is no stream to close."""
        exchange, _ = self.ask(request("tools/call", 1, modern=True))
        exchange.abandon()
        self.assertEqual(self.wire.last.body["params"], {"requestId": 1})

    def test_subscriptions_are_told_apart_by_their_numbers(self) -> None:
        """Two clients, one pipe."""
        one, two = (self.ask(request("subscriptions/listen", "s", {}, modern=True))[1] for _ in range(2))
        self.wire.say(notification("notifications/tools/list_changed", {"_meta": {SUBSCRIPTION_KEY: 2}}))
        self.assertEqual((len(one.messages), two.heard[0]["params"]["_meta"][SUBSCRIPTION_KEY]), (0, "s"))


class EndTests(Case):
    """Lost, closed, too slow."""

    def test_a_lost_link_fails_everything_at_once(self) -> None:
        """With the reason, and the owner hears of it once."""
        sinks = [self.ask(request("tools/call", n))[1] for n in range(3)]
        self.wire.lose("it exited with status 3")
        for sink in sinks:
            self.assertEqual(sink.answer["error"]["message"], "server srv is unavailable: it exited with status 3")
        self.wire.lose("again")
        self.assertEqual((self.owner.lost, self.link.calls), ([self.link], {}))
        _, late = self.ask(request("tools/call", 9))
        self.assertEqual(late.answer["error"]["message"], "server srv is unavailable: it exited with status 3")
        self.link.tell(b"{}")
        self.assertEqual(len(self.wire.sent), 3)

    def test_a_closed_link_abandons_its_calls_in_silence(self) -> None:
        """Whoever closes it has told their owners."""
        _, sink = self.ask(request("tools/call", 1))
        self.link.close()
        self.link.close()
        self.assertEqual((self.wire.closed, sink.answered, self.owner.lost), (True, False, []))

    def test_a_server_that_cannot_be_started_fails_the_request(self) -> None:
        """The wire exists, but has been lost already."""
        self.upstream.refuses = "no such command"
        link = Link.open(self.upstream, "legacy", self.owner, lambda: 0.0)
        exchange, sink = make_exchange(request("tools/call", 1))
        link.request(exchange)
        self.assertEqual(sink.answer["error"]["message"], "server srv is unavailable: no such command")
        self.assertEqual(exchange.record.upstream, "srv")

    def expire(self, after: float) -> None:
        self.now += after
        self.link.expire(self.now, silence=10.0, longest=60.0)

    def test_silence_ends_a_call_and_the_server_is_told(self) -> None:
        """Not before its time."""
        _, sink = self.ask(request("tools/call", 1))
        self.expire(10.0)
        self.assertFalse(sink.answered)
        self.expire(0.1)
        self.assertEqual(sink.answer["error"]["code"], -32011)
        self.assertIn("(request_timeout)", sink.answer["error"]["message"])
        self.assertEqual(self.wire.last.body["params"], {"requestId": 1, "reason": "timed out"})
        self.assertEqual(self.link.calls, {})

    def test_every_sign_of_life_begins_the_wait_anew_until_the_longest_time(self) -> None:
        """Progress, notifications, requests of the server."""
        _, sink = self.ask(request("tools/call", 1, {"_meta": {"progressToken": 1}}))
        for sign in (
            notification("notifications/progress", {"progressToken": 1}),
            notification("notifications/message", {}),
            request("ping", 5),
        ) * 3:
            self.expire(6.5)
            self.link.received(sign, 1)
        self.assertFalse(sink.answered)
        self.expire(2.0)
        self.assertIn("(request_max_time)", sink.answer["error"]["message"])

    def test_a_call_may_have_a_patience_of_its_own(self) -> None:
        """0 is for ever."""
        short, short_sink = make_exchange(request("tools/call", 1))
        endless, endless_sink = make_exchange(request("subscriptions/listen", 2))
        short.patience, endless.patience = 2.0, 0
        self.link.request(short)
        self.link.request(endless)
        self.expire(2.5)
        self.assertIn("no sign of life for 2 s", short_sink.answer["error"]["message"])
        self.expire(100_000.0)
        self.assertFalse(endless_sink.answered)
