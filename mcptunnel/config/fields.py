"""Readers of single values: functions from a node of the tree to a value, which know how to say what is wrong with it.

A reader takes the node and the spot where it stands, and returns the value or raises :class:`RefusedError`. Readers of
lists and mappings are in :mod:`mcptunnel.config.containers`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from attrs import frozen

from mcptunnel.config.interpolate import ExpandError
from mcptunnel.config.positions import ListNode, MapNode, Node, ScalarNode, seen
from mcptunnel.config.report import At, FileUse
from mcptunnel.config.units import FormatError, parse_duration, parse_size

__all__ = [
    "Read",
    "RefusedError",
    "boolean",
    "choice",
    "describe",
    "duration",
    "existing_file",
    "guess",
    "note",
    "number",
    "path",
    "size",
    "text",
    "text_of",
    "whole",
]

T = TypeVar("T")
Read = Callable[[Node, At], T]

# Eighteen digits at most, in groups of three if the operator likes.
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,5}(?:_[0-9]{3}){1,4}|[1-9][0-9]{0,17})", re.ASCII)
_CREDENTIAL: Final = "credential:"
# systemd.exec(5): a file name, so neither a slash nor one of the two special ones.
_CREDENTIAL_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._@:-]{1,255}", re.ASCII)
# A reference that survived expansion.
_LEFT: Final = re.compile(r"\$\{[^{}]*\}")
_DECIMAL: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
# The truth values of YAML 1.1, whether YAML or a variable supplied them.
_TRUTH: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class RefusedError(Exception):
    """A value cannot be taken. The text is the whole message; empty when the findings are noted already."""


def describe(node: Node) -> str:
    """What kind of thing ``node`` is, for a message."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a mapping"
    return "nothing" if node.kind == "null" else seen(node.text)


@frozen(kw_only=True)
class _Text:
    """A scalar after expansion: the value, and what a message may show of it."""

    value: str
    shown: str
    open: bool


def text_of(node: Node, at: At, expected: str, *, secret: bool = False) -> _Text:
    """The text of a scalar, expanded.

    Raises:
        RefusedError: It is no scalar, a reference in it fails, or it holds what no value may hold.
    """
    if not isinstance(node, ScalarNode) or node.kind == "null":
        raise RefusedError(f"{describe(node)} stands where {expected} is expected")
    try:
        value = at.scope.expand(node.text) if node.kind == "str" else node.text
    except ExpandError as error:
        raise RefusedError(str(error)) from None
    if at.scope.foreign and not at.scope.idle and _LEFT.search(value):
        at.warn("holds a ${…} that stands for no variable here; it is passed on as it is")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise RefusedError("the value holds a NUL or half a surrogate pair; it has to be proper text")
    if secret:
        return _Text(value=value, shown="the value", open=False)
    if value != node.text:
        at.report.hidden.add(at.key)
        return _Text(value=value, shown=f"the value of {seen(node.text)}", open=False)
    return _Text(value=value, shown=seen(value), open=True)


def text(check: Callable[[str], T], expected: str = "text", *, secret: bool = False, truth: bool = False) -> Read[T]:
    """A reader for one scalar.

    Args:
        check: Value of the text; raises ``FormatError``.
        expected: What belongs here, for a message.
        secret: Messages never show the value.
        truth: Take an unquoted ``yes`` or ``off`` as that text, instead of asking for quotes.
    """

    def read(node: Node, at: At) -> T:
        if isinstance(node, ScalarNode) and node.kind == "bool" and not truth:
            raise RefusedError(
                f"{seen(node.text)} is a truth value in YAML where {expected} is expected; put it in quotes"
            )
        got = text_of(node, at, expected, secret=secret)
        if at.scope.idle and "${" in got.value:
            # Of a disabled entry: not expanded, so there is nothing to check yet.
            return cast(T, got.value)
        try:
            return check(got.value)
        except FormatError as wrong:
            raise RefusedError(f"{got.shown} {wrong.says}{wrong.fix if got.open else ''}") from None

    return read


def boolean(node: Node, at: At) -> bool:
    """A truth value."""

    def check(value: str) -> bool:
        if value.lower() not in _TRUTH:
            raise FormatError("is not a truth value; write true or false")
        return _TRUTH[value.lower()]

    return text(check, "true or false", truth=True)(node, at)


