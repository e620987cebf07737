"""Which servers a path means, and whether their names are prefixed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from attrs import frozen

__all__ = ["LONGEST_NAME", "SEPARATOR", "Target", "candidates", "join", "maybe_shortened", "split", "targets"]

# What everybody uses; `/`, `:` and `.` break clients that insist on [A-Za-z0-9_-].
SEPARATOR: Final = "__"
# Model providers refuse longer names of tools.
LONGEST_NAME: Final = 64
# What is left of a longer name, before an underscore and this many hexadecimal digits of its SHA-256.
_DIGITS: Final = 8
_KEPT: Final = LONGEST_NAME - 1 - _DIGITS
_SHORTENED: Final = re.compile(rf".{{{_KEPT}}}_[0-9a-f]{{{_DIGITS}}}", re.DOTALL)


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
    """The name of ``name`` of ``server`` at a prefixed target: at most :data:`LONGEST_NAME` long, always the same."""
    full = f"{server}{SEPARATOR}{name}"
    if len(full) <= LONGEST_NAME:
        return full
    return f"{full[:_KEPT]}_{sha256(full.encode()).hexdigest()[:_DIGITS]}"


def split(target: Target, name: str) -> tuple[str, str] | None:
    """The inverse of :func:`join` for names that it left whole; None when no server of ``target`` is meant.

    Server names hold no separator.
    """
    server, found, rest = name.partition(SEPARATOR)
    return (server, rest) if found and rest and server in target.servers else None


def maybe_shortened(name: str) -> bool:
    """Whether ``name`` has the form that :func:`join` gives to long names; a whole one may have it by chance."""
    return _SHORTENED.fullmatch(name) is not None


def candidates(target: Target, name: str) -> list[str]:
    """The servers of ``target`` whose names :func:`join` could have shortened to ``name``."""
    return [server for server in target.servers if name.startswith(f"{server}{SEPARATOR}"[:_KEPT])]
