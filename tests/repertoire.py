"""Everything that a client and a server of MCP can do together, as steps of the official client on :mod:`tests.full`.

A step that the specification makes impossible for some pair of eras is not left out: it checks that nothing happens,
and :data:`IMPOSSIBLE` says which sentence of the specification makes it so.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal

import mcp.types as types
from attrs import Factory, define, field, frozen
from mcp import Client, MCPError
from mcp.client.subscriptions import Subscription
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged

from tests.full import LANGUAGES, LEVELS, SHOWN, TOOLS, template

__all__ = ["IMPOSSIBLE", "Walk", "reasons"]

warnings.simplefilter("ignore", MCPDeprecationWarning)

Era = Literal["legacy", "modern"]
STEP_SECONDS: Final = 20.0
SOON: Final = 5.0
PARALLEL: Final = 50
_LEVEL: Final = "warning"


@frozen
class Impossible:
    """What cannot be.

    Attributes:
        step: Name of the step.
        client: Era of the client; None for any.
        server: Era of the server; None for any.
        sentence: Of the specification (https://modelcontextprotocol.io/specification/2026-07-28/changelog).
    """

    step: str
    client: Era | None
    server: Era | None
    sentence: str


IMPOSSIBLE: Final = (
    Impossible(
        "ping",
        "modern",
        None,
        "Remove `ping`, `logging/setLevel`, and `notifications/roots/list_changed`.",
    ),
    Impossible(
        "set_level",
        "modern",
        None,
        "Log level is now set per-request via `io.modelcontextprotocol/logLevel` in `_meta`; servers MUST NOT emit "
        "`notifications/message` for requests that did not include this field.",
    ),
    Impossible(
        "subscribe",
        "modern",
        None,
        "Replace the HTTP GET endpoint and `resources/subscribe`/`resources/unsubscribe` with `subscriptions/listen`.",
    ),
    Impossible(
        "elicitation_complete",
        None,
        "modern",
        "Remove the `notifications/elicitation/complete` notification and the `elicitationId` field of URL mode "
        "elicitation requests, both introduced in `2025-11-25`.",
    ),
    Impossible(
        "elicitation_complete",
        "modern",
        None,
        "Under the Multi Round-Trip Requests pattern, the client learns the outcome of an out-of-band interaction by "
        "retrying the original request, so a server-initiated completion signal no longer fits the protocol.",
    ),
)


@define(eq=False)
class Walk:
    """One client on its way through every step.

    Attributes:
        name: Of the cell, for people.
        key: Keeps what this client does apart from others at the same server.
        era: The client's.
        server: The era in which the server is spoken to.
        changing: Held while changes of lists are told, which every client of a server hears.
        prefix: Of the names of tools and prompts.
    """

    name: str
    key: str
    era: Era
    server: Era
    changing: asyncio.Lock
    prefix: str = ""
    logs: list[types.LoggingMessageNotificationParams] = Factory(list)
    notes: list[Any] = Factory(list)
    asked: list[str] = Factory(list)
    failures: list[str] = Factory(list)
    _client: Client | None = field(init=False, default=None)

    @property
    def client(self) -> Client:
        """Connected."""
        assert self._client is not None
        return self._client

    def impossible(self, step: str) -> bool:
        """Whether the specification excludes ``step`` here."""
        return any(
            entry.step == step and entry.client in (None, self.era) and entry.server in (None, self.server)
            for entry in IMPOSSIBLE
        )

    async def run(self, transport: Any) -> None:
        """Every step; what fails is noted in :attr:`failures`."""
        try:
            async with self.connected(transport):
                for step in STEPS:
                    await self._step(step)
        except Exception as e:
            self.failures.append(f"{self.name}: the connection: {reasons(e)}")

    async def _step(self, step: Callable[[Walk], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await step(self)
        except Exception as e:
            self.failures.append(f"{self.name}: {step.__name__}: {reasons(e)}")

    @contextlib.asynccontextmanager
    async def connected(self, transport: Any) -> AsyncIterator[None]:
        """A client that can do everything a client can."""
        # The modern way to open is to ask the server what it speaks.
        mode = "legacy" if self.era == "legacy" else "auto"
        async with Client(
            transport,
            mode=mode,
            sampling_callback=self.sampled,
            elicitation_callback=self.elicited,
            list_roots_callback=self.rooted,
            logging_callback=self.logged,
            message_handler=self.noted,
            log_level=None if self.era == "legacy" else _LEVEL,
        ) as client:
            self._client = client
            yield

    # --- what the server asks and says

    async def sampled(self, context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        """A model that shouts, and says for whom."""
        self.asked.append("sampling")
        content = params.messages[0].content
        assert isinstance(content, types.TextContent)
        said = types.TextContent(type="text", text=content.text.upper())
        return types.CreateMessageResult(role="assistant", content=said, model=self.key, stop_reason="endTurn")

    async def elicited(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        """A user called after what is asked, who visits only pages."""
        if isinstance(params, types.ElicitRequestURLParams):
            self.asked.append(f"url {params.url}")
            return types.ElicitResult(action="accept")
        self.asked.append("form")
        assert params.requested_schema["required"] == ["name"], params
        return types.ElicitResult(action="accept", content={"name": f"{self.key} <{params.message}>"})

    async def rooted(self, context: Any) -> types.ListRootsResult:
        """One directory, which nobody else has."""
        self.asked.append("roots")
        root = types.Root.model_validate({"uri": f"file:///{self.key}", "name": self.key})
        return types.ListRootsResult(roots=[root])

    async def logged(self, params: types.LoggingMessageNotificationParams) -> None:
        """Keep it."""
        self.logs.append(params)

    async def noted(self, message: Any) -> None:
        """Keep it."""
        self.notes.append(message)

    def heard(self, kind: type[Any], **params: Any) -> int:
        """How many notifications of ``kind`` with such parameters there were."""
        return sum(
            isinstance(note, kind) and all(getattr(note.params, name) == value for name, value in params.items())
            for note in self.notes
        )

    # --- for the steps

    async def call(self, tool: str, progress: Any = None, **arguments: Any) -> types.CallToolResult:
        """Call it."""
        return await self.client.call_tool(self.prefix + tool, arguments, progress_callback=progress)

    async def said(self, tool: str, **arguments: Any) -> str:
        """The text with which it answers."""
        found = (await self.call(tool, **arguments)).content[0]
        assert isinstance(found, types.TextContent), found
        return found.text

    async def until(self, what: Callable[[], bool], message: str) -> None:
        """Wait until ``what()``."""
        try:
            async with asyncio.timeout(SOON):
                while not what():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{message}; notes: {self.notes}; logs: {self.logs}; asked: {self.asked}") from None


def reasons(error: BaseException) -> str:
    """The innermost error, and where it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__}: {error} ({' '.join(lines[-4:])})"


