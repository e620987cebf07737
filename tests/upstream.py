"""An MCP server made with the official SDK, to stand behind the daemon: what it has seen can be asked.

python -m tests.upstream stdio
python -m tests.upstream http PORT
"""

from __future__ import annotations

import sys
from typing import Annotated

import anyio
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, MCPServer, Resolve
from pydantic import BaseModel

server = MCPServer(name="outside-upstream", version="1")
seen = {"cancelled": 0}


class Sum(BaseModel):
    total: int


class Person(BaseModel):
    name: str


async def name_of_user() -> Elicit[Person]:
    return Elicit("What is your name?", Person)


@server.tool()
def add(a: int, b: int) -> Sum:
    """Add two integers; structured output."""
    return Sum(total=a + b)


@server.tool()
async def slow(ctx: Context, seconds: float = 1.0, steps: int = 5) -> str:
    """Report progress `steps` times in `seconds`; remembers when it is cancelled."""
    try:
        for step in range(steps):
            await anyio.sleep(seconds / steps)
            await ctx.report_progress(step + 1, steps, f"step {step + 1}")
    except BaseException:
        seen["cancelled"] += 1
        raise
    return "done"


@server.tool()
def cancelled() -> int:
    """How often `slow` was cancelled."""
    return seen["cancelled"]


@server.tool()
async def greet(who: Annotated[ElicitationResult[Person], Resolve(name_of_user)]) -> str:
    """Ask the user for a name, in the way of the client's era."""
    return f"hello {who.data.name}" if isinstance(who, AcceptedElicitation) else "hello stranger"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it went wrong")


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
