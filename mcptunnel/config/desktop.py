"""MCP server files of desktop programs, included as they are: Claude Desktop, Claude Code, VS Code, Cursor.

Three shapes are known: ``{"mcpServers": {…}}``, VS Code's ``mcp.json`` with ``{"servers": {…}, "inputs": […]}``, and
its ``settings.json`` with ``{"mcp": {"servers": {…}}}``. The files are read, never written.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from mcptunnel.config.fields import RefusedError, note, text
from mcptunnel.config.interpolate import ExpandError, FileError, References, expand, read_small_file
from mcptunnel.config.jsonc import read_json
from mcptunnel.config.positions import ListNode, MapNode, Node, Place, ScalarNode, seen, step
from mcptunnel.config.reader import MAX_FILE, decode
from mcptunnel.config.report import At, Scope
from mcptunnel.config.schema import UpstreamConfig
from mcptunnel.config.syntax import free_text, server_name
from mcptunnel.config.units import FormatError
from mcptunnel.config.upstreams import read_server

__all__ = ["include", "pattern"]

_MAX_FILES: Final = 100
_SHAPES: Final = (("mcpServers",), ("servers",), ("mcp", "servers"))
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::-.*)?", re.ASCII | re.DOTALL)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)


def pattern(node: Node, at: At) -> tuple[str, At]:
    """One entry of ``include``: a path or pattern, and its spot."""
    if isinstance(node, MapNode):
        raise RefusedError("a mapping stands where a path is expected; write the servers themselves under mcpServers")
    return text(free_text, "a path")(node, at), at


def include(
    patterns: tuple[tuple[str, At], ...], environ: Mapping[str, str], servers: dict[str, tuple[UpstreamConfig, Place]]
) -> None:
    """Add the servers of every file that ``patterns`` name to ``servers``."""
    done: set[str] = set()
    for text_, at in patterns:
        for path in _files(os.path.join(at.scope.base or "", text_), at):
            if path in done:
                continue
            done.add(path)
            if len(done) > _MAX_FILES:
                at.error(f"more than {_MAX_FILES} files are included; make the pattern narrower")
                return
            _include_file(path, at, environ, servers)


def _files(path: str, at: At) -> list[str]:
    if not glob.has_magic(path):
        return [path]
    try:
        found = sorted(glob.glob(path))
    except (OSError, ValueError, re.error):
        found = []
    if not found:
        at.warn("no file matches the pattern, so nothing is included")
    return found


def _include_file(
    path: str, at: At, environ: Mapping[str, str], servers: dict[str, tuple[UpstreamConfig, Place]]
) -> None:
    try:
        content = read_small_file(path, MAX_FILE)
    except FileError as error:
        at.error(f"the included file {error}; correct the path or the file")
        return
    report = at.report
    root_text = decode(content, report, path)
    root = None if root_text is None else read_json(root_text, report, path)
    if root is None:
        return
    found = _servers(root)
    if found is None:
        known = '"mcpServers", "servers" or "mcp": {"servers"}'
        report.error("", f"no servers are in this file; expected is an object with {known}", root.place)
        return
    key, entries = found
    folder = _workspace(path)
    references = _ForeignReferences(
        environ=environ,
        base=folder,
        inputs=_inputs(root),
    )
    scope = Scope(
        report=report,
        expand=lambda value: expand(value, references, escapes=False),
        base=folder,
        elsewhere=lambda _: (),
        foreign=True,
    )
    spot = At(key=key, place=entries.place, scope=scope)
    for entry, node in entries.entries:
        _include_server(entry.name, node, spot.child(entry.name, entry.place), servers)


def _include_server(raw: str, node: Node, at: At, servers: dict[str, tuple[UpstreamConfig, Place]]) -> None:
    name = _slug(raw)
    if name != raw:
        at.warn(f"the server is called {name} here: its name would not fit into URLs and tool names")
    if name in servers:
        other = servers[name][1]
        at.error(f"the server {step(name)} exists already, at {other}; rename or remove one of the two")
        return
    try:
        servers[name] = (read_server(name, node, at), at.place)
    except RefusedError as refused:
        note(at, refused)


def _slug(name: str) -> str:
    try:
        return server_name(name)
    except FormatError:
        plain = re.sub(r"_{2,}", "_", _NOT_IN_NAMES.sub("-", name))
        return plain[:64].strip("-_") or "server"


def _servers(root: Node) -> tuple[str, MapNode] | None:
    """The mapping of servers, and its key path."""
    for shape in _SHAPES:
        node: Node | None = root
        for key in shape:
            node = node.get(key) if isinstance(node, MapNode) else None
        if isinstance(node, MapNode):
            return ".".join(shape), node
    return None


def _inputs(root: Node) -> dict[str, str]:
    """The defaults of VS Code's ``inputs``, by id."""
    nodes: list[Node] = []
    for holder in (root, root.get("mcp") if isinstance(root, MapNode) else None):
        found = holder.get("inputs") if isinstance(holder, MapNode) else None
        nodes.extend(found.items if isinstance(found, ListNode) else ())
    defaults: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, MapNode):
            name, default = node.get("id"), node.get("default")
            if isinstance(name, ScalarNode) and isinstance(default, ScalarNode) and default.kind != "null":
                defaults[name.text] = default.text
    return defaults


def _workspace(path: str) -> str:
    """The folder that the programs call workspace: where the file is, or above its ``.vscode`` or ``.cursor``."""
    folder = os.path.dirname(os.path.abspath(path))
    return os.path.dirname(folder) if os.path.basename(folder).startswith(".") else folder


@frozen(kw_only=True)
class _ForeignReferences:
    """What ``${…}`` means in the files of other programs.

    Attributes:
        base: The workspace folder.
        inputs: Values for ``${input:ID}`` that the file itself proposes.
    """

    environ: Mapping[str, str]
    base: str
    inputs: Mapping[str, str]

    def __call__(self, inner: str) -> str | None:
        """The value of ``${inner}``; None for what is no reference of these programs.

        Raises:
            ExpandError: It is one, but has no value here.
        """
        scheme, colon, rest = inner.partition(":")
        if colon and scheme == "env":
            return References(environ=self.environ, base=self.base).variable(rest)
        if colon and scheme == "input":
            return self._input(rest)
        if colon and scheme in ("config", "command"):
            raise ExpandError(f"{seen(f'${{{inner}}}')} is known to the editor only; write the value itself")
        fixed = {
            "workspaceFolder": self.base,
            "workspaceRoot": self.base,
            "workspaceFolderBasename": os.path.basename(self.base),
            "userHome": self.environ.get("HOME"),
            "pathSeparator": "/",
            "/": "/",
        }
        if inner in fixed:
            return fixed[inner]
        # Claude Code writes variables so; the other programs pass such a text on as it is.
        name, dash, default = inner.partition(":-")
        if _VARIABLE.fullmatch(inner):
            value = self.environ.get(name)
            return default if dash and not value else value
        return None

    def _input(self, name: str) -> str:
        variable = "MCPTUNNEL_INPUT_" + re.sub(r"[^A-Za-z0-9]", "_", name[:64]).upper()
        value = self.environ.get(variable, self.inputs.get(name))
        if value is None:
            raise ExpandError(
                f"{seen(f'${{input:{name}}}')} asks a person, and a daemon has nobody to ask; "
                f"set the environment variable {variable}"
            )
        return value
