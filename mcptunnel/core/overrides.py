"""Tools that several servers shown as one are to show under another name or description, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from mcptunnel.core.jsonrpc import encode, members, splice

__all__ = ["NO_OVERRIDES", "Override", "Overrides"]


@frozen(kw_only=True)
class Override:
    """What is said of one tool in place of its server. None: what the server says.

    Attributes:
        name: What it is called, before any prefix.
        description: What it does.
        hidden: It is not shown and cannot be called.
    """

    name: str | None = None
    description: str | None = None
    hidden: bool = False


class Overrides:
    """The overrides of all servers.

    Args:
        table: Server to the server's own name of a tool to what is said of it.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Override]]) -> None:
        self._table: Final = {server: dict(tools) for server, tools in table.items() if tools}
        self._renamed: Final = {
            server: {override.name: own for own, override in tools.items() if override.name and not override.hidden}
            for server, tools in self._table.items()
        }

    def __bool__(self) -> bool:
        return bool(self._table)

    def shown(self, server: str, own: str) -> str | None:
        """What ``own`` of ``server`` is called; None when it is not shown."""
        tools = self._table.get(server)
        override = None if tools is None else tools.get(own)
        if override is None:
            # Another tool has taken its name.
            return own if tools is None or own not in self._renamed[server] else None
        return None if override.hidden else override.name or own

    def own(self, server: str, shown: str) -> str | None:
        """The inverse; None when no tool of ``server`` is called ``shown``."""
        if server not in self._table:
            return shown
        own = self._renamed[server].get(shown, shown)
        return own if self.shown(server, own) == shown else None

    def described(self, server: str, own: str, item: bytes) -> bytes:
        """The entry ``item`` of a list with the description that it is to have."""
        override = self._table.get(server, {}).get(own)
        if override is None or override.description is None:
            return item
        text = encode(override.description)
        spans = members(item)
        span = spans.get("description")
        if span is not None:
            return splice(item, [(span, text)])
        end = item.rindex(b"}")
        return splice(item, [((end, end), b',"description":%b' % text)])


NO_OVERRIDES: Final = Overrides({})
