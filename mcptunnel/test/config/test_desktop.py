"""Files of desktop programs, as these programs write them."""

# The lines are quoted whole, as the operator reads them.
# ruff: noqa: E501

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_file
from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.core.errors import ConfigError

CLAUDE = """{
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv"]
    }
  },
  "globalShortcut": "Ctrl+Space"
}
"""

VS_CODE = """{
\t// Servers of this project
\t"inputs": [
\t\t{"type": "promptString", "id": "api-key", "description": "Key", "password": true},
\t\t{"type": "promptString", "id": "region", "default": "eu"},
\t],
\t"servers": {
\t\t"github": {"type": "http", "url": "https://api.example.com/mcp/", "headers": {"Authorization": "Bearer ${input:api-key}"}},
\t\t"local": {
\t\t\t"type": "stdio",
\t\t\t"command": "${workspaceFolder}/bin/server",
\t\t\t"args": ["--region", "${input:region}", "--home", "${userHome}", "${weird} $HOME $${x}", 5],
\t\t\t"env": {"A": "${env:ABC}", "GONE": null, "N": 1},
\t\t\t"cwd": "${workspaceFolder}",
\t\t\t"envFile": "${workspaceFolder}/.env",
\t\t\t"dev": {"watch": "**/*.ts"}, // trailing comma next
\t\t},
\t},
}
"""


