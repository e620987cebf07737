"""Tests for mcptunnel.web.mcp: Streamable HTTP on the real site, byte for byte where it matters."""

from __future__ import annotations

from typing import Any

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.routing import targets
from mcptunnel.test.web.calls import JSON, MODERN, Case, Reply, chunks, messages
from mcptunnel.testing import FakeWire, notification, request, response
from mcptunnel.web.replies import BEGIN_SECONDS


class RefusalTests(Case):
    """What is refused before anything is asked of anybody."""

    def refused(self, reply: Reply, status: int, code: int | None, id_: Any = None) -> None:
        self.assertEqual(reply.status, status, reply.body)
        if code is not None:
            self.assertEqual(reply.headers["content-type"], JSON)
            self.assertEqual((reply.json["error"]["code"], reply.json["id"]), (code, id_))
        self.assertEqual([wire.sent for upstream in self.upstreams.values() for wire in upstream.wires], [])

    def test_what_is_no_json_is_a_parse_error(self) -> None:
        """400, without an id."""
        for body in (b"", b"{", b'{"jsonrpc":"2.0","id":1,"method":"a"}x', b'{"jsonrpc":"2.0","id":1,"method":"\xff"}'):
            self.refused(self.post(body), 400, -32700)

    def test_json_that_is_no_message_is_an_invalid_request(self) -> None:
        """400; batches too."""
        for body in (
            b"[]",
            b"{}",
            b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
            b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"x"}',
        ):
            self.refused(self.post(body), 400, -32600)

    def test_the_body_must_be_json_and_say_so(self) -> None:
        """415; parameters and case do not matter."""
        body = request("ping")
        for kind in (None, "text/plain", "application/json-rpc", "application/jsonx", "text/event-stream"):
            self.refused(self.post(body, {"Content-Type": kind}), 415, -32600)
        for kind in ("application/json; charset=utf-8", "Application/JSON"):
            self.refused(self.post(body, {"Content-Type": kind}), 400, -32600, 1)

    def test_the_client_must_take_both_kinds_of_answer(self) -> None:
        """406, unless it takes anything."""
        body = request("ping")
        for accept in (
            JSON,
            "text/event-stream",
            "text/html",
            "",
            "application/json, text/event-stream;q=0",
            "application/json;q=0.0, text/event-stream",
            "text/event-stream, text/*",
            "application/json, */*;q=0",
        ):
            self.refused(self.post(body, {"Accept": accept}), 406, -32600)
        fine: tuple[str | None, ...] = (
            None,
            "*/*",
            "application/*, text/*",
            "text/event-stream;q=0.1,application/json;q=0.01",
            "*/*;q=0.5",
        )
        for admitted in fine:
            self.refused(self.post(body, {"Accept": admitted}), 400, -32600, 1)

    def test_without_a_session_there_is_only_initialize(self) -> None:
        """400 without an id of one, 404 with one that is not known: the client then begins anew."""
        for verb, body, id_ in (
            ("POST", request("tools/list", "x"), "x"),
            ("POST", notification("notifications/x"), None),
            ("POST", response(1), 1),
            ("GET", b"", None),
            ("DELETE", b"", None),
        ):
            self.refused(self.send(verb, body), 400, -32600, id_)
            self.refused(self.send(verb, body, {"Mcp-Session-Id": "none"}), 404, -32001, id_)

    def test_a_session_is_its_owners_at_its_own_address(self) -> None:
        """404 for everybody else."""
        headers = self.initialize()
        self.upstreams["a"].wires.clear()
        self.refused(self.post(request("tools/list"), headers, path="/servers/b/mcp"), 404, -32001, 1)
        self.refused(self.post(request("tools/list"), headers, path="/mcp"), 404, -32001, 1)
        self.principal = Principal(name="other")
        self.refused(self.post(request("tools/list"), headers), 404, -32001, 1)
        self.refused(self.send("DELETE", b"", headers), 404, -32001)

    def test_an_unknown_revision_is_refused(self) -> None:
        """Every other date is a modern one, and checked as such."""
        self.refused(
            self.post(request("tools/list"), {"MCP-Protocol-Version": "2025-06-19", "Mcp-Method": "tools/list"}),
            400,
            -32602,
            1,
        )

    def test_headers_that_decide_may_not_be_repeated(self) -> None:
        """400."""
        headers = self.initialize()
        session = headers["Mcp-Session-Id"]
        for name, value in (("Mcp-Session-Id", session), ("Content-Type", JSON), ("Mcp-Method", "x")):
            version = {"MCP-Protocol-Version": "2026-07-28"} if name == "Mcp-Method" else {}
            once = self.post(request("tools/list"), {**headers, **version, name: value})
            self.assertNotIn("occurs more than once", once.body.decode())
            self.client = self.served.connect()
            reply = self.post(
                request("tools/list"), {**headers, **version, name: f"{value}\r\n{name.lower()}: {value}"}
            )
            self.assertEqual(reply.status, 400)
            self.assertIn("occurs more than once", reply.body.decode())
            self.client = self.served.connect()

    def test_other_verbs_are_told_what_is_allowed(self) -> None:
        """405; in the modern era POST alone."""
        for verb in ("PUT", "PATCH", "OPTIONS", "HEAD"):
            data = self.client.send(f"{verb} /servers/a/mcp HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            self.assertTrue(data.startswith(b"HTTP/1.1 405 "), verb)
            self.assertIn(b"\r\nAllow: GET, POST, DELETE\r\n", data)
        for verb in ("GET", "DELETE"):
            reply = self.send(verb, b"", {**MODERN})
            self.assertEqual((reply.status, reply.headers["allow"]), (405, "POST"))

    def test_an_address_that_shows_nothing_to_the_principal_is_none(self) -> None:
        """404, whatever is asked."""
        self.principal = Principal(name="p", allow=("b__*",))
        for verb in ("POST", "GET", "DELETE", "PUT"):
            self.assertEqual(self.send(verb, request("initialize")).status, 404)
        self.assertEqual(self.post(request("ping"), path="/servers/b/mcp").status, 400)
        self.assertEqual(self.post(request("ping"), path="/mcp").status, 400)

    def test_modern_checks_have_their_codes_and_statuses(self) -> None:
        """Under the request's id."""
        good: dict[str, str | None] = {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "t"}
        call = request("tools/call", "x", {"name": "t"}, modern=True)
        for body, headers, status, code, id_ in (
            (call, {**good, "MCP-Protocol-Version": None}, 400, -32020, "x"),
            (call, {**good, "Mcp-Method": None}, 400, -32020, "x"),
            (call, {**good, "Mcp-Method": "tools/list"}, 400, -32020, "x"),
            (call, {**good, "Mcp-Name": "T"}, 400, -32020, "x"),
            (call, {**good, "MCP-Protocol-Version": "2099-01-01"}, 400, -32020, "x"),
            (
                call.replace(b"2026-07-28", b"2099-01-01"),
                {**good, "MCP-Protocol-Version": "2099-01-01"},
                400,
                -32022,
                "x",
            ),
            (request("tools/call", "x", {"name": "t"}), good, 400, -32602, "x"),
            (request("initialize", "x", {}, modern=True), {**good, "Mcp-Method": "initialize"}, 404, -32601, "x"),
            (response("x"), good, 400, -32600, "x"),
        ):
            self.refused(self.post(body, headers), status, code, id_)


class LegacyTests(Case):
    """Sessions."""

    def test_initialize_opens_a_session_whose_id_comes_with_the_answer(self) -> None:
        """As JSON, once the server has answered."""
        self.assertEqual(self.post(request("initialize", "i")).status, 0)
        self.wire().answer({"protocolVersion": "2025-06-18"})
        reply = Reply(self.client.received())
        self.assertEqual(
            (reply.status, reply.headers["mcp-session-id"], reply.headers["content-type"]), (200, "session-1", JSON)
        )
        self.assertEqual(reply.json, {"jsonrpc": "2.0", "id": "i", "result": {"protocolVersion": "2025-06-18"}})

    def test_an_initialize_that_fails_opens_none(self) -> None:
        """Refused by the server, or no server at all."""
        for fail in (lambda: self.wire().answer(error={"code": -32602, "message": "no"}), lambda: self.wire().lose()):
            self.post(request("initialize", 1))
            fail()
            reply = Reply(self.client.received())
            self.assertEqual(
                (reply.status, "mcp-session-id" in reply.headers, "error" in reply.json), (200, False, True)
            )
            self.assertEqual(self.relay.sessions, {})

    def test_there_are_only_so_many_sessions(self) -> None:
        """503 with the request's id, and when to come back."""
        for _ in range(3):
            self.initialize()
        reply = self.post(request("initialize", "i"))
        self.assertEqual((reply.status, reply.headers["retry-after"], reply.json["id"]), (503, "30", "i"))

    def test_notifications_and_responses_are_accepted(self) -> None:
        """202 without a body, and they arrive."""
        headers = self.initialize()
        for body in (notification("notifications/initialized"), response(99)):
            reply = self.post(body, headers)
            self.assertEqual((reply.status, reply.body, reply.headers["content-length"]), (202, b"", "0"))
            self.assertNotIn("content-type", reply.headers)
        self.assertEqual(self.wire().last.body["method"], "notifications/initialized")

    def test_a_notification_that_cannot_be_read_is_refused(self) -> None:
        """400, not 500."""
        headers = self.initialize()
        reply = self.post(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[]}', headers)
        self.assertEqual((reply.status, reply.json["id"]), (400, None))
        for wanted in ([1], {"a": 1}, True, None):
            self.assertEqual(
                self.post(notification("notifications/cancelled", {"requestId": wanted}), headers).status, 202
            )

    def test_an_answer_that_comes_first_is_json(self) -> None:
        """With the server's bytes; errors are 200 as well."""
        headers = self.initialize()
        self.post(b'{"jsonrpc":"2.0","id":"\\u0061","method":"tools/list"}', headers)
        self.wire().say(b'{"id":2, "jsonrpc":"2.0","result":{"tools":[],"n":1.0}}', 2)
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, JSON))
        self.assertEqual(reply.body, b'{"id":"\\u0061", "jsonrpc":"2.0","result":{"tools":[],"n":1.0}}')
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        self.wire().answer(error={"code": -32601, "message": "no"})
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.json["error"]["code"]), (200, -32601))

    def test_a_message_that_comes_first_begins_a_stream(self) -> None:
        """Which nobody on the way may hold back; it ends with the response."""
        headers = self.initialize()
        self.post(request("tools/call", 1, {"name": "t", "_meta": {"progressToken": "p"}}), headers)
        self.wire().say(notification("notifications/progress", {"progressToken": 2, "progress": 1}), 2)
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, "text/event-stream"))
        self.assertEqual(reply.headers["x-accel-buffering"], "no")
        self.assertEqual(reply.headers["cache-control"], "no-store, no-transform")
        self.assertEqual(reply.events[0]["params"]["progressToken"], "p")
        self.wire().answer({"ok": 1})
        tail = self.client.received()
        self.assertTrue(tail.endswith(b"0\r\n\r\n"))
        self.assertEqual([m["id"] for m in messages(b"".join(chunks(tail)))], [1])
        self.assertEqual(self.post(notification("notifications/x"), headers).status, 202, "the connection goes on")

    def streamed(self) -> Exchange:
        """The server answers the latest call with an event stream."""
        exchange = self.wire().last.exchange
        assert exchange is not None
        exchange.streamed = True
        return exchange

    def test_an_answer_on_a_stream_is_passed_on_as_one(self) -> None:
        """In one piece when it comes first; a failure of ours, and initialize, are JSON."""
        headers = self.initialize("2025-11-25")
        for error in (None, {"code": -32602, "message": "no"}):
            self.post(request("tools/call", 1, {"name": "t"}), headers)
            self.streamed()
            self.wire().answer({"ok": 1}, error=error)
            reply = Reply(self.client.received())
            self.assertEqual((reply.status, reply.headers["content-type"]), (200, "text/event-stream"))
            self.assertEqual(reply.headers["x-accel-buffering"], "no")
            self.assertIn("content-length", reply.headers)
            self.assertEqual([m["id"] for m in reply.events], [1])
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        self.streamed().fail(RpcError(-32000, "no", reason="x", status=503))
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.headers["content-type"]), (503, JSON))
        self.post(request("initialize"))
        self.streamed().begin_stream()
        self.wire().answer({"protocolVersion": "2025-11-25"})
        reply = Reply(self.client.received())
        self.assertEqual((reply.headers["content-type"], "mcp-session-id" in reply.headers), (JSON, True))

    def test_a_servers_stream_that_shows_life_begins_ours(self) -> None:
        """So that the client has the place to come back to, long before there is a message; soon, not at once."""
        for version, first in (("2025-06-18", b":\n\n"), ("2025-11-25", b"retry: 1000\n")):
            headers = self.initialize(version)
            self.post(request("tools/call", 1, {"name": "t"}), headers)
            exchange = self.streamed()
            for _ in range(2):
                exchange.begin_stream()
            self.assertEqual(self.client.received(), b"")
            self.clock.advance(BEGIN_SECONDS)
            reply = Reply(self.client.received())
            self.assertEqual((reply.headers["content-type"], len(reply.chunks)), ("text/event-stream", 1))
            self.assertTrue(reply.body.startswith(first))
            self.wire().answer({"ok": 1})
            self.assertEqual([m["id"] for m in self.rest()], [1])

    def test_a_servers_stream_begins_nothing_for_a_client_that_has_left(self) -> None:
        """Or after the end."""
        headers = self.initialize()
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        exchange = self.streamed()
        self.client.lose()
        exchange.begin_stream()
        self.wire().answer({})
        exchange.begin_stream()
        self.clock.advance(BEGIN_SECONDS)
        self.assertEqual((self.client.received(), len(self.streams)), (b"", 0))

    def test_a_call_to_a_pipe_begins_its_stream_soon(self) -> None:
        """At 2025-11-25, with the place; one that is answered before is one event, and older clients see no other."""
        send = FakeWire.send

        def piped(wire: FakeWire, raw: bytes, number: int | None, exchange: Any) -> None:
            if exchange is not None:
                exchange.streamed = True
            send(wire, raw, number, exchange)

        self.patch(FakeWire, "send", piped)
        for version, begins in (("2025-11-25", True), ("2025-06-18", False)):
            headers = self.initialize(version)
            self.post(request("tools/call", 1, {"name": "t"}), headers)
            self.clock.advance(BEGIN_SECONDS / 2)
            self.wire().answer({"quick": 1})
            reply = Reply(self.client.received())
            self.assertEqual((reply.headers["content-type"], len(reply.events)), ("text/event-stream", 1))
            self.assertIn("content-length", reply.headers)
            self.post(request("tools/call", 2, {"name": "t"}), headers)
            self.clock.advance(BEGIN_SECONDS)
            self.assertEqual(b"retry: 1000" in self.client.received(), begins)
            self.wire().answer({"slow": 1})
            self.client.received()

    def test_the_same_id_twice_at_once_is_refused(self) -> None:
        """The first is answered."""
        headers = self.initialize()
        other = self.served.connect()
        self.post(request("tools/list", 1), headers)
        reply = self.post(request("tools/list", 1), headers, on=other)
        self.assertEqual((reply.status, reply.json["error"]["code"]), (200, -32600))
        self.wire().answer({"tools": []})
        self.assertEqual(Reply(self.client.received()).json["result"], {"tools": []})

    def test_a_client_that_leaves_does_not_cancel(self) -> None:
        """What the server says then may still be read on the standing stream."""
        headers = self.initialize()
        self.post(request("tools/call", 1, {"name": "t", "_meta": {"progressToken": 1}}), headers)
        sent = len(self.wire().sent)
        self.client.lose()
        self.assertEqual(len(self.wire().sent), sent)
        self.client = self.served.connect()
        self.wire().say(notification("notifications/progress", {"progressToken": 2, "progress": 1}), 2)
        reply = self.send("GET", b"", headers)
        self.assertEqual([m["method"] for m in reply.events], ["notifications/progress"])
        self.wire().answer({}, number=2)
        self.assertEqual(self.rest(), [])
        self.assertEqual(self.relay.find("session-1", ANONYMOUS, targets(["a", "b"])["/servers/a"]).active, {})

    def test_a_client_that_leaves_while_it_initializes_leaves_no_session_behind(self) -> None:
        """It will never learn its id; the server behind it is let go."""
        self.post(request("initialize", 1))
        self.client.lose()
        self.assertEqual((self.relay.sessions, self.wire().closed, len(self.streams)), ({}, True, 0))

    def test_cancelling_ends_the_reply_without_a_response(self) -> None:
        """The connection is free again."""
        headers = self.initialize()
        other = self.served.connect()
        self.post(request("tools/call", 5, {"name": "t"}), headers)
        self.assertEqual(
            self.post(notification("notifications/cancelled", {"requestId": 5}), headers, on=other).status, 202
        )
        self.assertEqual(self.wire().last.body["params"], {"requestId": 2})
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.events, reply.ended), (200, [], True))
        self.assertEqual(self.post(notification("notifications/x"), headers).status, 202)

    def test_delete_ends_the_session(self) -> None:
        """200, then 404; calls in flight are answered and the server's side is closed."""
        headers = self.initialize()
        other = self.served.connect()
        self.post(request("tools/call", 5, {"name": "t"}), headers)
        self.assertEqual(self.send("DELETE", b"", headers, on=other).status, 200)
        self.assertIn("the session has ended", Reply(self.client.received()).json["error"]["message"])
        self.assertTrue(self.wire().closed)
        self.assertEqual(self.send("DELETE", b"", headers, on=other).status, 404)

    def test_the_record_says_what_was_asked(self) -> None:
        """Era, method, target, server, codes."""
        headers = self.initialize()
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        self.wire().answer(error={"code": -32000, "message": "no"})
        self.client.received()
        self.post(request("tools/call", 1, {}), headers)
        first, second, third = self.served.records
        self.assertEqual((first.era, first.method, first.upstream, first.code), ("legacy", "initialize", "a", None))
        self.assertEqual((second.target, second.code, second.error), ("t", -32000, None))
        self.assertEqual((third.code, third.error, third.status), (-32602, "invalid_params", 200))


