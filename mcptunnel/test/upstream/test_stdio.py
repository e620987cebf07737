"""Tests for mcptunnel.upstream.stdio: lines both ways, bounds, and children that end too soon."""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.link import Link
from mcptunnel.test.upstream.contract import Collecting
from mcptunnel.test.upstream.processes import Process, Spawning
from mcptunnel.testing import RecordingSink, make_exchange, notification, request, response
from mcptunnel.upstream import warden
from mcptunnel.upstream.children import TOGETHER_SECONDS
from mcptunnel.upstream.stdio import BACKOFF, QUICK_SECONDS, StdioUpstream


class Case(SynchronousTestCase):
    """One server with a command."""

    argv: tuple[str, ...] = (sys.executable, "serve.py")
    cwd: str | None = None

    def setUp(self) -> None:
        self.spawning = Spawning()
        self.clock = self.spawning.clock
        self.clock.advance(1000.0)
        self.upstream = StdioUpstream(
            "srv", argv=self.argv, env={"SECRET": "s"}, cwd=self.cwd, children=self.spawning.children(), max_bytes=100
        )
        self.owner = Collecting()

    def open(self) -> Link:
        return Link.open(self.upstream, "legacy", self.owner, self.clock.seconds)

    @property
    def process(self) -> Process:
        return self.spawning.last

    def ask(self, link: Link, raw: bytes) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(raw)
        link.request(exchange)
        return exchange, sink


class LineTests(Case):
    """One message, one line."""

    def test_a_message_is_one_line(self) -> None:
        """Line breaks between tokens become spaces; escaped ones in strings stay."""
        link = self.open()
        self.ask(link, b'{\r\n "jsonrpc":"2.0",\n"id":7, "method":"a","params":{"t":"x\\ny"}}\n')
        self.assertEqual(self.process.take(), b'{   "jsonrpc":"2.0", "id":1, "method":"a","params":{"t":"x\\ny"}} \n')
        link.tell(b'{"jsonrpc":"2.0"\r,"method":"n"}')
        self.assertEqual(self.process.take(), b'{"jsonrpc":"2.0" ,"method":"n"}\n')

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(0, 300), max_size=10), st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"]))
    def test_lines_are_the_same_however_they_arrive(self, cuts: list[int], end: bytes) -> None:
        """Whole, in pieces, several at once; empty lines say nothing."""
        self.setUp()
        link = self.open()
        sinks = [self.ask(link, request("tools/call", n))[1] for n in range(3)]
        stream = b"".join(response(n, {"t": "é" * n}) + end for n in (2, 3, 1))
        places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for a, b in pairwise(places):
            self.process.say(stream[a:b])
        self.assertEqual([sink.answer["result"]["t"] for sink in sinks], ["é", "éé", "ééé"])

    def test_what_is_no_message_is_skipped(self) -> None:
        """Servers print things; the next line counts again."""
        link = self.open()
        _, sink = self.ask(link, request("tools/call", 1))
        self.process.say(b"Listening on stdin...\n\xff\xfe\n{\n[]\n" + response(1, {}) + b"\n")
        self.assertTrue(sink.answered)

    def test_a_line_that_is_too_long_ends_the_server(self) -> None:
        """Before it has filled our memory; nothing that follows is heard."""
        link = self.open()
        _, sink = self.ask(link, request("tools/call", 1))
        self.process.say(b"x" * 100)
        self.assertFalse(sink.answered)
        self.process.say(b"x")
        self.assertIn("server.limits.message_bytes", sink.answer["error"]["message"])
        self.assertTrue(self.process.input_closed)
        self.process.say(b"\n" + notification("notifications/x") + b"\n")
        self.assertEqual(self.owner.said, [])
        self.process.exit(0)
        self.assertEqual(self.owner.lost, [link])

    def test_long_lines_do_not_add_up(self) -> None:
        """The bound is on one line."""
        link = self.open()
        _, sink = self.ask(link, request("tools/call", 1))
        for _ in range(5):
            self.process.say(b"y" * 90)
            self.process.say(b"\n")
        self.process.say(response(1, {}) + b"\n")
        self.assertTrue(sink.answered)


