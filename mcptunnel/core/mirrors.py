"""Arguments of tools that a header repeats: ``x-mcp-header`` in an input schema, ``Mcp-Param-*`` in a request.

MCP 2026-07-28, Transports, "Custom headers": whoever reads the body must hold the headers against it, and whoever sends
a request over HTTP must write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from mcptunnel.core.errors import HEADER_MISMATCH, RpcError
from mcptunnel.core.jsonrpc import Message, Span
from mcptunnel.core.mcp import decode_header, encode_header

__all__ = ["Mirror", "check", "check_unambiguous", "lines", "mirrors"]

_KEY: Final = "x-mcp-header"
_PREFIX: Final = "Mcp-Param-"
_TYPES: Final = ("string", "integer", "boolean")
# RFC 9110 §5.6.2
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# No number of a tool is longer; Python refuses to read those of thousands of digits.
_DECIMAL: Final = re.compile(r"(-?[0-9]{1,400})(?:\.0+)?", re.ASCII)
# Members of a schema that hold values, not schemas.
_VALUES: Final = frozenset({"default", "examples", "const", "enum"})
# Schemas are untrusted: nothing deeper is looked at.
_DEPTH: Final = 32


@frozen
class Mirror:
    """One argument that a header repeats.

    Attributes:
        header: The header's name.
        path: Where the argument is, from ``arguments`` on.
        integer: Its values are compared as numbers.
    """

    header: str
    path: tuple[str, ...]
    integer: bool


def mirrors(schema: Any) -> tuple[Mirror, ...]:
    """What ``schema`` wants to be repeated; nothing when any of it is not as it must be: clients drop such a tool."""
    found = list(_annotated(schema, ()))
    names = [token.lower() for token, _, _ in found if isinstance(token, str)]
    sound = (
        len(found) == _count(schema, 0)
        and len(names) == len(set(names)) == len(found)
        and all(_TOKEN.fullmatch(token) and kind in _TYPES for token, _, kind in found)
    )
    return tuple(Mirror(_PREFIX + token, path, kind == "integer") for token, path, kind in found) if sound else ()


def _annotated(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...], Any]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _DEPTH:
        return
    for name, inner in properties.items():
        here = (*path, name)
        if isinstance(inner, dict) and _KEY in inner:
            yield inner[_KEY], here, inner.get("type")
        yield from _annotated(inner, here)


def _count(schema: Any, depth: int) -> int:
    """How often the key occurs, wherever."""
    if depth > _DEPTH:
        return 0
    if isinstance(schema, list):
        return sum(_count(inner, depth + 1) for inner in schema)
    if not isinstance(schema, dict):
        return 0
    inner = sum(
        # The names of properties are names, not keywords.
        sum(_count(one, depth + 1) for one in value.values())
        if key == "properties" and isinstance(value, dict)
        else _count(value, depth + 1)
        for key, value in schema.items()
        if key not in _VALUES
    )
    return inner + (_KEY in schema)


def check_unambiguous(wanted: Sequence[Mirror], message: Message) -> None:
    """Refuse a call whose repeated arguments two parsers could read differently.

    Raises:
        RpcError: An object on the way to one of them holds a key twice.
    """
    for mirror in wanted:
        place: Span | None = message.params.get("arguments")
        for depth, name in enumerate(mirror.path):
            if place is None or message.raw[place[0] : place[0] + 1] != b"{":
                break
            what = ".".join(("params.arguments", *mirror.path[:depth]))
            place = message.inside(place, what).get(name)


def lines(wanted: Sequence[Mirror], arguments: Any) -> tuple[tuple[bytes, bytes], ...]:
    """The header lines that go with ``arguments``."""
    shown = ((mirror, _shown(_value(arguments, mirror.path))) for mirror in wanted)
    return tuple(
        (mirror.header.encode("ascii"), encode_header(text).encode("ascii"))
        for mirror, text in shown
        if text is not None
    )


def check(wanted: Sequence[Mirror], headers: Sequence[tuple[bytes, bytes]], arguments: Any) -> None:
    """Hold ``headers``, names in lower case, against ``arguments``.

    Raises:
        RpcError: ``HEADER_MISMATCH``: one is missing, occurs twice, or says something else than the body.
    """
    for mirror in wanted:
        seen = [value for name, value in headers if name == mirror.header.lower().encode("ascii")]
        value = _value(arguments, mirror.path)
        text = _shown(value)
        argument = ".".join(mirror.path)
        why = None
        if len(seen) > 1:
            why = "occurs more than once"
        elif text is None and seen:
            why = f"is present, but the argument {argument!r} is not in the body"
        elif text is not None and not seen:
            why = f"is missing, but the argument {argument!r} is in the body"
        elif text is not None and not _same(decode_header(seen[0]), text, value, integer=mirror.integer):
            why = f"differs from the argument {argument!r} in the body"
        if why is not None:
            raise RpcError(HEADER_MISMATCH, f"{mirror.header} {why}", reason="header_mismatch")


def _value(arguments: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, Mapping) else None
    return arguments


def _shown(value: Any) -> str | None:
    """The value as a header shows it; None when it is none that could be shown, null included."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _same(seen: str | None, text: str, value: Any, *, integer: bool) -> bool:
    if seen is None:
        return False
    number = _DECIMAL.fullmatch(seen) if integer and not isinstance(value, bool | str) else None
    if number is not None and value == int(value):
        return int(number[1]) == int(value)
    return seen == text
