"""A plain MCP client that has started its server, and speaks to it on pipes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from tests.daemon import python_env

__all__ = ["MCPTUNNEL", "PipeClient"]

# As pip installs it.
MCPTUNNEL: Final = str(Path(sys.executable).with_name("mcptunnel"))
SECONDS: Final = 20.0


@define(eq=False)
class PipeClient:
    """A running ``mcptunnel`` and our ends of its pipes.

    Attributes:
        popen: It.
        log: Its standard error.
    """

    popen: subprocess.Popen[bytes]
    log: Path
    _heard: bytes = field(init=False, default=b"")

    @classmethod
    def start(cls, place: Path, *argv: str, env: Mapping[str, str] | None = None) -> PipeClient:
        """Run ``mcptunnel`` with ``argv`` in ``place``."""
        log = place / f"{argv[0]}.err"
        with log.open("wb") as err:
            popen = subprocess.Popen(
                [MCPTUNNEL, *argv],
                cwd=place,
                env={**os.environ, **python_env(), **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                bufsize=0,
            )
        return cls(popen, log)

    @property
    def stdin(self) -> Any:
        """Where it hears us."""
        return self.popen.stdin

    @property
    def stdout(self) -> Any:
        """Where we hear it."""
        return self.popen.stdout

    def say(self, *messages: Mapping[str, Any] | bytes) -> None:
        """Send lines."""
        for message in messages:
            raw = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.stdin.write(raw + b"\n")

    def hear(self, seconds: float = SECONDS) -> Any:
        """The next line, decoded.

        Raises:
            AssertionError: None comes, or it is no JSON.
        """
        line = self.line(seconds)
        assert line, f"it has closed its standard output:\n{self.errors()}"
        return json.loads(line)

    def line(self, seconds: float = SECONDS) -> bytes:
        """The next line; empty at the end.

        Raises:
            AssertionError: Neither comes in time.
        """
        until = time.monotonic() + seconds
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"nothing is heard after {seconds:g} s:\n{self.errors()}"
            data = os.read(self.stdout.fileno(), 65536)
            if not data:
                line, self._heard = self._heard, b""
                return line
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def errors(self) -> str:
        """What it has written to standard error."""
        return self.log.read_text("utf-8", "replace")

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit status."""
        return self.popen.wait(seconds)

    def close(self) -> None:
        """End it by whatever means."""
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.popen.kill()
        self.popen.wait(5)
