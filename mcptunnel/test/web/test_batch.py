"""Tests for mcptunnel.web.batch: batches of 2025-03-26 on the real site."""

from __future__ import annotations

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.principal import Principal
from mcptunnel.test.web.calls import JSON, Case, Reply, chunks, ids, messages
from mcptunnel.testing import FakeWire, notification, request, response
from mcptunnel.web.replies import KEEPALIVE_SECONDS


def batch(*parts: bytes) -> bytes:
    """A batch of messages."""
    return b"[" + b", ".join(parts) + b"]"


def call(id_: int | str, name: str = "t") -> bytes:
    """A call that wants to hear of its progress."""
    return request("tools/call", id_, {"name": name, "_meta": {"progressToken": f"p{id_}"}})


class Losing(FakeWire):
    """A wire that breaks when it is used."""

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        self.lose()


class BatchTests(Case):
    """Two calls at once, unless a test says otherwise: upstream they are 2 and 3."""

    def setUp(self) -> None:
        super().setUp()
        self.headers = self.initialize("2025-03-26")
        del self.headers["MCP-Protocol-Version"]

    def begin(self, *parts: bytes) -> None:
        reply = self.post(batch(*parts or (call(1), call("x"))), self.headers)
        self.assertEqual(reply.status, 0, reply.headers)

    def test_the_responses_come_as_one_array(self) -> None:
        """In the order in which the server answers, each under its client's id; JSON once all are there."""
        self.begin()
        self.assertEqual([body["method"] for body in self.wire().bodies[1:]], ["tools/call"] * 2)
        self.wire().answer({"n": 2}, number=3)
        self.assertEqual(self.client.received(), b"")
        self.wire().answer(error={"code": -32601, "message": "no"}, number=2)
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, JSON))
        self.assertEqual([m["id"] for m in reply.json], ["x", 1])
        self.assertEqual((reply.json[0]["result"], reply.json[1]["error"]["code"]), ({"n": 2}, -32601))
        self.assertEqual(len(self.streams), 0)

    def test_with_the_revision_in_the_header_it_is_the_same(self) -> None:
        """Clients of that revision send none."""
        self.headers["MCP-Protocol-Version"] = "2025-03-26"
        self.begin(request("ping"))
        self.wire().answer({})
        self.assertEqual([m["id"] for m in Reply(self.client.received()).json], [1])

    def test_notifications_and_responses_alone_are_accepted(self) -> None:
        """202; they arrive, and one that cannot be read harms nobody."""
        self.wire().say(request("roots/list", "q"))
        self.headers["MCP-Protocol-Version"] = "2025-03-26"
        reply = self.post(
            batch(
                b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[]}',
                notification("notifications/initialized"),
                response(1, {"roots": []}),
            ),
            self.headers,
        )
        self.assertEqual((reply.status, reply.body), (202, b""))
        self.assertEqual(self.wire().bodies[-2]["method"], "notifications/initialized")
        self.assertEqual(self.wire().bodies[-1], {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})

    def test_a_message_before_the_last_response_begins_a_stream(self) -> None:
        """With what has been answered already; it ends with the last response."""
        self.begin()
        self.wire().answer({"n": 1}, number=2)
        self.wire().say(notification("notifications/progress", {"progressToken": 3, "progress": 1}), 3)
        reply = Reply(self.client.received())
        self.assertEqual(reply.headers["content-type"], "text/event-stream")
        self.assertEqual((reply.events[0]["id"], reply.events[1]["params"]["progressToken"]), (1, "px"))
        self.wire().answer({"n": 2}, number=3)
        tail = self.client.received()
        self.assertTrue(tail.endswith(b"0\r\n\r\n"))
        self.assertEqual([m["id"] for m in messages(b"".join(chunks(tail)))], ["x"])
        self.assertEqual((len(self.streams), self.post(notification("n"), self.headers).status), (0, 202))

    def test_one_that_takes_long_becomes_a_stream(self) -> None:
        """As a single reply does."""
        self.begin()
        self.wire().answer({"n": 1}, number=2)
        self.clock.advance(KEEPALIVE_SECONDS)
        self.streams.sweep()
        reply = Reply(self.client.received())
        self.assertEqual(([m["id"] for m in reply.events], reply.chunks[-1]), ([1], b":\n\n"))

    def test_its_stream_can_be_resumed(self) -> None:
        """And goes on."""
        self.begin()
        self.wire().say(notification("notifications/progress", {"progressToken": 3, "progress": 1}), 3)
        (last,) = ids(self.client.received())
        self.client.lose()
        self.wire().answer({"n": 1}, number=2)
        self.client = self.served.connect()
        reply = self.send("GET", b"", {**self.headers, "Last-Event-ID": last.decode()})
        self.assertEqual([m["id"] for m in reply.events], [1])
        self.wire().answer({"n": 2}, number=3)
        self.assertEqual([m["id"] for m in self.rest()], ["x"])

    def test_a_client_that_leaves_cancels_nothing_and_is_answered_nothing(self) -> None:
        """As with a single request."""
        self.begin()
        sent = len(self.wire().sent)
        self.client.lose()
        for number in (2, 3):
            self.wire().answer({}, number=number)
        self.assertEqual((len(self.wire().sent), len(self.streams)), (sent, 0))

    def test_what_is_cancelled_is_left_out(self) -> None:
        """202 when nothing is left."""
        for cancelled, status in (([1], 200), ([1, "x"], 202)):
            self.setUp()
            self.begin()
            cancel = [notification("notifications/cancelled", {"requestId": id_}) for id_ in cancelled]
            self.assertEqual(self.post(batch(*cancel), self.headers, on=self.served.connect()).status, 202)
            if status == 200:
                self.wire().answer({}, number=3)
            reply = Reply(self.client.received())
            self.assertEqual(reply.status, status)
            self.assertEqual(b'"id":1' in reply.body, False)

    def test_a_slow_reader_slows_every_call_of_it_down(self) -> None:
        """Until it is gone."""
        self.begin()
        self.wire().say(notification("notifications/message", {}), 2)
        self.client.channel.pauseProducing()
        self.assertEqual(self.wire().paused, {2, 3})
        self.client.lose()
        self.assertEqual(self.wire().paused, set())

    def test_every_message_is_judged_as_if_it_had_come_alone(self) -> None:
        """A tool that the principal may not use is unknown; the same id twice is refused."""
        self.principal = Principal(name="p", allow=("a__t",))
        headers = self.initialize("2025-03-26")
        sent = len(self.wire().sent)
        self.post(batch(call(1), call(2, "secret"), call(1), request("tasks/list", 4)), headers)
        self.assertEqual(len(self.wire().sent), sent + 1)
        self.wire().answer({"ok": 1})
        answers = Reply(self.client.received()).json
        self.assertEqual(
            [(m["id"], m.get("error", {}).get("code")) for m in answers],
            [(2, -32602), (1, -32600), (4, -32601), (1, None)],
        )

    def test_each_request_has_a_record(self) -> None:
        """And the batch one of its own."""
        del self.served.records[:]
        self.begin(call(1), request("ping", 2), notification("notifications/x"))
        self.wire().answer({}, number=2)
        self.wire().answer(error={"code": -1, "message": "no"}, number=3)
        first, whole, second = self.served.records
        self.assertEqual((first.method, first.target, first.upstream, first.code), ("tools/call", "t", "a", None))
        self.assertEqual((second.method, second.code, second.status, second.era), ("ping", -1, 200, "legacy"))
        self.assertEqual((whole.method, whole.status, whole.era), (None, 200, "legacy"))

    def test_a_batch_is_refused_as_a_whole(self) -> None:
        """Before anything of it is served."""
        sent = len(self.wire().sent)
        for body, code in (
            (b"[]", -32600),
            (batch(call(1), b"{}"), -32600),
            (batch(call(1), request("initialize", 2)), -32600),
            (batch(*[request("ping", n) for n in range(101)]), -32600),
            (b"[" + call(1), -32700),
            (batch(call(1), request("ping", 2, {}, modern=True)), -32020),
        ):
            reply = self.post(body, self.headers)
            self.assertEqual((reply.status, reply.json["error"]["code"], reply.json["id"]), (400, code, None), body)
        self.assertEqual(len(self.wire().sent), sent)

    def test_other_revisions_have_none(self) -> None:
        """Whether the session or the header says so; nor is there one without a session, or in another's."""
        body = batch(request("ping"))
        self.begin(request("ping"))
        self.wire().answer({})
        self.client.received()
        cases: list[tuple[dict[str, str | None], int, int]] = [
            ({**self.headers, "MCP-Protocol-Version": "2025-06-18"}, 400, -32600),
            ({**self.headers, "MCP-Protocol-Version": "2026-07-28"}, 400, -32600),
            ({}, 400, -32600),
            ({"Mcp-Session-Id": "none"}, 404, -32001),
        ]
        for version in ("2025-06-18", "2025-11-25"):
            headers = self.initialize(version)
            cases += [(headers, 400, -32600), ({"Mcp-Session-Id": headers["Mcp-Session-Id"]}, 400, -32600)]
        for headers, status, code in cases:
            reply = self.post(body, headers)
            self.assertEqual((reply.status, reply.json["error"]["code"]), (status, code), headers)
