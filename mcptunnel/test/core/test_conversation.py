"""Tests for mcptunnel.core.conversation: many exchanges on one line."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.conversation import Conversation
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.principal import ANONYMOUS
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import targets
from mcptunnel.core.session import BACKLOG
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
    FakeWire,
    know_both_eras,
    notification,
    request,
    response,
)


@define(eq=False)
class FakeLine:
    """A client's end. Closes the conversation when it is told to end, as a connection does."""

    conversation: Any = None
    messages: list[Any] = field(factory=list)
    ends: int = 0
    full_after: int | None = None

    def send(self, raw: bytes) -> None:
        assert not self.ends, raw
        self.messages.append(json.loads(raw))
        if len(self.messages) == self.full_after:
            self.conversation.pause()

    def end(self) -> None:
        self.ends += 1
        self.conversation.close()

    def heard(self) -> list[Any]:
        found, self.messages = self.messages, []
        return found


class Case(SynchronousTestCase):
    """One server behind one line."""

    def setUp(self) -> None:
        self.now = 100.0
        self.upstream = FakeUpstream("a")
        self.relay = Relay(
            {"a": self.upstream},
            Bounds(sessions=1),
            lambda: self.now,
            FakeSeal(),
            {"name": "us", "version": "0"},
        )
        know_both_eras(self.relay.eras, "a")
        self.records: list[Record] = []
        self.line = FakeLine()
        self.conversation = Conversation(
            self.line, self.relay, targets(["a"])["/servers/a"], ANONYMOUS, self.records.append
        )
        self.line.conversation = self.conversation

    @property
    def wire(self) -> FakeWire:
        return self.upstream.wire

    def take(self, raw: bytes) -> list[Any]:
        self.conversation.take(decode(raw), Record(protocol="p", path="/x", status=202, sent=7))
        return self.line.heard()

    def initialize(self) -> None:
        self.assertEqual(self.take(request("initialize", 0, {"protocolVersion": "2024-11-05"})), [])
        self.wire.answer({"protocolVersion": "2024-11-05"})
        self.assertEqual([m["id"] for m in self.line.heard()], [0])


class TakeTests(Case):
    """Messages of the client."""

    def test_the_same_id_in_both_eras_is_two_calls(self) -> None:
        """And each is cancelled in its own: the legacy one by its session."""
        self.initialize()
        legacy = self.wire
        self.take(request("tools/call", 1, {"name": "t"}))
        self.take(request("tools/call", 1, {"name": "t"}, modern=True))
        modern = self.wire
        self.assertIsNot(legacy, modern)
        self.take(notification("notifications/cancelled", {"requestId": 1}))
        self.assertEqual((legacy.last.body["method"], modern.dropped), ("notifications/cancelled", []))
        modern.answer({"era": "modern"})
        self.assertEqual([m["result"] for m in self.line.heard()], [{"era": "modern"}])

    def test_an_id_that_is_in_use_is_refused_until_it_is_free(self) -> None:
        """In the modern era there is no session to see to it."""
        self.take(request("tools/call", 1, {"name": "t"}, modern=True))
        (refused,) = self.take(request("tools/call", 1, {"name": "t"}, modern=True))
        self.assertEqual((refused["id"], refused["error"]["code"]), (1, -32600))
        self.wire.answer({})
        self.line.heard()
        self.assertEqual(self.take(request("tools/call", 1, {"name": "t"}, modern=True)), [])

    def test_only_requests_are_answered(self) -> None:
        """Refused notifications and responses that nobody asked for are dropped."""
        for raw in (notification("notifications/initialized"), response(1), response(1, error={"code": 1})):
            self.assertEqual(self.take(raw), [])
        (refused,) = self.take(request("ping", 5))
        self.assertEqual((refused["id"], refused["error"]["code"]), (5, -32600))

    def test_a_session_that_is_refused_leaves_room_for_another_try(self) -> None:
        """By the relay, which has too many, and by the server."""
        other = self.relay.open(ANONYMOUS, targets(["a"])["/servers/a"])
        (refused,) = self.take(request("initialize", 1))
        self.assertEqual(refused["error"]["code"], -32000)
        other.close()
        self.take(request("initialize", 2))
        self.wire.answer(error={"code": -32602, "message": "no"})
        self.assertEqual([m["error"]["code"] for m in self.line.heard()], [-32602])
        self.assertEqual((self.relay.sessions, self.line.ends), ({}, 0))
        self.initialize()
        (refused,) = self.take(request("initialize", 3))
        self.assertEqual(refused["error"]["code"], -32600)

    def test_each_exchange_has_a_record_made_of_that_of_its_message(self) -> None:
        """What it sent is its own; how it came is the message's."""
        raw = request("tools/call", 1, {"name": "t"}, modern=True)
        self.take(raw)
        self.assertEqual(self.records, [])
        self.now += 2
        self.wire.answer({"ok": True})
        (record,) = self.records
        self.assertEqual((record.protocol, record.path, record.status), ("p", "/x", 202))
        self.assertEqual((record.method, record.era, record.duration, record.code), ("tools/call", "modern", 2, None))
        self.assertEqual((record.received, record.sent), (len(raw), len(response(1, {"ok": True}))))


