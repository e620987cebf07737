"""The official MCP inspector on the command line, as the README shows it, over every transport that it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.certificates import authority
from tests.daemon import DaemonCase, python_env
from tests.full import TOOLS as EVERY_TOOL
from tests.node import INSPECTOR, installed
from tests.pipes import MCPTUNNEL

TOOLS: Final = ["echo", "add", "clock", "count", "ask"]
FULL: Final = "tests.full"
# Inspectors at the same time.
AT_ONCE: Final = 3

LIST: Final = ("--method", "tools/list")
ADD: Final = ("--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3")
READ: Final = ("--method", "resources/read", "--uri", "full://first")
REVIEW: Final = ("--method", "prompts/get", "--prompt-name", "review", "--prompt-args", "language=perl")
# What counts in the result of each, and what it is.
SAID: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "tools/list": lambda found: [tool["name"] for tool in found["tools"]],
    "tools/call": lambda found: found["structuredContent"],
    "resources/read": lambda found: [content["text"] for content in found["contents"]],
    "prompts/get": lambda found: [message["content"]["text"] for message in found["messages"]],
}
EXPECTED: Final[dict[str, Any]] = {
    "tools/list": list(EVERY_TOOL),
    "tools/call": {"total": 5},
    "resources/read": ["first"],
    "prompts/get": ["Review this perl code."],
}


class InspectorCase(DaemonCase):
    """Runs `mcp-inspector --cli`."""

    def setUp(self) -> None:
        super().setUp()
        self.node = installed(INSPECTOR)

    def inspected(self, *argv: str, **env: str) -> dict[str, Any]:
        """The result that it prints."""
        done = self.node.run("mcp-inspector", "--cli", *argv, "--format", "json", "-q", **env)
        self.assertEqual(done.returncode, 0, f"{argv}:\n{done.stdout}\n{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        result: dict[str, Any] = found.get("result", found)
        return result


class InspectorTests(InspectorCase):
    """In both eras, over https."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = self.place / "ca.pem"
        self.ca.write_bytes(authority().pem)
        self.running = self.daemon("auto", server={"public_url": None})

    def ask(self, path: str, *more: str) -> dict[str, Any]:
        url = f"https://localhost:{self.running.port}{path}"
        return self.inspected(url, "--transport", "http", *more, NODE_EXTRA_CA_CERTS=str(self.ca))

    def test_list(self) -> None:
        """tools/list at the address of one server."""
        for era in ("legacy", "modern"):
            found = self.ask("/servers/demo/mcp", "--protocol-era", era, "--method", "tools/list")
            self.assertEqual([tool["name"] for tool in found["tools"]], TOOLS)

    def test_call(self) -> None:
        """tools/call at the address of all servers."""
        for era in ("legacy", "modern"):
            found = self.ask("/mcp", "--protocol-era", era, *ADD)
            self.assertEqual(found["structuredContent"], {"total": 5})
            self.assertEqual(self.running.record(method="tools/call", era=era)["scheme"], "https")


class RepertoireTests(InspectorCase):
    """Tools, resources and prompts of the official server."""

    def assertInspected(self, *runs: tuple[str, ...]) -> None:
        """Each run answers what the server said."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda argv: self.inspected(*argv), runs))
        for argv, found in zip(runs, results, strict=True):
            method = argv[argv.index("--method") + 1]
            self.assertEqual(SAID[method](found), EXPECTED[method], argv)

    def test_http(self) -> None:
        """Streamable HTTP, in both eras."""
        daemon = self.daemon(servers={"full": self.child(FULL)})
        start = (f"http://127.0.0.1:{daemon.port}/servers/full/mcp", "--transport", "http", "--protocol-era")
        self.assertInspected((*start, "legacy", *READ), (*start, "modern", *REVIEW))
        self.assertEqual(daemon.record(method="resources/read", era="legacy")["path"], "/servers/full/mcp")
        self.assertEqual(daemon.record(method="prompts/get", era="modern")["path"], "/servers/full/mcp")

    def test_sse(self) -> None:
        """HTTP+SSE, which is of the legacy era."""
        daemon = self.daemon(servers={"full": self.child(FULL)})
        start = (f"http://127.0.0.1:{daemon.port}/servers/full/sse", "--transport", "sse")
        self.assertInspected((*start, *LIST), (*start, *ADD), (*start, *READ))
        self.assertEqual(daemon.record(method="resources/read")["era"], "legacy")

    def test_stdio(self) -> None:
        """The inspector starts our command; in both eras."""
        tunnel = self.place / "tunnel.json"
        tunnel.write_text(json.dumps({"mcpServers": {"full": self.child(FULL), "demo": self.child()}}))
        args = ["stdio", "--config", str(tunnel), "--server", "full"]
        file = self.place / "mcp.json"
        entry = {"command": MCPTUNNEL, "args": args, "env": python_env()}
        file.write_text(json.dumps({"mcpServers": {"tunnel": entry}}))
        start = ("--config", str(file), "--server", "tunnel", "--protocol-era")
        self.assertInspected((*start, "legacy", *LIST), (*start, "modern", *READ), (*start, "legacy", *REVIEW))
