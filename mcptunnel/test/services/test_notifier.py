"""Tests for mcptunnel.services.notifier, without processes: tests/test_monitoring.py has them."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import DeliveryError
from mcptunnel.services import notifier
from mcptunnel.services.notifier import SECONDS, Notifier


class Process:
    """What Twisted would give a protocol."""

    def __init__(self) -> None:
        self.pid = 4711
        self.input = b""
        self.closed: list[Any] = []
        self.signals: list[str] = []

    def writeToChild(self, fd: int, data: bytes) -> None:
        self.input += data

    def closeChildFD(self, fd: int) -> None:
        self.closed.append(fd)

    def loseConnection(self) -> None:
        self.closed.append("all")

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


class Reactor(MemoryReactorClock):
    """Spawns nothing."""

    refuse: OSError | None = None
    spawned: Any = None

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.spawned = (protocol, executable, args, env)
        protocol.makeConnection(Process())


class NotifierTests(SynchronousTestCase):
    """One run of a program."""

    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.killed: list[tuple[int, int]] = []
        self.patch(notifier, "signal_group", lambda pid, number: self.killed.append((pid, number)))

    def run_it(self, *argv: str) -> Deferred[None]:
        sending = Notifier(argv or ("cat", "-u"), self.reactor).send(b'{"a": 1}')
        self.protocol: Any = self.reactor.spawned and self.reactor.spawned[0]
        return sending

    def end(self, status: int = 0, number: int | None = None) -> None:
        reason = Failure(ProcessTerminated(status, number) if status or number else ProcessDone(0))
        self.protocol.processExited(reason)
        self.protocol.processEnded(reason)

    def reason(self, sending: Deferred[None]) -> str:
        return str(self.failureResultOf(sending, DeliveryError).value)

    def test_it_gets_the_document_and_little_of_our_environment(self) -> None:
        """As arguments stand in the configuration, at the head of a group of its own; then its input ends."""
        self.patch(os, "environ", {"PATH": os.environ["PATH"], "TOKEN": "secret"})
        sending = self.run_it()
        _, _, argv, env = self.reactor.spawned
        self.assertEqual((argv[-1], os.path.basename(argv[-2]), env), ("-u", "cat", {"PATH": os.environ["PATH"]}))
        self.assertGreater(len(argv), 2)
        process = self.protocol.transport
        self.assertEqual((process.input, process.closed), (b'{"a": 1}', [0]))
        self.assertNoResult(sending)
        self.end()
        self.assertIsNone(self.successResultOf(sending))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_what_it_leaves_behind_in_its_group_ends_with_it(self) -> None:
        """And cannot keep us waiting by holding its output open."""
        sending = self.run_it()
        self.protocol.processExited(Failure(ProcessDone(0)))
        self.assertIsNone(self.successResultOf(sending))
        self.assertEqual(self.killed, [(4711, signal.SIGKILL)])
        self.assertEqual(self.protocol.transport.closed, [0, "all"])
        self.protocol.processEnded(Failure(ProcessDone(0)))

    def test_how_it_failed_and_what_it_said_last(self) -> None:
        """One line, without control characters, and not too long of it."""
        for said, status, number, reason in (
            (b"", 3, None, "it exited with status 3"),
            (b"one\n\x1b[31mtwo\x07\n\n", 1, None, "it exited with status 1: [31mtwo"),
            (b"x" * 9000, 1, None, f"it exited with status 1: {'x' * 300}"),
            (b"\xff", None, 15, "it was ended by SIGTERM: \ufffd"),
        ):
            sending = self.run_it()
            for at in range(0, len(said), 1000):
                self.protocol.errReceived(said[at : at + 1000])
            self.protocol.outReceived(b"not looked at")
            self.end(status or 0, number)
            self.assertEqual(self.reason(sending), reason)

    def test_one_that_does_not_end_is_killed(self) -> None:
        """With its group; what it says afterwards does not matter."""
        sending = self.run_it()
        self.reactor.advance(SECONDS - 1)
        self.assertEqual(self.killed, [])
        self.reactor.advance(1)
        self.assertEqual(self.killed, [(4711, signal.SIGKILL)])
        self.assertEqual(self.reason(sending), "it did not end within 30 s and was killed")
        self.end(0, 9)

    def test_it_can_be_broken_off(self) -> None:
        """As at the end of the daemon; even before it leads a group."""
        sending = self.run_it()
        sending.cancel()
        self.assertEqual((self.killed, self.protocol.transport.signals), ([(4711, signal.SIGKILL)], ["KILL"]))
        self.failureResultOf(sending)
        self.end(0, 9)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_cannot_be_run(self) -> None:
        """Now; perhaps it is there the next time."""
        sending = self.run_it("/nonexistent/program")
        self.assertEqual(self.reason(sending), "the command '/nonexistent/program' is not found or not executable")
        self.reactor.refuse = OSError(11, "Resource temporarily unavailable")
        self.assertEqual(self.reason(self.run_it()), "it cannot be run: Resource temporarily unavailable")
        self.assertEqual(self.reactor.getDelayedCalls(), [])
