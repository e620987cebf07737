"""Every way to the daemon, times both eras of clients, times every way from it to a server: the whole repertoire."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from itertools import product
from typing import Any, Final, Literal

from tests.daemon import Daemon, DaemonCase, python_env
from tests.pipes import MCPTUNNEL
from tests.processes import free_port
from tests.repertoire import Walk
from tests.sdk import over_http, over_sse, over_stdio, over_websocket

FULL: Final = "tests.full"
# Cells under way at the same time: two cores keep up with so many.
AT_ONCE: Final = 8
SECONDS: Final = 150.0

# The only era of a server, None where it speaks both and the client's own is used.
UPSTREAMS: Final[dict[str, Literal["legacy", "modern"] | None]] = {
    "http": None,
    "modern": "modern",
    "legacy": "legacy",
    "stdio": None,
    "sse": None,
    "ws": None,
}
DOWNSTREAMS: Final[dict[str, Callable[[Daemon, str], Any]]] = {
    "http": lambda daemon, server: over_http(daemon.port, f"/servers/{server}/mcp", tls=None),
    "sse": lambda daemon, server: over_sse(daemon.port, f"/servers/{server}/sse", tls=None),
    "ws": lambda daemon, server: over_websocket(daemon.port, f"/servers/{server}/ws", tls=None),
    # The client starts what serves it, from the same configuration.
    "stdio": lambda daemon, server: over_stdio(
        [MCPTUNNEL, "stdio", "--config", str(daemon.config), "--server", server, "--quiet"], python_env()
    ),
}


class MatrixTests(DaemonCase):
    """One daemon, all servers behind it, all clients in front of it."""

    def serving(self, how: str) -> dict[str, Any]:
        """An entry of ``mcpServers``."""
        if how == "stdio":
            return self.child(FULL)
        port = free_port()
        self.start(FULL, [sys.executable, "-m", FULL, how, str(port)], port, env=python_env(), log=f"full-{how}")
        if how == "sse":
            return {"url": f"http://127.0.0.1:{port}/sse", "type": "sse"}
        if how == "ws":
            return {"url": f"ws://127.0.0.1:{port}/mcp/ws", "type": "ws"}
        return {"url": f"http://127.0.0.1:{port}/mcp"}

    def everything(self) -> Daemon:
        """The daemon."""
        return self.daemon(servers={how: self.serving(how) for how in UPSTREAMS})

    def test_every_cell(self) -> None:
        """Each answer of each step in each cell; every failure is named."""
        daemon = self.everything()
        failures = asyncio.run(self.walk(daemon))
        self.assertEqual(failures, [], "\n" + "\n".join(failures) + "\n" + daemon.process.output()[-5000:])

    async def walk(self, daemon: Daemon) -> list[str]:
        """What has failed."""
        room = asyncio.Semaphore(AT_ONCE)
        changing = {server: asyncio.Lock() for server in UPSTREAMS}
        failures: list[str] = []

        async def cell(downstream: str, era: Literal["legacy", "modern"], server: str) -> None:
            name = f"{downstream} {era} on {server}"
            walk = Walk(name, name.replace(" ", "-"), era, UPSTREAMS[server] or era, changing[server])
            async with room:
                await walk.run(DOWNSTREAMS[downstream](daemon, server))
            failures.extend(walk.failures)

        cells = [cell(*each) for each in product(DOWNSTREAMS, ("legacy", "modern"), UPSTREAMS)]
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*cells)
        return failures
