"""Which servers a path means, and whether their names are prefixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

__all__ = ["SEPARATOR", "Target", "join", "split", "targets"]

# What everybody uses; `/`, `:` and `.` break clients that insist on [A-Za-z0-9_-].
SEPARATOR: Final = "__"


@frozen
class Target:
    """What one MCP address shows.

    Attributes:
        servers: Names of the servers behind it, in the order of the configuration.
        prefixed: Whether tools and prompts are called ``server__name``.
    """

    servers: tuple[str, ...]
    prefixed: bool


def targets(servers: Sequence[str]) -> Mapping[str, Target]:
    """Base path to target: ``/mcp`` for all servers, ``/servers/NAME`` for each.

    Names are prefixed at ``/mcp`` as soon as there are two servers.
    """
    found = {"/mcp": Target(tuple(servers), prefixed=len(servers) > 1)}
    found.update({f"/servers/{name}": Target((name,), prefixed=False) for name in servers})
    return found


def join(server: str, name: str) -> str:
    """The name of ``name`` of ``server`` at a prefixed target."""
    return f"{server}{SEPARATOR}{name}"


def split(target: Target, name: str) -> tuple[str, str] | None:
    """The inverse of :func:`join`; None when no server of ``target`` is meant. Server names hold no separator."""
    server, found, rest = name.partition(SEPARATOR)
    return (server, rest) if found and rest and server in target.servers else None