def same(found: Any, wanted: Any) -> None:
    """They are equal.

    Raises:
        AssertionError: They are not.
    """
    assert found == wanted, f"{found!r} instead of {wanted!r}"


async def refused(code: int, attempt: Awaitable[Any]) -> None:
    """It fails with ``code``."""
    try:
        found = await attempt
    except MCPError as e:
        if e.code == code:
            return
        found = f"{e.code} {e}"
    raise AssertionError(f"{found} instead of an error {code}")


# --- what is there


async def welcome(walk: Walk) -> None:
    """Who the server is, what it can do, and in which revision we talk."""
    client = walk.client
    same(client.protocol_version, "2025-11-25" if walk.era == "legacy" else "2026-07-28")
    info, found = client.server_info, client.server_capabilities
    assert info is not None
    same((info.name, info.version, client.instructions), ("full", "1", "Everything."))
    assert found.tools, found
    assert found.prompts, found
    assert found.resources, found
    assert None not in (found.logging, found.completions), found
    same((found.tools.list_changed, found.prompts.list_changed), (True, True))
    same((found.resources.list_changed, found.resources.subscribe), (True, True))


async def tools(walk: Walk) -> None:
    """In the server's order, with schemas as it wrote them."""
    found = (await walk.client.list_tools()).tools
    same([tool.name for tool in found], [walk.prefix + name for name in TOOLS])
    add = found[0].model_dump(by_alias=True, exclude_none=True)
    same(add["inputSchema"]["x-own"], "add")
    same(add["outputSchema"]["properties"], {"total": {"type": "integer"}})
    same((add["title"], add["annotations"]), ("Add", {"readOnlyHint": True}))


async def resources(walk: Walk) -> None:
    """Every page, templates, texts and bytes; one that is missing, in the words of the client's era."""
    page = await walk.client.list_resources()
    found = [*page.resources]
    while page.next_cursor is not None:
        page = await walk.client.list_resources(cursor=page.next_cursor)
        found += page.resources
    same(
        [(str(each.uri), each.name, each.size) for each in found],
        [("full://first", "first", 5), ("full://last", "last", 5)],
    )
    templates = (await walk.client.list_resource_templates()).resource_templates
    same([each.uri_template for each in templates], ["full://item/{id}"])
    contents = (await walk.client.read_resource("full://last")).contents
    same(
        [each.model_dump(by_alias=True, exclude_none=True, mode="json") for each in contents],
        [
            {"uri": "full://last", "mimeType": "text/plain", "text": "last"},
            {"uri": "full://last", "mimeType": "x/y", "blob": "AAEC"},
        ],
    )
    (item,) = (await walk.client.read_resource(template(walk.key))).contents
    assert isinstance(item, types.TextResourceContents)
    same(item.text, f"item {walk.key}")
    # 2026-07-28, changelog: "Change resource not found error code from -32002 to -32602 (Invalid Params)".
    await refused(-32002 if walk.era == "legacy" else -32602, walk.client.read_resource("full://nothing"))


