"""One entry of ``mcpServers``, in our own file or in one of a desktop program."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from attrs import evolve

from mcptunnel.config import syntax
from mcptunnel.config.containers import Listed, Named, Section
from mcptunnel.config.fields import (
    RefusedError,
    boolean,
    choice,
    duration,
    existing_file,
    note,
    path,
    text,
)
from mcptunnel.config.positions import MapNode, Node, Place, ScalarNode, seen
from mcptunnel.config.report import At
from mcptunnel.config.schema import ToolOverride, UpstreamConfig
from mcptunnel.config.units import FormatError

__all__ = ["ENTRY", "read_server", "read_servers"]

_STDIO_KEYS: Final = ("args", "env", "cwd")
_URL_KEYS: Final = ("headers", "ca_file", "cert_file", "key_file", "proxy")

_DAY: Final = 86_400.0

# Set for each request by the protocol; a fixed value of the operator's would break it.
_OWN_HEADERS: Final = frozenset(
    {
        "accept",
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-protocol-version",
        "mcp-session-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# Keys that desktop programs and their extensions write into an entry, without meaning for a daemon; those that mean
# something in our own file mean something else there.
FOREIGN_KEYS: Final = frozenset(
    {
        "$schema",
        "alwaysAllow",
        "auth",
        "autoApprove",
        "autoStart",
        "description",
        "dev",
        "disabledTools",
        "displayName",
        "enabledTools",
        "envFile",
        "gallery",
        "icon",
        "id",
        "initTimeout",
        "inputs",
        "metadata",
        "name",
        "note",
        "oauth",
        "provider",
        "request_max_time",
        "request_timeout",
        "sandbox",
        "sandboxEnabled",
        "startupTimeout",
        "timeout",
        "tools",
        "trust",
        "version",
    }
)


def _text_or_nothing(node: Node, at: At) -> str | None:
    """A variable's value; null, which in VS Code's files takes a variable away, is dropped there."""
    if isinstance(node, ScalarNode) and node.kind == "null" and at.scope.foreign:
        at.warn("ignored: a variable cannot be taken away from a child")
        return None
    return text(str, "text", secret=True, truth=True)(node, at)


def _env(node: Node, at: At) -> dict[str, str]:
    values = Named(name=syntax.env_name, item=_text_or_nothing, expected="variables")(node, at)
    return {name: value for name, value in values.items() if value is not None}


def _headers(node: Node, at: At) -> dict[str, str]:
    value = text(syntax.header_value, "a header's value", secret=True, truth=True)
    headers = Named(name=syntax.header_name, item=value, expected="headers", fold=True)(node, at)
    for name in [name for name in headers if name.lower() in _OWN_HEADERS]:
        if at.scope.foreign:
            at.again(name).warn("ignored: the daemon sets this header itself")
        else:
            at.again(name).error("the daemon sets this header itself; remove the entry")
        del headers[name]
    return headers


# The names of transports in the files of VS Code, Cursor, Claude Code and their like.
_TRANSPORTS: Final = {
    "streamable-http": "http",
    "streamableHttp": "http",
    "streamable_http": "http",
    "websocket": "ws",
    "local": "stdio",
}

_TOOL: Final = Section(
    build=ToolOverride,
    fields={
        "name": text(syntax.tool_name, "a name", truth=True),
        "description": text(str, "a text", truth=True),
        "hidden": boolean,
    },
    synonyms={"rename": "name", "hide": "hidden", "title": "name"},
)

ENTRY: Final[Section[dict[str, Any]]] = Section(
    build=dict,
    fields={
        "command": text(syntax.command, "a program"),
        "args": Listed(item=text(str, "text", truth=True), expected="arguments"),
        "env": _env,
        "cwd": path,
        "url": text(syntax.upstream_url, "a URL", secret=True),
        "headers": _headers,
        "ca_file": existing_file("CA certificates"),
        "enabled": boolean,
        "disabled": boolean,
        "type": choice("stdio", "http", "sse", "ws", also=_TRANSPORTS),
        "era": choice("auto", "legacy", "modern"),
        "sharing": choice("session", "shared"),
        "request_timeout": duration(0.001, _DAY),
        "request_max_time": duration(0.001, 30 * _DAY),
        "cert_file": existing_file("client certificate"),
        "key_file": existing_file("private key"),
        "proxy": text(syntax.proxy_url, "a URL or none", secret=True),
        "tools": Named(name=syntax.own_tool, item=_TOOL, expected="tools"),
    },
    foreign=FOREIGN_KEYS,
    synonyms={
        "environment": "env",
        "working_directory": "cwd",
        "workdir": "cwd",
        "cmd": "command",
        "arguments": "args",
        "transport": "type",
        "serverUrl": "url",
        "httpUrl": "url",
        "endpoint": "url",
        "ca": "ca_file",
        "cert": "cert_file",
        "key": "key_file",
        "timeout": "request_timeout",
        "http_proxy": "proxy",
        "https_proxy": "proxy",
        "tool": "tools",
    },
)


def read_servers(node: Node, at: At) -> dict[str, tuple[UpstreamConfig, Place]]:
    """``mcpServers`` of our own file: each entry, and where it stands."""
    if not isinstance(node, MapNode):
        raise RefusedError("mcpServers is a mapping of names to servers; write NAME: {command: …} or NAME: {url: …}")
    servers: dict[str, tuple[UpstreamConfig, Place]] = {}
    for key, item in node.entries:
        spot = at.child(key.name, key.place)
        try:
            servers[key.name] = (read_server(syntax.server_name(key.name), item, spot), key.place)
        except FormatError as wrong:
            spot.error(f"{seen(key.name)} {wrong.says}")
        except RefusedError as refused:
            note(spot, refused)
    return servers


def read_server(name: str, node: Node, at: At) -> UpstreamConfig:
    """The entry ``node`` as server ``name``.

    Raises:
        RefusedError: It cannot be one.
    """
    if not isinstance(node, MapNode):
        raise RefusedError("an entry is a mapping with command or url; write NAME: {command: …} or NAME: {url: …}")
    on, off = _switch(node, "enabled", at), _switch(node, "disabled", at)
    enabled = on if on is not None else not off
    if not enabled:
        # What a disabled entry refers to need not exist: neither its variables nor its files.
        at = evolve(at, scope=evolve(at.scope, idle=True, expand=str))
    values = ENTRY(node, at)
    if on is not None and on is off:
        at.error("enabled and disabled contradict each other; keep enabled")
    _check_kind(values, at)
    if not at.report.sound(at.key):
        raise RefusedError
    fields = {key: value for key, value in values.items() if key not in ("enabled", "disabled")}
    return UpstreamConfig(name=name, enabled=enabled, **fields)


def _switch(node: MapNode, name: str, at: At) -> bool | None:
    item = node.get(name)
    try:
        return None if item is None else boolean(item, at)
    except RefusedError:
        # Noted when the whole entry is read.
        return None


def _check_kind(values: dict[str, Any], at: At) -> None:
    """Command or address, and nothing that belongs to the other."""
    command, url = (at.path(key) in at.report.given for key in ("command", "url"))
    if command and url:
        at.error("command and url are both given; keep command for a program to run, or url for an address")
        return
    if not command and not url:
        if at.report.sound(at.path("command"), at.path("url")):
            at.error("names no server; add command (a program to run) or url (an address)")
        return
    kind, other = ("command", _URL_KEYS) if command else ("url", _STDIO_KEYS)
    for key in [key for key in other if at.path(key) in at.report.given]:
        if at.scope.foreign:
            at.again(key).warn(f"ignored: it means nothing beside {kind}")
            values.pop(key, None)
        else:
            at.again(key).error(f"means nothing beside {kind}; remove it")
    if command and values.get("type", "stdio") != "stdio":
        at.again("type").error(f"'{values['type']}' does not go with command; remove type, command says it already")
    if "url" in values and not (at.scope.idle and "${" in values["url"]):
        _check_address(values, at)
    _check_tools(values.get("tools", {}), at)


def _check_address(values: dict[str, Any], at: At) -> None:
    """What the scheme of the URL decides."""
    parts = urlsplit(values["url"])
    web = parts.scheme in ("http", "https")
    transport = values.get("type")
    if transport == "stdio":
        at.again("type").error("'stdio' does not go with url; remove type, url says it already")
    elif transport == "ws" and web:
        at.again("type").error("'ws' does not go with an http address; write url: wss://… or ws://…, or remove type")
    elif transport in ("http", "sse") and not web:
        at.again("type").error(f"'{transport}' does not go with a WebSocket address; remove type, url says it already")
    elif not web:
        values["type"] = "ws"
    if values.get("sharing") == "shared" and web and transport in (None, "http"):
        at.again("sharing").error(
            "'shared' means nothing for Streamable HTTP, where each session asks for itself; remove it"
        )
    _check_pair(values, at, secure=parts.scheme in ("https", "wss"))
    if values.get("headers") and parts.scheme in ("http", "ws") and not syntax.is_loopback(parts.hostname or ""):
        secure = "https" if web else "wss"
        at.again("url").warn(f"the headers travel unencrypted over {parts.scheme}; use {secure} if the server can")


def _check_pair(values: dict[str, Any], at: At, *, secure: bool) -> None:
    cert, key = (at.path(name) in at.report.given for name in ("cert_file", "key_file"))
    if cert != key:
        there, missing = ("cert_file", "key_file") if cert else ("key_file", "cert_file")
        at.again(there).error(f"{there} is given without {missing}; add {missing} beside it")
    elif cert and not secure:
        at.again("cert_file").error("there is no TLS to show a certificate in; write an https or wss url, or remove it")


def _check_tools(tools: dict[str, ToolOverride], at: At) -> None:
    """No two tools under one name."""
    shown: dict[str, str] = {}
    spot = at.again("tools")
    for own, tool in tools.items():
        name = tool.name or own
        if tool.hidden:
            continue
        if name in shown:
            spot.again(own).error(f"would be shown as {seen(name)}, as {seen(shown[name])} is; choose another name")
        shown.setdefault(name, own)
