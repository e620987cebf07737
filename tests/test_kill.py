"""A thousand deaths in the middle of calls, of each kind: child processes, connections to servers, clients.

Every call carries a value that nobody else has, and its answer must repeat it. Nothing may be left in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from websockets.asyncio.client import connect

from tests.clients import ACCEPT, INITIALIZE, LEGACY, MODERN, HttpClient, modern
from tests.daemon import Daemon, DaemonCase
from tests.processes import descendants

QUICK: Final = Path(__file__).with_name("quick.py")
KILLS: Final = 1000
# Of each child process.
LIVES: Final = 8
# How long a call may wait after its server has died.
AT_ONCE: Final = 2.0
# Of children that end within 5 s of their start only the first is followed by another at once; see docs/mcp.rst.
OLD_ENOUGH: Final = 5.2
CLIENTS: Final = 50
SETTLING: Final = 75.0
SECONDS: Final = 180.0


class KillTests(DaemonCase):
    """Each prints the seed of its random numbers when it fails."""

    def setUp(self) -> None:
        super().setUp()
        self.seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        self.chance = random.Random(self.seed)

    def start_daemon(self, servers: dict[str, Any], more: dict[str, Any] | None = None) -> Daemon:
        limits = {"children": 2000, "connections": 4000, "client_connections": 4000, **(more or {})}
        return self.daemon(servers=servers, server={"limits": limits}, logging={"access": "off"})

    def judge(self, failures: list[str]) -> None:
        self.assertEqual(failures[:10], [], f"{len(failures)} failures; SEED={self.seed}")

    def state(self, daemon: Daemon) -> tuple[int, int, int, int]:
        """Open files and processes of the daemon, sessions and calls in flight."""
        pid = daemon.process.popen.pid
        health = json.loads(HttpClient(port=daemon.port, tls=None).get("/health").body)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return files, len(descendants(pid)), health["sessions"], health["in_flight"]

    def settled(self, daemon: Daemon, before: tuple[int, int, int, int]) -> None:
        """Nothing more is there than before."""
        self.eventually(lambda: self.state(daemon) == before, f"something is left: SEED={self.seed}", SETTLING)

    def test_children(self) -> None:
        """kill -9 while calls of several clients wait: they fail at once, everybody else is answered."""
        entry = {"command": sys.executable, "args": ["-I", "-S", str(QUICK)], "era": "modern"}
        names = [f"s{number}" for number in range(KILLS // LIVES)]
        daemon = self.start_daemon(dict.fromkeys(names, entry))
        run = Children(daemon.port, self.chance)
        asyncio.run(run.warm(names))
        before = self.state(daemon)
        asyncio.run(run.all(names))
        self.judge(run.failures)
        self.assertEqual(run.killed, KILLS)
        self.assertGreater(run.answered, KILLS)
        self.settled(daemon, before)

    def test_connections_to_servers(self) -> None:
        """The event stream of a reply is reset: that call fails at once and is not made again."""
        self.cut(Cuts(self.chance, server_cuts=True))

    def test_clients(self) -> None:
        """A client is gone in the middle of its call: the server hears of it, and nobody else does."""
        self.cut(Cuts(self.chance, server_cuts=False))

    def test_sessions(self) -> None:
        """Clients with a session, over HTTP and WebSocket, are gone in mid-call: session and call end all the same."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1000)
            port = listening.getsockname()[1]
            server = {"url": f"http://127.0.0.1:{port}/mcp", "era": "legacy", "request_timeout": "2s"}
            daemon = self.start_daemon({"cut": server}, {"session_idle_timeout": "1s"})
            before = self.state(daemon)
            run = Sessions(self.chance, server_cuts=False)
            asyncio.run(run.all(listening.dup(), daemon.port))
            self.judge(run.failures)
            self.assertEqual((run.cuts, run.answered), (KILLS, KILLS))
            self.assertEqual(max(run.executed.values()), 1, f"a call was made twice; SEED={self.seed}")
        self.settled(daemon, before)

    def cut(self, run: Cuts) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1000)
            port = listening.getsockname()[1]
            daemon = self.start_daemon({"cut": {"url": f"http://127.0.0.1:{port}/mcp", "era": "modern"}})
            before = self.state(daemon)
            asyncio.run(run.all(listening.dup(), daemon.port))
        self.judge(run.failures)
        self.assertEqual(run.cuts, KILLS)
        self.assertGreater(run.answered, KILLS)
        self.assertEqual(max(run.executed.values()), 1, f"a call was made twice; SEED={self.seed}")
        self.settled(daemon, before)