async def prompts(walk: Walk) -> None:
    """Listed, got, and one that asks before it answers."""
    found = (await walk.client.list_prompts()).prompts
    same([prompt.name for prompt in found], [walk.prefix + name for name in ("review", "personal")])
    review = await walk.client.get_prompt(walk.prefix + "review", {"language": walk.key})
    same(_text(review.messages[0].content), f"Review this {walk.key} code.")
    personal = await walk.client.get_prompt(walk.prefix + "personal")
    same(_text(personal.messages[0].content), f"Write to {walk.key} <Who are you?>.")


async def completion(walk: Walk) -> None:
    """For a prompt, and for a template with a context."""
    ref = types.PromptReference(type="ref/prompt", name=walk.prefix + "review")
    found = await walk.client.complete(ref, {"name": "language", "value": "py"})
    same(found.completion.values, [language for language in LANGUAGES if language.startswith("py")])
    item = types.ResourceTemplateReference(type="ref/resource", uri="full://item/{id}")
    found = await walk.client.complete(item, {"name": "id", "value": walk.key}, {"near": "there"})
    same(found.completion.values, [f"full://item/{{id}}/{walk.key}/there"])


# --- calls


async def results(walk: Walk) -> None:
    """Structured, of every kind, failed; and a tool that does not exist."""
    total = await walk.call("add", a=2, b=3)
    same((total.structured_content, total.is_error), ({"total": 5}, False))
    same((total.meta or {}).get("example.com/own"), [1, None, {"a": 2}])
    shown = await walk.call("show")
    same([each.model_dump(by_alias=True, exclude_none=True, mode="json") for each in shown.content], SHOWN)
    failed = await walk.call("fail")
    same((failed.is_error, _text(failed.content[0])), (True, "it went wrong"))
    await refused(types.INVALID_PARAMS, walk.call("nothing"))


async def progress(walk: Walk) -> None:
    """Every step, in order, before the result."""
    seen: list[tuple[float, float | None, str | None]] = []

    async def reported(at: float, of: float | None, message: str | None) -> None:
        seen.append((at, of, message))

    found = await walk.call("steps", reported, count=5, key=walk.key)
    same(_text(found.content[0]), f"5 steps of {walk.key}")
    await walk.until(lambda: len(seen) >= 5, f"progress is missing: {seen}")
    same(seen, [(step, 5, f"{walk.key} {step}") for step in range(1, 6)])


async def parallel(walk: Walk) -> None:
    """Fifty calls at once, each with its own answer and its own progress."""
    chance = random.Random(walk.key)

    async def one(number: int) -> None:
        value = f"{walk.key} {number}"
        seen: list[str | None] = []

        async def reported(at: float, of: float | None, message: str | None) -> None:
            seen.append(message)

        found = await walk.call("echo", reported, value=value, seconds=chance.uniform(0, 0.05))
        same(_text(found.content[0]), value)
        await walk.until(lambda: bool(seen), f"no progress of {value}")
        same(seen, [value])

    await asyncio.gather(*[one(number) for number in range(PARALLEL)])


async def logs(walk: Walk) -> None:
    """From the level on that the client has chosen, in the way of its era, and nothing below."""
    if walk.impossible("set_level"):
        await refused(types.METHOD_NOT_FOUND, walk.client.set_logging_level(_LEVEL))  # type: ignore[arg-type]
    else:
        await walk.client.set_logging_level(_LEVEL)  # type: ignore[arg-type]
    await walk.said("talk", key=walk.key)
    wanted = LEVELS[LEVELS.index(_LEVEL) :]
    await walk.until(lambda: len(walk.logs) >= len(wanted), "log messages are missing")
    same([(entry.level, entry.data, entry.logger) for entry in walk.logs], [
        (level, {"key": walk.key, "level": level}, "full") for level in wanted
    ])  # fmt: skip


async def ping(walk: Walk) -> None:
    """Answered, in the era that has it."""
    if walk.impossible("ping"):
        await refused(types.METHOD_NOT_FOUND, walk.client.send_ping())
    else:
        await walk.client.send_ping()


async def cancellation(walk: Walk) -> None:
    """A call that the client gives up is given up by the server, once."""
    begun = asyncio.Event()

    async def reported(at: float, of: float | None, message: str | None) -> None:
        begun.set()

    waiting = asyncio.create_task(walk.call("wait", reported, key=walk.key))
    await begun.wait()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    for _ in range(100):
        if await walk.said("cancelled", key=walk.key) != "0":
            break
        await asyncio.sleep(0.02)
    same(await walk.said("cancelled", key=walk.key), "1")


