"""Tests for mcptunnel.web.replies: replay after a broken connection, keeping alive, and clients that do not read."""

from __future__ import annotations

from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.test.web.calls import MODERN, Case, Reply, chunks, ids, messages
from mcptunnel.testing import notification, request
from mcptunnel.web.replies import KEEPALIVE_SECONDS


class ReplayTests(Case):
    """A connection breaks, and the client comes back with the id of the last event it has read."""

    def call(self, headers: dict[str, str | None], said: int = 1) -> list[bytes]:
        """A call whose stream has begun; returns the ids of its events."""
        self.post(request("tools/call", 1, {"name": "t", "_meta": {"progressToken": "p"}}), headers)
        for n in range(said):
            self.progress(n)
        return ids(self.client.received())

    def progress(self, n: int) -> None:
        self.wire().say(notification("notifications/progress", {"progressToken": 2, "progress": n}), 2)

    def resume(self, headers: dict[str, str | None], last: bytes) -> Reply:
        """A GET on a new connection, which is the client's from now on."""
        self.client = self.served.connect()
        return self.send("GET", b"", {**headers, "Last-Event-ID": last.decode()})

    def test_the_response_that_a_client_has_lost_is_not_lost(self) -> None:
        """It gets the later messages and the response, and the stream is over."""
        headers = self.initialize()
        (last,) = self.call(headers)
        self.client.lose()
        self.progress(1)
        self.wire().answer({"ok": 1}, number=2)
        for _ in range(2):
            reply = self.resume(headers, last)
            self.assertEqual((reply.status, reply.headers["content-type"]), (200, "text/event-stream"))
            self.assertEqual(reply.events[0]["params"], {"progressToken": "p", "progress": 1})
            self.assertEqual((reply.events[1]["id"], reply.events[1]["result"]), (1, {"ok": 1}))
        self.assertEqual(self.resume(headers, ids(reply.body)[0]).events, reply.events[1:])
        self.assertEqual(len(self.streams), 0)

    def test_a_stream_whose_response_is_still_to_come_goes_on(self) -> None:
        """And is alive, slow when its client is, and may break again."""
        headers = self.initialize()
        (last,) = self.call(headers)
        self.client.lose()
        self.progress(1)
        reply = self.resume(headers, last)
        self.assertEqual([m["params"]["progress"] for m in reply.events], [1])
        self.assertEqual(len(self.streams), 1)
        self.client.channel.pauseProducing()
        self.assertEqual(self.wire().paused, {2})
        self.client.lose()
        self.assertEqual(self.wire().paused, set())
        self.progress(2)
        reply = self.resume(headers, ids(reply.body)[0])
        self.assertEqual([m["params"]["progress"] for m in reply.events], [2])
        self.wire().answer({"ok": 1}, number=2)
        tail = self.client.received()
        self.assertTrue(tail.endswith(b"0\r\n\r\n"))
        self.assertEqual(messages(b"".join(chunks(tail)))[0]["result"], {"ok": 1})
        self.assertEqual(self.post(notification("notifications/x"), headers).status, 202)

    def test_nothing_to_replay_still_sends_a_first_byte(self) -> None:
        """Clients wait for a head."""
        headers = self.initialize()
        (last,) = self.call(headers)
        self.client.lose()
        self.assertEqual(self.resume(headers, last).chunks, [b":\n\n"])

    def test_a_connection_that_broke_unnoticed_is_given_up_for_the_new_one(self) -> None:
        """Calls and the standing stream alike: each message on one connection only."""
        headers = self.initialize()
        (last,) = self.call(headers)
        earlier = self.client
        self.resume(headers, last)
        self.assertTrue(earlier.received().endswith(b"0\r\n\r\n"))
        self.wire().answer({"ok": 1}, number=2)
        self.assertEqual((len(self.rest()), earlier.received()), (1, b""))
        self.send("GET", b"", headers)
        self.wire().say(notification("notifications/message", {"n": 1}))
        (last,) = ids(self.client.received())
        earlier = self.client
        earlier.channel.pauseProducing()
        self.wire().say(notification("notifications/message", {"n": 2}))
        reply = self.resume(headers, last)
        self.assertEqual([m["params"]["n"] for m in reply.events], [2])
        self.assertEqual(len(self.streams), 1)
        earlier.lose()
        self.wire().say(notification("notifications/message", {"n": 3}))
        self.assertEqual([m["params"]["n"] for m in self.rest()], [3])

    def test_the_standing_stream_goes_on_where_it_broke(self) -> None:
        """What was written and not read, then what has waited, each once; nothing of a call."""
        headers = self.initialize()
        self.send("GET", b"", headers)
        for n in range(3):
            self.wire().say(notification("notifications/message", {"n": n}))
        first = ids(self.client.received())[0]
        self.client.lose()
        self.wire().say(notification("notifications/message", {"n": 3}))
        self.client = self.served.connect()
        self.call(headers)
        reply = self.resume(headers, first)
        self.assertEqual([m["params"]["n"] for m in reply.events], [1, 2, 3])
        self.assertEqual(len(set(ids(reply.body))), 3)
        self.assertEqual(self.send("GET", b"", headers, on=self.served.connect()).status, 409)

    def test_ids_of_others_and_ids_that_never_were_read_the_same(self) -> None:
        """400, and the session goes on: 404 would end it for the client."""
        headers = self.initialize()
        (last,) = self.call(headers)
        self.client.lose()
        self.client = self.served.connect()
        other = self.initialize()
        replies = [self.resume(other, id_) for id_ in (last, b"x", last[:-1] + b"9", b"0" * 12 + b"-0-0")]
        self.assertEqual({reply.status for reply in replies}, {400})
        self.assertEqual(len({reply.body for reply in replies}), 1)
        self.principal = Principal(name="other")
        self.assertEqual(self.resume(headers, last).status, 404)
        self.principal = ANONYMOUS
        self.assertEqual(self.resume(headers, last).status, 200)

    def test_a_call_that_was_cancelled_cannot_be_asked_for(self) -> None:
        """A client that waited for the response would come back for ever."""
        headers = self.initialize()
        (last,) = self.call(headers)
        self.post(notification("notifications/cancelled", {"requestId": 1}), headers, on=self.served.connect())
        self.assertEqual(self.resume(headers, last).status, 400)

    def test_streams_begin_with_their_place_for_clients_that_understand_it(self) -> None:
        """From 2025-11-25: an id, empty data and a time to wait, from which everything can be replayed."""
        for version, primed in (("2025-03-26", False), ("2025-06-18", False), ("2025-11-25", True)):
            self.setUp()
            headers = self.initialize(version)
            self.post(request("tools/call", 1, {"name": "t", "_meta": {"progressToken": "p"}}), headers)
            self.progress(0)
            reply = Reply(self.client.received())
            self.assertEqual(reply.body.startswith(b"retry: 1000\nid: "), primed, version)
            self.assertEqual(reply.body.count(b"data: \n"), primed)
            standing = self.served.connect()
            self.assertEqual(self.send("GET", b"", headers, on=standing).body.count(b"data: \n"), primed)
            if primed:
                self.client.lose()
                again = self.resume(headers, ids(reply.body)[0]).body
                self.assertEqual(ids(again), [ids(reply.body)[1]] * 2)
                self.assertTrue(again.endswith(b"\ndata: \n\n"))

    def test_a_reply_that_takes_long_begins_with_its_place(self) -> None:
        """Instead of a comment; the comments come later."""
        headers = self.initialize("2025-11-25")
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        for expected in (b"\ndata: \n\n", b":\n\n"):
            self.clock.advance(KEEPALIVE_SECONDS)
            self.streams.sweep()
            self.assertTrue(self.client.received().endswith(expected + b"\r\n"))

    def test_a_server_that_sends_its_client_away_sends_ours_away_too(self) -> None:
        """It comes back for the rest, whether that is there already or not; older clients stay."""
        for version, answered in (("2025-11-25", False), ("2025-11-25", True), ("2025-06-18", False)):
            headers = self.initialize(version)
            self.call(headers)
            self.wire().say(notification("notifications/message", {}), 2)
            last = ids(self.client.received())[-1]
            exchange = self.wire().last.exchange
            assert exchange is not None
            exchange.break_stream()
            ended = self.client.received()
            self.assertEqual(ended, b"" if version == "2025-06-18" else b"0\r\n\r\n")
            if not ended:
                continue
            self.assertEqual(len(self.streams), 0)
            if answered:
                self.wire().answer({"ok": 1}, number=2)
            got = self.resume(headers, last).events
            if not answered:
                self.wire().answer({"ok": 1}, number=2)
                got = self.rest()
            self.assertEqual([m["result"] for m in got], [{"ok": 1}])

    def test_modern_streams_have_no_ids(self) -> None:
        """They cannot be resumed: GET is refused."""
        self.modern("tools/call", {"name": "t", "_meta": {"progressToken": 1}})
        self.wire().say(notification("notifications/progress", {"progressToken": 1}), 1)
        self.wire().answer({})
        self.assertEqual(ids(self.client.received()), [])

    def test_a_reply_that_is_one_body_keeps_nothing(self) -> None:
        """Most are, and pay for nothing."""
        headers = self.initialize()
        self.post(request("tools/list"), headers)
        self.wire().answer({"tools": []})
        (session,) = self.relay.sessions.values()
        self.assertNotIn("replay", vars(session))


