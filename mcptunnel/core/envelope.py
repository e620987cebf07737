"""Between the envelopes of the two eras: what a request and a result say of themselves, put on and taken off.

Pure functions on bytes. Members that are not part of an envelope keep their bytes and their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcptunnel.core.jsonrpc import Message, Span, encode, members, splice
from mcptunnel.core.mcp import CAPABILITIES_KEY, INFO_KEY, LEVEL_KEY, MODERN_VERSIONS, SERVER_KEY, VERSION_KEY

__all__ = ["CACHED", "PARTS", "complete", "legacy_request", "member", "modern_request", "put", "rebuilt", "with_visit"]

_ENVELOPE: Final = frozenset({VERSION_KEY, CAPABILITIES_KEY, INFO_KEY, LEVEL_KEY})
# What a client adds when it repeats a request (2026-07-28, multi round-trip requests).
_REPEATED: Final = frozenset({"inputResponses", "requestState"})
# MCP 2026-07-28, "Caching": the results that must say how long they hold.
CACHED: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
# The requests whose servers may ask something back (2026-07-28, multi round-trip requests).
PARTS: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
_VERSION: Final = encode(MODERN_VERSIONS[-1])


def rebuilt(raw: bytes, spans: Mapping[str, Span], without: frozenset[str], more: Mapping[str, bytes]) -> bytes:
    """The object with members at ``spans`` of ``raw``, less ``without``, and with ``more`` raw values."""
    kept = [b"%b:%b" % (encode(name), raw[a:b]) for name, (a, b) in spans.items() if name not in without | more.keys()]
    kept += [b"%b:%b" % (encode(name), value) for name, value in more.items()]
    return b"{%b}" % b",".join(kept)


def put(message: Message, params: bytes) -> bytes:
    """``message`` with ``params`` instead of its own, or where it has none."""
    span = message.spans.get("params")
    if span is not None:
        return splice(message.raw, [(span, params)])
    end = message.raw.rindex(b"}")
    return splice(message.raw, [((end, end), b',"params":%b' % params)])


def modern_request(
    message: Message,
    capabilities: bytes,
    info: bytes | None,
    level: bytes | None,
    more: Mapping[str, bytes],
) -> bytes:
    """A legacy request in the envelope of 2026-07-28.

    Args:
        message: The request.
        capabilities: What the client can do, a raw object.
        info: Who it is, a raw object; None when it has not said.
        level: The least level of log messages that it wants, a raw string; None for none.
        more: Further raw members of ``params``.
    """
    envelope = {VERSION_KEY: _VERSION, CAPABILITIES_KEY: capabilities}
    if info is not None:
        envelope[INFO_KEY] = info
    if level is not None:
        envelope[LEVEL_KEY] = level
    meta = rebuilt(message.raw, message.meta(), _ENVELOPE, envelope)
    return put(message, rebuilt(message.raw, message.params, _REPEATED, {**more, "_meta": meta}))


def legacy_request(message: Message) -> bytes:
    """A request of 2026-07-28 without its envelope."""
    meta = message.meta()
    if not _ENVELOPE & meta.keys() and not _REPEATED & message.params.keys():
        return message.raw
    rest = rebuilt(message.raw, meta, _ENVELOPE, {})
    more = {} if rest == b"{}" else {"_meta": rest}
    params = rebuilt(message.raw, message.params, _REPEATED | {"_meta"}, more)
    return put(message, params)


def complete(reply: Message, method: str, server: bytes | None) -> bytes:
    """The result of a legacy server as 2026-07-28 wants it: complete, not to be cached, and whose it is.

    Args:
        reply: The response.
        method: What it answers.
        server: The server's ``serverInfo``, raw.

    Raises:
        RpcError: The result, or its ``_meta``, is no object with unique keys.
    """
    start, end = reply.spans["result"]
    spans = reply.inside((start, end), "result")
    more: dict[str, bytes] = {}
    if "resultType" not in spans:
        more["resultType"] = b'"complete"'
    if method in CACHED:
        for name, value in (("ttlMs", b"0"), ("cacheScope", b'"private"')):
            if name not in spans:
                more[name] = value
    edits: list[tuple[Span, bytes]] = []
    if server is not None:
        tag = b"%b:%b" % (encode(SERVER_KEY), server)
        if "_meta" not in spans:
            more["_meta"] = b"{%b}" % tag
        else:
            at = spans["_meta"][0] + 1
            inner = reply.inside(spans["_meta"], "result._meta")
            if SERVER_KEY not in inner:
                edits.append(((at, at), tag + (b"," if inner else b"")))
    if more:
        added = b",".join(b"%b:%b" % (encode(name), value) for name, value in more.items())
        # Before the last brace of the result.
        brace = end - 1
        edits.append(((brace, brace), (b"," if spans else b"") + added))
    return splice(reply.raw, edits)


def member(message: Message, name: str) -> Any:
    """The decoded member ``name`` of a result; None when it has none."""
    span = message.inside(message.spans["result"], "result").get(name)
    return None if span is None else message.at(span)


def with_visit(params: bytes, visit: bytes) -> bytes:
    """The raw ``params`` of a question for a legacy client; where it is to visit a page, with a name for the visit.

    2025-11-25 demands an ``elicitationId`` there, and 2026-07-28 has removed it.
    """
    try:
        spans = members(params)
    except ValueError:
        return params
    mode = spans.get("mode")
    if mode is None or params[mode[0] : mode[1]] != b'"url"' or "elicitationId" in spans:
        return params
    return rebuilt(params, spans, frozenset(), {"elicitationId": visit})