class InputTests(Case):
    """A child that does not listen."""

    def test_a_call_is_not_piled_up_on_what_it_has_not_read(self) -> None:
        """It fails, naming the server; notifications still go, since nobody could be told."""
        link = self.open()
        _, first = self.ask(link, request("tools/call", 1))
        self.process.standard_input._tempDataLen = 101
        _, second = self.ask(link, request("tools/call", 2))
        self.assertFalse(first.answered)
        self.assertIn("srv is unavailable: it does not read its input", second.answer["error"]["message"])
        self.process.take()
        link.tell(notification("notifications/x"))
        self.assertIn(b"notifications/x", self.process.take())

    def test_a_call_to_a_child_that_has_closed_its_input_fails_at_once(self) -> None:
        """It would be answered by nothing but the timeout."""
        link = self.open()
        self.process.closeChildFD(0)
        _, sink = self.ask(link, request("tools/call", 1))
        self.assertIn("it has closed its input", sink.answer["error"]["message"])
        link.tell(notification("notifications/x"))

    def test_no_child_is_started_while_the_daemon_stops(self) -> None:
        """It would be nobody's."""
        children = self.spawning.children()
        Deferred.fromCoroutine(children.close())
        with self.assertRaisesRegex(OSError, "stopping"):
            children.spawn("srv", self.argv, env={}, cwd=None, on_output=print, on_exit=print)


class PauseTests(Case):
    """One pipe for all calls."""

    def test_the_pipe_is_read_again_when_the_last_slow_client_has_caught_up(self) -> None:
        """Counted by call."""
        link = self.open()
        one, _ = self.ask(link, request("tools/call", 1))
        two, _ = self.ask(link, request("tools/call", 2))
        pipe = self.process.pipes[1]
        one.pause()
        two.pause()
        one.resume()
        self.assertTrue(pipe.paused)
        two.resume()
        self.assertFalse(pipe.paused)
        one.pause()
        one.abandon()
        self.assertFalse(pipe.paused)
        link.wire.resume(99)
        self.assertFalse(pipe.paused)

    def test_a_child_that_is_gone_can_be_paused(self) -> None:
        """It makes no difference."""
        link = self.open()
        self.process.exit(0)
        link.wire.pause(1)
        link.wire.resume(1)
        link.wire.listen()
        link.wire.close()


class StartTests(Case):
    """Starting, and starting again."""

    def test_the_command_is_started_with_its_environment_and_no_shell(self) -> None:
        """As the leader of a session of its own."""
        self.open()
        argv = self.process.argv
        self.assertEqual(argv[-2:], [sys.executable, "serve.py"])
        self.assertTrue("setsid" in argv[0] or "setsid" in argv[4])
        self.assertEqual((self.process.env["SECRET"], self.process.cwd), ("s", None))

    def test_a_child_that_ends_by_itself_loses_the_link_with_its_reason(self) -> None:
        """In words."""
        for status, ended_by, words in (
            (0, None, "it exited"),
            (3, None, "status 3"),
            (None, 9, "SIGKILL"),
            (None, 11, "SIGSEGV"),
        ):
            self.setUp()
            _, sink = self.ask(self.open(), request("tools/call", 1))
            self.process.exit(status, ended_by)
            self.assertIn(words, sink.answer["error"]["message"])

    def test_a_child_that_ends_at_once_is_started_again_later_and_later(self) -> None:
        """The first time at once, and so again after it has run for a while."""
        self.open()
        self.process.exit(1)
        for wait in (*BACKOFF[1:], BACKOFF[-1]):
            self.open()
            before = len(self.spawning.servers)
            self.process.exit(1)
            _, sink = self.ask(self.open(), request("tools/call", 1))
            self.assertIn(
                f"(it exited with status 1); the next attempt is in {wait:.0f} s", sink.answer["error"]["message"]
            )
            self.assertEqual(len(self.spawning.servers), before)
            self.clock.advance(wait)
        self.open()
        self.clock.advance(QUICK_SECONDS)
        self.process.exit(1)
        _, sink = self.ask(self.open(), request("tools/call", 1))
        self.assertFalse(sink.answered)

    def test_children_that_we_end_are_no_failures(self) -> None:
        """However short their sessions were."""
        for _ in range(10):
            self.open().close()
            self.process.exit(0)
        self.open()
        self.process.exit(1)
        _, sink = self.ask(self.open(), request("tools/call", 1))
        self.assertFalse(sink.answered)

    def test_it_shows_no_secret(self) -> None:
        """Arguments and environment hold some."""
        self.assertEqual(repr(self.upstream), "<StdioUpstream srv>")


class NoCommandTests(Case):
    """What cannot be started."""

    argv = ("no-such-command-anywhere",)

    def test_a_command_that_does_not_exist_says_so(self) -> None:
        """In the answer to whoever wanted it; nothing has been started."""
        _, sink = self.ask(self.open(), request("tools/call", 1))
        self.assertIn("'no-such-command-anywhere' is not found", sink.answer["error"]["message"])
        self.assertEqual(self.spawning.started, [])