class KeepaliveTests(Case):
    """Silence on the wire."""

    def sweep(self, seconds: float) -> bytes:
        self.clock.advance(seconds)
        self.streams.sweep()
        return self.client.received()

    def test_a_reply_that_takes_long_becomes_a_stream_after_fifteen_seconds(self) -> None:
        """And says something every fifteen after that; a comment is no message."""
        for modern in (True, False):
            self.setUp()
            headers: dict[str, str | None] = {**MODERN, "Mcp-Method": "tools/list"} if modern else self.initialize()
            self.post(request("tools/list", 1, {}, modern=modern), headers)
            self.assertEqual(self.sweep(KEEPALIVE_SECONDS - 0.1), b"")
            reply = Reply(self.sweep(0.1))
            self.assertEqual(
                (reply.status, reply.headers["content-type"], reply.chunks), (200, "text/event-stream", [b":\n\n"])
            )
            self.assertEqual(self.sweep(14.9), b"")
            self.assertEqual(chunks(self.sweep(0.1)), [b":\n\n"])
            self.wire().answer(error={"code": -32601, "message": "late"})
            self.assertEqual([m["error"]["code"] for m in self.rest()], [-32601])
            self.assertEqual((self.sweep(20.0), len(self.streams)), (b"", 0))

    def test_messages_count_as_life(self) -> None:
        """Nothing is said for the sake of it."""
        headers = self.initialize()
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        for _ in range(3):
            self.assertEqual(self.sweep(10.0), b"")
            self.wire().say(notification("notifications/message", {}), 2)
            self.assertNotEqual(self.client.received(), b"")

    def test_initialize_stays_json_however_long_it_takes(self) -> None:
        """The session's id travels in its head."""
        self.post(request("initialize", 1))
        for _ in range(5):
            self.assertEqual(self.sweep(20.0), b"")
        self.wire().answer({"protocolVersion": "2025-06-18"})
        self.assertEqual(Reply(self.client.received()).headers["mcp-session-id"], "session-1")

    def test_the_standing_stream_is_kept_alive_unless_nobody_reads_it(self) -> None:
        """A comment each fifteen seconds."""
        self.send("GET", b"", self.initialize())
        self.assertEqual(chunks(self.sweep(15.0)), [b":\n\n"])
        self.client.channel.pauseProducing()
        self.assertEqual(self.sweep(15.0), b"")
        self.client.channel.resumeProducing()
        self.assertEqual(chunks(self.sweep(15.0)), [b":\n\n"])


