"""Tests for mcptunnel.demo: the server that people try us with must itself be right."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel import demo
from mcptunnel.testing import MODERN_META


class Case(SynchronousTestCase):
    """Asks without a transport."""

    def setUp(self) -> None:
        self.said: list[Any] = []
        self.patch(time, "sleep", lambda _: None)

    def ask(self, method: str, params: Any = None, *, modern: bool = False, reply: Any = None) -> Any:
        params = dict(params or {})
        if modern:
            params["_meta"] = {**MODERN_META, **params.get("_meta", {})}
        message = {"jsonrpc": "2.0", "id": "i", "method": method, "params": params}
        answer = demo.answer(message, self.said.append, lambda _method, _params: reply)
        self.assertEqual((answer["jsonrpc"], answer["id"]), ("2.0", "i"))
        return answer

    def call(self, name: str, arguments: Any = None, **more: Any) -> Any:
        return self.ask("tools/call", {"name": name, "arguments": arguments or {}}, **more)["result"]

    def text(self, result: Any) -> str:
        return str(result["content"][0]["text"])


class ToolTests(Case):
    """Its tools."""

    def test_echo_says_the_text_again(self) -> None:
        """Whatever it is."""
        self.assertEqual(self.text(self.call("echo", {"text": "é\n"})), "é\n")
        self.assertEqual(self.text(self.call("echo", {"text": 5})), "5")

    def test_add_adds(self) -> None:
        """With a structured result too; nonsense is an error of the tool, not of the protocol."""
        result = self.call("add", {"a": 2, "b": 0.5})
        self.assertEqual((self.text(result), result["structuredContent"]), ("2.5", {"total": 2.5}))
        for arguments in ({}, {"a": 1}, {"a": 1, "b": "x"}, {"a": None, "b": 1}):
            self.assertTrue(self.call("add", arguments)["isError"])

    def test_clock_tells_the_time(self) -> None:
        """In UTC."""
        self.assertRegex(self.text(self.call("clock")), r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")

    def test_count_reports_progress_to_whoever_asked_for_it(self) -> None:
        """Under their token; others hear nothing."""
        self.ask("tools/call", {"name": "count", "arguments": {"to": 2}, "_meta": {"progressToken": "t"}})
        self.assertEqual([m["params"]["progress"] for m in self.said], [1, 2])
        self.assertEqual({m["params"]["progressToken"] for m in self.said}, {"t"})
        self.said.clear()
        self.assertEqual(self.text(self.call("count", {"to": 2})), "counted to 2")
        self.assertEqual(self.said, [])

    def test_arguments_that_make_no_sense_are_answered(self) -> None:
        """A call that gets no answer would hang its client."""
        for to in ("many", None, [1]):
            arguments = {"to": to}
            self.assertTrue(self.call("count", arguments)["isError"], arguments)

    def test_ask_asks_by_the_means_of_the_era(self) -> None:
        """A request of the server, or an input-required result."""
        accepted = {"action": "accept", "content": {"name": "Ada"}}
        self.assertEqual(self.text(self.call("ask", reply=accepted)), "Hello Ada!")
        for reply in (None, {}, {"action": "decline"}):
            self.assertEqual(self.text(self.call("ask", reply=reply)), "Hello whoever you are!")
        first = self.call("ask", modern=True)
        self.assertEqual(
            (first["resultType"], first["inputRequests"]["name"]["method"]), ("input_required", "elicitation/create")
        )
        second = self.ask("tools/call", {"name": "ask", "inputResponses": {"name": accepted}}, modern=True)["result"]
        self.assertEqual((self.text(second), second["resultType"]), ("Hello Ada!", "complete"))

    def test_every_listed_tool_exists_and_no_other(self) -> None:
        """The list is the truth."""
        for tool in self.ask("tools/list")["result"]["tools"]:
            self.assertIn("result", self.ask("tools/call", {"name": tool["name"]}))
        error = self.ask("tools/call", {"name": "nope"})["error"]
        self.assertEqual((error["code"], error["message"]), (-32602, "Unknown tool: nope"))


class EraTests(Case):
    """Both eras."""

    def test_the_legacy_era_negotiates(self) -> None:
        """And pings."""
        for wanted, answered in (("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25"), (None, "2025-11-25")):
            result = self.ask("initialize", {"protocolVersion": wanted})["result"]
            self.assertEqual(result["protocolVersion"], answered)
        self.assertEqual(self.ask("ping")["result"], {})
        self.assertEqual(self.ask("server/discover")["error"]["code"], -32601)

    def test_the_modern_era_discovers(self) -> None:
        """What must be in its results is there."""
        result = self.ask("server/discover", modern=True)["result"]
        self.assertEqual((result["supportedVersions"], result["resultType"]), (["2026-07-28"], "complete"))
        for method in ("server/discover", "tools/list"):
            result = self.ask(method, modern=True)["result"]
            self.assertEqual((result["ttlMs"], result["cacheScope"]), (60_000, "public"))
            self.assertIn("io.modelcontextprotocol/serverInfo", result["_meta"])
        for method in ("initialize", "ping", "logging/setLevel"):
            self.assertEqual(self.ask(method, modern=True)["error"]["code"], -32601)

    def test_an_unknown_revision_names_those_that_are_known(self) -> None:
        """-32022."""
        error = self.ask("tools/list", {"_meta": {demo.VERSION_KEY: "2099-01-01"}}, modern=True)["error"]
        self.assertEqual(
            (error["code"], error["data"]), (-32022, {"supported": ["2026-07-28"], "requested": "2099-01-01"})
        )


class MainTests(Case):
    """The command line."""

    def test_it_says_how_it_is_used(self) -> None:
        """And ends with status 2."""
        for argv in ([], ["stdio", "x"], ["http"], ["http", "port"], ["nothing"]):
            err = io.StringIO()
            self.patch(sys, "stderr", err)
            self.assertEqual(demo.main(argv), 2)
            self.assertIn("usage: python -m mcptunnel.demo", err.getvalue())

    def test_over_standard_input_and_output(self) -> None:
        """A line for a line; notifications are not answered; it ends with its input."""
        lines = [
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 7, "method": "ping"},
        ]
        started: list[Any] = []
        out = io.StringIO()
        self.patch(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
        self.patch(sys, "stdout", out)

        class Inline:
            """A thread that is none."""

            def __init__(self, *, target: Any, args: Any, daemon: bool) -> None:
                started.append(daemon)
                self.start = lambda: target(*args)

        self.patch(threading, "Thread", Inline)
        self.assertEqual(demo.main(["stdio"]), 0)
        self.assertEqual(json.loads(out.getvalue()), {"jsonrpc": "2.0", "id": 7, "result": {}})
        self.assertEqual(started, [True])
