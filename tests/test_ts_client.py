"""The official client in TypeScript, over every transport that it has, with servers of both eras behind the daemon."""

from __future__ import annotations

import json
import sys
from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.daemon import Daemon, DaemonCase, python_env
from tests.full import SHOWN, TOOLS
from tests.node import TS_SDK, Node, installed
from tests.pipes import MCPTUNNEL
from tests.processes import free_port

SCRIPT: Final = str(Path(__file__).with_name("ts_client.mjs"))
FULL: Final = "tests.full"
# Node processes at the same time.
AT_ONCE: Final = 4
SECONDS: Final = 60.0
DEMO: Final = ("echo", "add", "clock", "count", "ask")

# What the steps of the script find, whatever is between it and the server.
FOUND: Final[dict[str, Any]] = {
    "initialize": {"capabilities": ["completions", "logging", "prompts", "resources", "tools"]},
    "ping": {},
    "tools": list(TOOLS),
    "add": {"structuredContent": {"total": 5}, "own": [1, None, {"a": 2}]},
    "show": SHOWN,
    "fail": {"isError": True, "text": "it went wrong"},
    "parallel": [f"v{number}" for number in range(20)],
    "progress": {"text": "v", "reported": [{"progress": 1, "total": 2, "message": "v"}]},
    "steps": {
        "text": "3 steps of typescript",
        "order": ["typescript 1", "typescript 2", "typescript 3", "result"],
    },
    "ask": "accept {'name': 'Ada <Who?>'}",
    "visit": "typescript accept",
    "sample": "typescript: SAY IT",
    "roots": "ada=file:///ada",
    "interview": "typescript: Ada <Who? typescript>, GREET ADA <WHO? TYPESCRIPT>",
    "cancel": {"outcome": "McpError: MCP error -32001: enough", "count": 1},
    "resources": ["first", "last"],
    "templates": ["item"],
    "read": ["last", "AAEC"],
    "missing": -32002,
    "subscribe": True,
    "changed": "heard",
    "prompts": ["review", "personal"],
    "prompt": ["Review this perl code."],
    "personal": "Write to Ada <Who are you?>.",
    "complete": ["python", "pytorch"],
    "log": ["error", "critical", "alert", "emergency"],
    "close": [],
}


class TypeScriptTests(DaemonCase):
    """Every step over every transport."""

    node: Node

    def setUp(self) -> None:
        super().setUp()
        self.node = installed(TS_SDK)

    def modern(self) -> dict[str, Any]:
        """A server that speaks only the era that this client does not."""
        port = free_port()
        self.start(FULL, [sys.executable, "-m", FULL, "modern", str(port)], port, env=python_env())
        return {"url": f"http://127.0.0.1:{port}/mcp"}

    def walked(self, *argv: str) -> dict[str, Any]:
        """What the script finds, by step; what has failed stands there as its error."""
        done = self.node.run("node", SCRIPT, *argv, seconds=SECONDS, **python_env())
        # Not `splitlines`: there are other line ends in what is shown.
        lines = [json.loads(line) for line in done.stdout.split("\n") if line]
        if done.returncode != 0:
            lines.append({"step": "end", "error": f"status {done.returncode}: {done.stderr}"})
        return {line["step"]: line.get("found", line.get("error")) for line in lines}

    def stdio(self, daemon: Daemon, *more: str) -> list[str]:
        """Our command, which the client starts, with the daemon's own configuration."""
        argv = [MCPTUNNEL, "stdio", "--config", str(daemon.config), "--quiet", *more]
        return ["stdio", json.dumps(argv)]

    def assertWalked(self, *chains: dict[str, list[str]], expected: dict[str, Any] = FOUND) -> None:
        """Every step of every cell; every failure is named. The cells of a chain come one after the other."""

        def chain(cells: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
            return {cell: self.walked(*argv) for cell, argv in cells.items()}

        with ThreadPoolExecutor(AT_ONCE) as pool:
            walks = dict(ChainMap(*pool.map(chain, chains)))
        failures = [
            f"{cell}: {step}: {found.get(step)!r} instead of {expected.get(step)!r}"
            for cell, found in walks.items()
            for step in expected.keys() | found.keys()
            if found.get(step, "nothing") != expected.get(step, "no such step")
        ]
        self.assertEqual(failures, [], "\n" + "\n".join(sorted(failures)))

    def test_one_server(self) -> None:
        """At the addresses of a child process and of a server that speaks 2026-07-28 alone."""
        servers = {"child": self.child(FULL), "modern": self.modern()}
        daemon = self.daemon(servers=servers)
        at = f"127.0.0.1:{daemon.port}/servers"
        cells = {
            name: {
                f"http {name}": ["http", f"http://{at}/{name}/mcp"],
                f"sse {name}": ["sse", f"http://{at}/{name}/sse"],
                f"ws {name}": ["ws", f"ws://{at}/{name}/ws"],
                f"stdio {name}": self.stdio(daemon, "--server", name),
            }
            for name in servers
        }
        # Each client has a child of its own. The other server is one for all, and tells all of them of its changes.
        self.assertWalked(cells["modern"], *({cell: argv} for cell, argv in cells["child"].items()))
        # That it went the way that was meant.
        for path in ("mcp", "sse", "ws"):
            for name in servers:
                daemon.record(path=f"/servers/{name}/{path}")

    def test_all_servers(self) -> None:
        """At the address of all, where names say whose they are; the server behind it speaks both eras, over HTTP."""
        daemon = self.daemon(servers={"full": {"url": self.upstream(FULL)}, "demo": self.child()})
        at = f"127.0.0.1:{daemon.port}"
        cells = {
            "http": ["http", f"http://{at}/mcp", "full__"],
            "sse": ["sse", f"http://{at}/mcp/sse", "full__"],
            "ws": ["ws", f"ws://{at}/mcp/ws", "full__"],
            "stdio": [*self.stdio(daemon), "full__"],
        }
        names = {step: [f"full__{name}" for name in FOUND[step]] for step in ("tools", "prompts")}
        names["tools"] += [f"demo__{name}" for name in DEMO]
        self.assertWalked(*({cell: argv} for cell, argv in cells.items()), expected={**FOUND, **names})