class NoDirectoryTests(Case):
    """Where it cannot be started."""

    cwd = "/no/such/directory"

    def test_a_directory_that_does_not_exist_says_so(self) -> None:
        """By its name."""
        _, sink = self.ask(self.open(), request("tools/call", 1))
        self.assertIn("/no/such/directory", sink.answer["error"]["message"])


class StopTests(Case):
    """Ending children."""

    def test_its_input_is_closed_first_and_signals_follow(self) -> None:
        """SIGKILL only if it has not gone by then."""
        self.open().close()
        self.assertTrue(self.process.input_closed)
        self.assertEqual(self.process.signals, [])
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.process.signals, [])
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.process.signals, ["KILL"])
        self.process.exit(None, 9)
        self.setUp()
        self.open().close()
        self.process.exit(0)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.process.signals, [])


class ChildrenTests(SynchronousTestCase):
    """Every child, and the warden."""

    def setUp(self) -> None:
        self.spawning = Spawning()
        self.children = self.spawning.children(limit=2)
        self.output: list[bytes] = []

    def spawn(self, env: Any = None) -> Any:
        return self.children.spawn(
            "srv", [sys.executable], env=env or {}, cwd=None, on_output=self.output.append, on_exit=lambda _: None
        )

    def test_the_warden_hears_of_every_birth_and_death(self) -> None:
        """It is started once, before the first child."""
        self.spawn()
        self.spawn()
        one, two = self.spawning.servers
        self.assertIs(self.spawning.started[0], self.spawning.warden)
        self.assertEqual(self.spawning.warden.take(), b"+%d\n+%d\n" % (one.pid, two.pid))
        one.exit(0)
        self.spawning.clock.advance(TOGETHER_SECONDS)
        self.spawning.clock.advance(2.0)
        self.assertEqual(self.spawning.warden.take(), b"-%d\n" % one.pid)

    def test_what_many_that_end_together_leave_behind_is_looked_for_once(self) -> None:
        """To end it, and once more to make sure: a look at all processes of a machine takes its time."""
        looks: list[tuple[set[str], int]] = []
        self.patch(warden, "end_marked", lambda dead, number: looks.append((set(dead.values()), number)))
        self.spawn()
        self.spawn()
        for server in self.spawning.servers:
            server.exit(0)
        self.spawning.clock.advance(TOGETHER_SECONDS)
        self.spawning.clock.advance(2.0)
        both = {"no-such-marker.1.", "no-such-marker.2."}
        self.assertEqual(looks, [(both, signal.SIGTERM), (both, signal.SIGKILL)])

    def test_each_child_carries_a_marker_of_its_own(self) -> None:
        """Its descendants inherit it; the warden knows what they all begin with."""
        self.spawn()
        self.spawn()
        markers = [p.env["MCPTUNNEL_CHILD_OF"] for p in self.spawning.servers]
        self.assertEqual(markers, ["no-such-marker.1.", "no-such-marker.2."])
        self.assertEqual(self.spawning.warden.argv[-1], "no-such-marker.")

    def test_a_child_inherits_little(self) -> None:
        """Not the daemon's secrets; what is configured comes on top."""
        self.patch(os, "environ", {"PATH": "/bin", "TOKEN": "t", "LANG": "C", "HOME": "/root"})
        self.spawn({"LANG": "de", "X": "y"})
        env = dict(self.spawning.last.env)
        del env["MCPTUNNEL_CHILD_OF"]
        self.assertEqual(env, {"PATH": "/bin", "HOME": "/root", "LANG": "de", "X": "y"})

    def test_there_are_only_so_many(self) -> None:
        """One that has gone makes room."""
        self.spawn()
        self.spawn()
        error = self.assertRaises(OSError, self.spawn)
        self.assertIn("server.limits.children", str(error))
        self.spawning.last.exit(0)
        self.spawn()

    def test_what_it_writes_to_its_standard_error_is_drained_and_cut(self) -> None:
        """Into the log, line by line; a line without end does not fill our memory."""
        child = self.spawn()
        child.errReceived(b"x" * 9000)
        child.errReceived(b"one\ntwo")
        self.assertEqual((len(child._stderr), self.output), (3, []))

    def test_closing_ends_all_children_then_the_warden(self) -> None:
        """And waits for them."""
        self.spawn()
        self.spawn()
        closed = Deferred.fromCoroutine(self.children.close())
        self.assertTrue(all(p.input_closed for p in self.spawning.servers))
        self.assertFalse(self.spawning.warden.input_closed)
        for process in self.spawning.servers:
            self.assertNoResult(closed)
            process.exit(0)
        self.assertTrue(self.spawning.warden.input_closed)
        self.assertNoResult(closed)
        self.spawning.warden.exit(0)
        self.successResultOf(closed)
