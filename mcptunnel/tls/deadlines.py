"""One timer for many connections that all have equally long to do something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadlines"]

T = TypeVar("T")


@define(eq=False)
class Deadlines(Generic[T]):
    """Things that are late after a fixed time.

    All have the same time, so the order in which they came is the order in which they fall due: adding and removing
    one costs a dictionary operation, and a single delayed call waits for the oldest.

    Attributes:
        clock: Where the timer lives.
        seconds: Time that each one has.
        late: Called with each one that did not make it, which is removed before.
    """

    clock: IReactorTime
    seconds: float
    late: Callable[[T], None]
    _due: dict[T, float] = field(init=False, factory=dict)
    _timer: IDelayedCall | None = field(init=False, default=None)

    def __len__(self) -> int:
        return len(self._due)

    def add(self, one: T) -> None:
        """Start its time."""
        self._due[one] = self.clock.seconds() + self.seconds
        if self._timer is None:
            self._timer = self.clock.callLater(self.seconds, self._tick)

    def remove(self, one: T) -> None:
        """It made it, or is gone; no matter if it is not known."""
        self._due.pop(one, None)

    def stop(self) -> list[T]:
        """Stop the timer, and give back whoever was still waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = list(self._due)
        self._due.clear()
        return waiting

    def _tick(self) -> None:
        self._timer = None
        now = self.clock.seconds()
        late = []
        for one, due in self._due.items():
            if due > now:
                # Set before anybody is called who may add another.
                self._timer = self.clock.callLater(due - now, self._tick)
                break
            late.append(one)
        for one in late:
            self._due.pop(one, None)
        for one in late:
            self.late(one)
