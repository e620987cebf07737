"""How one server is to be spoken to, as its entry in ``mcpServers`` has it."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

__all__ = ["Rules"]


@frozen(kw_only=True)
class Rules:
    """What the relay must know of a server, whatever the transport.

    Attributes:
        era: The one era that the server speaks; ``auto``: find out.
        sharing: Whether each legacy session opens a connection of its own, or all with the same capabilities use one.
        silence: Seconds without a sign of life after which a call fails; None for the relay's own limit.
        longest: Seconds that a call may last; None for the relay's own limit.
        mirrored: Requests travel with headers that repeat the body (Streamable HTTP, 2026-07-28).
    """

    era: Literal["auto", "legacy", "modern"] = "auto"
    sharing: Literal["session", "shared"] = "session"
    silence: float | None = None
    longest: float | None = None
    mirrored: bool = False
