"""What an address of several servers has learned about them: who owns a URI, and what a shortened name stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

__all__ = ["Directory"]

# Notification to the list whose names it makes doubtful.
_CHANGED: Final = {
    "notifications/tools/list_changed": "tools/list",
    "notifications/prompts/list_changed": "prompts/list",
}


@define(eq=False)
class Directory:
    """What lists and reads have shown. Each table is bounded: the oldest entry makes room.

    Attributes:
        limit: Entries of one table.
        heard: Told of every part of a list: the server, the method, and why the part is missing; None when it came.
    """

    limit: int = 10_000
    heard: Callable[[str, str, str | None], None] = lambda _server, _method, _why: None
    _owners: dict[str, str] = field(factory=dict)
    _names: dict[tuple[str, str], tuple[str, str]] = field(factory=dict)

    def learn(self, uri: str, server: str) -> None:
        """Remember the first server that showed ``uri``."""
        if uri not in self._owners:
            while len(self._owners) >= self.limit:
                del self._owners[next(iter(self._owners))]
            self._owners[uri] = server

    def owner(self, uri: str) -> str | None:
        """Who showed ``uri``, or None."""
        return self._owners.get(uri)

    def learn_name(self, method: str, shown: str, server: str, name: str) -> None:
        """Remember that the list ``method`` shows ``name`` of ``server`` as ``shown``; the latest list counts."""
        self._names.pop((method, shown), None)
        while len(self._names) >= self.limit:
            del self._names[next(iter(self._names))]
        self._names[method, shown] = server, name

    def named(self, method: str, shown: str) -> tuple[str, str] | None:
        """The server and its own name for what the list ``method`` shows as ``shown``, or None."""
        return self._names.get((method, shown))

    def changed(self, server: str, notification: str | None) -> None:
        """A server says that a list has changed: what was learned from it is asked for again when it is needed."""
        method = _CHANGED.get(notification or "")
        for key in [key for key, (owner, _) in self._names.items() if key[0] == method and owner == server]:
            del self._names[key]
