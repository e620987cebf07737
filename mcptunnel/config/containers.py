"""Readers of lists and mappings, built from readers of their parts.

Containers catch what their parts raise, note it in the report and go on, so that one run finds every mistake.
:class:`Section` is the one for a schema class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from attrs import evolve, field, frozen

from mcptunnel.config.fields import Read, RefusedError, boolean, describe, guess, note, text_of
from mcptunnel.config.positions import ListNode, MapNode, Node, ScalarNode, seen
from mcptunnel.config.report import At
from mcptunnel.config.units import FormatError

__all__ = ["Listed", "Named", "Section", "Switched"]

T = TypeVar("T")

_SPLIT: Final = re.compile(r"[,\s]+")


@frozen(kw_only=True)
class Listed(Generic[T]):
    """A reader for a list. One value alone counts as a list of one where ``split`` or ``single`` says so.

    Attributes:
        split: One text may hold several values with commas or blanks between, as a variable would.
    """

    item: Read[T]
    expected: str
    single: bool = False
    split: bool = False
    least: int = 0

    def __call__(self, node: Node, at: At) -> tuple[T, ...]:
        items: tuple[Node, ...]
        if isinstance(node, ListNode):
            items = node.items
        elif isinstance(node, ScalarNode) and node.kind != "null" and self.split:
            return self._split(node, at)
        elif isinstance(node, ScalarNode) and node.kind != "null" and self.single:
            items = (node,)
        else:
            raise RefusedError(f"{describe(node)} stands where a list of {self.expected} is expected; write [a, b]")
        if len(items) < self.least:
            raise RefusedError(f"the list is empty; name {self.expected} or remove the key")
        values: list[T] = []
        for i, item in enumerate(items):
            spot = at.item(i, item.place)
            try:
                values.append(self.item(item, spot))
            except RefusedError as refused:
                note(spot, refused)
        return tuple(values)

    def _split(self, node: ScalarNode, at: At) -> tuple[T, ...]:
        got = text_of(node, at, self.expected)
        parts = [part for part in _SPLIT.split(got.value) if part]
        if len(parts) < self.least:
            raise RefusedError(f"{got.shown} names nothing; name {self.expected} or remove the key")
        values: list[T] = []
        for part in parts:
            # The text is expanded already; what it holds must not be read as a reference again.
            one = ScalarNode(place=node.place, kind="str", text=part.replace("${", "$${"))
            try:
                values.append(self.item(one, at))
            except RefusedError:
                if got.open:
                    raise
                raise RefusedError(
                    f"{got.shown} holds something that cannot stand in a list of {self.expected}; correct it"
                ) from None
        return tuple(values)


@frozen(kw_only=True)
class Named(Generic[T]):
    """A reader for a mapping whose keys the operator chooses. ``name`` checks a key and raises ``FormatError``.

    Attributes:
        fold: Names that differ only in case are the same.
    """

    name: Callable[[str], str]
    item: Read[T]
    expected: str
    fold: bool = False

    def __call__(self, node: Node, at: At) -> dict[str, T]:
        if not isinstance(node, MapNode):
            raise RefusedError(
                f"{describe(node)} stands where a mapping of {self.expected} is expected; write NAME: value"
            )
        values: dict[str, T] = {}
        folded: dict[str, str] = {}
        for key, item in node.entries:
            spot = at.child(key.name, key.place)
            try:
                name = self.name(key.name)
                same = folded.setdefault(name.lower(), name)
                if self.fold and same != name:
                    raise RefusedError(f"the name differs from {seen(same)} only in case; remove one of the two")
                values[name] = self.item(item, spot)
            except FormatError as wrong:
                spot.error(f"{seen(key.name)} {wrong.says}{wrong.fix}")
            except RefusedError as refused:
                note(spot, refused)
        return values


@frozen(kw_only=True)
class Section(Generic[T]):
    """A reader for a mapping with known keys.

    Attributes:
        build: Makes the value of those keys that are there; the schema's defaults fill the rest.
        fields: Reader of each key.
        required: Keys without which nothing can be built.
        foreign: Keys of other programs' files that mean nothing here, or not what they mean in our own file.
        synonyms: Names that people try, and the keys they mean.
    """

    build: Callable[..., T]
    fields: Mapping[str, Read[Any]]
    required: tuple[str, ...] = ()
    foreign: frozenset[str] = frozenset()
    synonyms: Mapping[str, str] = field(factory=dict)

    def __call__(self, node: Node, at: At) -> T:
        if not isinstance(node, MapNode):
            raise RefusedError(
                f"{describe(node)} stands where a mapping is expected; known keys: {', '.join(self.fields)}"
            )
        values: dict[str, Any] = {}
        given: set[str] = set()
        for key, item in node.entries:
            spot = at.child(key.name, key.place)
            ignored = spot.scope.foreign and key.name in self.foreign
            read = None if ignored else self.fields.get(key.name)
            if read is None:
                self._unknown(key.name, spot, at)
            elif not (isinstance(item, ScalarNode) and item.kind == "null"):
                given.add(key.name)
                at.report.given.add(spot.key)
                # A mistake in a scalar is shown on its own line, one in a list or mapping where it is named.
                spot = evolve(spot, place=item.place) if isinstance(item, ScalarNode) else spot
                try:
                    values[key.name] = read(item, spot)
                except RefusedError as refused:
                    note(spot, refused)
        missing = [name for name in self.required if name not in given]
        for name in missing:
            if at.report.sound(at.path(name)):
                at.error(f"{name} is missing; add it")
        if any(name not in values for name in self.required):
            raise RefusedError
        return self.build(**values)

    def _unknown(self, name: str, spot: At, at: At) -> None:
        if spot.scope.foreign and name in self.foreign:
            spot.warn("ignored: the key means nothing to this daemon")
            return
        # What was meant counts as refused too: nobody must be told that it is missing as well.
        synonym = self.synonyms.get(name)
        elsewhere = () if synonym else spot.scope.elsewhere(name)
        meant = synonym or (None if elsewhere else guess(name, self.fields))
        if meant:
            spot.error(f"unknown key; did you mean {meant}?")
            at.report.refuse(at.path(meant))
        elif elsewhere:
            spot.error(f"unknown key here; did you mean {' or '.join(elsewhere)}?")
            for key in elsewhere:
                at.report.refuse(key)
        else:
            spot.error(f"unknown key; known here: {', '.join(self.fields)}")


@frozen
class Switched(Generic[T]):
    """A reader for what is either switched on as it is, or given in detail: ``true``, ``false`` or a mapping.

    Attributes:
        section: The details. Read of an empty mapping, it gives what ``true`` means.
    """

    section: Section[T]

    def __call__(self, node: Node, at: At) -> T | None:
        if isinstance(node, MapNode):
            return self.section(node, at)
        return self.section.build() if boolean(node, at) else None
