"""JSON as editors write it, with comments and trailing commas, to the tree of :mod:`mcptunnel.config.positions`."""

from __future__ import annotations

import json
import re
from typing import Final

from mcptunnel.config.positions import (
    MAX_DEPTH,
    MAX_NODES,
    Key,
    Kind,
    ListNode,
    MapNode,
    Node,
    Place,
    ScalarNode,
    seen,
    step,
)
from mcptunnel.config.report import Report

__all__ = ["read_json"]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD: Final = re.compile(r"[A-Za-z0-9+.-]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_WORDS: Final[dict[str, Kind]] = {"true": "bool", "false": "bool", "null": "null"}


class _JsonError(Exception):
    """Not JSON; the text says what and how to fix it."""


def read_json(text: str, report: Report, file: str) -> Node | None:
    """The tree of the one value in ``text``; None after a finding."""
    parser = _Parser(text, report, file)
    try:
        return parser.document()
    except _JsonError as error:
        report.error("", str(error), parser.place())
        return None


class _Parser:
    """Recursive descent, at most ``MAX_DEPTH`` deep."""

    def __init__(self, text: str, report: Report, file: str) -> None:
        self._text = text
        self._report = report
        self._file = file
        self._at = 0
        self._line = 1
        self._counted = 0
        self._nodes = 0

    def place(self) -> Place:
        """Where the next character stands."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return Place(file=self._file, line=self._line)

    def document(self) -> Node:
        node = self._value("", 1)
        self._skip()
        if self._at < len(self._text):
            raise _JsonError("something follows after the end of the JSON value; remove it")
        return node

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _take(self, character: str) -> bool:
        self._skip()
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def _value(self, key: str, depth: int) -> Node:
        self._skip()
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise _JsonError(f"nested more than {MAX_DEPTH} levels deep; flatten it")
        if self._nodes > MAX_NODES:
            raise _JsonError(f"more than {MAX_NODES} values; shorten the file")
        place = self.place()
        if self._take("{"):
            return self._object(place, key, depth)
        if self._take("["):
            return self._array(place, key, depth)
        if self._text.startswith('"', self._at):
            return ScalarNode(place=place, kind="str", text=self._string())
        word = _WORD.match(self._text, self._at)
        if word is None:
            raise _JsonError(self._expected("a value"))
        number = _NUMBER.fullmatch(word[0])
        kind: Kind | None = _WORDS.get(word[0])
        if number:
            kind = "float" if number[1] or number[2] else "int"
        if kind is None:
            raise _JsonError(f"{seen(word[0])} is not JSON; put text in double quotes")
        self._at = word.end()
        return ScalarNode(place=place, kind=kind, text=word[0])

    def _string(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            raise _JsonError(self._expected("a text in double quotes, closed on the same line"))
        try:
            value: str = json.loads(match[0])
        except ValueError:
            raise _JsonError(
                "a text holds a backslash that means nothing in JSON; write \\\\ for a backslash"
            ) from None
        self._at = match.end()
        return value

    def _array(self, place: Place, key: str, depth: int) -> ListNode:
        items: list[Node] = []
        while not self._take("]"):
            items.append(self._value(f"{key}[{len(items)}]", depth + 1))
            self._separator("]")
        return ListNode(place=place, items=tuple(items))

    def _object(self, place: Place, key: str, depth: int) -> MapNode:
        entries: dict[str, tuple[Key, Node]] = {}
        while not self._take("}"):
            spot = self.place()
            name = self._string()
            path = f"{key}.{step(name)}" if key else step(name)
            if not self._take(":"):
                raise _JsonError(self._expected("a colon after the name"))
            node = self._value(path, depth + 1)
            if name in entries:
                first = entries[name][0].place.line
                self._report.error(path, f"the key is given twice, first on line {first}; remove one of the two", spot)
            else:
                entries[name] = (Key(name=name, place=spot), node)
            self._separator("}")
        return MapNode(place=place, entries=tuple(entries.values()))

    def _separator(self, end: str) -> None:
        """A comma, or the ``end`` that comes next; a comma before the end is fine."""
        if not self._take(",") and not self._text.startswith(end, self._at):
            raise _JsonError(self._expected(f"a comma or {end}"))

    def _expected(self, what: str) -> str:
        there = self._text[self._at : self._at + 1]
        return f"not valid JSON: {what} is expected, not {seen(there) if there else 'the end of the file'}"