@define(eq=False)
class Children:
    """Calls to many child processes, each of which dies again and again."""

    port: int
    chance: random.Random
    failures: list[str] = field(factory=list)
    killed: int = 0
    answered: int = 0
    died: dict[str, float] = field(factory=dict)
    pids: dict[str, tuple[int, float]] = field(factory=dict)

    async def warm(self, names: list[str]) -> None:
        """Start them all, a few at a time."""
        room = asyncio.Semaphore(8)

        async def one(name: str) -> None:
            async with room:
                await self.healthy(name, f"{name} first")

        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*[one(name) for name in names])

    async def all(self, names: list[str]) -> None:
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*[self.lives(name) for name in names])

    async def healthy(self, name: str, value: str, died: float = -math.inf) -> None:
        """A call that must be answered; learns of a new process.

        Until the daemon hears of the death it may send a call to the process that is dead, which then fails.
        """
        while True:
            reply = await call(self.port, name, value, 0)
            if reply.get("error", {}).get("code") != -32010 or time.monotonic() - died > AT_ONCE:
                break
            await asyncio.sleep(0.01)
        found = reply.get("result", {}).get("structuredContent", {})
        if found.get("value") != value:
            self.failures.append(f"{value}: {reply}")
            return
        self.answered += 1
        if self.pids.get(name, (0, 0.0))[0] != found["pid"]:
            self.pids[name] = found["pid"], time.monotonic()

    async def lives(self, name: str) -> None:
        for life in range(LIVES):
            pid, since = self.pids[name]
            # Spread, so that what is measured is a death and not 250 of them, and as many new processes, in one second.
            await asyncio.sleep(max(0.0, since + OLD_ENOUGH + self.chance.uniform(0, 5) - time.monotonic()))
            died: list[float] = []
            calls = [self.doomed(name, f"{name} {life} {number}", died) for number in range(3)]
            tasks = [asyncio.create_task(each) for each in calls]
            await asyncio.sleep(self.chance.uniform(0, 0.1))
            died.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            self.killed += 1
            await asyncio.gather(*tasks)
            await self.healthy(name, f"{name} {life} again", died[0])
            if self.pids[name][0] == pid:
                self.failures.append(f"{name}: a dead process has answered")
                return

    async def doomed(self, name: str, value: str, died: list[float]) -> None:
        """Either answered, with its own value, or failed soon after the death."""
        reply = await call(self.port, name, value, self.chance.uniform(0, 0.2))
        if "result" in reply:
            if reply["result"]["structuredContent"]["value"] != value:
                self.failures.append(f"{value} got {reply}")
            self.answered += 1
        elif not died or time.monotonic() - died[0] > AT_ONCE:
            self.failures.append(f"{value}: {reply}, {time.monotonic() - (died or [0])[0]:.2f} s after the death")
        elif reply["error"]["code"] != -32010:
            self.failures.append(f"{value}: {reply}")


