"""Several servers at one address, seen by the official client: subscriptions, long names, and one that is down."""

from __future__ import annotations

import asyncio
import json
import sys
from hashlib import sha256
from typing import Any

from mcp import Client
from mcp.client.subscriptions import Subscription
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged

from tests.changing import LONG
from tests.clients import HttpClient
from tests.daemon import Daemon, DaemonCase, python_env
from tests.processes import free_port
from tests.sdk import ERAS, over_http, over_websocket, session, text

CHANGING = "tests.changing"


class AggregateTests(DaemonCase):
    """A child process and a server with an address behind one `/mcp`."""

    def both(self, **more: Any) -> Daemon:
        return self.daemon(
            servers={"near": self.child(CHANGING, "near"), "far": {"url": self.upstream(CHANGING, "far")}, **more}
        )

    def test_one_subscription_hears_every_server(self) -> None:
        """Changes of both, resources from their owner, over HTTP and WebSocket; one that is down takes nothing away."""
        daemon = self.both(gone={"url": f"http://127.0.0.1:{free_port()}/mcp"})
        found = HttpClient(port=daemon.port, tls=None).modern("/mcp", "server/discover").last["result"]["capabilities"]
        self.assertTrue(found["tools"]["listChanged"], found)
        self.assertTrue(found["resources"]["subscribe"], found)

        async def steps(client: Client) -> None:
            uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
            assert uris == ["own://near/thing", "own://far/thing"], uris

            async with client.listen(tools_list_changed=True, resource_subscriptions=[*uris, "own://else"]) as stream:
                assert stream.honored.tools_list_changed, stream.honored
                assert stream.honored.resource_subscriptions == [*uris, "own://else"], stream.honored
                for server in ("near", "far"):
                    await client.call_tool(f"{server}__change_tools", {})
                    assert await following(stream) == ToolsListChanged()
                    for uri in (f"own://{server}/thing", "own://else"):
                        await client.call_tool(f"{server}__change", {"uri": uri})
                        assert await following(stream) == ResourceUpdated(uri)
                # It was not asked for this: the other owns it.
                await client.call_tool("near__change", {"uri": "own://far/thing"})
                await client.call_tool("far__change", {"uri": "own://far/thing"})
                assert await following(stream) == ResourceUpdated("own://far/thing")
                await silence(stream)

        session(over_http(daemon.port, "/mcp", tls=None), "2026-07-28", steps)
        session(over_websocket(daemon.port, "/mcp/ws", tls=None), "2026-07-28", steps)

    def test_a_subscription_outlives_one_of_its_servers(self) -> None:
        """The other one is heard on."""
        port = free_port()
        far = self.start(CHANGING, [sys.executable, "-m", CHANGING, "http", str(port), "far"], port, env=python_env())
        daemon = self.both(far={"url": f"http://127.0.0.1:{port}/mcp"})

        async def steps(client: Client) -> None:
            async with client.listen(tools_list_changed=True) as stream:
                await client.call_tool("far__change_tools", {})
                assert await following(stream) == ToolsListChanged()
                # Asked politely it would wait for its streams.
                far.popen.kill()
                await client.call_tool("near__change_tools", {})
                assert await following(stream) == ToolsListChanged()
                await silence(stream)

        session(over_http(daemon.port, "/mcp", tls=None), "2026-07-28", steps)

    def test_long_names_are_shortened_and_found_again(self) -> None:
        """Both eras; by a client that lists, and by one that remembers the name from another time."""
        daemon = self.both()

        async def steps(client: Client) -> None:
            names = [tool.name for tool in (await client.list_tools()).tools]
            shortened = [name for name in names if "a_tool_with" in name]
            assert len(set(shortened)) == 4, names
            assert all(len(name) == 64 for name in shortened), names
            answers = [text(await client.call_tool(name, {})) for name in shortened]
            assert answers == ["long of near", "longer of near", "long of far", "longer of far"], answers

        for era in ERAS:
            session(over_http(daemon.port, "/mcp", tls=None), era, steps)

    def test_a_server_that_is_down_is_missing_from_lists_and_named(self) -> None:
        """The list is made without it; the log says so once, and health for as long as it lasts."""
        daemon = self.both(gone={"url": f"http://127.0.0.1:{free_port()}/mcp"})
        client = HttpClient(port=daemon.port, tls=None)
        for _ in range(3):
            tools = client.modern("/mcp", "tools/list").last["result"]["tools"]
            self.assertEqual({tool["name"].partition("__")[0] for tool in tools}, {"near", "far"})
        servers = json.loads(client.send("GET", "/health").body)["servers"]
        self.assertIn("server gone is unavailable", servers["gone"]["missing"])
        self.assertEqual((servers["near"]["missing"], servers["far"]["missing"]), (None, None))
        self.assertEqual(daemon.process.output().count("lists of several servers go without gone"), 1)

    def test_a_shortened_name_needs_no_list_before(self) -> None:
        """The first thing that this daemon is ever asked."""
        daemon = self.both()
        full = f"far__{LONG}"
        name = f"{full[:55]}_{sha256(full.encode()).hexdigest()[:8]}"
        reply = HttpClient(port=daemon.port, tls=None).modern("/mcp", "tools/call", name=name, arguments={})
        self.assertEqual(reply.text, "long of far")


async def following(stream: Subscription) -> Any:
    """The next event, soon."""
    async with asyncio.timeout(5):
        return await anext(stream)


async def silence(stream: Subscription) -> None:
    """Nothing more comes."""
    try:
        async with asyncio.timeout(0.3):
            event = await anext(stream)
    except TimeoutError:
        return
    raise AssertionError(f"{event} came and was not asked for")
