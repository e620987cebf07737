"""An MCP server made with the official SDK that does everything MCP has, in both eras, over every transport.

python -m tests.full stdio
python -m tests.full http|modern|legacy|sse|ws PORT

``http`` speaks both eras; ``modern`` and ``legacy`` speak one and refuse the other as servers do that have never heard
of it. What several clients do at once is kept apart by the ``key`` that each of them chooses.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import anyio
import mcp.types as types
import uvicorn
from attrs import define, field
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.session import ServerSession
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged
from mcp.types import jsonrpc_message_adapter
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as Handshake
from websockets.http11 import Response as Refusal

__all__ = ["ASKED", "LANGUAGES", "SHOWN", "TOOLS", "template"]

warnings.simplefilter("ignore", MCPDeprecationWarning)

Context = ServerRequestContext[Any, Any]

NAME: Final = "full"
LANGUAGES: Final = ("perl", "python", "pytorch")
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
# One of each kind of content, with members that only a faithful way preserves.
SHOWN: Final[list[dict[str, Any]]] = [
    {"type": "text", "text": "näme ☃ \u2028", "annotations": {"audience": ["user"], "priority": 0.25}},
    {"type": "image", "data": "aW1hZ2U=", "mimeType": "image/png"},
    {"type": "audio", "data": "YXVkaW8=", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "full://item/linked", "name": "linked", "title": "A link"},
    {"type": "resource", "resource": {"uri": "full://item/embedded", "mimeType": "text/plain", "text": "embedded"}},
]
TOOLS: Final = {
    "add": {"a": "integer", "b": "integer"},
    "echo": {"value": "string", "seconds": "number"},
    "fail": {},
    "show": {},
    "steps": {"count": "integer", "key": "string"},
    "wait": {"key": "string"},
    "cancelled": {"key": "string"},
    "talk": {"key": "string"},
    "sample": {"prompt": "string"},
    "ask": {"question": "string"},
    "visit": {"key": "string"},
    "roots": {},
    "interview": {"key": "string"},
    "touch": {"uri": "string"},
    "change": {"kind": "string"},
}
# What a form asks for.
FORM: Final = {
    "type": "object",
    "properties": {"name": {"type": "string", "title": "Name", "minLength": 1}},
    "required": ["name"],
}
ASKED: Final = {"sampling": "sampling/createMessage", "elicitation": "elicitation/create", "roots": "roots/list"}
_CHANGES: Final = {"tools": ToolsListChanged, "prompts": PromptsListChanged, "resources": ResourcesListChanged}
_MISSING: Final = {True: types.INVALID_PARAMS, False: -32002}


def template(item: str) -> str:
    """The URI of an item."""
    return f"full://item/{item}"


class NeedsInput(Exception):  # noqa: N818  # no error: what a modern server answers instead of asking
    """The client has to be asked first."""

    def __init__(self, result: types.InputRequiredResult) -> None:
        super().__init__("input required")
        self.result = result


@define(eq=False)
class World:
    """What all connections of one process share.

    Attributes:
        cancelled: How often a call of ``wait`` was given up, by key.
        watching: Who has subscribed to a resource in the legacy way, by URI and connection.
        levels: The log level that a connection has set.
        bus: Carries changes to subscriptions of 2026-07-28.
    """

    cancelled: Counter[str] = field(factory=Counter)
    watching: dict[str, dict[object, ServerSession]] = field(factory=dict)
    levels: dict[object, str] = field(factory=dict)
    bus: InMemorySubscriptionBus = field(factory=InMemorySubscriptionBus)


class FullServer(Server[Any]):
    """One that says, in both eras, that its lists change."""

    def create_initialization_options(self, *args: Any, **more: Any) -> Any:
        options = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(options, **more)


class Repertoire:
    """The methods of one server; a process with several connections has several, and one world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def server(self) -> FullServer:
        """It, made."""
        return FullServer(
            NAME,
            version="1",
            instructions="Everything.",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=ListenHandler(self.world.bus),
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
            on_completion=self.complete,
            on_set_logging_level=self.set_level,
        )

    # --- lists

    async def list_tools(self, ctx: Context, params: Any) -> types.ListToolsResult:
        """Every tool; `add` with a schema of its result."""

        def tool(name: str, arguments: dict[str, str]) -> types.Tool:
            schema = {
                "type": "object",
                "properties": {argument: {"type": kind} for argument, kind in arguments.items()},
                "x-own": name,
            }
            total = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
            return types.Tool(
                name=name,
                title=name.title(),
                description=f"Does {name}.",
                input_schema=schema,
                output_schema=total if name == "add" else None,
                annotations=types.ToolAnnotations(read_only_hint=name != "change"),
            )

        return types.ListToolsResult(tools=[tool(*entry) for entry in TOOLS.items()])

    async def list_resources(self, ctx: Context, params: Any) -> types.ListResourcesResult:
        """Two pages."""
        cursor = None if params is None else params.cursor
        if cursor not in (None, "second"):
            raise MCPError(types.INVALID_PARAMS, "no such page")
        name = "first" if cursor is None else "last"
        return types.ListResourcesResult(
            resources=[types.Resource(uri=f"full://{name}", name=name, mime_type="text/plain", size=5)],
            next_cursor="second" if cursor is None else None,
        )

    async def list_templates(self, ctx: Context, params: Any) -> types.ListResourceTemplatesResult:
        """One."""
        found = types.ResourceTemplate(uri_template="full://item/{id}", name="item", description="Any item.")
        return types.ListResourceTemplatesResult(resource_templates=[found])

    async def list_prompts(self, ctx: Context, params: Any) -> types.ListPromptsResult:
        """One that takes an argument, one that asks."""
        language = types.PromptArgument(name="language", description="Of the code.", required=True)
        return types.ListPromptsResult(
            prompts=[
                types.Prompt(name="review", description="Reviews.", arguments=[language]),
                types.Prompt(name="personal", description="Asks for a name."),
            ]
        )

    # --- what they list

    async def call_tool(self, ctx: Context, params: Any) -> Any:
        """One of :data:`TOOLS`."""
        if params.name not in TOOLS:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        method: Callable[..., Awaitable[Any]] = getattr(self, f"tool_{params.name}")
        try:
            found = await method(ctx, params, **(params.arguments or {}))
        except NeedsInput as needed:
            return needed.result
        return found if isinstance(found, types.CallToolResult) else text(str(found))

    async def read_resource(self, ctx: Context, params: Any) -> types.ReadResourceResult:
        """Text, and bytes; anything else is missing, in the words of the era."""
        uri = str(params.uri)
        known = {"full://first": "first", "full://last": "last"}
        if uri.startswith("full://item/"):
            known[uri] = f"item {uri.rpartition('/')[2]}"
        if uri not in known:
            raise MCPError(_MISSING[modern(ctx)], "Resource not found", {"uri": uri})
        contents: list[Any] = [types.TextResourceContents(uri=uri, mime_type="text/plain", text=known[uri])]
        if uri == "full://last":
            contents.append(types.BlobResourceContents(uri=uri, mime_type="x/y", blob="AAEC"))
        return types.ReadResourceResult(contents=contents)

    async def get_prompt(self, ctx: Context, params: Any) -> Any:
        """A message made of the argument, or of what the client answers."""
        if params.name == "review":
            wanted = f"Review this {(params.arguments or {})['language']} code."
        elif params.name == "personal":
            try:
                answer = await self.asked(ctx, params, "name", form("Who are you?"), types.ElicitResult)
            except NeedsInput as needed:
                return needed.result
            wanted = f"Write to {answer.content['name']}."
        else:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=wanted))
        return types.GetPromptResult(description=params.name, messages=[message])

    async def complete(self, ctx: Context, params: Any) -> types.CompleteResult:
        """Languages for the prompt; for the template, what the context says."""
        if isinstance(params.ref, types.PromptReference):
            values = [language for language in LANGUAGES if language.startswith(params.argument.value)]
        else:
            context = {} if params.context is None else params.context.arguments or {}
            values = [f"{params.ref.uri}/{params.argument.value}/{context.get('near', '')}"]
        return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))

    # --- what lasts in the legacy era

    async def subscribe(self, ctx: Context, params: Any) -> types.EmptyResult:
        """From now on."""
        self.world.watching.setdefault(str(params.uri), {})[self.connection(ctx)] = ctx.session
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: Any) -> types.EmptyResult:
        """No longer."""
        self.world.watching.get(str(params.uri), {}).pop(self.connection(ctx), None)
        return types.EmptyResult()

    async def set_level(self, ctx: Context, params: Any) -> types.EmptyResult:
        """For this connection."""
        self.world.levels[self.connection(ctx)] = params.level
        return types.EmptyResult()

    def connection(self, ctx: Context) -> object:
        """Which one this is: the session of Streamable HTTP; elsewhere each connection has a repertoire of its own."""
        return self if ctx.request is None else ctx.request.headers.get("mcp-session-id", self)

    # --- tools

    async def tool_add(self, ctx: Context, params: Any, a: int, b: int) -> types.CallToolResult:
        """Structured output, and a member of `_meta` that nobody knows."""
        total = {"total": a + b}
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=json.dumps(total))],
            structured_content=total,
            _meta={"example.com/own": [1, None, {"a": a}]},
        )

    async def tool_echo(self, ctx: Context, params: Any, value: str, seconds: float = 0) -> str:
        """Say it as progress and, some time later, as the result."""
        await ctx.session.report_progress(1, 2, value)
        await anyio.sleep(seconds)
        return value

    async def tool_fail(self, ctx: Context, params: Any) -> types.CallToolResult:
        """It goes wrong, as far as the tool is concerned."""
        return text("it went wrong", is_error=True)

    async def tool_show(self, ctx: Context, params: Any) -> types.CallToolResult:
        """One of each kind of content."""
        return types.CallToolResult.model_validate({"content": SHOWN})

    async def tool_steps(self, ctx: Context, params: Any, count: int, key: str) -> str:
        """Progress."""
        for step in range(1, count + 1):
            await anyio.sleep(0.01)
            await ctx.session.report_progress(step, count, f"{key} {step}")
        return f"{count} steps of {key}"

    async def tool_wait(self, ctx: Context, params: Any, key: str) -> str:
        """Say that it has begun, and do not end; remembers having been cancelled."""
        try:
            await ctx.session.report_progress(1, 2, key)
            await anyio.sleep(60)
        except BaseException:
            self.world.cancelled[key] += 1
            raise
        return "waited"

    async def tool_cancelled(self, ctx: Context, params: Any, key: str) -> str:
        """How often."""
        return str(self.world.cancelled[key])

    async def tool_talk(self, ctx: Context, params: Any, key: str) -> str:
        """Log at every level; what the client does not want is not sent, in the legacy era by ourselves."""
        level = self.world.levels.get(self.connection(ctx), "debug")
        for number, name in enumerate(LEVELS):
            if modern(ctx) or number >= LEVELS.index(level):
                await ctx.session.send_log_message(
                    name,  # type: ignore[arg-type]
                    {"key": key, "level": name},
                    logger="full",
                    related_request_id=ctx.request_id,
                )
        return "talked"

    async def tool_sample(self, ctx: Context, params: Any, prompt: str) -> str:
        """What the client's model says."""
        answer = await self.asked(ctx, params, "model", sampling(prompt), types.CreateMessageResult)
        return f"{answer.model}: {answer.content.text}"

    async def tool_ask(self, ctx: Context, params: Any, question: str) -> str:
        """What the user says."""
        answer = await self.asked(ctx, params, "name", form(question), types.ElicitResult)
        return f"{answer.action} {answer.content}"

    async def tool_visit(self, ctx: Context, params: Any, key: str) -> str:
        """Whether the user has visited a page; in the legacy era the client is told that this has taken effect."""
        page = types.ElicitRequestURLParams(
            message=f"Visit for {key}",
            url=f"https://example.com/{key}",
            elicitation_id=None if modern(ctx) else f"visit-{key}",
        )
        answer = await self.asked(ctx, params, "page", types.ElicitRequest(params=page), types.ElicitResult)
        if not modern(ctx):
            await ctx.session.send_elicit_complete(f"visit-{key}", related_request_id=ctx.request_id)
        return f"{key} {answer.action}"

    async def tool_roots(self, ctx: Context, params: Any) -> str:
        """The client's."""
        answer = await self.asked(ctx, params, "roots", types.ListRootsRequest(), types.ListRootsResult)
        return " ".join(f"{root.name}={root.uri}" for root in answer.roots)

    async def tool_interview(self, ctx: Context, params: Any, key: str) -> str:
        """Two questions, the second of which depends on the first."""
        given: str | None = params.request_state
        if given is None:
            answer = await self.asked(ctx, params, "name", form(f"Who? {key}"), types.ElicitResult, "name of " + key)
            given = answer.content["name"]
        elif given == "name of " + key:
            given = params.input_responses["name"].content["name"]
        said = await self.asked(ctx, params, "model", sampling(f"greet {given}"), types.CreateMessageResult, given)
        return f"{key}: {given}, {said.content.text}"

    async def tool_touch(self, ctx: Context, params: Any, uri: str) -> str:
        """A resource has changed: whoever wants to know is told."""
        await self.world.bus.publish(ResourceUpdated(uri))
        watching = self.world.watching.get(uri, {})
        for session in list(watching.values()):
            await session.send_resource_updated(uri)
        return f"{uri} touched"

    async def tool_change(self, ctx: Context, params: Any, kind: str) -> str:
        """A list has changed: every subscription is told, and the client that has called."""
        await self.world.bus.publish(_CHANGES[kind]())
        if not modern(ctx):
            say = {
                "tools": ctx.session.send_tool_list_changed,
                "prompts": ctx.session.send_prompt_list_changed,
                "resources": ctx.session.send_resource_list_changed,
            }
            await say[kind]()
        return f"{kind} changed"

    async def asked(
        self, ctx: Context, params: Any, key: str, question: Any, kind: type[Any], state: str | None = None
    ) -> Any:
        """The client's answer to ``question``, asked for in the way of the era.

        Raises:
            NeedsInput: It is not there yet; that is what a modern client has to be told.
        """
        if not modern(ctx):
            metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
            return await ctx.session.send_request(question, kind, metadata=metadata)
        answers = params.input_responses or {}
        if key not in answers:
            raise NeedsInput(types.InputRequiredResult(input_requests={key: question}, request_state=state))
        return answers[key]


