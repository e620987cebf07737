"""Child processes that end with the daemon: each in a session and process group of its own, watched by a warden.

Three ways lead to the end of a child and of everything it has started:

* we stop it: its group gets SIGTERM, then SIGKILL;
* it exits by itself: what it left behind in its group is ended the same way;
* the daemon dies without a word (SIGKILL, out of memory): the warden, one small process for all children, sees its
  standard input close and ends every group it was told of.

Descendants that leave the group (``setsid``) are found, on Linux, by a marker in their environment.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcptunnel.upstream import warden

__all__ = ["INHERITED", "Child", "Children", "in_own_group"]

# Between closing its input, SIGTERM and SIGKILL (MCP, stdio, "Shutdown").
GRACE_SECONDS: Final = 2.0
# Children that end within so long are looked after together.
TOGETHER_SECONDS: Final = 0.1
# What a child inherits of the daemon's environment; secrets of the daemon are not among it.
INHERITED: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TERM")
# Becomes the leader of a new session, then the command: same process id, so the group is named by it.
_LEADER: Final = "import os,sys;os.setsid();os.execvp(sys.argv[1],sys.argv[1:])"


def in_own_group(argv: Sequence[str]) -> list[str]:
    """``argv``, as the leader of a session and a process group of its own, which is named by its process id."""
    setsid = shutil.which("setsid")
    leader = [setsid] if setsid else [sys.executable, "-I", "-S", "-c", _LEADER]
    return [*leader, *argv]


class Child(ProcessProtocol):
    """One child process.

    Args:
        name: For the log.
        marker: Value of its marker in the environment, which its descendants inherit.
        on_output: Takes what it writes to its standard output.
        on_exit: Told once how it ended, in words.
        children: Who keeps it.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        marker: str,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[str], None],
        children: Children,
    ) -> None:
        self.name: Final = name
        self.marker: Final = marker
        self.gone: Final[Deferred[None]] = Deferred()
        self._on_output: Final = on_output
        self._on_exit: Final = on_exit
        self._children: Final = children
        self._stderr = b""
        self._pid: int | None = None
        self._stopping = False
        self.transport: IProcessTransport | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._pid = self.transport.pid
        if self._pid is not None:
            self._children.born(self, self._pid)
        self.log.info("server {name}: started as process {pid}", name=self.name, pid=self._pid)

    def outReceived(self, data: bytes) -> None:
        self._on_output(data)

    def errReceived(self, data: bytes) -> None:
        # Always drained: a child that nobody reads blocks. Lines are cut, so that it cannot fill our memory.
        *lines, self._stderr = (self._stderr + data).split(b"\n")
        if len(self._stderr) > 8192:
            lines.append(self._stderr)
            self._stderr = b""
        for line in lines:
            if line.strip():
                self.log.info("server {name}: {line}", name=self.name, line=line[:8192].decode("utf-8", "replace"))

    def processExited(self, reason: Failure) -> None:
        # processEnded() comes when its output is closed too; whoever it left behind with that must go first.
        if self._pid is not None:
            self._children.died(self, self._pid)

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        if isinstance(value, ProcessDone):
            how = "it exited"
        elif getattr(value, "signal", None):
            how = f"it was ended by {signal.Signals(value.signal).name}"
        else:
            how = f"it exited with status {getattr(value, 'exitCode', '?')}"
        self.log.info("server {name}: process {pid}: {how}", name=self.name, pid=self._pid, how=how)
        self._on_exit(how)
        self.gone.callback(None)

    def write(self, data: bytes) -> bool:
        """Write to its standard input. False when it, or we, have closed that."""
        pipe = self._pipe(0)
        if pipe is None:
            return False
        pipe.write(data)
        return True

    @property
    def unread(self) -> int:
        """Bytes written to its standard input that it has not read."""
        pipe = self._pipe(0)
        # The writer's own bookkeeping: Twisted has no public word for it.
        return 0 if pipe is None else len(pipe.dataBuffer) - pipe.offset + pipe._tempDataLen

    def pause(self) -> None:
        """Stop reading its standard output."""
        if (pipe := self._pipe(1)) is not None:
            pipe.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if (pipe := self._pipe(1)) is not None:
            pipe.resumeProducing()

    def _pipe(self, number: int) -> Any:
        """Twisted's end of one of its standard streams, None once that is closed."""
        return getattr(self.transport, "pipes", {}).get(number)

    def stop(self) -> None:
        """End it: close its input, then SIGTERM, then SIGKILL to its group."""
        if self._stopping or self._pid is None or self.gone.called:
            return
        self._stopping = True
        if self.transport is not None:
            self.transport.closeChildFD(0)
        pid = self._pid
        clock = self._children.clock
        clock.callLater(GRACE_SECONDS, self._signal, pid, signal.SIGTERM)
        clock.callLater(2 * GRACE_SECONDS, self._signal, pid, signal.SIGKILL)

    def _signal(self, pid: int, number: int) -> None:
        if not self.gone.called:
            warden.signal_group(pid, number)
            if self.transport is not None and number == signal.SIGKILL:
                with suppress(ProcessExitedAlready):
                    self.transport.signalProcess("KILL")