class StandingTests(Case):
    """GET: messages that belong to no request."""

    def test_the_head_and_a_byte_come_at_once(self) -> None:
        """Proxies and clients hold a head back that has no body yet."""
        reply = self.send("GET", b"", self.initialize())
        self.assertEqual(
            (reply.status, reply.headers["content-type"], reply.chunks), (200, "text/event-stream", [b":\n\n"])
        )
        self.assertEqual(reply.headers["x-accel-buffering"], "no")

    def test_messages_of_servers_arrive_and_earlier_ones_first(self) -> None:
        """Each on this stream only."""
        headers = self.initialize()
        self.wire().say(notification("notifications/message", {"n": 1}))
        reply = self.send("GET", b"", headers)
        self.wire().say(request("roots/list", "q"))
        self.assertEqual(reply.events[0]["params"], {"n": 1})
        (asked,) = self.rest()
        other = self.served.connect()
        self.assertEqual(self.post(response(asked["id"], {"roots": []}), headers, on=other).status, 202)
        self.assertEqual(self.wire().last.body, {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})

    def test_a_session_has_one_such_stream(self) -> None:
        """409 for a second; after the first has gone another one may come."""
        headers = self.initialize()
        self.send("GET", b"", headers)
        other = self.served.connect()
        self.assertEqual(self.send("GET", b"", headers, on=other).status, 409)
        self.client.lose()
        self.assertEqual(self.send("GET", b"", headers, on=other).status, 200)

    def test_it_needs_a_client_that_takes_event_streams(self) -> None:
        """406."""
        headers = self.initialize()
        self.assertEqual(self.send("GET", b"", {**headers, "Accept": JSON}).status, 406)
        self.assertEqual(self.send("GET", b"", {**headers, "Accept": "text/event-stream"}).status, 200)

    def test_it_ends_with_the_session(self) -> None:
        """Properly, so that nobody waits."""
        headers = self.initialize()
        self.send("GET", b"", headers)
        self.send("DELETE", b"", headers, on=self.served.connect())
        self.assertTrue(self.client.received().endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.streams), 0)

    def test_a_client_that_reads_slowly_gets_the_latest_messages(self) -> None:
        """Bounded, in order."""
        self.send("GET", b"", self.initialize())
        self.client.channel.pauseProducing()
        for n in range(150):
            self.wire().say(notification("notifications/message", {"n": n}))
        self.assertEqual(self.client.received(), b"")
        self.client.channel.resumeProducing()
        self.assertEqual([m["params"]["n"] for m in self.rest()], list(range(50, 150)))


