"""An MCP server made with the official SDK whose lists and resources change when it is told to.

python -m tests.changing stdio NAME
python -m tests.changing http PORT NAME
"""

from __future__ import annotations

import sys

from mcp.server.mcpserver import Context, MCPServer

__all__ = ["LONG", "build"]

# With any prefix longer than what clients take.
LONG = "a_tool_with_a_name_that_says_everything_there_is_to_say_about_it"


def build(name: str) -> MCPServer:
    """The server called ``name``."""
    server = MCPServer(name=name, version="1")

    @server.resource(f"own://{name}/thing", name="thing", mime_type="text/plain")
    def thing() -> str:
        """What only this server has."""
        return f"of {name}"

    @server.tool(name=LONG)
    def long() -> str:
        """Have a long name."""
        return f"long of {name}"

    @server.tool(name=f"{LONG}_and_more")
    def longer() -> str:
        """Have another that begins alike."""
        return f"longer of {name}"

    @server.tool()
    async def change_tools(ctx: Context) -> str:
        """Tell subscribers that the tools have changed."""
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool()
    async def change(uri: str, ctx: Context) -> str:
        """Tell subscribers that a resource has changed."""
        await ctx.notify_resource_updated(uri)
        return "changed"

    return server


if __name__ == "__main__":
    made = build(sys.argv[-1])
    if sys.argv[1] == "stdio":
        made.run("stdio")
    else:
        made.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
