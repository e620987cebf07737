"""The official conformance suite through the daemon: no check may differ from a run without it."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.conformance import CLIENT, EVERYTHING, Checks, client_suites, differences, server_suites, source
from tests.daemon import DaemonCase, python_env
from tests.processes import OutsideCase, free_port

# What cannot be the same, by suite and way, and why. In this check the server closes the event stream of a call that is
# not answered yet, so that its client comes back for the rest. On standard output there is no such stream: MCP
# 2025-11-25, Transports, "stdio" knows nothing that a server could say for it, and the SDK's call for it does nothing.
IMPOSSIBLE: Final = {
    ("2025-11-25", "stdio"): "server-sse-polling: server-sse-disconnect-resume",
}


class ServerTests(DaemonCase):
    """The SDK's server with the suite's fixtures; alone, and behind the daemon over HTTP and as a child process."""

    def setUp(self) -> None:
        super().setUp()
        env = {"PYTHONPATH": os.pathsep.join([str(source() / EVERYTHING), python_env()["PYTHONPATH"]])}
        port = free_port()
        argv = [sys.executable, "-m", "tests.everything"]
        self.start("everything", [*argv, "http", str(port)], port, env=env)
        self.direct = f"http://127.0.0.1:{port}/mcp"
        servers = {
            "http": {"url": self.direct},
            "stdio": {"command": argv[0], "args": [*argv[1:], "stdio"], "env": env},
        }
        self.running = self.daemon(server={"public_url": None}, servers=servers)

    def compare(self, name: str) -> None:
        suite = server_suites()[name]
        node = suite.node()
        urls = [self.direct, *(f"http://127.0.0.1:{self.running.port}/servers/{way}/mcp" for way in ("http", "stdio"))]
        with ThreadPoolExecutor() as threads:
            direct, *through = threads.map(lambda url: suite.server(node, url), urls)
        # A run that has found nothing to check must not pass.
        self.assertEqual((direct.scenarios, direct.statuses), (suite.scenarios, ["SUCCESS"] * suite.checks), direct)
        for way, checks in zip(("http", "stdio"), through, strict=True):
            lost = differences(direct, checks)
            impossible = IMPOSSIBLE.get((name, way))
            if impossible is not None:
                # Exactly this one: when it can be done after all, this must say so.
                self.assertTrue(lost and lost[0].startswith(impossible), lost)
                del lost[0]
            self.assertEqual(lost, [], "\n".join(["", way, *lost]))

    def test_2025_06_18(self) -> None:
        """Every scenario that the suite knows for 2025-06-18."""
        self.compare("2025-06-18")

    def test_2025_11_25(self) -> None:
        """What 2025-11-25 requires, and what is not scored."""
        self.compare("2025-11-25")

    def test_2026_07_28(self) -> None:
        """What 2026-07-28 requires, and what is not scored."""
        self.compare("2026-07-28")

    def test_latest_release(self) -> None:
        """The suite's latest release that is no alpha, which knows the legacy era only."""
        self.compare("0.1.16")


class ClientTests(OutsideCase):
    """The SDK's client, with and without a daemon between it and the harness, which is the server here."""

    def test_every_scenario(self) -> None:
        """Every scenario that can pass through a gateway."""
        client = str(source() / CLIENT)
        suites = client_suites()
        node = next(iter(suites.values())).node()
        through = f"{sys.executable} -m tests.conformance_client {client} {self.place}"
        # One thread per core: the harness gives the client no more than 30 s.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            runs = {
                name: [
                    threads.submit(suite.client, node, command, **python_env())
                    for command in (f"{sys.executable} {client}", through)
                ]
                for name, suite in suites.items()
            }
        lost = []
        for name, suite in suites.items():
            direct, behind = (run.result() for run in runs[name])
            self.assertLessEqual({*direct.statuses}, {"SUCCESS", "SKIPPED"}, f"{name}: {direct}")
            self.assertEqual(len(direct.statuses), suite.checks, f"{name}: {direct}")
            lost += [f"{name}: {line}" for line in differences(direct, behind)]
            # Not compared with 0: the SDK's client itself ends with 1 when a result has no resultType (SEP-2322).
            if behind.status != direct.status:
                lost.append(f"{name}: the harness ended with {direct.status} -> {behind.status}: {_tail(behind)}")
        self.assertEqual(lost, [], "\n" + "\n".join(lost))


def _tail(checks: Checks) -> str:
    """The end of what was printed, without the client's chatter."""
    return "\n".join([line for line in checks.printed.splitlines() if " DEBUG " not in line][-40:])
