"""Clients that start us: `mcptunnel stdio` and `mcptunnel connect`, and what is left when they are gone."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from mcp import Client

from tests.certificates import authority
from tests.clients import INITIALIZE, modern
from tests.daemon import DaemonCase, alive, python_env
from tests.node import INSPECTOR, installed
from tests.pipes import MCPTUNNEL, PipeClient
from tests.processes import descendants
from tests.sdk import ERAS, over_stdio, session, walk

TOKEN = "a-token-of-thirty-two-characters"
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def initialize(number: int = 0) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "initialize", "params": INITIALIZE}


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    """Legacy."""
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


class PipeCase(DaemonCase):
    """Starts commands, and looks for what they leave behind."""

    def configuration(self, servers: dict[str, Any], **sections: Any) -> str:
        path = self.place / "tunnel.yaml"
        path.write_text(yaml.safe_dump({"mcpServers": servers, **sections}, sort_keys=False))
        return str(path)

    def pipe(self, *argv: str, **env: str) -> PipeClient:
        client = PipeClient.start(self.place, *argv, env=env)
        self.addCleanup(client.close)
        return client

    def assertGone(self, pids: list[int], seconds: float = 10.0) -> None:
        self.eventually(lambda: not any(map(alive, pids)), f"some of {pids} are left", seconds)

    def assertQuiet(self, client: PipeClient) -> None:
        """It has said nothing more, and has not complained."""
        self.assertEqual(client.line(), b"")
        for word in ("Traceback", "#critical", "#error"):
            self.assertNotIn(word, client.errors())

    def started(self) -> list[int]:
        """The process that our client has started, and everything below it."""
        name = MCPTUNNEL.encode()
        (pid,) = [
            pid for pid in descendants(os.getpid()) if name in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        return [pid, *descendants(pid)]

    def walked(self, *argv: str, prefix: str = "", env: dict[str, str] | None = None) -> None:
        """The official client in both eras; nothing is left of what it has started."""
        for era in ERAS:
            started: list[int] = []

            async def steps(client: Client, started: list[int] = started) -> None:
                await walk(client, prefix)
                started += self.started()

            began = time.monotonic()
            session(over_stdio([MCPTUNNEL, *argv, "--quiet"], {**python_env(), **(env or {})}), era, steps)
            self.assertGone(started)
            self.assertLess(time.monotonic() - began, 25)


class SdkTests(PipeCase):
    """The official client, through everything that the official server can do."""

    def test_stdio_before_a_child(self) -> None:
        """Pipes on both sides."""
        config = self.configuration({"up": self.child("tests.upstream")})
        self.walked("stdio", "--config", config)

    def test_stdio_before_http(self) -> None:
        """A server with an address."""
        self.walked("stdio", "--config", self.configuration({"up": {"url": self.upstream("tests.upstream")}}))

    def test_stdio_before_several(self) -> None:
        """As one server, names prefixed; and one of them alone."""
        config = self.configuration({"up": self.child("tests.upstream"), "demo": self.child()})
        self.walked("stdio", "--config", config, prefix="up__")
        self.walked("stdio", "--config", config, "--server", "up")

    def test_connect_to_a_server(self) -> None:
        """Without a daemon."""
        self.walked("connect", self.upstream("tests.upstream"))

    def test_connect_to_a_daemon(self) -> None:
        """Over TLS with a private authority, and with a token that is not on the command line."""
        daemon = self.daemon(
            "application",
            server={"public_url": None},
            servers={"up": self.child("tests.upstream"), "demo": self.child()},
            auth={"tokens": [{"name": "ada", "token": TOKEN}]},
        )
        ca = self.place / "ca.pem"
        ca.write_bytes(authority().pem)
        url = f"https://localhost:{daemon.port}"
        trust = ("--ca-file", str(ca), "--header", "Authorization: Bearer ${env:TUNNEL_TOKEN}")
        self.walked("connect", f"{url}/mcp", *trust, prefix="up__", env={"TUNNEL_TOKEN": TOKEN})
        self.walked("connect", f"{url}/servers/up/mcp", *trust, env={"TUNNEL_TOKEN": TOKEN})
        self.assertEqual(daemon.record(method="tools/call", era="legacy")["principal"], "ada")
        self.assertEqual(daemon.record(method="tools/call", era="modern")["principal"], "ada")

    def test_a_daemon_that_does_not_let_us_in(self) -> None:
        """The client gets an answer that says so, and so does the one that does not trust the certificate."""
        daemon = self.daemon(
            "application", server={"public_url": None}, auth={"tokens": [{"name": "ada", "token": TOKEN}]}
        )
        ca = self.place / "ca.pem"
        ca.write_bytes(authority().pem)
        url = f"https://localhost:{daemon.port}/mcp"
        for argv, words in ((("--ca-file", str(ca)), "401"), ((), "certificate")):
            for message in (initialize(), modern("tools/list")):
                client = self.pipe("connect", url, *argv)
                client.say(message)
                self.assertIn(words, client.hear()["error"]["message"])
                client.stdin.close()
                self.assertEqual(client.wait(), 0)
                self.assertQuiet(client)


class InspectorTests(PipeCase):
    """The official inspector starts us as desktop programs do: from a file of the form that they share."""

    def test_inspector(self) -> None:
        """A call in both eras."""
        node = installed(INSPECTOR)
        args = ["stdio", "--config", self.configuration({"demo": self.child()})]
        file = self.place / "mcp.json"
        file.write_text(
            json.dumps({"mcpServers": {"tunnel": {"command": MCPTUNNEL, "args": args, "env": python_env()}}})
        )
        call = ("--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3", "--format", "json", "-q")
        for era in ("legacy", "modern"):
            start = ("--config", str(file), "--server", "tunnel", "--protocol-era", era)
            done = node.run("mcp-inspector", "--cli", *start, *call)
            self.assertEqual(done.returncode, 0, f"{era}:\n{done.stdout}\n{done.stderr}")
            found = json.loads(done.stdout)
            self.assertEqual(found.get("result", found)["structuredContent"], {"total": 5})


class LineTests(PipeCase):
    """What is said on the pipes, byte by byte."""

    def test_all_at_once_and_then_the_end(self) -> None:
        """Everything that was asked is answered before it exits; standard output has nothing but messages."""
        config = self.configuration({"demo": self.child()}, logging={"level": "debug"})
        lines = [initialize(), INITIALIZED, *(call(number, "add", a=number, b=1) for number in range(1, 30))]
        done = subprocess.run(
            [MCPTUNNEL, "stdio", "--config", config],
            input="\n".join(map(json.dumps, lines)).encode(),
            env={**os.environ, **python_env()},
            capture_output=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        answers = {(answer := json.loads(line))["id"]: answer for line in done.stdout.splitlines()}
        self.assertEqual(sorted(answers), list(range(30)))
        self.assertEqual(answers[7]["result"]["structuredContent"], {"total": 8})
        self.assertIn("[access] stdio stdio", done.stderr.decode())

    def test_what_cannot_be_read(self) -> None:
        """An error with id null, however long the line is; then the conversation goes on."""
        config = self.configuration({"demo": self.child()}, server={"limits": {"body_bytes": "64KiB"}})
        client = self.pipe("stdio", "--config", config)
        client.say(b"rubbish")
        self.assertEqual((client.hear()["error"]["code"]), -32700)
        before = self.memory(client)
        for _ in range(512):
            client.stdin.write(b"x" * 65536)
        client.say(b"")
        answer = client.hear()
        self.assertEqual((answer["id"], answer["error"]["code"]), (None, -32600))
        self.assertIn("server.limits.body_bytes", answer["error"]["message"])
        self.assertLess(self.memory(client) - before, 8 * 1024 * 1024)
        client.say(initialize())
        self.assertEqual(client.hear()["id"], 0)
        client.stdin.close()
        self.assertEqual(client.wait(), 0)
        self.assertQuiet(client)

    def memory(self, client: PipeClient) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{client.popen.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def test_a_client_that_does_not_read(self) -> None:
        """It may write no more either, before memory grows; when it reads again, everything is there."""
        config = self.configuration({"demo": self.child()})
        client = self.pipe("stdio", "--config", config)
        client.say(initialize(), INITIALIZED)
        client.hear()
        os.set_blocking(client.stdin.fileno(), False)
        text = "x" * 20_000
        line = json.dumps(call(0, "echo", text=text)).encode()
        before = self.memory(client)
        sent, stuck, rest = 0, 0.0, b""
        while stuck < 1.0:
            if not rest:
                sent += 1
                rest = line.replace(b'"id": 0', b'"id": %d' % sent) + b"\n"
            written = client.stdin.write(rest)
            rest = rest[written or 0 :]
            stuck = 0.0 if written else stuck + 0.05
            if not written:
                time.sleep(0.05)
            self.assertLess(sent, 3000, "it takes whatever it gets")
        self.assertLess(self.memory(client) - before, 16 * 1024 * 1024)
        os.set_blocking(client.stdin.fileno(), True)
        answers = set()
        # The last line is only partly there: it cannot be finished before something is read.
        while len(answers) < sent - 1:
            answers.add(client.hear()["id"])
        client.stdin.write(rest)
        answers.add(client.hear()["id"])
        self.assertEqual(answers, set(range(1, sent + 1)))
        client.stdin.close()
        self.assertEqual(client.wait(), 0)
        self.assertQuiet(client)

    def test_a_client_that_does_not_read_standard_error(self) -> None:
        """The log is lost; the conversation goes on."""
        config = self.configuration({"demo": self.child()}, logging={"level": "debug"})
        popen = subprocess.Popen(
            [MCPTUNNEL, "stdio", "--config", config],
            env={**os.environ, **python_env()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        client = PipeClient(popen, self.place / "none")
        self.addCleanup(client.close)
        assert popen.stderr is not None
        self.addCleanup(popen.stderr.close)
        client.log.write_text("")
        client.say(initialize(), INITIALIZED)
        client.hear()
        for number in range(1, 1000):
            client.say(call(number, "add", a=1, b=1))
            self.assertEqual(client.hear()["id"], number)
        client.stdin.close()
        self.assertEqual(client.wait(), 0)
        self.assertGreater(len(popen.stderr.read()), 60_000)

    def test_what_is_refused(self) -> None:
        """With status 1 or 2, lines on standard error, and not a byte on standard output."""
        config = self.configuration({"demo": self.child()})
        broken = self.place / "broken.yaml"
        broken.write_text("mcpServers: {a: {comand: cat}}\n")
        url = "http://localhost/mcp"
        for argv, status, words in (
            (("stdio", "--config", str(broken)), 1, "mcptunnel: "),
            (("stdio", "--config", config, "--server", "nope"), 1, "mcptunnel: --server nope: "),
            (("stdio", "--nope"), 2, "usage: "),
            (("connect", "ftp://x"), 1, "mcptunnel: connect: URL: "),
            (("connect", url, "--header", "nocolon"), 2, "--header"),
            (("connect", url, "--header", "A: ${env:NOT_SET}"), 1, "mcptunnel: connect: --header A: "),
        ):
            client = self.pipe(*argv)
            self.assertEqual(client.wait(), status, client.errors())
            self.assertEqual(client.line(), b"")
            self.assertIn(words, client.errors())
            self.assertNotIn("Traceback", client.errors())


class EndTests(PipeCase):
    """Nothing is left, whoever ends it and however."""

    def running(self, config: str | None = None) -> tuple[PipeClient, list[int]]:
        """A session with a child, and every process of it."""
        client = self.pipe("stdio", "--config", config or self.configuration({"demo": self.child()}))
        client.say(initialize(), INITIALIZED)
        client.hear()
        pids = descendants(client.popen.pid)
        # The server and the warden.
        self.assertEqual(len(pids), 2)
        return client, pids

    def test_the_client_closes_our_input(self) -> None:
        """Status 0; a call in flight is answered first."""
        client, pids = self.running()
        client.say(call(1, "count", to=10))
        client.stdin.close()
        self.assertIn("counted to 10", json.dumps(client.hear()))
        self.assertEqual(client.wait(), 0)
        self.assertQuiet(client)
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_signals(self) -> None:
        """Of an operator, of a terminal, of a service manager; a call in flight is answered, and new ones are not."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            client, pids = self.running()
            client.say(call(1, "count", to=10))
            time.sleep(0.2)
            client.popen.send_signal(number)
            self.assertIn("counted to 10", json.dumps(client.hear()))
            self.assertEqual(client.wait(), 0)
            self.assertQuiet(client)
            self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_a_second_signal_waits_for_nothing(self) -> None:
        """Nor does one after the end of our input: the official client sends it two seconds later."""
        for first in ("signal", "close"):
            client, pids = self.running()
            client.say(call(1, "count", to=99))
            if first == "signal":
                client.popen.terminate()
            else:
                client.stdin.close()
            time.sleep(0.3)
            self.assertIsNone(client.popen.poll())
            client.popen.terminate()
            self.assertIn("stopping", client.hear(1.0)["error"]["message"])
            self.assertEqual(client.wait(), 0)
            self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_the_client_is_killed(self) -> None:
        """It could not close anything in order, and has a call in flight."""
        script = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
            f"child.stdin.write({json.dumps(initialize()).encode()!r} + b'\\n')\n"
            "child.stdin.flush()\n"
            "child.stdout.readline()\n"
            f"child.stdin.write({json.dumps(call(1, 'count', to=99)).encode()!r} + b'\\n')\n"
            "child.stdin.flush()\n"
            "print('ready', flush=True)\n"
            "time.sleep(60)\n"
        )
        config = self.configuration({"demo": self.child()})
        client = self.start(
            "client", [sys.executable, "-c", script, MCPTUNNEL, "stdio", "--config", config], env=python_env()
        )
        self.eventually(lambda: "ready" in client.output(), "the client does not start", 15)
        pids = descendants(client.popen.pid)
        self.assertEqual(len(pids), 3)
        os.kill(client.popen.pid, signal.SIGKILL)
        self.assertGone(pids)

    def test_we_are_killed(self) -> None:
        """The warden ends the server."""
        client, pids = self.running()
        client.popen.kill()
        client.wait()
        self.assertGone(pids)

    def test_a_client_that_neither_reads_nor_writes_any_more(self) -> None:
        """It has closed its end of our input, and its end of our output is full: that is no reason to stay."""
        config = self.configuration(
            {"demo": self.child()},
            server={"limits": {"drain_timeout": "1s", "write_timeout": "1s"}},
            logging={"level": "debug"},
        )
        client, pids = self.running(config)
        os.set_blocking(client.stdin.fileno(), False)
        line = json.dumps(call(1, "echo", text="x" * 20_000)).encode()
        stuck = 0
        for number in range(2, 2000):
            raw = line.replace(b'"id": 1', b'"id": %d' % number) + b"\n"
            if client.stdin.write(raw) != len(raw):
                stuck = number
                break
            time.sleep(0.001)
        self.assertTrue(stuck)
        client.stdin.close()
        self.assertEqual(client.wait(), 0)
        self.assertIn("and does not read: ending", client.errors())
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_the_server_goes(self) -> None:
        """The call in flight fails at once; the next one is served by a new process, and the session goes on."""
        client, pids = self.running()
        client.say(call(1, "count", to=99))
        server = next(pid for pid in pids if b"mcptunnel.demo" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(server, signal.SIGKILL)
        self.assertIn("error", client.hear())

        def served() -> bool:
            client.say(call(2, "echo", text="again"))
            return "result" in client.hear()

        self.eventually(served, "no new process serves")
        client.stdin.close()
        self.assertEqual(client.wait(), 0)
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_nothing_is_bound(self) -> None:
        """Although the configuration names a listener."""
        client, _ = self.running(self.configuration({"demo": self.child()}, server={"port": 3999}))
        inodes = set()
        for entry in Path(f"/proc/{client.popen.pid}/fd").iterdir():
            if (name := os.readlink(entry)).startswith("socket:["):
                inodes.add(name[8:-1])
        for table in ("tcp", "tcp6"):
            for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = row.split()
                self.assertFalse(fields[3] == "0A" and fields[9] in inodes, row)
