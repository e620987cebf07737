"""What MCP fixes about one message: revisions, eras, envelopes and the headers that must agree with the body.

Two eras (see "Two eras" in docs/mcp.rst): *legacy*, 2024-11-05 to 2025-11-25, opens with ``initialize`` and keeps
a session; *modern*, 2026-07-28, repeats its envelope in every request and keeps nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final, Literal

from mcptunnel.core.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_VERSION,
    RpcError,
)
from mcptunnel.core.jsonrpc import Message, Span

__all__ = [
    "CAPABILITIES_KEY",
    "INFO_KEY",
    "LATEST_LEGACY",
    "LEGACY_VERSIONS",
    "LEVELS",
    "LEVEL_KEY",
    "MODERN_VERSIONS",
    "SERVER_KEY",
    "SUBSCRIPTION_KEY",
    "VERSION_KEY",
    "Era",
    "HeaderLookup",
    "check_headers",
    "check_legacy_version",
    "decode_header",
    "encode_header",
    "era_of_message",
    "era_of_request",
    "subject",
    "subscription_span",
]

Era = Literal["legacy", "modern"]
# Returns the values of one header, one per line, OWS already trimmed.
HeaderLookup = Callable[[bytes], list[bytes]]

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_LEGACY: Final = LEGACY_VERSIONS[-1]
MODERN_VERSIONS: Final = ("2026-07-28",)

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
INFO_KEY: Final = "io.modelcontextprotocol/clientInfo"
LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
SERVER_KEY: Final = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"

# Levels of log messages (RFC 5424), from the most verbose to the gravest.
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

# MCP 2026-07-28, Transports, "Standard headers": the member that Mcp-Name repeats.
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_BRACE: Final = ord("{")
_BASE64: Final = re.compile(r"=\?base64\?(.*)\?=")
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")


def encode_header(value: str) -> str:
    """``value`` as it travels in an ``Mcp-*`` header (MCP 2026-07-28, Transports, "Value encoding")."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _BASE64.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode('ascii')}?="


def decode_header(value: bytes) -> str | None:
    """The inverse of :func:`encode_header`; None when the value is malformed or not in canonical form."""
    try:
        text = value.decode("ascii")
        found = _BASE64.fullmatch(text)
        if found is None:
            return text
        decoded = base64.b64decode(found[1], validate=True)
        return decoded.decode() if base64.b64encode(decoded).decode("ascii") == found[1] else None
    except (ValueError, binascii.Error):
        return None


def subject(message: Message) -> str | None:
    """The tool, prompt or resource that a request names, or None for methods that name nothing."""
    member = _NAMED.get(message.method or "")
    value = message.param(member) if member else None
    return value if isinstance(value, str) else None


def _envelope_version(message: Message) -> str | None:
    span = message.meta().get(VERSION_KEY)
    value = None if span is None else message.at(span)
    return value if isinstance(value, str) else None


def era_of_message(message: Message) -> Era:
    """The era of a message on a transport without headers (WebSocket, stdio): modern when it has the envelope."""
    if message.method in (None, "initialize") or "params" not in message.spans:
        return "legacy"
    version = _envelope_version(message)
    return "legacy" if version is None or version in LEGACY_VERSIONS else "modern"


def era_of_request(header: HeaderLookup, message: Message | None) -> Era:
    """The era of an HTTP request: by ``MCP-Protocol-Version``, and by the envelope when the header is absent.

    Raises:
        RpcError: The header occurs twice, or is missing although the body has the modern envelope.
    """
    lines = header(b"mcp-protocol-version")
    if len(lines) > 1:
        raise RpcError(HEADER_MISMATCH, "MCP-Protocol-Version occurs more than once", reason="header_mismatch")
    if lines:
        return "legacy" if lines[0].decode("latin-1") in LEGACY_VERSIONS else "modern"
    if message is not None and era_of_message(message) == "modern":
        raise RpcError(
            HEADER_MISMATCH,
            f"the body names a revision in {VERSION_KEY!r}, but the MCP-Protocol-Version header is missing",
            reason="header_mismatch",
        )
    return "legacy"


def check_legacy_version(header: HeaderLookup) -> None:
    """Refuse a revision we do not know (2025-06-18, Transports, "Protocol Version Header"); absent is 2025-03-26."""
    lines = header(b"mcp-protocol-version")
    if any(line.decode("latin-1") not in LEGACY_VERSIONS for line in lines):
        raise RpcError(
            INVALID_REQUEST,
            f"unsupported MCP-Protocol-Version; supported are {', '.join(LEGACY_VERSIONS)}",
            reason="unsupported_version",
            status=400,
        )


def check_headers(message: Message, header: HeaderLookup | None) -> None:
    """Check a modern message: its envelope, and over HTTP that the headers say what the body says.

    Args:
        message: A request or notification.
        header: The request's headers; None on transports that have none.

    Raises:
        RpcError: With the code and status of MCP 2026-07-28, Transports, "Server validation".
    """
    if message.kind in ("result", "error"):
        raise RpcError(INVALID_REQUEST, "clients send no responses in this revision", reason="invalid_request")
    version = _envelope_version(message)
    if header is not None:
        _same(header, b"Mcp-Method", message.method or "")
        member = _NAMED.get(message.method or "")
        if member is not None:
            name = subject(message)
            if name is None:
                raise RpcError(INVALID_PARAMS, f"params.{member}: expected a string", reason="invalid_params")
            _same(header, b"Mcp-Name", name)
    if message.kind == "notification":
        return
    if version is None:
        raise RpcError(
            INVALID_PARAMS, f"params._meta[{VERSION_KEY!r}]: expected the protocol revision", reason="invalid_params"
        )
    if header is not None:
        _same(header, b"MCP-Protocol-Version", version)
    if version not in MODERN_VERSIONS:
        raise RpcError(
            UNSUPPORTED_VERSION,
            f"unsupported protocol revision {version[:32]!r}",
            reason="unsupported_version",
            data={"supported": list(MODERN_VERSIONS), "requested": version},
        )
    capabilities = message.meta().get(CAPABILITIES_KEY)
    if capabilities is None or message.raw[capabilities[0]] != _BRACE:
        raise RpcError(
            INVALID_PARAMS, f"params._meta[{CAPABILITIES_KEY!r}]: expected an object", reason="invalid_params"
        )
    if message.method == "initialize":
        raise RpcError(METHOD_NOT_FOUND, "initialize does not exist in this revision", reason="method_not_found")


def _same(header: HeaderLookup, name: bytes, wanted: str) -> None:
    lines = header(name.lower())
    label = name.decode("ascii")
    if len(lines) != 1:
        seen = "is missing" if not lines else "occurs more than once"
        raise RpcError(HEADER_MISMATCH, f"{label} {seen}", reason="header_mismatch")
    if decode_header(lines[0]) != wanted:
        raise RpcError(HEADER_MISMATCH, f"{label} differs from the body", reason="header_mismatch")


def subscription_span(message: Message) -> Span | None:
    """Where a message from a server names the subscription it belongs to (2026-07-28, ``subscriptions/listen``)."""
    if message.kind == "notification":
        return message.meta().get(SUBSCRIPTION_KEY)
    span = message.spans.get("result")
    if span is None or SUBSCRIPTION_KEY.encode() not in message.raw:
        return None
    meta = message.inside(span, "result").get("_meta")
    return None if meta is None else message.inside(meta, "result._meta").get(SUBSCRIPTION_KEY)
