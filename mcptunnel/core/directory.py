"""What an address of several servers has learned about them: who owns a URI, and what a shortened name stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from attrs import define, field

from mcptunnel.core.seal import Seal
from mcptunnel.core.uri_templates import Pattern, pattern

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
        seal: Seals the cursors of lists; None: every list is one page.
        collided: By list, the names that several servers use. Once they do they keep their prefixes: names must not
            change because a server is down.
        listed: Lists and servers of which all names are known.
    """

    limit: int = 20_000
    heard: Callable[[str, str, str | None], None] = lambda _server, _method, _why: None
    seal: Seal | None = None
    collided: defaultdict[str, set[str]] = field(factory=lambda: defaultdict(set))
    listed: set[tuple[str, str]] = field(factory=set)
    _owners: dict[str, str] = field(factory=dict)
    _templates: dict[str, tuple[str, Pattern]] = field(factory=dict)
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

    def learn_template(self, template: str, server: str) -> None:
        """Remember the first server that showed ``template``."""
        if template not in self._templates:
            while len(self._templates) >= self.limit:
                del self._templates[next(iter(self._templates))]
            self._templates[template] = server, pattern(template)

    def likely(self, uri: str) -> list[str]:
        """Who has a template that ``uri`` could come from, or ``uri`` itself as a template: the likeliest first."""
        exact = self._templates.get(uri)
        if exact is not None:
            return [exact[0]]
        found = [(-shape.weight, server) for server, shape in self._templates.values() if shape.matches(uri)]
        # Of equals the one that was shown first, as in the configuration.
        return list(dict.fromkeys(server for _, server in sorted(found, key=itemgetter(0))))

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
        method = _CHANGED.get(notification or "", "")
        self.listed.discard((method, server))
        for key in [key for key, (owner, _) in self._names.items() if key[0] == method and owner == server]:
            del self._names[key]
