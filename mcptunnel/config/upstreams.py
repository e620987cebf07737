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
    existing_file,
    note,
    path,
    text,
)
from mcptunnel.config.positions import MapNode, Node, Place, ScalarNode, seen
from mcptunnel.config.report import At
from mcptunnel.config.schema import UpstreamConfig
from mcptunnel.config.units import FormatError

__all__ = ["ENTRY", "read_server", "read_servers"]

_STDIO_KEYS: Final = ("args", "env", "cwd")
_HTTP_KEYS: Final = ("headers", "ca_file")

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

# Keys that desktop programs and their extensions write into an entry, without meaning for a daemon.
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
    _check_kind(values, at, enabled)
    if not at.report.sound(at.key):
        raise RefusedError
    fields = {key: value for key, value in values.items() if key not in ("enabled", "disabled", "type")}
    return UpstreamConfig(name=name, enabled=enabled, **fields)


def _switch(node: MapNode, name: str, at: At) -> bool | None:
    item = node.get(name)
    try:
        return None if item is None else boolean(item, at)
    except RefusedError:
        # Noted when the whole entry is read.
        return None


def _check_kind(values: dict[str, Any], at: At, enabled: bool) -> None:
    """Command or address, and nothing that belongs to the other."""
    command, url = (at.path(key) in at.report.given for key in ("command", "url"))
    if command and url:
        at.error("command and url are both given; keep command for a program to run, or url for an address")
        return
    if not command and not url:
        if at.report.sound(at.path("command"), at.path("url")):
            at.error("names no server; add command (a program to run) or url (an address)")
        return
    kind, other = ("command", _HTTP_KEYS) if command else ("url", _STDIO_KEYS)
    for key in [key for key in other if at.path(key) in at.report.given]:
        if at.scope.foreign:
            at.again(key).warn(f"ignored: it means nothing beside {kind}")
            values.pop(key, None)
        else:
            at.again(key).error(f"means nothing beside {kind}; remove it")
    if "type" in values:
        _check_transport(values["type"], kind, at.again("type"), enabled)
    if url and "url" in values and values.get("headers"):
        parts = urlsplit(values["url"])
        if parts.scheme == "http" and not syntax.is_loopback(parts.hostname or ""):
            at.again("url").warn("the headers travel unencrypted over http; use https if the server can")


def _check_transport(transport: str, kind: str, at: At, enabled: bool) -> None:
    if (transport == "stdio") != (kind == "command"):
        at.error(f"'{transport}' does not go with {kind}; remove type, {kind} says it already")
    elif transport in ("sse", "ws"):
        message = f"{'HTTP+SSE' if transport == 'sse' else 'WebSocket'} servers are not yet supported by this version"
        if enabled:
            at.error(f"{message}; use the server's Streamable HTTP URL with type: http, or set enabled: false")
        else:
            at.warn(message)