# --- questions of the server


async def sampling(walk: Walk) -> None:
    """The client's own model answers."""
    walk.asked.clear()
    same(await walk.said("sample", prompt="hello"), f"{walk.key}: HELLO")
    same(walk.asked, ["sampling"])


async def elicitation(walk: Walk) -> None:
    """A form, and a page to visit; a legacy client may then hear that this is complete, if the server can say so."""
    walk.asked.clear()
    same(await walk.said("ask", question="Who?"), f"accept {{'name': '{walk.key} <Who?>'}}")
    same(await walk.said("visit", key=walk.key), f"{walk.key} accept")
    same(walk.asked, ["form", f"url https://example.com/{walk.key}"])
    done = types.ElicitCompleteNotification
    if not walk.impossible("elicitation_complete"):
        await walk.until(lambda: walk.heard(done) > 0, "nobody says that the elicitation is complete")
        same(walk.heard(done, elicitation_id=f"visit-{walk.key}"), 1)


async def roots(walk: Walk) -> None:
    """The client's own directories."""
    walk.asked.clear()
    same(await walk.said("roots"), f"{walk.key}=file:///{walk.key}")
    same(walk.asked, ["roots"])


async def interview(walk: Walk) -> None:
    """Two questions in one call, several such calls at once."""
    keys = [f"{walk.key}-{number}" for number in range(4)]
    found = await asyncio.gather(*[walk.said("interview", key=key) for key in keys])
    same(found, [f"{key}: {(name := f'{walk.key} <Who? {key}>')}, {f'greet {name}'.upper()}" for key in keys])


# --- changes


async def subscriptions(walk: Walk) -> None:
    """A resource changes: whoever has subscribed hears of it, and of no other."""
    mine, other = template(walk.key), template(f"{walk.key}-other")
    if walk.impossible("subscribe"):
        await refused(types.METHOD_NOT_FOUND, walk.client.subscribe_resource(mine))
        async with walk.client.listen(resource_subscriptions=[mine]) as stream:
            for _ in range(2):
                await walk.said("touch", uri=other)
                await walk.said("touch", uri=mine)
                same(await following(stream), ResourceUpdated(mine))
        return
    updated = types.ResourceUpdatedNotification
    await walk.client.subscribe_resource(mine)
    await walk.said("touch", uri=other)
    await walk.said("touch", uri=mine)
    await walk.until(lambda: walk.heard(updated, uri=mine) == 1, "the change was not told")
    await walk.client.subscribe_resource(other)
    await walk.client.unsubscribe_resource(mine)
    await walk.said("touch", uri=mine)
    await walk.said("touch", uri=other)
    await walk.until(lambda: walk.heard(updated, uri=other) == 1, "the other change was not told")
    same((walk.heard(updated, uri=mine), walk.heard(updated, uri=other)), (1, 1))


async def lists_change(walk: Walk) -> None:
    """Tools, prompts, resources: in the legacy era as notifications, in the modern one to whom has subscribed."""
    events = {"tools": ToolsListChanged(), "prompts": PromptsListChanged(), "resources": ResourcesListChanged()}
    kinds: dict[str, Any] = {
        "tools": types.ToolListChangedNotification,
        "prompts": types.PromptListChangedNotification,
        "resources": types.ResourceListChangedNotification,
    }
    async with walk.changing:
        if walk.era == "legacy":
            for kind, note in kinds.items():
                before = walk.heard(note)
                await walk.said("change", kind=kind)
                await walk.until(lambda note=note, before=before: walk.heard(note) > before, f"no change of {kind}")
            return
        async with walk.client.listen(
            tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True
        ) as stream:
            for kind, event in events.items():
                await walk.said("change", kind=kind)
                same(await following(stream), event)


async def nothing_else(walk: Walk) -> None:
    """What cannot be has not been, and nothing was heard that nobody has asked for."""
    if walk.impossible("elicitation_complete"):
        same(walk.heard(types.ElicitCompleteNotification), 0)
    same(len(walk.logs), len(LEVELS) - LEVELS.index(_LEVEL))
    same([note for note in walk.notes if isinstance(note, Exception)], [])


async def following(stream: Subscription) -> Any:
    """The next event, soon."""
    async with asyncio.timeout(SOON):
        return await anext(stream)


def _text(content: Any) -> str:
    assert isinstance(content, types.TextContent), content
    return content.text


STEPS: Final = (
    welcome,
    tools,
    resources,
    prompts,
    completion,
    results,
    progress,
    parallel,
    logs,
    ping,
    cancellation,
    sampling,
    elicitation,
    roots,
    interview,
    subscriptions,
    lists_change,
    nothing_else,
)