class PressureTests(Case):
    """A client that reads slowly slows its own call down."""

    def test_a_slow_reader_pauses_its_call_and_its_end_resumes_it(self) -> None:
        """In both eras."""
        self.modern("tools/call", {"name": "t", "_meta": {"progressToken": 1}})
        progress = notification("notifications/progress", {"progressToken": 1})
        self.wire().say(progress, 1)
        self.client.received()
        self.client.channel.pauseProducing()
        self.assertEqual(self.wire().paused, {1})
        self.wire().say(progress, 1)
        self.assertEqual(self.client.received(), b"")
        self.client.channel.resumeProducing()
        self.assertEqual((self.wire().paused, len(self.rest())), (set(), 1))
        self.client.channel.pauseProducing()
        self.client.lose()
        self.assertEqual(self.wire().paused, set())

    def test_a_legacy_client_that_leaves_while_it_is_slow_holds_nothing_up(self) -> None:
        """Others share the server's pipe."""
        headers = self.initialize()
        self.post(request("tools/call", 1, {"name": "t"}), headers)
        self.wire().say(notification("notifications/message", {}), 2)
        self.client.channel.pauseProducing()
        self.assertEqual(self.wire().paused, {2})
        self.client.lose()
        self.assertEqual(self.wire().paused, set())

    def test_a_client_that_is_slow_from_the_start_is_never_written_to_without_bound(self) -> None:
        """The stream begins paused where the connection is full already."""
        self.modern("tools/call", {"name": "t"})
        self.client.channel.pauseProducing()
        self.wire().say(notification("notifications/message", {}), 1)
        self.assertEqual(self.wire().paused, {1})
