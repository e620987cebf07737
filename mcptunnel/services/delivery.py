"""Documents on their way to one target: in order, again when it fails, given up in the end. Nobody waits for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcptunnel.core.errors import DeliveryError

__all__ = ["Delivery"]

# Seconds before each new attempt: a hiccup, a restart, a longer outage. After a quarter of an hour the news is old.
PAUSES: Final = (1.0, 5.0, 30.0, 120.0, 600.0)
# Documents that wait; the oldest goes first.
MOST: Final = 100


@define(eq=False, kw_only=True)
class Delivery:
    """The queue of one target.

    Attributes:
        target: For the log; without secrets.
        send: Delivers one document. Its Deferred fails with DeliveryError when the target does not take it, has a
            timeout of its own, and leaves nothing behind when it is cancelled.
        clock: Times the pauses.
        counts: Documents by how they ended: ``delivered``, ``given_up`` after all attempts, ``dropped`` to make room.
    """

    target: str
    send: Callable[[bytes], Deferred[None]]
    clock: IReactorTime
    counts: Counter[str] = field(init=False, factory=Counter)
    _waiting: deque[bytes] = field(init=False, factory=deque)
    _unsaid: int = field(init=False, default=0)
    _open: bool = field(init=False, default=False)
    _busy: bool = field(init=False, default=False)
    _draining: Deferred[Any] | None = field(init=False, default=None)

    _log = Logger()

    def start(self) -> None:
        """Begin to deliver, what has been put there before as well."""
        self._open = True
        self._go()

    def stop(self) -> None:
        """Break off. What has not been delivered is lost, and counted in the log."""
        self._open = False
        left = len(self._waiting) + self._busy
        self._waiting.clear()
        if self._draining is not None:
            self._draining.cancel()
        if left:
            self._log.warn(
                "alert target {target}: {left} alerts were not delivered before the end", target=self.target, left=left
            )

    def put(self, document: bytes) -> None:
        """Deliver ``document`` after those that wait already."""
        if len(self._waiting) == MOST:
            self._waiting.popleft()
            self.counts["dropped"] += 1
            self._unsaid += 1
        self._waiting.append(document)
        self._go()

    def _go(self) -> None:
        if self._open and not self._busy and self._waiting:
            self._busy = True
            self._draining = Deferred.fromCoroutine(self._drain()).addErrback(self._broken)

    async def _drain(self) -> None:
        try:
            while self._open and self._waiting:
                await self._deliver(self._waiting.popleft())
        finally:
            self._busy = False

    async def _deliver(self, document: bytes) -> None:
        reason = ""
        for pause in (0.0, *PAUSES):
            if pause:
                await deferLater(self.clock, pause)
            try:
                await self.send(document)
            except DeliveryError as error:
                # Whoever is cancelled may say so in words of its own.
                if not self._open:
                    return
                reason = str(error)
                self._log.debug("alert target {target}: {reason}", target=self.target, reason=reason)
            else:
                self.counts["delivered"] += 1
                self._say_dropped()
                return
        self.counts["given_up"] += 1
        self._log.error(
            "alert target {target}: an alert is given up after {attempts} attempts: {reason}",
            target=self.target,
            attempts=len(PAUSES) + 1,
            reason=reason,
        )
        self._say_dropped()

    def _say_dropped(self) -> None:
        if self._unsaid:
            self._log.error(
                "alert target {target}: the oldest {dropped} of more than {most} waiting alerts were dropped",
                target=self.target,
                dropped=self._unsaid,
                most=MOST,
            )
            self._unsaid = 0

    def _broken(self, failure: Failure) -> None:
        if self._open or not isinstance(failure.value, CancelledError):
            self._log.failure("alert target {target}: an alert is lost", failure, target=self.target)
            self._go()
