"""What the tests of this package share: child processes in memory."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mcptunnel.upstream import warden
from mcptunnel.upstream.children import Children


@define(eq=False)
class Pipe:
    """The reading end of a child's output."""

    paused: bool = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


@define(eq=False)
class Input:
    """The writing end of a child's input; ``_tempDataLen`` is what the child has not read."""

    written: bytes = b""
    dataBuffer: bytes = b""
    offset: int = 0
    _tempDataLen: int = 0

    def write(self, data: bytes) -> None:
        self.written += data


@define(eq=False)
class Process:
    """A process transport, and what the test does as the process."""

    protocol: Any
    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    pid: int
    standard_input: Input = field(factory=Input)
    signals: list[str] = field(factory=list)
    pipes: dict[int, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pipes = {0: self.standard_input, 1: Pipe()}

    @property
    def input_closed(self) -> bool:
        """Whether its input has been closed, by us or by itself."""
        return 0 not in self.pipes

    # --- what the protocol asks of its transport

    def writeToChild(self, fd: int, data: bytes) -> None:
        self.pipes[fd].write(data)

    def closeChildFD(self, fd: int) -> None:
        self.pipes.pop(fd, None)

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    # --- what the test does

    def take(self) -> bytes:
        """What has been written to its input since the last call."""
        data, self.standard_input.written = self.standard_input.written, b""
        return data

    def say(self, data: bytes) -> None:
        """Write to its output."""
        self.protocol.outReceived(data)

    def exit(self, status: int | None = 0, signal: int | None = None) -> None:
        """End, with everything it has open."""
        reason = Failure(ProcessDone(0) if status == 0 else ProcessTerminated(status, signal))
        self.protocol.processExited(reason)
        self.protocol.processEnded(reason)


@define(eq=False)
class Spawning:
    """A reactor that starts processes in memory.

    Attributes:
        clock: Its time.
        started: Every process, the warden included, in order.
    """

    clock: Clock = field(factory=Clock)
    started: list[Process] = field(factory=list)

    def children(self, limit: int = 10) -> Children:
        """Children with a marker that no process of this machine carries."""
        return Children(self, self.clock, limit, "no-such-marker")  # type: ignore[arg-type]  # what of a reactor it needs

    def spawnProcess(
        self, protocol: Any, executable: str, args: list[str], env: dict[str, str], path: str | None
    ) -> Process:
        # Numbers beyond any that a kernel gives out.
        process = Process(protocol, list(args), dict(env), path, 2**30 + len(self.started))
        self.started.append(process)
        protocol.makeConnection(process)
        return process

    @property
    def warden(self) -> Process:
        """The warden."""
        return next(p for p in self.started if warden.__file__ in p.argv)

    @property
    def servers(self) -> list[Process]:
        """All others."""
        return [p for p in self.started if warden.__file__ not in p.argv]

    @property
    def last(self) -> Process:
        """The latest of the others."""
        return self.servers[-1]
