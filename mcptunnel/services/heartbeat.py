"""A timer of the daemon's own logic: whatever must happen about once a second, or more often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["Heartbeat"]

BEAT_SECONDS: Final = 1.0


class Heartbeat(Service):
    """Calls each of ``beats`` again and again; one that fails is logged and called again.

    Args:
        beats: Without arguments, quick.
        clock: Drives the calls.
        seconds: Between calls.
    """

    log = Logger()

    def __init__(self, beats: Sequence[Callable[[], None]], clock: IReactorTime, seconds: float = BEAT_SECONDS) -> None:
        self._beats: Final = tuple(beats)
        self._seconds: Final = seconds
        self._loop: Final = LoopingCall(self._beat)
        self._loop.clock = clock
        self._running: Deferred[Any] | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._running = self._loop.start(self._seconds, now=False)

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._loop.running:
            self._loop.stop()
        return self._running

    def _beat(self) -> None:
        for beat in self._beats:
            # A LoopingCall that raises stops for good.
            try:
                beat()
            except Exception:
                self.log.failure("a periodic task failed; it will be called again")
