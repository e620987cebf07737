"""Child processes end with the daemon: asked, killed without a word, or when the child itself goes first."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

from tests.clients import HttpClient, modern
from tests.daemon import Daemon, DaemonCase, alive
from tests.processes import descendants

WORK = "/servers/work/mcp"


class ChildrenTests(DaemonCase):
    """A server with children of its own, one of which has left its process group and session."""

    def start_with(self, script: str) -> Daemon:
        """A daemon whose server ``work`` runs ``script`` in a shell and has been asked something."""
        daemon = self.daemon(servers={"work": {"command": "sh", "args": ["-c", script]}})
        body = json.dumps(modern("tools/list")).encode()
        headers = HttpClient(port=daemon.port, tls=None).modern_headers(json.loads(body))
        lines = [f"POST {WORK} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        waiting = socket.create_connection(("127.0.0.1", daemon.port), 5)
        self.addCleanup(waiting.close)
        waiting.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return daemon

    def pids(self, *names: str) -> list[int]:
        """The process ids that the server wrote to files ``names``; waits for them."""

        def written() -> bool:
            return all(
                (self.place / name).exists() and (self.place / name).read_text().endswith("\n") for name in names
            )

        self.eventually(written, "the server did not start its children")
        return [int((self.place / name).read_text()) for name in names]

    def family(self, rest: str) -> str:
        """A shell script: a child in its group, a grandchild in a session of its own, then ``rest``."""
        place = self.place
        return (
            f"echo $$ > {place}/self\n"
            f"sleep 300 & echo $! > {place}/child\n"
            f"setsid sh -c 'echo $$ > {place}/stray; exec sleep 300' &\n"
            f"{rest}\n"
        )

    def gone(self, pids: list[int], seconds: float) -> None:
        self.eventually(lambda: not any(map(alive, pids)), f"some of {pids} are left", seconds)

    def test_they_are_gone_after_sigterm(self) -> None:
        """All three."""
        daemon = self.start_with(self.family("cat > /dev/null"))
        pids = self.pids("self", "child", "stray")
        daemon.stop()
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_they_are_gone_after_the_daemon_was_killed(self) -> None:
        """It could not say a word: the warden does the work. Children that ignore SIGTERM get SIGKILL."""
        daemon = self.start_with("trap '' TERM\n" + self.family("cat > /dev/null; sleep 300"))
        pids = self.pids("self", "child", "stray")
        wardens = self.wardens(daemon)
        self.assertEqual(len(wardens), 1)
        os.kill(daemon.process.popen.pid, signal.SIGKILL)
        daemon.process.popen.wait(10)
        daemon.process.stopped = True
        self.gone(pids, 8.0)
        self.gone(wardens, 4.0)

    def wardens(self, daemon: Daemon) -> list[int]:
        """The wardens of ``daemon``."""
        return [
            pid
            for pid in descendants(daemon.process.popen.pid)
            if b"upstream/warden.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def test_what_a_server_leaves_behind_goes_with_it(self) -> None:
        """It exits by itself; the daemon goes on."""
        daemon = self.start_with(self.family("sleep 0.2; exit 3"))
        pids = self.pids("self", "child", "stray")
        self.gone(pids, 8.0)
        self.assertEqual(HttpClient(port=daemon.port, tls=None).get("/health/live").status, 200)

    def test_a_server_that_ignores_everything_is_killed(self) -> None:
        """SIGTERM to the daemon ends in time all the same."""
        daemon = self.start_with("trap '' TERM\n" + self.family("while :; do sleep 1; done"))
        pids = self.pids("self", "child", "stray")
        daemon.stop()
        self.assertEqual([pid for pid in pids if alive(pid)], [])
