"""Real MCP clients over https and wss against the daemon, and what clients with bad manners get."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mcp import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.certificates import client_context
from tests.clients import ACCEPT, HttpClient, modern, websocket
from tests.daemon import Daemon, DaemonCase
from tests.processes import descendants, free_port
from tests.sdk import ERAS, over_http, over_websocket, session, text, walk

DEMO = "/servers/demo/mcp"
UPSTREAM = "tests.upstream"
TOKEN = "5f1d7c0a-outside"


# Answers `initialize`, takes two more messages, and ends.
BRIEF = """
import json, sys
hello = json.loads(sys.stdin.readline())
result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "brief", "version": "1"}}
print(json.dumps({"jsonrpc": "2.0", "id": hello["id"], "result": result}), flush=True)
sys.stdin.readline()
sys.stdin.readline()
"""


class _Auto(DaemonCase):
    """A daemon in mode auto; its clients come directly, over TLS."""

    def auto(self, **others: Any) -> Daemon:
        return self.daemon("auto", **others)

    def client(self, daemon: Daemon, **headers: str) -> HttpClient:
        return HttpClient(port=daemon.port, headers=headers)


class SdkTests(_Auto):
    """The official Python client, with and without handshake."""

    def walk(self, transport: Any, daemon: Daemon, path: str, prefix: str = "") -> None:
        async def steps(client: Client) -> None:
            await walk(client, prefix)

        for era in ERAS:
            session(transport(daemon.port, path, tls=client_context()), era, steps)

    def test_a_stdio_child(self) -> None:
        """/servers/NAME/mcp in front of a child process: list, call, progress, elicitation, parallel, cancel."""
        daemon = self.auto(servers={"work": self.child(UPSTREAM)})
        self.walk(over_http, daemon, "/servers/work/mcp")

    def test_a_streamable_http_server(self) -> None:
        """The same in front of a server with an address."""
        daemon = self.auto(servers={"work": {"url": self.upstream(UPSTREAM)}})
        self.walk(over_http, daemon, "/servers/work/mcp")

    def test_all_servers_at_one_address(self) -> None:
        """/mcp in front of both kinds: names are prefixed, and each call reaches its own server."""
        daemon = self.auto(
            servers={"child": self.child(UPSTREAM), "remote": {"url": self.upstream(UPSTREAM)}, "demo": self.child()}
        )
        for prefix in ("child__", "remote__"):
            self.walk(over_http, daemon, "/mcp", prefix)

        async def demo(client: Client) -> None:
            assert text(await client.call_tool("demo__echo", {"text": "straße"})) == "straße"
            assert text(await client.call_tool("demo__ask", {})) == "Hello Ada!"
            assert len((await client.list_tools()).tools) == 15

        for era in ERAS:
            session(over_http(daemon.port, "/mcp", tls=client_context()), era, demo)

    def test_websocket(self) -> None:
        """The same over wss, at /mcp/ws and at /servers/NAME/ws."""
        daemon = self.auto(servers={"work": self.child(UPSTREAM), "demo": self.child()})
        self.walk(over_websocket, daemon, "/mcp/ws", "work__")
        self.walk(over_websocket, daemon, "/servers/work/ws")

    def test_the_demo_over_http(self) -> None:
        """The demo server with an address, as `make run` shows it."""
        daemon = self.auto(servers={"demo": {"url": self.upstream()}})
        reported: list[float] = []

        async def steps(client: Client) -> None:
            async def progress(at: float, of: float | None, message: str | None) -> None:
                reported.append(at)

            assert text(await client.call_tool("ask", {})) == "Hello Ada!"
            assert text(await client.call_tool("count", {"to": 3}, progress_callback=progress)) == "counted to 3"

        for era in ERAS:
            session(over_http(daemon.port, DEMO, tls=client_context()), era, steps)
        self.assertEqual(reported, [1, 2, 3, 1, 2, 3])

    def test_a_token(self) -> None:
        """The client sends its token with every request; the records name its owner."""
        daemon = self.auto(auth={"tokens": [{"name": "ci", "token": TOKEN}]})

        async def steps(client: Client) -> None:
            assert text(await client.call_tool("echo", {"text": "in"})) == "in"

        for era in ERAS:
            session(over_http(daemon.port, DEMO, tls=client_context(), token=TOKEN), era, steps)
            session(over_websocket(daemon.port, "/servers/demo/ws", tls=client_context(), token=TOKEN), era, steps)
        named = [record for record in daemon.records() if record.get("target") == "echo"]
        self.assertEqual([record["principal"] for record in named], ["ci"] * 4)
        everything = daemon.access.read_text() + daemon.process.output()
        self.assertNotIn(TOKEN, everything, "the token is in a log")


class TokenTests(_Auto):
    """The first lock, seen from outside."""

    def locked(self) -> Daemon:
        return self.auto(
            auth={
                "tokens": [
                    {"name": "ci", "token": TOKEN},
                    {"name": "narrow", "token": TOKEN + "-narrow", "allow": ["demo__echo"]},
                ]
            }
        )

    def test_http(self) -> None:
        """401 without, 401 with a wrong one, 200 with the right one; the challenge says which."""
        daemon = self.locked()
        for headers, challenge in (
            ({}, "Bearer"),
            ({"Authorization": "Bearer wrong"}, 'Bearer error="invalid_token"'),
            ({"Authorization": f"Basic {TOKEN}"}, 'Bearer error="invalid_token"'),
        ):
            refused = self.client(daemon, **headers).modern(DEMO, "tools/list")
            self.assertEqual((refused.status, refused.headers["WWW-Authenticate"]), (401, challenge))
        self.assertEqual(self.client(daemon, Authorization=f"Bearer {TOKEN}").modern(DEMO, "tools/list").status, 200)

    def test_websocket(self) -> None:
        """The refusal comes before the 101."""
        daemon = self.locked()
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with (
                self.assertRaises(InvalidStatus) as caught,
                websocket(daemon.port, tls=client_context(), headers=headers),
            ):
                self.fail("the handshake succeeded")
            self.assertEqual(caught.exception.response.status_code, 401)
        with websocket(daemon.port, tls=client_context(), headers={"Authorization": f"Bearer {TOKEN}"}) as ws:
            self.assertIn("serverInfo", ws.initialize())

    def test_health_needs_no_token(self) -> None:
        """Probes have none."""
        self.assertEqual(self.client(self.locked()).get("/health/live").status, 200)

    def test_one_session_belongs_to_one_principal(self) -> None:
        """Somebody else's session does not exist, whoever knows its id."""
        daemon = self.locked()
        owner = self.client(daemon, Authorization=f"Bearer {TOKEN}")
        owner.initialize(DEMO)
        other = self.client(daemon, Authorization=f"Bearer {TOKEN}-narrow")
        other.session = owner.session
        self.assertEqual(other.legacy(DEMO, "tools/list").status, 404)
        self.assertEqual(owner.legacy(DEMO, "tools/list").status, 200)

    def test_what_is_not_allowed_is_not_there(self) -> None:
        """A token for one tool lists that tool and calls no other."""
        client = self.client(self.locked(), Authorization=f"Bearer {TOKEN}-narrow")
        listed = client.modern(DEMO, "tools/list").last["result"]["tools"]
        self.assertEqual([tool["name"] for tool in listed], ["echo"])
        self.assertEqual(client.modern(DEMO, "tools/call", name="echo", arguments={"text": "a"}).text, "a")
        self.assertIn("error", client.modern(DEMO, "tools/call", name="clock").last)


