"""One brake for all calls that share a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Brake"]


class Brake:
    """Stops reading while any call wants it stopped.

    All calls of a connection share what it brings: while one client does not keep up, nothing is read for any, until
    ``server.limits.write_timeout`` ends that client's connection. Memory stays bounded.

    Args:
        stop: Stops reading.
        go: Reads on.
    """

    def __init__(self, stop: Callable[[], None], go: Callable[[], None]) -> None:
        self._stop: Final = stop
        self._go: Final = go
        self._calls: Final[set[int]] = set()

    @property
    def on(self) -> bool:
        """Whether nothing is read now."""
        return bool(self._calls)

    def pause(self, number: int) -> None:
        """Call ``number`` can take no more."""
        if not self._calls:
            self._stop()
        self._calls.add(number)

    def resume(self, number: int) -> None:
        """Call ``number`` can, or is over."""
        if number in self._calls:
            self._calls.remove(number)
            if not self._calls:
                self._go()
