"""The official MCP client, over HTTP, HTTP+SSE, WebSocket and pipes, through one and the same list of steps."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import ElicitResult, jsonrpc_message_adapter
from websockets.asyncio.client import connect

from tests.certificates import NAME

__all__ = ["ERAS", "over_http", "over_sse", "over_stdio", "over_websocket", "session", "walk"]

# The client's two ways to open: a handshake, or none in the newest revision.
ERAS: Final = ("legacy", "2026-07-28")
SECONDS: Final = 30.0

Transport = AbstractAsyncContextManager[Any]


class _Here(httpx2.AsyncHTTPTransport):
    """Goes to 127.0.0.1 for every name, and checks the certificate for the name that was meant."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        request.url = request.url.copy_with(host="127.0.0.1")
        return await super().handle_async_request(request)


@contextlib.asynccontextmanager
async def over_http(
    port: int, path: str, *, tls: ssl.SSLContext | None, token: str | None = None
) -> AsyncIterator[Any]:
    """Streamable HTTP to the daemon at ``port``, under its public name."""
    url = f"{'http' if tls is None else 'https'}://{NAME}:{port}{path}"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = _Here(verify=True if tls is None else tls)
    async with (
        httpx2.AsyncClient(transport=transport, headers=headers, timeout=httpx2.Timeout(10, read=60)) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


@contextlib.asynccontextmanager
async def over_sse(port: int, path: str, *, tls: ssl.SSLContext | None, token: str | None = None) -> AsyncIterator[Any]:
    """HTTP+SSE of 2024-11-05."""

    def client(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
        transport = _Here(verify=True if tls is None else tls)
        return httpx2.AsyncClient(transport=transport, headers=headers, timeout=timeout, auth=auth)

    url = f"{'http' if tls is None else 'https'}://{NAME}:{port}{path}"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with sse_client(url, headers=headers, httpx_client_factory=client) as streams:
        yield streams


@contextlib.asynccontextmanager
async def over_websocket(
    port: int, path: str, *, tls: ssl.SSLContext | None, token: str | None = None
) -> AsyncIterator[Any]:
    """WebSocket: one JSON-RPC message per text message, subprotocol ``mcp``. The SDK has no such transport any more."""
    url = f"{'ws' if tls is None else 'wss'}://{NAME}:{port}{path}"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    to_client, incoming = anyio.create_memory_object_stream[Any](0)
    outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)
    async with connect(
        url,
        host="127.0.0.1",
        port=port,
        ssl=tls,
        server_hostname=None if tls is None else NAME,
        subprotocols=["mcp"],
        additional_headers=headers,
        proxy=None,
    ) as socket:

        async def read() -> None:
            async with to_client:
                async for text in socket:
                    await to_client.send(SessionMessage(jsonrpc_message_adapter.validate_json(text)))

        async def write() -> None:
            async with from_client:
                async for message in from_client:
                    await socket.send(message.message.model_dump_json(by_alias=True, exclude_none=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()


def over_stdio(argv: Sequence[str], env: Mapping[str, str]) -> Any:
    """The program ``argv``, which speaks MCP on its standard input and output; the client starts and ends it."""
    return StdioServerParameters(command=argv[0], args=list(argv[1:]), env=dict(env))


async def _answer(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"name": "Ada"})


def session(
    transport: Transport, era: str, steps: Callable[[Client], Awaitable[None]], seconds: float = SECONDS
) -> None:
    """Open a client over ``transport`` in ``era`` and run ``steps``; bounded in time."""

    async def run() -> None:
        async with asyncio.timeout(seconds), Client(transport, mode=era, elicitation_callback=_answer) as client:
            expected = "2025-11-25" if era == "legacy" else era
            assert client.protocol_version == expected, client.protocol_version
            await steps(client)

    try:
        asyncio.run(run())
    except BaseExceptionGroup as group:
        # trial shows a group without what is in it.
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None


async def walk(client: Client, prefix: str = "") -> None:
    """Everything that :mod:`tests.upstream` can do, each answer compared.

    Args:
        client: Connected.
        prefix: Of the tools' names.
    """
    tools = {tool.name for tool in (await client.list_tools()).tools}
    expected = {prefix + name for name in ("add", "slow", "cancelled", "greet", "fail")}
    assert expected <= tools, tools

    total = (await client.call_tool(prefix + "add", {"a": 2, "b": 3})).structured_content
    assert total == {"total": 5}, total

    progress: list[tuple[float, float | None]] = []

    async def reported(at: float, of: float | None, message: str | None) -> None:
        progress.append((at, of))

    done = await client.call_tool(prefix + "slow", {"seconds": 0.3, "steps": 3}, progress_callback=reported)
    assert text(done) == "done", done
    assert progress == [(1, 3), (2, 3), (3, 3)], progress

    greeted = await client.call_tool(prefix + "greet", {})
    assert text(greeted) == "hello Ada", greeted

    failed = await client.call_tool(prefix + "fail", {})
    assert failed.is_error, failed
    assert "fail" in text(failed), failed

    async def own(number: int) -> bool:
        answer = (await client.call_tool(prefix + "add", {"a": number, "b": 1000})).structured_content
        return bool(answer == {"total": number + 1000})

    assert all(await asyncio.gather(*[own(number) for number in range(20)])), "an answer went to another caller"

    await cancel(client, prefix)


async def cancel(client: Client, prefix: str) -> None:
    """A call that the client gives up is cancelled at the server, once."""
    before = await _cancelled(client, prefix)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.call_tool(prefix + "slow", {"seconds": 20, "steps": 200})
    for _ in range(60):
        if await _cancelled(client, prefix) != before:
            break
        await asyncio.sleep(0.05)
    assert await _cancelled(client, prefix) == before + 1, "the server was not told that the call was cancelled"


async def _cancelled(client: Client, prefix: str) -> int:
    content = (await client.call_tool(prefix + "cancelled", {})).structured_content
    assert content is not None
    return int(content["result"])


def text(result: Any) -> str:
    """The text of a tool's result."""
    found = result.content[0].text
    assert isinstance(found, str)
    return found
