"""Servers that people run, as published, behind one `/mcp`: time and git from PyPI, three from npm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import mcp.types as types
from mcp import Client

from tests import node, venvs
from tests.clients import HttpClient
from tests.daemon import Daemon, DaemonCase
from tests.processes import require
from tests.sdk import ERAS, over_http, session, text

NPM: Final = {name: f"@modelcontextprotocol/server-{name}@2026.8.31" for name in ("filesystem", "memory", "everything")}
# Five programs have to start, three of them on Node.
SECONDS: Final = 90.0
# Of each server, what it must show.
SOME: Final = {
    "time__convert_time",
    "time__get_current_time",
    "git__git_log",
    "git__git_status",
    "files__read_text_file",
    "files__list_directory",
    "memory__create_entities",
    "memory__read_graph",
    "every__echo",
}
GIT_ENV: Final = {
    **{f"GIT_{who}_{what}": f"{who.lower()}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
}


class RealServerTests(DaemonCase):
    """Five servers, none of which has ever heard of 2026-07-28."""

    def start_daemon(self) -> Daemon:
        programs = venvs.installed(venvs.TIME, venvs.GIT)
        npm = node.installed(*NPM.values())
        git = require("git")
        self.files = self.place / "files"
        self.files.mkdir()
        (self.files / "note.txt").write_text("a note ☃\n")
        self.repository = self.place / "repository"
        for argv in (
            (git, "init", "--quiet", str(self.repository)),
            (git, "-C", str(self.repository), "commit", "--quiet", "--allow-empty", "-m", "The first of them"),
        ):
            subprocess.run(argv, env={**os.environ, **GIT_ENV}, check=True, timeout=30)

        def of_npm(name: str, *args: str, **env: str) -> dict[str, Any]:
            program = npm.place / "node_modules" / ".bin" / f"mcp-server-{name}"
            return {"command": str(program), "args": list(args), "env": {"PATH": npm.path, **env}}

        return self.daemon(
            servers={
                "time": {"command": str(programs / "mcp-server-time"), "args": ["--local-timezone", "UTC"]},
                "git": {
                    "command": str(programs / "mcp-server-git"),
                    "args": ["--repository", str(self.repository)],
                    "env": {"PATH": os.environ.get("PATH", os.defpath)},
                },
                "files": of_npm("filesystem", str(self.files)),
                "memory": of_npm("memory", MEMORY_FILE_PATH=str(self.place / "memory.jsonl")),
                "every": of_npm("everything"),
            }
        )

    def test_all_of_them_at_one_address(self) -> None:
        """Both eras: every tool is listed, and one of each does its work."""
        daemon = self.start_daemon()
        for era in ERAS:

            async def steps(client: Client, era: str = era) -> None:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert names >= SOME, SOME - names
                await self.work(client, era)
                await self.everything(client)

            session(over_http(daemon.port, "/mcp", tls=None), era, steps, SECONDS)
        reply = HttpClient(port=daemon.port, tls=None).get("/health")
        self.assertEqual({server["missing"] for server in reply.last["servers"].values()}, {None})

    async def work(self, client: Client, era: str) -> None:
        """A real task for each."""
        at = {"source_timezone": "Asia/Tokyo", "time": "16:30", "target_timezone": "UTC"}
        converted = text(await client.call_tool("time__convert_time", at))
        assert "T07:30:00+00:00" in converted, converted

        log = text(await client.call_tool("git__git_log", {"repo_path": str(self.repository), "max_count": 1}))
        assert "The first of them" in log, log

        read = await client.call_tool("files__read_text_file", {"path": str(self.files / "note.txt")})
        assert text(read) == "a note ☃\n", read
        written = self.files / f"{era}.txt"
        await client.call_tool("files__write_file", {"path": str(written), "content": f"of {era}"})
        assert Path(written).read_text() == f"of {era}", written
        outside = await client.call_tool("files__read_text_file", {"path": str(self.place / "memory.jsonl")})
        assert outside.is_error, outside

        entity = {"name": f"Ada {era}", "entityType": "person", "observations": ["counts"]}
        await client.call_tool("memory__create_entities", {"entities": [entity]})
        graph = (await client.call_tool("memory__read_graph", {})).structured_content
        assert graph is not None
        assert entity in graph["entities"], graph

        assert text(await client.call_tool("every__echo", {"message": "hello"})) == "Echo: hello"

    async def everything(self, client: Client) -> None:
        """The server that shows what there is: sum, progress, resources, prompts."""
        names = {tool.name for tool in (await client.list_tools()).tools}
        (total,) = names & {"every__add", "every__get-sum"}
        assert "5" in text(await client.call_tool(total, {"a": 2, "b": 3}))
        (long,) = names & {"every__longRunningOperation", "every__trigger-long-running-operation"}
        seen: list[tuple[float, float | None]] = []

        async def reported(at: float, of: float | None, message: str | None) -> None:
            seen.append((at, of))

        done = await client.call_tool(long, {"duration": 0.3, "steps": 3}, progress_callback=reported)
        assert "completed" in text(done), done
        assert seen == [(1, 3), (2, 3), (3, 3)], seen

        resources = [str(each.uri) for each in (await client.list_resources()).resources]
        assert resources, "it shows resources"
        (first, *_) = (await client.read_resource(resources[0])).contents
        assert str(first.uri) == resources[0], first
        assert isinstance(first, types.TextResourceContents), first
        assert first.text, first

        prompts = [prompt for prompt in (await client.list_prompts()).prompts if not prompt.arguments]
        assert prompts, "it shows a prompt without arguments"
        assert (await client.get_prompt(prompts[0].name)).messages[0].role == "user"