class BadInputTests(_Auto):
    """Refusals, and that the daemon serves on."""

    def test_a_dead_server_is_named_at_once(self) -> None:
        """Nothing listens, a program that ends, a program that is not there: each only harms itself."""
        daemon = self.auto(
            servers={
                "demo": self.child(),
                "gone": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
                "ends": {"command": "false"},
                "absent": {"command": "/nonexistent/program"},
            }
        )
        client = self.client(daemon)
        for name in ("gone", "ends", "absent"):
            started = time.monotonic()
            reply = client.modern(f"/servers/{name}/mcp", "tools/list")
            self.assertLess(time.monotonic() - started, 3)
            self.assertIn(f"server {name}", reply.last["error"]["message"])
            self.assertEqual(reply.last["id"], 7)
            record = daemon.record(path=f"/servers/{name}/mcp")
            self.assertEqual(record["code"], reply.last["error"]["code"], record)
        listed = client.modern("/mcp", "tools/list").last["result"]["tools"]
        self.assertEqual({tool["name"].partition("__")[0] for tool in listed}, {"demo"})
        self.assertEqual(client.modern("/mcp", "tools/call", name="demo__echo", arguments={"text": "on"}).text, "on")

    def test_a_server_that_dies_in_a_call(self) -> None:
        """The call fails at once and by name; soon a new process serves, and others were served all the time."""
        flag = self.place / "flag"
        script = f"test -e {flag} && exec {sys.executable} -m mcptunnel.demo stdio; touch {flag}; read line; exit 3"
        # Nobody asks it first which era it speaks, so the call is the first that it hears.
        work = {**self.child(), "command": "sh", "args": ["-c", script], "era": "modern"}
        daemon = self.auto(servers={"work": work, "demo": self.child()})
        client = self.client(daemon)
        started = time.monotonic()
        reply = client.modern("/servers/work/mcp", "tools/list")
        self.assertLess(time.monotonic() - started, 3)
        self.assertIn("server work", reply.last["error"]["message"])
        self.assertIn("status 3", reply.last["error"]["message"])
        self.assertIn("result", client.modern(DEMO, "tools/list").last)
        self.eventually(
            lambda: "result" in client.modern("/servers/work/mcp", "tools/list").last, "no new process serves"
        )

    def test_a_server_that_comes_back_within_a_session(self) -> None:
        """One of two dies between calls: the session goes on, and a new process hears `initialize` before the call."""
        brief = {"command": sys.executable, "args": ["-c", BRIEF]}
        daemon = self.auto(servers={"brief": brief, "demo": self.child()})
        client = self.client(daemon)
        client.initialize("/mcp")

        def call_brief() -> str:
            reply = client.legacy("/mcp", "tools/call", name="brief__x", arguments={})
            message: str = reply.last["error"]["message"]
            return message

        # It exits at the second message after `initialize`, which is the call, without an answer.
        self.assertEqual(call_brief(), "server brief is unavailable: it exited")
        echo = client.legacy("/mcp", "tools/call", name="demo__echo", arguments={"text": "still here"})
        self.assertEqual(echo.text, "still here")
        # The next process has come as far as the first; after that it is not started again at once.
        self.assertEqual(call_brief(), "server brief is unavailable: it exited")
        self.assertIn("(it exited); the next attempt is in", call_brief())
        self.eventually(lambda: call_brief().endswith(": it exited"), "no new process was introduced")
        self.assertGreaterEqual(daemon.process.output().count("server brief: started"), 2)

    def test_oversize(self) -> None:
        """413 as soon as the length is known, before the body is sent; the bound itself passes."""
        daemon = self.auto(server={"limits": {"body_bytes": "64KiB"}})
        client = self.client(daemon)
        message = modern("tools/call", name="echo", arguments={"text": ""})
        room = 65_536 - len(json.dumps(message).encode())
        fits = client.modern(DEMO, "tools/call", name="echo", arguments={"text": "x" * room})
        self.assertEqual((fits.status, len(fits.text)), (200, room))
        headers = {**ACCEPT, "Content-Length": "65537"}
        # Not one byte of the body is sent, so the answer cannot have waited for it.
        refused = client.send("POST", DEMO, None, headers)
        self.assertEqual(refused.status, 413)
        self.assertIn("body_bytes", refused.body.decode())
        self.assertEqual(client.modern(DEMO, "tools/list").status, 200)

    def test_unknown_addresses(self) -> None:
        """404 with a JSON body; no address redirects, a slash at the end is none."""
        daemon = self.auto()
        client = self.client(daemon)
        for path in ("/", "/nothing", "/mcp/nothing", "/servers/nobody/mcp", "/servers/demo", "/servers/"):
            reply = client.get(path)
            self.assertEqual(reply.status, 404, path)
            self.assertIn("json", reply.headers["Content-Type"])
            self.assertEqual(reply.last["status"], 404)
        self.assertEqual(client.modern(DEMO + "/", "tools/list").status, 200)

    def test_malformed_json_rpc(self) -> None:
        """The JSON-RPC error and the HTTP status that belong to it."""
        daemon = self.auto()
        client = self.client(daemon)
        call = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        for body, status, code in (
            (b"{", 400, -32700),
            (b"\xff\xfe", 400, -32700),
            (b"", 400, -32700),
            (b'{"foo": 1}', 400, -32600),
            (b"[]", 400, -32600),
            (b"[" + call + b"]", 400, -32600),
            (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', 400, -32600),
            (b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}', 400, -32600),
            (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}', 400, -32600),
        ):
            reply = client.send("POST", DEMO, body, ACCEPT)
            self.assertEqual((reply.status, reply.last["error"]["code"]), (status, code), body)
        self.assertEqual(client.send("POST", DEMO, call, {**ACCEPT, "Content-Type": "text/plain"}).status, 415)
        self.assertEqual(client.send("POST", DEMO, call, {**ACCEPT, "Accept": "text/html"}).status, 406)
        self.assertEqual(client.send("PUT", DEMO, call, ACCEPT).status, 405)
        self.assertEqual(client.modern(DEMO, "no/such").status, 404)
        self.assertEqual(client.modern(DEMO, "tools/list").status, 200)

    def test_malformed_messages_on_a_websocket(self) -> None:
        """Each gets its error; the connection lives on."""
        daemon = self.auto()
        with websocket(daemon.port, tls=client_context()) as ws:
            ws.initialize()
            for raw, code in (("{", -32700), ("[]", -32600), ('{"foo":1}', -32600)):
                ws.connection.send(raw)
                self.assertEqual(ws.hear()["error"]["code"], code)
            self.assertEqual(len(ws.call("tools/list")[0]["result"]["tools"]), 5)

    def test_a_binary_message_on_a_websocket(self) -> None:
        """Closed with 1003 and a reason."""
        daemon = self.auto()
        with websocket(daemon.port, tls=client_context()) as ws:
            ws.connection.send(b"{}")
            with self.assertRaises(ConnectionClosed) as caught:
                ws.hear()
            closed = caught.exception.rcvd
        assert closed is not None
        self.assertEqual((closed.code, closed.reason), (1003, "MCP messages are text"))

    def test_a_session_outlives_its_only_server(self) -> None:
        """The call in flight fails at once and by name; the next one is served by a new process, on the same socket."""
        daemon = self.auto()
        with websocket(daemon.port, tls=client_context()) as ws:
            ws.initialize()
            ws.say({"jsonrpc": "2.0", "id": 70, "method": "tools/call", "params": {"name": "ask", "arguments": {}}})
            self.assertEqual(ws.hear()["method"], "elicitation/create")
            for pid in descendants(daemon.process.popen.pid):
                if b"mcptunnel.demo" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            failed = ws.hear()
            self.assertEqual((failed["id"], failed["error"]["code"]), (70, -32010))
            self.assertIn("server demo is unavailable: it was ended by SIGKILL", failed["error"]["message"])
            echo = ws.call("tools/call", name="echo", arguments={"text": "still here"})[0]
            self.assertEqual(echo["result"]["content"][0]["text"], "still here")

    def test_a_websocket_that_is_idle_keeps_its_session(self) -> None:
        """A connection that is there is a client that is there, however long it says nothing."""
        daemon = self.auto(server={"limits": {"session_idle_timeout": "1s"}})
        with websocket(daemon.port, tls=client_context()) as ws:
            ws.initialize()
            time.sleep(3)
            self.assertEqual(len(ws.call("tools/list")[0]["result"]["tools"]), 5)

    def test_a_stranger_in_the_host_or_origin(self) -> None:
        """DNS rebinding ends at the gate: 421 for a foreign Host, 403 for a foreign Origin, also before a 101."""
        daemon = self.auto()
        client = self.client(daemon)
        # The certificate is checked for the name in SNI; the header says something else.
        self.assertEqual(client.get("/mcp", Host="evil.example").status, 421)
        client.headers = {"Origin": "https://evil.example"}
        self.assertEqual(client.modern(DEMO, "tools/list").status, 403)
        with (
            self.assertRaises(InvalidStatus) as caught,
            websocket(daemon.port, tls=client_context(), headers=client.headers),
        ):
            self.fail("the handshake succeeded")
        self.assertEqual(caught.exception.response.status_code, 403)
        client.headers = {"Origin": f"https://{client.name}"}
        self.assertEqual(client.modern(DEMO, "tools/list").status, 200)
