"""Which servers a path means, and what their tools and prompts are called there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, Literal

from attrs import field, frozen

from mcptunnel.core.overrides import NO_OVERRIDES, Overrides

__all__ = ["LONGEST_NAME", "SEPARATOR", "Prefix", "Target", "candidates", "join", "maybe_shortened", "split", "targets"]

# What everybody uses; `/`, `:` and `.` break clients that insist on [A-Za-z0-9_-].
SEPARATOR: Final = "__"
# Model providers refuse longer names of tools.
LONGEST_NAME: Final = 64
# What is left of a longer name, before an underscore and this many hexadecimal digits of its SHA-256.
_DIGITS: Final = 8
_KEPT: Final = LONGEST_NAME - 1 - _DIGITS
_SHORTENED: Final = re.compile(rf".{{{_KEPT}}}_[0-9a-f]{{{_DIGITS}}}", re.DOTALL)

Prefix = Literal["always", "never", "on-collision"]
# For one server's part of what several servers contribute to. Claude Code gives up at 30 s for initialize and
# tools/list together.
PATIENCE_SECONDS: Final = 10.0


@frozen
class Target:
    """What one MCP address shows.

    Attributes:
        servers: Names of the servers behind it, in the order of the configuration.
        merged: They are shown as one server, which is us; else the one there is, byte for byte.
        prefix: When tools and prompts are called ``server__name`` where servers are merged.
        patience: Seconds that a list waits for one of several servers.
        overrides: Tools that are shown otherwise than their servers do.
    """

    servers: tuple[str, ...]
    merged: bool
    prefix: Prefix = "always"
    patience: float = PATIENCE_SECONDS
    overrides: Overrides = field(default=NO_OVERRIDES, eq=False)


def targets(
    servers: Sequence[str],
    prefix: Prefix | None = None,
    patience: float = PATIENCE_SECONDS,
    overrides: Overrides = NO_OVERRIDES,
) -> Mapping[str, Target]:
    """Base path to target: ``/mcp`` for all servers, ``/servers/NAME`` for each.

    Args:
        servers: Their names.
        prefix: None: a lone server is shown as it is, and with a prefix as soon as there are two.
        patience: Seconds that a list waits for one of several servers.
        overrides: What ``/mcp`` shows otherwise.
    """
    several = len(servers) > 1
    if several or (servers and (prefix == "always" or overrides)):
        mode = prefix or ("always" if several else "never")
        whole = Target(tuple(servers), merged=True, prefix=mode, patience=patience, overrides=overrides)
    else:
        whole = Target(tuple(servers), merged=False)
    found = {"/mcp": whole}
    found.update({f"/servers/{name}": Target((name,), merged=False) for name in servers})
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
