"""Everything on disk that the running daemon follows: looked at four times a second, and whenever somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from mcptunnel.services.filewatch import Outcome
from mcptunnel.services.heartbeat import Heartbeat
from mcptunnel.services.rotation import Rotation
from mcptunnel.services.serverfiles import ServerFiles

__all__ = ["Following"]

# What is written is served within a second, and a look at a file costs a few microseconds.
_SECONDS: Final = 0.25


class Following(Heartbeat):
    """Follows files.

    Args:
        rotation: What we serve; None in the modes without TLS.
        servers: What https servers are connected with.
        clock: Drives the looks.

    Attributes:
        rotation: As given.
    """

    def __init__(self, rotation: Rotation | None, servers: Sequence[ServerFiles], clock: IReactorTime) -> None:
        self.rotation: Final = rotation
        self._all: Final[list[Rotation | ServerFiles]] = [*([] if rotation is None else [rotation]), *servers]
        super().__init__([one.tick for one in self._all], clock, _SECONDS)

    @property
    def troubles(self) -> list[str]:
        """Why what is on disk is not what is in force, one line for each reason; empty when it is."""
        return [line for one in self._all if one.trouble is not None for line in one.trouble.splitlines()]

    def reload(self) -> Deferred[Outcome]:
        """Read everything again now, changed or not.

        Returns:
            Whether everything was taken, and all that was not.
        """

        def together(outcomes: list[Outcome]) -> Outcome:
            problems = [outcome.problem for outcome in outcomes if outcome.problem]
            return Outcome(taken=all(outcome.taken for outcome in outcomes), problem="\n".join(problems))

        return gatherResults([one.reload() for one in self._all]).addCallback(together)
