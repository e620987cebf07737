"""What tools, prompts and resources are called where several servers are shown as one.

Names do not depend on who asks: they are made from whole lists, before anything is left out of them for a caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from mcptunnel.core.directory import Directory
from mcptunnel.core.dispatch import LISTS, Item
from mcptunnel.core.jsonrpc import encode, splice
from mcptunnel.core.lists import Part
from mcptunnel.core.overrides import Overrides
from mcptunnel.core.routing import Target, join, maybe_shortened, split

__all__ = ["Shown", "found_by_form", "shown"]

_TOOLS: Final = "tools/list"


class Shown:
    """One entry of the list that clients see.

    Attributes:
        name: What it is called here.
        server: Whose it is.
        own: What the server calls it.
        raw: The entry.
    """

    __slots__ = ("name", "own", "raw", "server")

    def __init__(self, name: str, server: str, item: Item, raw: bytes) -> None:
        self.name: Final = name
        self.server: Final = server
        self.own: Final = item.name
        self.raw: Final = raw


def shown(target: Target, method: str, parts: Mapping[str, Part], directory: Directory) -> list[Shown]:
    """The entries of one list, in the order of the servers and of their own lists, each name once.

    What is found on the way is learned: whose a resource is, what a name stands for that does not say it itself.
    """
    key = LISTS[method][1]
    named = [(server, item, base) for server, item, base in _bases(target, method, parts) if base is not None]
    if key == "name" and target.prefix == "on-collision":
        counts = Counter(base for base, _ in {(base, server) for server, _, base in named})
        directory.collided[method] |= {base for base, count in counts.items() if count > 1}
    found: list[Shown] = []
    seen: set[str] = set()
    for server, item, base in named:
        name = base
        if key == "name" and (target.prefix == "always" or name in directory.collided[method]):
            name = join(server, base)
        if name in seen:
            continue
        seen.add(name)
        raw = item.raw if name == item.name else splice(item.raw, [(item.place, encode(name))])
        if method == _TOOLS:
            raw = target.overrides.described(server, item.name, raw)
        found.append(Shown(name, server, item, raw))
        if key == "uri":
            directory.learn(name, server)
        elif key == "uriTemplate":
            directory.learn_template(name, server)
        elif target.prefix != "always" or maybe_shortened(name):
            directory.learn_name(method, name, server, item.name)
    for server in parts:
        directory.listed.add((method, server))
    return found


def _bases(target: Target, method: str, parts: Mapping[str, Part]) -> Iterator[tuple[str, Item, str | None]]:
    overrides: Overrides | None = target.overrides if method == _TOOLS else None
    for server, part in parts.items():
        for item in part.items:
            yield server, item, item.name if overrides is None else overrides.shown(server, item.name)


def found_by_form(target: Target, method: str, name: str) -> tuple[str, str] | None:
    """The server and its own name for ``name``, as far as the name says that itself; None when it does not."""
    halves = split(target, name) if target.prefix == "always" else None
    if halves is None or method != _TOOLS:
        return halves
    own = target.overrides.own(*halves)
    return None if own is None else (halves[0], own)
