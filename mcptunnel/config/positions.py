"""A parsed file as a tree in which every value and every key knows its file and line.

YAML and JSON files both become this tree (:mod:`mcptunnel.config.reader`, :mod:`mcptunnel.config.jsonc`). Scalars keep
their text as written: ``off`` stays ``off`` although YAML 1.1 reads a truth value in it, ``1.20`` stays ``1.20``.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from attrs import frozen

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "Key",
    "Kind",
    "ListNode",
    "MapNode",
    "Node",
    "Place",
    "ScalarNode",
    "seen",
    "step",
]

Kind = Literal["null", "bool", "int", "float", "str"]

# Deepest nesting that is read; the schema itself needs six levels.
MAX_DEPTH: Final = 32
# Most values in one file after aliases are expanded, so that nested aliases ("billion laughs") end early.
MAX_NODES: Final = 50_000

_SHOWN: Final = 60
_PLAIN_STEP: Final = re.compile(r"[A-Za-z0-9_$@-]{1,64}", re.ASCII)


@frozen(kw_only=True)
class Place:
    """Where something stands. ``line`` counts from 1; None means the whole file."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@frozen(kw_only=True)
class Key:
    """The key of a mapping's entry."""

    name: str
    place: Place


@frozen(kw_only=True)
class ScalarNode:
    """One value. ``text`` is what the file says, without quotes and with escapes resolved."""

    place: Place
    kind: Kind
    text: str


@frozen(kw_only=True)
class ListNode:
    """A list."""

    place: Place
    items: tuple[Node, ...]


@frozen(kw_only=True)
class MapNode:
    """A mapping; its keys are unique."""

    place: Place
    entries: tuple[tuple[Key, Node], ...]

    def get(self, name: str) -> Node | None:
        """The value under ``name``, or None when there is none."""
        return next((node for key, node in self.entries if key.name == name), None)


Node = ScalarNode | ListNode | MapNode


def seen(text: str) -> str:
    """``text`` in quotes for a message: one line, bounded, every character printable."""
    cut = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut) + "'"


def step(name: str) -> str:
    """``name`` as one step of a key path: bare where that is readable, in quotes otherwise."""
    return name if _PLAIN_STEP.fullmatch(name) else seen(name)
