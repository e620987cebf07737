"""Starting and stopping, as systemd and an operator do it: what is refused, and what SIGTERM lets finish."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import yaml
from websockets.exceptions import ConnectionClosed

from tests.clients import HttpClient, events, modern, websocket
from tests.daemon import Daemon, DaemonCase, alive, python_env
from tests.processes import descendants, free_port

DEMO = "/servers/demo/mcp"


class StopTests(DaemonCase):
    """SIGTERM."""

    def plain(self, daemon: Daemon) -> HttpClient:
        return HttpClient(port=daemon.port, tls=None)

    def counting(self, to: int) -> bytes:
        message = modern("tools/call", name="count", arguments={"to": to}, _meta={"progressToken": "p"})
        return json.dumps(message).encode()

    def test_a_call_in_flight_finishes(self) -> None:
        """It gets every event and its answer; meanwhile nobody new is let in; then the daemon is gone."""
        daemon = self.daemon()
        client = self.plain(daemon)
        body = self.counting(15)
        headers = client.modern_headers(json.loads(body))
        with client.open("POST", DEMO, body, headers) as (response, _):
            stream = events(response)
            next(stream)
            daemon.process.terminate()
            time.sleep(0.3)
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", daemon.port), 1)
            rest = [message for _, message in stream]
        self.assertEqual(len(rest), 15)
        self.assertEqual(rest[-1]["result"]["content"][0]["text"], "counted to 15")
        daemon.process.popen.wait(10)

    def test_a_call_that_does_not_end_is_ended(self) -> None:
        """After drain_timeout the client gets an answer that says why, and the daemon is gone."""
        daemon = self.daemon(server={"limits": {"drain_timeout": "500ms"}})
        client = self.plain(daemon)
        body = self.counting(99)
        with client.open("POST", DEMO, body, client.modern_headers(json.loads(body))) as (response, _):
            stream = events(response)
            next(stream)
            started = time.monotonic()
            daemon.process.terminate()
            last = [message for _, message in stream][-1]
        self.assertIn("stopping", last["error"]["message"])
        daemon.process.popen.wait(10)
        self.assertLess(time.monotonic() - started, 5)

    def test_streams_are_closed_with_a_reason(self) -> None:
        """A WebSocket gets 1001 and words; the standing stream of a session ends cleanly."""
        daemon = self.daemon()
        client = self.plain(daemon)
        client.initialize(DEMO)
        with (
            websocket(daemon.port) as ws,
            client.open("GET", DEMO, None, {**client.legacy_headers(), "Accept": "text/event-stream"}) as (stream, _),
        ):
            ws.initialize()
            self.assertEqual(stream.status, 200)
            daemon.process.terminate()
            with self.assertRaises(ConnectionClosed) as caught:
                ws.hear()
            assert caught.exception.rcvd is not None
            self.assertEqual(caught.exception.rcvd.code, 1001)
            self.assertIn("stopping", caught.exception.rcvd.reason)
            # http.client raises IncompleteRead if the last chunk is missing.
            stream.read()

    def test_nothing_of_a_child_is_left(self) -> None:
        """A child's own children go with it, also one that left its process group."""
        script = "sleep 300 & setsid sleep 300 & cat >/dev/null"
        daemon = self.daemon(servers={"work": {"command": "sh", "args": ["-c", script]}, "demo": self.child()})
        body = self.counting(1).replace(b'"count"', b'"x"')
        client = self.plain(daemon)
        with client.open("POST", DEMO, body, client.modern_headers(json.loads(body))) as (response, _):
            response.read()
        with socket.create_connection(("127.0.0.1", daemon.port), 5) as waiting:
            lines = ["POST /servers/work/mcp HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in client.modern_headers(json.loads(body)).items()]
            waiting.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            self.eventually(lambda: len(self.sleepers(daemon)) == 2, "the child did not start its children")
            pids = self.sleepers(daemon)
        daemon.stop()
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def sleepers(self, daemon: Daemon) -> list[int]:
        found = []
        for pid in descendants(daemon.process.popen.pid):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0"):
                found.append(pid)
        return found


class StartTests(DaemonCase):
    """What does not start."""

    def run_to_end(self, config: object) -> subprocess.CompletedProcess[str]:
        path = self.place / "refused.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return subprocess.run(
            self.twistd(path),
            cwd=self.place,
            env={**os.environ, **python_env()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def test_every_error_at_once(self) -> None:
        """A bad file: one line for each mistake with file, line and key; status not 0; no socket was opened."""
        done = self.run_to_end("server:\n  prot: 3000\n  tls:\n    mode: automatic\nauth:\n  anonymous: perhaps\n")
        self.assertNotEqual(done.returncode, 0)
        for place, key in (("2", "prot"), ("4", "mode"), ("6", "anonymous")):
            self.assertRegex(done.stderr, rf"refused\.yaml:{place}: \S*{key}: ")
        self.assertIn("port", done.stderr)
        self.assertNotIn("Traceback", done.stderr + done.stdout)
        self.assertNotIn("listening", done.stdout)

    def test_open_to_the_world(self) -> None:
        """Servers on every address and no credential: refused, and the switch is named; with the switch it starts."""
        port = free_port()
        server = {"host": "0.0.0.0", "port": port}
        config = {"server": server, "mcpServers": {"demo": self.child()}}
        done = self.run_to_end(config)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("auth.anonymous", done.stderr)
        daemon = self.daemon(server={"host": "0.0.0.0"}, auth={"anonymous": True})
        self.assertEqual(HttpClient(port=daemon.port, tls=None).get("/health/live").status, 200)

    def test_a_port_in_use(self) -> None:
        """One sentence that names the address, no traceback."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = self.run_to_end({"server": {"port": port}})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(port), done.stderr + done.stdout)
        self.assertNotIn("Traceback", done.stderr + done.stdout)
