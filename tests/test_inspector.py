"""The official MCP inspector on the command line, as the README shows it, over https."""

from __future__ import annotations

import json
from typing import Any

from tests.certificates import authority
from tests.daemon import DaemonCase
from tests.node import INSPECTOR, installed

TOOLS = ["echo", "add", "clock", "count", "ask"]


class InspectorTests(DaemonCase):
    """`mcp-inspector --cli` in both eras."""

    def setUp(self) -> None:
        super().setUp()
        self.node = installed(INSPECTOR)
        self.ca = self.place / "ca.pem"
        self.ca.write_bytes(authority().pem)
        self.running = self.daemon("auto", server={"public_url": None})

    def ask(self, path: str, *more: str) -> dict[str, Any]:
        done = self.node.run(
            "mcp-inspector",
            "--cli",
            f"https://localhost:{self.running.port}{path}",
            "--transport",
            "http",
            *more,
            "--format",
            "json",
            "-q",
            NODE_EXTRA_CA_CERTS=str(self.ca),
        )
        self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}\n{self.running.process.output()}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def test_list(self) -> None:
        """tools/list at the address of one server."""
        for era in ("legacy", "modern"):
            found = self.ask("/servers/demo/mcp", "--protocol-era", era, "--method", "tools/list")
            tools = found.get("result", found)["tools"]
            self.assertEqual([tool["name"] for tool in tools], TOOLS)

    def test_call(self) -> None:
        """tools/call at the address of all servers."""
        for era in ("legacy", "modern"):
            call = ("--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3")
            found = self.ask("/mcp", "--protocol-era", era, *call)
            self.assertEqual(found.get("result", found)["structuredContent"], {"total": 5})
            self.assertEqual(self.running.record(method="tools/call", era=era)["scheme"], "https")