class ModernTests(Case):
    """2026-07-28."""

    def test_a_call_is_answered_without_a_session(self) -> None:
        """An id of one is neither read nor given."""
        self.modern("tools/call", {"name": "t"}, "x", **{"Mcp-Session-Id": "whatever"})
        self.wire().answer({"ok": 1})
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.json["id"], "mcp-session-id" in reply.headers), (200, "x", False))

    def test_an_error_that_comes_first_has_its_status(self) -> None:
        """Whether it is the server's or ours."""
        for code, status in (
            (-32601, 404),
            (-32602, 400),
            (-32600, 400),
            (-32020, 400),
            (-32021, 400),
            (-32022, 400),
            (-32603, 200),
            (-32000, 200),
            (7, 200),
        ):
            self.modern("tools/call", {"name": "t"})
            self.wire().answer(error={"code": code, "message": "m"})
            self.assertEqual(Reply(self.client.received()).status, status, code)
        self.modern("tools/call", {"name": "t"})
        self.wire().lose()
        reply = Reply(self.client.received())
        self.assertEqual((reply.status, reply.json["error"]["code"]), (200, -32010))
        self.principal = Principal(name="p", allow=("a__t",))
        self.assertEqual(self.modern("tools/call", {"name": "u"}).status, 400)
        self.assertEqual(self.modern("tasks/get").status, 404)

    def test_a_notification_is_accepted_and_goes_nowhere(self) -> None:
        """A bare id could name another client's work."""
        self.modern("tools/call", {"name": "t"}, 1)
        other = self.served.connect()
        reply = self.post(
            notification("notifications/cancelled", {"requestId": 1}),
            {**MODERN, "Mcp-Method": "notifications/cancelled"},
            on=other,
        )
        self.assertEqual((reply.status, reply.body), (202, b""))
        self.assertEqual((len(self.wire().sent), self.wire().dropped), (1, []))

    def test_a_client_that_leaves_cancels(self) -> None:
        """At once."""
        self.modern("tools/call", {"name": "t"})
        self.client.lose()
        self.assertEqual((self.wire().dropped, self.relay.in_flight, len(self.streams)), ([1], 0, 0))
        self.assertEqual(self.served.records[0].status, 0)

    def test_a_client_that_leaves_an_aggregate_cancels_every_part(self) -> None:
        """On every server."""
        self.post(request("tools/list", 1, {}, modern=True), {**MODERN, "Mcp-Method": "tools/list"}, path="/mcp")
        self.client.lose()
        self.assertEqual((self.wire("a").dropped, self.wire("b").dropped), ([1], [1]))

    def test_an_answer_that_comes_first_is_json_whatever_the_server_sent(self) -> None:
        """An error has its status in this era, which an event stream has not."""
        for answer in ({"ok": 1}, None):
            self.modern("tools/call", {"name": "t"})
            exchange = self.wire().last.exchange
            assert exchange is not None
            exchange.streamed = True
            exchange.begin_stream()
            self.wire().answer(answer, error=None if answer else {"code": -32601, "message": "no"})
            reply = Reply(self.client.received())
            self.assertEqual((reply.status, reply.headers["content-type"]), (200 if answer else 404, JSON))

    def test_param_headers_travel_and_no_others(self) -> None:
        """Nothing else of the client's head is of use to a server."""
        self.modern(
            "tools/call", {"name": "t"}, **{"Mcp-Param-Region": "eu", "Authorization": "Bearer x", "X-Other": "y"}
        )
        exchange = self.wire().last.exchange
        assert exchange is not None
        self.assertEqual(exchange.params_headers, ((b"mcp-param-region", b"eu"),))

    def test_two_clients_with_one_id_get_their_own_answers(self) -> None:
        """Over one link."""
        other = self.served.connect()
        self.modern("tools/call", {"name": "t"}, "same")
        self.post(
            request("tools/call", "same", {"name": "u"}, modern=True),
            {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "u"},
            on=other,
        )
        self.wire().answer({"n": 2}, number=2)
        self.wire().answer({"n": 1}, number=1)
        self.assertEqual(
            (Reply(self.client.received()).json["result"], Reply(other.received()).json["result"]), ({"n": 1}, {"n": 2})
        )


class EndTests(Case):
    """The daemon stops."""

    def test_every_reply_ends(self) -> None:
        """Calls with an error, streams properly."""
        headers = self.initialize()
        self.send("GET", b"", headers)
        call = self.served.connect()
        self.post(request("tools/call", 1, {"name": "t"}), headers, on=call)
        modern = self.served.connect()
        self.client, standing = modern, self.client
        self.modern("tools/call", {"name": "t"})
        self.relay.close()
        for connection in (call, modern):
            self.assertIn("the daemon is stopping", Reply(connection.received()).json["error"]["message"])
        self.assertTrue(standing.received().endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.streams), 0)
        self.client = self.served.connect()
        self.assertEqual(self.post(request("initialize")).status, 503)
        self.assertEqual(self.modern("tools/list").status, 503)
