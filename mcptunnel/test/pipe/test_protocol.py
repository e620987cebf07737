"""Tests for mcptunnel.pipe.protocol: MCP on two pipes, the brake, and how it ends."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.conversation import Conversation
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target
from mcptunnel.pipe.protocol import OPERATOR, McpPipe, writer_gone
from mcptunnel.testing import FakeSeal, FakeUpstream, FakeWire, know_both_eras, notification, request, response

LIMIT = 1000


class Pipes(StringTransport):
    """StandardIO: what its methods do to reading and writing."""

    reading = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True


class Case(SynchronousTestCase):
    """One server, ``a``, under its own names."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.upstream = FakeUpstream("a", streams=False)
        self.relay = Relay({"a": self.upstream}, Bounds(), lambda: 5.0, FakeSeal(), {"name": "us", "version": "0"})
        know_both_eras(self.relay.eras, "a")
        self.records: list[Record] = []
        self.ends: list[tuple[str, bool]] = []
        self.pipe: Any = McpPipe(
            self.relay,
            Target(("a",), merged=False),
            LIMIT,
            "/servers/a",
            self.records.append,
            self.clock,
            lambda why, failed: self.ends.append((why, failed)),
        )
        self.transport = Pipes()
        self.pipe.makeConnection(self.transport)

    def wire(self) -> FakeWire:
        return self.upstream.wire

    def say(self, *lines: bytes) -> list[Any]:
        self.pipe.dataReceived(b"".join(line + b"\n" for line in lines))
        return self.heard()

    def heard(self) -> list[Any]:
        """What was written since the last look; each on a line of its own."""
        data = self.transport.value()
        self.transport.clear()
        self.assertTrue(data == b"" or data.endswith(b"\n"), data)
        return [json.loads(line) for line in data.splitlines()]

    def initialize(self) -> None:
        self.assertEqual(self.say(request("initialize", 0, {"protocolVersion": "2025-11-25"})), [])
        self.wire().answer({"protocolVersion": "2025-11-25"})
        self.clock.advance(0)
        self.assertEqual([m["id"] for m in self.heard()], [0])
        self.say(notification("notifications/initialized"))