@define(eq=False)
class Cuts:
    """Calls to an HTTP server, of which a thousand are cut, on one side or the other.

    Attributes:
        chance: Decides which, and when.
        server_cuts: The server resets; otherwise the client does.
        executed: How often the server was asked for a value.
        waiting: Calls that the server has not finished.
        tasks: Its connections.
    """

    chance: random.Random
    server_cuts: bool
    failures: list[str] = field(factory=list)
    cuts: int = 0
    answered: int = 0
    executed: Counter[str] = field(factory=Counter)
    moments: dict[str, float] = field(factory=dict)
    waiting: int = 0
    tasks: list[asyncio.Task[None]] = field(factory=list)

    async def all(self, listening: socket.socket, port: int) -> None:
        server = await asyncio.start_server(self.connected, sock=listening)
        async with asyncio.timeout(SECONDS), server:
            doomed = [f"cut {number}" for number in range(KILLS)]
            values = doomed + [f"whole {number}" for number in range(KILLS * 3 // 2)]
            self.chance.shuffle(values)
            share = [values[number::CLIENTS] for number in range(CLIENTS)]
            await asyncio.gather(*[self.client(port, each) for each in share])
            until = time.monotonic() + AT_ONCE
            while self.waiting and time.monotonic() < until:
                await asyncio.sleep(0.01)
            if self.waiting:
                self.failures.append(f"the server was not told that {self.waiting} clients had gone")
            server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The daemon has connected. Tasks of our own, which can be waited for in the end."""
        self.tasks.append(asyncio.create_task(self.serve(reader, writer)))

    async def client(self, port: int, values: list[str]) -> None:
        for value in values:
            if value.startswith("cut") and not self.server_cuts:
                await self.leave(asyncio.create_task(call(port, "cut", value, 0)), value)
                continue
            reply = await call(port, "cut", value, self.chance.uniform(0, 0.03))
            if value.startswith("whole"):
                if reply.get("result", {}).get("structuredContent") != {"value": value}:
                    self.failures.append(f"{value} got {reply}")
                self.answered += 1
            elif reply.get("error", {}).get("code") != -32010:
                self.failures.append(f"{value} got {reply}")
            elif time.monotonic() - self.moments[value] > AT_ONCE:
                self.failures.append(
                    f"{value} heard of its end only {time.monotonic() - self.moments[value]:.2f} s later"
                )

    async def leave(self, waiting: asyncio.Task[Any], value: str) -> None:
        """Be gone soon after the call has reached the server."""
        while not self.executed[value] and not waiting.done():
            await asyncio.sleep(0.002)
        await asyncio.sleep(self.chance.uniform(0, 0.02))
        if waiting.done():
            self.failures.append(f"{value} was answered before it was cut: {waiting.result()}")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        self.cuts += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the daemon to the server."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.answer(reader, writer):
                pass
        writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may come."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        message = json.loads(await reader.readexactly(int(lines[b"content-length"])))
        if message["method"] != "tools/call":
            writer.write(_chunked_head(b"application/json"))
            result = {"resultType": "complete", "tools": [], "ttlMs": 60_000, "cacheScope": "public"}
            writer.write(_chunk(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})) + b"0\r\n\r\n")
            return True
        arguments = message["params"]["arguments"]
        value = arguments["value"]
        self.executed[value] += 1
        self.waiting += 1
        try:
            writer.write(_chunked_head(b"text/event-stream") + _chunk(": begun\n\n"))
            await writer.drain()
            if value.startswith("cut"):
                if not self.server_cuts:
                    # Until the daemon leaves.
                    await reader.read()
                    return False
                await asyncio.sleep(arguments["seconds"])
                self.cuts += 1
                self.moments[value] = time.monotonic()
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            await asyncio.sleep(arguments["seconds"])
            result = {"resultType": "complete", "content": [], "structuredContent": {"value": value}}
            reply = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
            writer.write(_chunk(f"data: {reply}\n\n") + b"0\r\n\r\n")
            await writer.drain()
            return True
        finally:
            self.waiting -= 1


@define(eq=False)
class Sessions(Cuts):
    """Sessions with one call that is answered and one in whose middle the client is gone.

    Attributes:
        opened: Sessions that the server has opened.
        ended: Those whose end it has heard of.
    """

    opened: int = 0
    ended: int = 0

    async def all(self, listening: socket.socket, port: int) -> None:
        server = await asyncio.start_server(self.connected, sock=listening)
        async with asyncio.timeout(SECONDS), server:
            share = [range(number, KILLS, CLIENTS) for number in range(CLIENTS)]
            await asyncio.gather(*[self.client(port, [f"{n}" for n in each]) for each in share])
            # By silence (2 s), or at once over WebSocket; a stream that is left may stay 5 s.
            until = time.monotonic() + 20
            while (self.waiting or self.ended < self.opened) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            if self.waiting or self.ended < self.opened:
                self.failures.append(f"{self.waiting} calls and {self.opened - self.ended} sessions are left")
            server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def client(self, port: int, values: list[str]) -> None:
        for value in values:
            await (self.over_websocket if self.chance.random() < 0.5 else self.over_http)(port, value)

    async def over_http(self, port: int, value: str) -> None:
        _, head = await post(port, _hello(), {})
        session = {"Mcp-Session-Id": head["mcp-session-id"], "MCP-Protocol-Version": LEGACY}
        await post(port, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
        reply, _ = await post(port, _call(f"whole {value}"), session)
        self.judge(value, reply)
        await self.leave(asyncio.create_task(post(port, _call(f"cut {value}"), session)), f"cut {value}")

    async def over_websocket(self, port: int, value: str) -> None:
        url = f"ws://127.0.0.1:{port}/servers/cut/ws"
        async with connect(url, subprotocols=["mcp"], proxy=None, close_timeout=0.1) as client:
            await client.send(json.dumps(_hello()))
            await client.recv()
            await client.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            await client.send(json.dumps(_call(f"whole {value}")))
            self.judge(value, json.loads(await client.recv()))
            await client.send(json.dumps(_call(f"cut {value}")))
            await self.leave(asyncio.create_task(client.recv()), f"cut {value}")
            client.transport.abort()

    def judge(self, value: str, reply: dict[str, Any]) -> None:
        if reply.get("result", {}).get("structuredContent") != {"value": f"whole {value}"}:
            self.failures.append(f"{value} got {reply}")
        self.answered += 1

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        if head.startswith(b"DELETE"):
            self.ended += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return True
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            return True
        message = json.loads(await reader.readexactly(int(lines[b"content-length"])))
        if message["method"] == "initialize":
            self.opened += 1
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": LEGACY}}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Mcp-Session-Id: s%d\r\nContent-Length: %d\r\n\r\n%b" % (self.opened, len(body), body)
            )
            return True
        if "id" not in message:
            writer.write(b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n")
            return True
        value = message["params"]["arguments"]["value"]
        self.executed[value] += 1
        self.waiting += 1
        try:
            writer.write(_chunked_head(b"text/event-stream") + _chunk(": begun\n\n"))
            if value.startswith("cut"):
                await reader.read()
                return False
            await asyncio.sleep(self.chance.uniform(0, 0.03))
            result = {"content": [], "structuredContent": {"value": value}}
            reply = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
            writer.write(_chunk(f"data: {reply}\n\n") + b"0\r\n\r\n")
            return True
        finally:
            self.waiting -= 1


def _hello() -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}


def _call(value: str) -> dict[str, Any]:
    params = {"name": "t", "arguments": {"value": value}}
    return {"jsonrpc": "2.0", "id": value, "method": "tools/call", "params": params}


def _chunked_head(kind: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind


def _chunk(said: str) -> bytes:
    raw = said.encode()
    return b"%x\r\n%b\r\n" % (len(raw), raw)


async def call(port: int, server: str, value: str, seconds: float) -> dict[str, Any]:
    """The response to one modern call."""
    message = modern("tools/call", name="t", arguments={"value": value, "seconds": seconds})
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "t"}
    reply, _ = await post(port, message, headers, server)
    return reply


async def post(
    port: int, message: dict[str, Any], headers: dict[str, str], server: str = "cut"
) -> tuple[dict[str, Any], dict[str, str]]:
    """The response to one message on a connection of its own, and its headers; cancelling resets the connection."""
    body = json.dumps(message).encode()
    lines = [f"POST /servers/{server}/mcp HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {text}" for name, text in {**ACCEPT, **headers, "Content-Length": str(len(body))}.items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        raw = await reader.read()
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()
    head, _, rest = raw.partition(b"\r\n\r\n")
    pairs = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    # Whatever the framing, exactly one object in it is the response.
    found: list[dict[str, Any]] = []
    for line in rest.splitlines():
        with contextlib.suppress(ValueError):
            said = json.loads(line.removeprefix(b"data: "))
            found += [said] if isinstance(said, dict) else []
    return (
        found[0] if len(found) == 1 else {"error": {"code": 0, "message": f"{len(found)} responses in {raw!r}"}},
        {name.lower(): text for name, text in pairs},
    )