@define(eq=False)
class Children:
    """Every child process of the daemon, and the warden that outlives it if need be.

    Attributes:
        limit: How many there may be (``server.limits.children``).
    """

    reactor: IReactorProcess
    clock: IReactorTime
    limit: int
    marker: str = field(factory=lambda: secrets.token_hex(8))
    _living: dict[int, Child] = field(factory=dict)
    _dead: dict[int, str] = field(factory=dict)
    _warden: _Warden | None = None
    _closing: bool = False
    _count: int = 0

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[str], None],
    ) -> Child:
        """Start ``argv`` without a shell.

        Raises:
            OSError: The command does not exist, may not be executed, or ``cwd`` is no directory; or there are too
                many children.
        """
        if self._closing:
            raise OSError("the daemon is stopping")
        if len(self._living) >= self.limit:
            raise OSError(f"there are {self.limit} child processes already (server.limits.children)")
        environment = {k: os.environ[k] for k in INHERITED if k in os.environ} | dict(env)
        self._count += 1
        # The final dot ends the number: the marker of child 1 is no prefix of that of child 10.
        marker = f"{self.marker}.{self._count}."
        environment[warden.MARKER] = marker
        program = shutil.which(argv[0], path=environment.get("PATH"))
        if program is None:
            raise FileNotFoundError(f"the command {argv[0]!r} is not found or not executable")
        if cwd is not None and not Path(cwd).is_dir():
            raise NotADirectoryError(f"the working directory {cwd!r} does not exist")
        if self._warden is None:
            self._warden = _Warden()
            # In a session of its own too, so that no terminal's Ctrl-C ends it before its work is done.
            self._spawn(
                self._warden, [sys.executable, "-I", "-S", warden.__file__, f"{self.marker}."], dict(os.environ), None
            )
        child = Child(name, marker, on_output, on_exit, self)
        self._spawn(child, [program, *argv[1:]], environment, cwd)
        return child

    def _spawn(self, protocol: ProcessProtocol, argv: list[str], env: dict[str, str], cwd: str | None) -> None:
        led = in_own_group(argv)
        self.reactor.spawnProcess(protocol, led[0], led, env=env, path=cwd)

    def born(self, child: Child, pid: int) -> None:
        """``child`` runs as ``pid``."""
        self._living[pid] = child
        if self._warden is not None:
            self._warden.tell(b"+%d\n" % pid)

    def died(self, child: Child, pid: int) -> None:
        """``child`` has ended: so must what it left behind."""
        self._living.pop(pid, None)
        if self._closing:
            warden.end_marked({pid: child.marker}, signal.SIGTERM)
            self._sweep({pid: child.marker})
            return
        # Looking at all processes takes its time: once for all that end together.
        if not self._dead:
            self.clock.callLater(TOGETHER_SECONDS, self._end_dead)
        self._dead[pid] = child.marker

    def _end_dead(self) -> None:
        dead, self._dead = self._dead, {}
        warden.end_marked(dead, signal.SIGTERM)
        self.clock.callLater(GRACE_SECONDS, self._sweep, dead)

    def _sweep(self, dead: dict[int, str]) -> None:
        warden.end_marked(dead, signal.SIGKILL)
        if self._warden is not None:
            self._warden.tell(b"".join(b"-%d\n" % pid for pid in dead))

    async def close(self) -> None:
        """End every child and wait until all are gone, then let the warden make sure of it."""
        self._closing = True
        waiting = [child.gone for child in self._living.values()]
        for child in list(self._living.values()):
            child.stop()
        for gone in waiting:
            await gone
        if self._warden is not None:
            keeper, self._warden = self._warden, None
            await keeper.leave()


class _Warden(ProcessProtocol):
    """Our end of the warden: see :mod:`mcptunnel.upstream.warden`."""

    transport: IProcessTransport

    def __init__(self) -> None:
        self._gone: Final[Deferred[None]] = Deferred()

    def tell(self, line: bytes) -> None:
        """Report a birth or a death."""
        self.transport.writeToChild(0, line)

    def leave(self) -> Deferred[None]:
        """Close its input: it makes sure that nothing is left, then exits."""
        self.transport.closeChildFD(0)
        return self._gone

    def errReceived(self, data: bytes) -> None:
        Child.log.error("warden: {line}", line=data.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        self._gone.callback(None)