def whole(low: int, high: int) -> Read[int]:
    """A whole number from ``low`` to ``high``."""

    def check(value: str) -> int:
        if not _INTEGER.fullmatch(value):
            raise FormatError(f"is not a whole number; write {low} to {high} in plain digits")
        return _between(int(value), low, high)

    return text(check, "a whole number")


def number(low: float, high: float) -> Read[float]:
    """A number from ``low`` to ``high``."""

    def check(value: str) -> float:
        if not _DECIMAL.fullmatch(value):
            raise FormatError(f"is not a number; write {low:g} to {high:g} in plain digits")
        return _between(float(value), low, high)

    return text(check, "a number")


def duration(low: float, high: float) -> Read[float]:
    """Seconds from ``low`` to ``high``."""
    return text(lambda value: _between(parse_duration(value), low, high, " seconds"), "a duration such as 30s")


def size(low: int, high: int) -> Read[int]:
    """Bytes from ``low`` to ``high``."""
    return text(lambda value: _between(parse_size(value), low, high, " bytes"), "a size such as 4MiB")


Number = TypeVar("Number", int, float)


def _between(value: Number, low: Number, high: Number, unit: str = "") -> Number:
    if not low <= value <= high:
        raise FormatError(f"is out of range; write {low:.12g} to {high:.12g}{unit}")
    return value


def choice(*values: str, also: Mapping[str, str] | None = None) -> Read[str]:
    """One of ``values``; ``also`` maps further spellings to them."""
    spellings = {value: value for value in values} | dict(also or {})

    def check(value: str) -> str:
        if value not in spellings:
            near = guess(value, spellings)
            fix = f"; did you mean {spellings[near]}?" if near else ""
            raise FormatError(f"is not known here; write {_either(values)}", fix)
        return spellings[value]

    return text(check, _either(values), truth=True)


def _either(values: tuple[str, ...]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def located(value: str, at: At) -> str:
    """``value`` as a path; a relative one starts at the directory of the file it stands in.

    ``credential:NAME`` is a file that systemd has put into the unit's own directory (systemd.exec(5), LoadCredential=).
    """
    if not value:
        raise FormatError("is an empty path; name a file or remove the key")
    if value.startswith("~"):
        raise FormatError("starts with ~, which is not expanded; write ${env:HOME} or the whole path")
    if value.startswith(_CREDENTIAL):
        return _credential(value.removeprefix(_CREDENTIAL), at)
    return os.path.join(at.scope.base or "", value)


def _credential(name: str, at: At) -> str:
    if not _CREDENTIAL_NAME.fullmatch(name):
        raise FormatError("names no credential; write credential: and a name without slashes, as in LoadCredential=")
    if at.scope.idle:
        return name
    try:
        directory = at.scope.expand("${env:CREDENTIALS_DIRECTORY}")
    except ExpandError:
        raise FormatError(
            f"is a systemd credential, and systemd has passed none; add LoadCredential={name}:/path/of/the/file to the "
            "[Service] section of the unit"
        ) from None
    return os.path.join(directory, name)


def path(node: Node, at: At) -> str:
    """A path that need not exist."""
    return text(lambda value: located(value, at), "a path")(node, at)


def existing_file(what: str) -> Read[str]:
    """A path whose file must exist when the daemon starts; ``what`` says what it holds."""

    def read(node: Node, at: At) -> str:
        found = path(node, at)
        if not at.scope.idle:
            got = text_of(node, at, "a path")
            shown = seen(found) if got.open else got.shown
            at.report.files.append(FileUse(key=at.key, place=at.place, what=what, path=found, shown=shown))
        return found

    return read


def note(at: At, refused: RefusedError) -> None:
    """Put what was raised into the report, unless it is there already."""
    if str(refused):
        at.error(str(refused))
    else:
        at.report.refuse(at.key)


def guess(name: str, known: Mapping[str, Any]) -> str | None:
    """The one of ``known`` that ``name`` was probably meant to be."""
    # difflib is quadratic: nobody mistypes into 64 characters.
    near = difflib.get_close_matches(name[:64].lower().replace("-", "_"), [key.lower() for key in known], 1, 0.7)
    return next((key for key in known if near and key.lower() == near[0]), None)
