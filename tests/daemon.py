"""The daemon under test: real twistd, a generated configuration, its access records, and a stop that must be clean."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from attrs import define

from tests.certificates import NAME, issue
from tests.processes import ROOT, OutsideCase, Process, descendants, free_port

__all__ = ["Daemon", "DaemonCase", "alive", "python_env", "twistd"]

# What must stand in the log after SIGTERM, what a child's line starts with, and what must never stand there.
_LAST_WORDS: Final = "Server Shut Down."
_CHILDS: Final = "[mcptunnel.upstream.children.Child"
# An expired certificate is said as loudly as can be, and is no fault of the daemon.
_WATCH: Final = "[mcptunnel.services.certwatch.CertificateWatch#critical]"
_BAD_WORDS: Final = ("Traceback (most recent call last)", "#critical]", "Unhandled")


def python_env() -> dict[str, str]:
    """Lets child processes import this checkout, installed or not."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}


def twistd(config: Path) -> list[str]:
    """The command line of the specification."""
    program = str(Path(sys.executable).with_name("twistd"))
    return [program, "--pidfile=", "-n", "mcptunnel", "--config", str(config)]


@define(eq=False)
class Daemon:
    """A running twistd.

    Attributes:
        process: It.
        port: Where it listens, on 127.0.0.1.
        access: Its access log, one JSON object a line.
        config: The file that it was started with.
    """

    process: Process
    port: int
    access: Path
    config: Path

    def records(self) -> list[dict[str, Any]]:
        """Every access record so far."""
        return [json.loads(line) for line in self.access.read_text("utf-8").splitlines()]

    def record(self, seconds: float = 5.0, **wanted: Any) -> dict[str, Any]:
        """The newest record that has all of ``wanted``; waits for it.

        Raises:
            AssertionError: There is none in time.
        """
        until = time.monotonic() + seconds
        while True:
            for record in reversed(self.records()):
                if all(record.get(key) == value for key, value in wanted.items()):
                    return record
            if time.monotonic() > until:
                every = "\n".join(json.dumps(record) for record in self.records())
                raise AssertionError(f"no access record has {wanted}; there are:\n{every}\n{self.process.output()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM; nothing may be left of it, and it may not have complained.

        Raises:
            AssertionError: A process survived, the exit was no clean one, or the log holds an unexpected error.
        """
        if self.process.stopped:
            return
        below = descendants(self.process.popen.pid)
        status = self.process.stop()
        left = [pid for pid in below if alive(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        log = self.process.output()
        # twistd ends by the signal that stopped it.
        assert status in (0, -signal.SIGTERM), f"twistd ended with {status}:\n{log}"
        assert not left, f"processes {left} outlived the daemon:\n{log}"
        assert _LAST_WORDS in log, f"twistd did not shut down in order:\n{log}"
        # What servers behind it print is theirs.
        own = "\n".join(line for line in log.splitlines() if _CHILDS not in line and _WATCH not in line)
        for word in _BAD_WORDS:
            assert word not in own, f"{word!r} in the log of the daemon:\n{log}"


def alive(pid: int) -> bool:
    """Whether there is such a process; one that is dead and waits to be collected is none."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class DaemonCase(OutsideCase):
    """Tests that run daemons and MCP servers."""

    def upstream(self, script: str = "mcptunnel.demo", *args: str) -> str:
        """Start an MCP server over HTTP; its URL."""
        port = free_port()
        argv = [sys.executable, "-m", script, "http", str(port), *args]
        self.start(script, argv, port, env=python_env(), log=f"upstream-{port}")
        return f"http://127.0.0.1:{port}/mcp"

    def child(self, script: str = "mcptunnel.demo", *args: str) -> dict[str, Any]:
        """An entry of ``mcpServers`` that runs an MCP server as a child process."""
        # Children get little of the daemon's environment, and not this.
        return {"command": sys.executable, "args": ["-m", script, "stdio", *args], "env": python_env()}

    def daemon(
        self,
        mode: str = "disabled",
        *,
        trusted: tuple[str, ...] = (),
        tls: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        servers: Mapping[str, Any] | None = None,
        port: int | None = None,
        **sections: Any,
    ) -> Daemon:
        """Start a daemon; it is stopped, and must stop cleanly, when the test ends.

        Args:
            mode: ``server.tls.mode``; a certificate is minted where it needs one.
            trusted: ``server.tls.trusted_proxies``.
            tls: More of ``server.tls``.
            server: More of ``server``.
            servers: ``mcpServers``; the demo server as a child process named ``demo`` unless given.
            port: Where it listens; any free port unless given.
            sections: Other sections; ``auth`` is anonymous unless given.
        """
        port = port or free_port()
        access = self.place / f"access-{port}.log"
        tls_section: dict[str, Any] = {"mode": mode, "trusted_proxies": list(trusted), **(tls or {})}
        if mode in ("application", "auto") and "cert_file" not in tls_section:
            pair = issue(self.place, f"daemon-{port}")
            tls_section |= {"cert_file": pair.cert_file, "key_file": pair.key_file}
        config = {
            "server": {
                "host": "127.0.0.1",
                "port": port,
                "public_url": f"https://{NAME}",
                "tls": tls_section,
                **(server or {}),
            },
            "auth": {"anonymous": True},
            "mcpServers": {"demo": self.child()} if servers is None else dict(servers),
            "logging": {"access": "json", "access_file": str(access)},
            **sections,
        }
        path = self.place / f"mcptunnel-{port}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        process = self.start("twistd", self.twistd(path), port, env=python_env(), log=f"twistd-{port}")
        daemon = Daemon(process, port, access, path)
        # Cleanups run last in first out: this one, which also judges, before the mere stop of the process.
        self.addCleanup(daemon.stop)
        return daemon

    def twistd(self, config: Path) -> list[str]:
        """The command line of the specification."""
        return twistd(config)

    def eventually(self, what: Callable[[], bool], message: str, seconds: float = 5.0) -> None:
        """Wait until ``what()`` is true, or fail with ``message``."""
        until = time.monotonic() + seconds
        while not what():
            if time.monotonic() > until:
                self.fail(f"{message} (after {seconds:g} s)")
            time.sleep(0.02)