class PressureTests(Case):
    """A client that does not read."""

    def test_what_belongs_to_no_call_waits_in_order_and_bounded(self) -> None:
        """The oldest makes room."""
        self.initialize()
        self.conversation.pause()
        for number in range(BACKLOG + 1):
            self.wire.say(notification("notifications/message", {"n": number}))
        self.assertEqual(self.line.heard(), [])
        self.conversation.resume()
        self.assertEqual([m["params"]["n"] for m in self.line.heard()], list(range(1, BACKLOG + 1)))

    def test_a_client_that_is_full_again_gets_no_more(self) -> None:
        """Neither what waits nor what its calls bring."""
        self.initialize()
        self.take(request("tools/call", 1, {"name": "t"}))
        self.conversation.pause()
        self.wire.answer({"n": 9})
        for number in range(3):
            self.wire.say(notification("notifications/message", {"n": number}))
        self.line.full_after = 2
        self.conversation.resume()
        self.assertEqual([m["params"]["n"] for m in self.line.heard()], [0, 1])
        self.assertEqual(self.wire.paused, {2})
        self.line.full_after = None
        self.conversation.resume()
        note, reply = self.line.heard()
        self.assertEqual((note["params"], reply["result"]), ({"n": 2}, {"n": 9}))

    def test_a_call_that_comes_meanwhile_is_paused_from_the_start(self) -> None:
        """Of both eras."""
        self.initialize()
        legacy = self.wire
        self.conversation.pause()
        self.take(request("tools/call", 1, {"name": "t"}))
        self.take(request("tools/call", 2, {"name": "t"}, modern=True))
        self.assertEqual((legacy.paused, self.wire.paused), ({2}, {1}))


class CancelTests(Case):
    """Cancelling where no header says the era."""

    def test_a_cancellation_without_envelope_means_the_call_that_has_the_id(self) -> None:
        """The session's own first; a modern one where only that can be meant."""
        self.initialize()
        legacy = self.wire
        self.take(request("tools/call", 1, {"name": "t"}))
        self.take(request("tools/call", 1, {"name": "t"}, modern=True))
        self.take(request("tools/call", 2, {"name": "t"}, modern=True))
        modern = self.wire
        self.take(notification("notifications/cancelled", {"requestId": 1}))
        self.assertEqual((legacy.last.body["method"], modern.dropped), ("notifications/cancelled", []))
        self.take(notification("notifications/cancelled", {"requestId": 2}))
        self.take(notification("notifications/cancelled", {"requestId": 1}))
        self.assertEqual(modern.dropped, [2, 1])


class EndTests(Case):
    """When it is over."""

    def test_closing_abandons_everything(self) -> None:
        """Silently: there is nobody left. Each call has its record."""
        self.initialize()
        legacy = self.wire
        self.take(request("tools/call", 1, {"name": "t"}))
        self.take(request("tools/call", 2, {"name": "t"}, modern=True))
        self.conversation.close()
        self.assertEqual((legacy.closed, self.wire.dropped, self.relay.sessions), (True, [1], {}))
        self.assertEqual([r.error for r in self.records[1:]], ["cancelled", "cancelled"])
        self.assertEqual((self.line.heard(), self.line.ends), ([], 0))

    def test_a_session_that_ends_ends_the_line_once(self) -> None:
        """Its calls have been answered before; modern ones end with the line."""
        self.initialize()
        self.take(request("tools/call", 1, {"name": "t"}))
        self.take(request("tools/call", 2, {"name": "t"}, modern=True))
        (session,) = self.relay.sessions.values()
        session.close()
        (answer,) = self.line.heard()
        self.assertEqual(answer["error"]["message"], "the session has ended")
        self.assertEqual((self.line.ends, self.wire.dropped), (1, [1]))
