"""An alert as a program that is run for it: the document on its standard input, no shell, and half a minute of time."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mcptunnel.core.errors import DeliveryError
from mcptunnel.upstream.children import INHERITED, in_own_group
from mcptunnel.upstream.warden import signal_group

__all__ = ["Notifier"]

SECONDS: Final = 30.0
# What is kept of the standard error, to show its last line.
_TAIL: Final = 8192
_LINE: Final = 300


class Notifier:
    """A program that takes documents, one a process.

    Args:
        argv: Program and arguments.
        reactor: Runs it and ends it.
    """

    def __init__(self, argv: Sequence[str], reactor: Any) -> None:
        self._argv: Final = tuple(argv)
        self._reactor: Final = reactor

    def send(self, document: bytes) -> Deferred[None]:
        """Run it. Fails with DeliveryError unless it exits with status 0 in time; cancelling it kills its group."""
        run = _Run(document)
        sending = run.done.addTimeout(SECONDS, self._reactor, _late)
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        program = shutil.which(self._argv[0])
        if program is None:
            run.fail(f"the command {self._argv[0]!r} is not found or not executable")
            return sending
        led = in_own_group([program, *self._argv[1:]])
        try:
            self._reactor.spawnProcess(run, led[0], led, env=env)
        except OSError as error:
            run.fail(f"it cannot be run: {error.strerror}")
        return sending


class _Run(ProcessProtocol):
    """One run of the program."""

    transport: IProcessTransport | None = None

    def __init__(self, document: bytes) -> None:
        self.done: Final[Deferred[None]] = Deferred(self._cancelled)
        self._document: Final = document
        self._stderr = b""
        self._pid: int | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._pid = self.transport.pid
        self.transport.writeToChild(0, self._document)
        self.transport.closeChildFD(0)

    def errReceived(self, data: bytes) -> None:
        self._stderr = (self._stderr + data)[-_TAIL:]

    def processExited(self, reason: Failure) -> None:
        # Whoever it has left behind may hold its output open, and processEnded() would not come.
        self._end()
        if isinstance(reason.value, ProcessDone) and not self.done.called:
            self.done.callback(None)
        if self.done.called and self.transport is not None:
            self.transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        if not self.done.called:
            self.fail(_how(reason.value) + self._last_line())

    def fail(self, why: str) -> None:
        """It has not done its work."""
        self.done.errback(DeliveryError(why))

    def _cancelled(self, _: Deferred[None]) -> None:
        self._end()
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self) -> None:
        if self._pid is not None:
            signal_group(self._pid, signal.SIGKILL)
        # It may not have come so far yet as to lead a group.
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def _last_line(self) -> str:
        lines = self._stderr.decode("utf-8", "replace").split("\n")
        said = [printable for line in lines if (printable := "".join(filter(str.isprintable, line)).strip())]
        return f": {said[-1][:_LINE]}" if said else ""


def _late(_: Any, seconds: float) -> Any:
    raise DeliveryError(f"it did not end within {seconds:g} s and was killed")


def _how(ended: Any) -> str:
    if getattr(ended, "signal", None):
        return f"it was ended by {signal.Signals(ended.signal).name}"
    return f"it exited with status {getattr(ended, 'exitCode', '?')}"