def modern(ctx: Context) -> bool:
    """Whether this request is of 2026-07-28."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def text(said: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)], is_error=is_error)


def form(question: str) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=question, requested_schema=FORM))


def sampling(prompt: str) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=10))


# --- the ways to it


async def over_stdio(world: World) -> None:
    server = Repertoire(world).server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def http_app(world: World, era: str) -> Any:
    """Streamable HTTP; ``era`` is ``http`` for both, or the only one."""
    inner = Repertoire(world).server().streamable_http_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and era != "http":
            version = dict(scope["headers"]).get(b"mcp-protocol-version", b"").decode()
            if (version in MODERN_PROTOCOL_VERSIONS) != (era == "modern"):
                await (_only_modern if era == "modern" else _only_legacy)(scope, version)(scope, receive, send)
                return
        await inner(scope, receive, send)

    return app


def _only_legacy(scope: Any, version: str) -> Response:
    """What a server from before 2026-07-28 says to a request without a session."""
    error = {"code": -32600, "message": "Bad Request: Missing session ID"}
    body = json.dumps({"jsonrpc": "2.0", "id": "server-error", "error": error})
    return Response(body, HTTPStatus.BAD_REQUEST, media_type="application/json")


def _only_modern(scope: Any, version: str) -> Response:
    """What a server that knows no sessions says."""
    if scope["method"] != "POST":
        return Response(status_code=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
    data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version or "none"}
    error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error})
    return Response(body, HTTPStatus.BAD_REQUEST, media_type="application/json")


def sse_app(world: World) -> Starlette:
    """HTTP+SSE of 2024-11-05."""
    transport = SseServerTransport("/messages/")

    async def stream(request: Request) -> Response:
        server = Repertoire(world).server()
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return Response()

    messages = Mount("/messages/", app=transport.handle_post_message)
    return Starlette(routes=[Route("/sse", stream, methods=["GET"]), messages])


async def over_websocket(world: World, port: int) -> None:
    """One JSON-RPC message per text message, subprotocol ``mcp``, at ``/mcp/ws``."""

    def check(connection: ServerConnection, request: Handshake) -> Refusal | None:
        if request.path != "/mcp/ws":
            return connection.respond(HTTPStatus.NOT_FOUND, "not here\n")
        if "mcp" not in request.headers.get("Sec-WebSocket-Protocol", ""):
            return connection.respond(HTTPStatus.BAD_REQUEST, "the subprotocol is mcp\n")
        return None

    async def serve_one(socket: ServerConnection) -> None:
        to_server, incoming = anyio.create_memory_object_stream[Any](16)
        outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](16)
        server = Repertoire(world).server()

        async def read() -> None:
            async with to_server:
                async for said in socket:
                    await to_server.send(SessionMessage(jsonrpc_message_adapter.validate_json(said)))

        async def write() -> None:
            async with from_server:
                async for message in from_server:
                    await socket.send(message.message.model_dump_json(by_alias=True, exclude_none=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write)
            await server.run(incoming, outgoing, server.create_initialization_options())
            tasks.cancel_scope.cancel()

    # Subprotocol is a string of a type of its own.
    async with serve(serve_one, "127.0.0.1", port, subprotocols=["mcp"], process_request=check):  # type: ignore[list-item]
        await asyncio.get_running_loop().create_future()


def main(transport: str, port: int) -> None:
    """Serve until stopped."""
    world = World()
    if transport == "stdio":
        asyncio.run(over_stdio(world))
    elif transport == "ws":
        asyncio.run(over_websocket(world, port))
    else:
        app = sse_app(world) if transport == "sse" else http_app(world, transport)
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