class MessageTests(Case):
    """What is said."""

    def test_both_eras(self) -> None:
        """A session, and requests without one, on the same pipes; with records."""
        self.initialize()
        self.say(request("tools/list", 1))
        self.wire().answer({"tools": []})
        self.assertEqual(self.heard(), [{"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}])
        self.say(request("tools/list", 1, modern=True))
        self.wire().answer({"tools": []})
        self.assertEqual(self.heard()[0]["id"], 1)
        self.assertEqual([record.era for record in self.records], ["legacy", "legacy", "modern"])
        for record in self.records:
            self.assertEqual((record.protocol, record.principal, record.path), ("stdio", OPERATOR.name, "/servers/a"))

    def test_what_cannot_be_read_is_answered(self) -> None:
        """With id null; the next message is served. No answer has a line break in it."""
        for line, code in (
            (b"rubbish", -32700),
            (b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}', -32600),
            (b'{"jsonrpc":"2.0","id":"\xff","method":"a"}', -32700),
            (b"[]", -32600),
            (b"x" * (LIMIT + 1), -32600),
        ):
            (answer,) = self.say(line)
            self.assertEqual((answer["id"], answer["error"]["code"]), (None, code))
        self.initialize()

    def test_answers_are_one_line_each(self) -> None:
        """Whatever white space a server puts between its tokens."""
        self.initialize()
        self.say(request("tools/list", 1))
        sent = self.wire().sent[-1]
        self.wire().say(b'{"jsonrpc":"2.0",\r\n"id":%d,\n"result":{}}' % (sent.number or 0))
        self.assertEqual(self.transport.value().count(b"\n"), 1)
        self.assertEqual(self.heard()[0]["id"], 1)

    def test_a_last_message_without_a_line_end_counts(self) -> None:
        """As printf sends it."""
        self.initialize()
        self.pipe.dataReceived(request("tools/list", 1))
        self.assertEqual(len(self.wire().sent), 2)
        self.pipe.readConnectionLost()
        self.assertEqual(len(self.wire().sent), 3)

    def test_what_is_sent_ahead_of_the_answer_to_initialize_waits(self) -> None:
        """Then it goes on in order, to the end of the input; a refused initialize lets go, too."""
        hello = request("initialize", 0, {"protocolVersion": "2025-11-25"})
        self.assertEqual(self.say(hello, hello, request("tools/list", 1), b"rubbish"), [])
        self.assertEqual(len(self.wire().sent), 1)
        self.pipe.readConnectionLost()
        self.assertEqual(self.ends, [])
        self.wire().answer({"protocolVersion": "2025-11-25"})
        self.clock.advance(0)
        self.assertEqual([m["id"] for m in self.heard()], [0, 0, None])
        self.assertEqual(len(self.wire().sent), 2)
        self.assertEqual(self.ends, [("the client has closed our standard input", False)])

    def test_what_is_sent_ahead_is_bounded(self) -> None:
        """By the size of one message; all of it is served."""
        self.say(request("initialize", 0, {"protocolVersion": "2025-11-25"}))
        many = [request("tools/list", number) for number in range(1, 30)]
        self.say(*many[:5])
        self.assertTrue(self.transport.reading)
        self.say(*many[5:])
        self.assertFalse(self.transport.reading)
        self.wire().answer({"protocolVersion": "2025-11-25"})
        self.clock.advance(0)
        self.assertTrue(self.transport.reading)
        self.assertEqual(len(self.wire().sent), 30)

    def test_a_client_that_leaves_before_it_is_welcome(self) -> None:
        """Its answer is not waited for longer than any other."""
        self.say(request("initialize", 0, {"protocolVersion": "2025-11-25"}))
        self.pipe.readConnectionLost()
        self.assertEqual(self.ends, [("the client has closed our standard input", False)])

    def test_an_initialize_that_fails_holds_nothing_up(self) -> None:
        """At once, and later."""
        hello = request("initialize", 0, {"protocolVersion": "2025-11-25"})
        self.upstream.refuses = "it is not there"
        self.assertEqual([m["id"] for m in self.say(hello, hello)], [0, 0])
        self.upstream.refuses = None
        self.assertEqual(self.say(hello, b"rubbish"), [])
        self.wire().answer(error={"code": -32602, "message": "no"})
        self.clock.advance(0)
        self.assertEqual([m["id"] for m in self.heard()], [0, None])

    def test_a_mistake_of_ours_ends_the_process(self) -> None:
        """And is logged: the client would wait for an answer for ever."""

        def fail(*_: Any) -> None:
            raise RuntimeError("a bug")

        self.patch(Conversation, "take", fail)
        with capturedLogs():
            self.say(request("ping", 1), request("ping", 2))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.ends, [("a message could not be handled", True)])


class BrakeTests(Case):
    """A client that does not read."""

    def test_nothing_is_read_from_it_until_it_reads(self) -> None:
        """Calls are paused, and lines that have come already wait; then all goes on in its order."""
        self.initialize()
        self.say(request("tools/call", 1, {"name": "x"}))
        self.pipe.pauseProducing()
        self.assertFalse(self.transport.reading)
        self.assertEqual(len(self.wire().paused), 1)
        before = len(self.wire().sent)
        self.pipe.dataReceived(request("tools/call", 2, {"name": "y"}) + b"\nrubbish\n")
        self.assertEqual(len(self.wire().sent), before)
        self.assertEqual(self.heard(), [])
        self.pipe.resumeProducing()
        self.assertTrue(self.transport.reading)
        self.assertEqual(self.wire().paused, set())
        self.assertEqual(len(self.wire().sent), before + 1)
        self.assertEqual([m["id"] for m in self.heard()], [None])

    def test_what_makes_it_stop_again_is_not_overrun(self) -> None:
        """The first answer after the pause fills the pipe: the second line waits."""
        self.pipe.pauseProducing()
        self.pipe.dataReceived(b"one\ntwo\n")
        write = self.transport.write

        def full(data: bytes) -> None:
            write(data)
            self.pipe.pauseProducing()

        self.patch(self.transport, "write", full)
        self.pipe.resumeProducing()
        self.assertEqual(len(self.heard()), 1)
        self.assertFalse(self.transport.reading)
        self.pipe.resumeProducing()
        self.assertEqual(len(self.heard()), 1)


class EndTests(Case):
    """Who ends it, and what becomes of calls."""

    def test_it_is_told_of_halves(self) -> None:
        """StandardIO asks for this interface."""
        self.assertTrue(IHalfCloseableProtocol.providedBy(self.pipe))

    def test_the_client_has_said_all(self) -> None:
        """Calls in flight are still answered."""
        self.initialize()
        self.say(request("tools/call", 1, {"name": "x"}))
        self.pipe.readConnectionLost()
        self.assertEqual(self.ends, [("the client has closed our standard input", False)])
        self.assertFalse(self.pipe.gone)
        self.wire().answer({})
        self.assertEqual([m["id"] for m in self.heard()], [1])

    def test_the_client_does_not_listen_any_more(self) -> None:
        """Calls in flight are cancelled at once, and once is enough."""
        self.initialize()
        self.say(request("tools/call", 1, {"name": "x"}))
        self.pipe.writeConnectionLost()
        self.pipe.readConnectionLost()
        self.pipe.connectionLost()
        self.assertEqual(self.ends, [("the client has closed our standard output", False)])
        self.assertTrue(self.pipe.gone)
        self.assertTrue(self.wire().closed)
        self.assertEqual(self.relay.sessions, {})
        self.assertEqual(self.relay.in_flight, 0)

    def test_the_session_ends(self) -> None:
        """That is a failure; the call in flight is answered before."""
        self.initialize()
        self.say(request("tools/call", 1, {"name": "x"}))
        (session,) = self.relay.sessions.values()
        session.close()
        self.assertEqual(len(self.ends), 1)
        self.assertTrue(self.ends[0][1])
        self.assertIn("error", self.heard()[0])

    def test_when_we_stop(self) -> None:
        """Nothing new is taken; what is in flight gets its error, then the pipes are closed; later words are lost."""
        self.initialize()
        self.say(request("tools/call", 1, {"name": "x"}))
        self.pipe.deafen()
        self.assertFalse(self.transport.reading)
        self.assertEqual(self.say(b"rubbish"), [])
        self.relay.close()
        self.assertIn("stopping", self.heard()[0]["error"]["message"])
        self.assertEqual(self.ends, [])
        self.pipe.leave()
        self.pipe.leave()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.pipe.send(response(1))
        self.assertEqual(self.heard(), [])
        self.pipe.connectionLost()
        self.assertTrue(self.pipe.gone)


class WriterGoneTests(SynchronousTestCase):
    """Whether the other end is closed, without reading."""

    def check(self, ours: int, close: Any) -> None:
        self.assertFalse(writer_gone(ours))
        close()
        self.assertTrue(writer_gone(ours))

    def test_pipe(self) -> None:
        """Also when there is still something in it."""
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        os.write(theirs, b"unread")
        self.check(ours, lambda: os.close(theirs))

    def test_socket(self) -> None:
        """Of which one direction is closed, as Node.js does."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        theirs.sendall(b"unread")
        self.check(ours.fileno(), lambda: theirs.shutdown(socket.SHUT_WR))

    def test_files_have_no_other_end(self) -> None:
        """Input from a file, or from the null device."""
        for path in (__file__, os.devnull):
            with open(path, "rb") as file:
                self.assertFalse(writer_gone(file.fileno()))