class IncludeTests(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(self.folder, "project", ".vscode"))
        self.environ = {"HOME": "/home/me", "ABC": "abc", "MCPTUNNEL_INPUT_API_KEY": "k", "TOKEN": "t0k"}

    def write(self, name: str, content: str) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(content)
        return path

    def load(self, text: str) -> Config:
        return load_file(self.write("main.yaml", text), self.environ)

    def lines(self, text: str) -> list[str]:
        error = self.assertRaises(ConfigError, self.load, text)
        return str(error).replace(self.folder + "/", "").split("\n")

    def test_claude_desktop(self) -> None:
        """Its other settings are its own business."""
        self.write("claude.json", CLAUDE)
        config = self.load("include: claude.json\nmcpServers: {a: {command: x}}\n")
        self.assertEqual(list(config.servers), ["a", "filesystem"])
        self.assertEqual(
            config.servers["filesystem"],
            UpstreamConfig(
                name="filesystem", command="npx", args=("-y", "@modelcontextprotocol/server-filesystem", "/srv")
            ),
        )
        self.assertEqual(config.warnings, ())

    def test_vs_code(self) -> None:
        """Comments, tabs, trailing commas, inputs, its variables; the folder above ``.vscode`` is the workspace."""
        path = self.write("project/.vscode/mcp.json", VS_CODE)
        config = self.load("include: [project/.vscode/mcp.json]\n")
        project = os.path.join(self.folder, "project")
        self.assertEqual(config.servers["github"].headers, {"Authorization": "Bearer k"})
        self.assertEqual(
            config.servers["local"],
            UpstreamConfig(
                name="local",
                type="stdio",
                command=f"{project}/bin/server",
                args=("--region", "eu", "--home", "/home/me", "${weird} $HOME $${x}", "5"),
                env={"A": "abc", "N": "1"},
                cwd=project,
            ),
        )
        self.assertEqual(
            config.warnings,
            (
                f"{path}:12: servers.local.args[4]: holds a ${{…}} that stands for no variable here; it is passed on as "
                "it is",
                f"{path}:13: servers.local.env.GONE: ignored: a variable cannot be taken away from a child",
                f"{path}:15: servers.local.envFile: ignored: the key means nothing to this daemon",
                f"{path}:16: servers.local.dev: ignored: the key means nothing to this daemon",
            ),
        )

    def test_vs_code_settings(self) -> None:
        """Servers within a file of a thousand other settings."""
        self.write("settings.json", '{"editor.tabSize": 2, "mcp": {"servers": {"a": {"command": "x"}}}}')
        self.assertEqual(list(self.load("include: settings.json").servers), ["a"])

    def test_cursor_and_claude_code(self) -> None:
        """``disabled``, permissions, ``${NAME}`` with a default, and names with blanks."""
        path = self.write(
            "mcp.json",
            json.dumps(
                {
                    "mcpServers": {
                        "My Files!": {"command": "x", "autoApprove": ["read"], "disabled": False},
                        "web": {
                            "type": "http",
                            "url": "${BASE:-https://x.example}/mcp",
                            "headers": {"Authorization": "Bearer ${TOKEN}", "Accept": "text/event-stream"},
                        },
                        "old": {
                            "type": "sse",
                            "url": "${env:NONE}",
                            "tools": ["*"],
                            "request_timeout": 60000,
                            "disabled": True,
                        },
                    }
                },
                indent=1,
            ),
        )
        config = self.load("include: mcp.json")
        self.assertEqual(list(config.servers), ["My-Files", "web", "old"])
        self.assertEqual(config.servers["web"].url, "https://x.example/mcp")
        self.assertEqual(config.servers["web"].headers, {"Authorization": "Bearer t0k"})
        self.assertFalse(config.servers["old"].enabled)
        self.assertEqual(
            [warning.removeprefix(path) for warning in config.warnings],
            [
                ":3: mcpServers.'My Files!': the server is called My-Files here: its name would not fit into URLs and "
                "tool names",
                ":5: mcpServers.'My Files!'.autoApprove: ignored: the key means nothing to this daemon",
                ":15: mcpServers.web.headers.Accept: ignored: the daemon sets this header itself",
                ":21: mcpServers.old.tools: ignored: the key means nothing to this daemon",
                ":24: mcpServers.old.request_timeout: ignored: the key means nothing to this daemon",
            ],
        )

    def test_patterns_take_every_file_once(self) -> None:
        """In the order of their names; a pattern without a match is only warned about."""
        os.mkdir(os.path.join(self.folder, "d"))
        for name in ("b", "a"):
            self.write(f"d/{name}.json", json.dumps({"mcpServers": {name: {"command": "x"}}}))
        config = self.load("include: [d/*.json, d/a.json, e/*.json]")
        self.assertEqual(list(config.servers), ["a", "b"])
        self.assertEqual(
            config.warnings,
            (f"{self.folder}/main.yaml:1: include[2]: no file matches the pattern, so nothing is included",),
        )

    def test_what_cannot_be_included_is_explained(self) -> None:
        """Each mistake in the file where it stands."""
        self.write("broken.json", '{"mcpServers": {\n"a": {"command": "x"}\n')
        self.write("other.json", '{"servers": []}')
        self.write(
            "wrong.json",
            '{"mcpServers": {\n"a": {"comand": "x"},\n"b": {"command": "x", "env": {"K": "${input:key}"}},\n'
            '"c": {"command": "x", "args": ["${config:a.b}"]},\n"d": 5,\n"a b": {"command": "x"}, "a-b": {"url": "y"}}}',
        )
        self.assertEqual(
            self.lines(
                "mcpServers: {a-b: {command: x}}\ninclude:\n  - nope.json\n  - broken.json\n  - other.json\n  - wrong.json\n  - project\n"
            ),
            [
                "main.yaml:3: include[0]: the included file does not exist; correct the path or the file",
                "main.yaml:7: include[4]: the included file is a directory; correct the path or the file",
                "broken.json:3: not valid JSON: a comma or } is expected, not the end of the file",
                'other.json:1: no servers are in this file; expected is an object with "mcpServers", "servers" or '
                '"mcp": {"servers"}',
                "wrong.json:2: mcpServers.a.comand: unknown key; did you mean command?",
                "wrong.json:3: mcpServers.b.env.K: '${input:key}' asks a person, and a daemon has nobody to ask; set "
                "the environment variable MCPTUNNEL_INPUT_KEY",
                "wrong.json:4: mcpServers.c.args[0]: '${config:a.b}' is known to the editor only; write the value "
                "itself",
                "wrong.json:5: mcpServers.d: an entry is a mapping with command or url; write NAME: {command: …} or "
                "NAME: {url: …}",
                "wrong.json:6: mcpServers.'a b': the server a-b exists already, at main.yaml:1; rename or remove one "
                "of the two",
                "wrong.json:6: mcpServers.a-b: the server a-b exists already, at main.yaml:1; rename or remove one of "
                "the two",
            ],
        )

    def test_included_servers_count_for_the_open_door(self) -> None:
        """A server is a server, wherever it is written."""
        self.write("claude.json", CLAUDE)
        self.assertIn("other machines can reach", self.lines("server: {host: 0.0.0.0}\ninclude: claude.json")[0])
