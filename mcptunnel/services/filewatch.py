"""Files that others replace while the daemon runs: seen, read whole, and taken only when they are good.

Whoever writes them need not tell us, and may do it in any way: in place, by renaming, by changing a symbolic link that
they are reached by (Kubernetes renames ``..data``), one file after the other. So a file that looks broken may be one
that is still being written: it is looked at again, and called broken only when it has stayed as it is for a while.

Invariant: what was taken stays in force until something better is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from typing import Final, Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcptunnel.core.errors import TunnelError

__all__ = ["FileWatch", "Outcome"]

T = TypeVar("T")

# A renewal writes certificate and key within milliseconds of each other.
_SETTLE_SECONDS: Final = 2.0
# What was refused is tried again now and then: a certificate may become valid, a vault may answer again.
_RETRY_SECONDS: Final = 60.0
# File systems that lie about times and inodes are rare. They are read as a whole this often.
_DEEP_SECONDS: Final = 60.0
# More than any file of certificates has.
_MOST: Final = 1 << 20

_Signature = tuple[object, ...]


@frozen(kw_only=True)
class Outcome:
    """What came of trying to take files.

    Attributes:
        taken: Whether they are in force now.
        problem: Why not, one line for each reason; empty when they are.
        said: Whether this is told: a refusal is once, unless somebody asked for the attempt.
    """

    taken: bool
    problem: str = ""
    said: bool = True


@define(eq=False, kw_only=True)
class FileWatch(Generic[T]):
    """One group of files that belong together. Whoever has it calls :meth:`tick` a few times a second.

    Attributes:
        files: Their names. They have been taken once, just before.
        load: Reads them all; it may block, and raises a :class:`~mcptunnel.core.errors.TunnelError` when one is bad.
        take: Puts in force what was read; raises as well.
        told: Hears of each attempt that ended.
        in_thread: Runs ``load`` without blocking the reactor.
        clock: For pauses.
    """

    files: tuple[str, ...]
    load: Callable[[], T]
    take: Callable[[T], None]
    told: Callable[[Outcome], None]
    in_thread: Callable[[Callable[[], T]], Deferred[T]]
    clock: IReactorTime
    _taken: _Signature = field(init=False)
    _content: bytes = field(init=False)
    _deep_at: float = field(init=False)
    # Of the files that were refused last: how they looked, since when, when they were tried, whether that was told.
    _refused: _Signature | None = field(init=False, default=None)
    _since: float = field(init=False, default=0.0)
    _tried_at: float = field(init=False, default=0.0)
    _told_bad: bool = field(init=False, default=False)
    _busy: Deferred[Outcome] | None = field(init=False, default=None)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._taken = self._look()
        self._content = self._digest()
        self._deep_at = self.clock.seconds() + _DEEP_SECONDS

    def tick(self) -> None:
        """Look whether there is something new, and try to take it."""
        if self._busy is not None or not self.files:
            return
        now = self.clock.seconds()
        seen = self._look()
        if now >= self._deep_at:
            self._deep_at = now + _DEEP_SECONDS
            if self._refused is None and seen == self._taken and self._digest() != self._content:
                self._attempt()
                return
        if seen != (self._taken if self._refused is None else self._refused):
            self._attempt()
        elif self._refused is not None:
            waiting = _RETRY_SECONDS if self._told_bad else _SETTLE_SECONDS
            if now - self._tried_at >= waiting:
                self._attempt()

    def force(self) -> Deferred[Outcome]:
        """Take the files as they are now, changed or not; what is bad is told at once.

        Returns:
            What came of it. An attempt that is under way already is waited for and not counted: it may have begun
            before whatever made somebody ask.
        """
        result: Deferred[Outcome] = Deferred()
        if self._busy is not None:
            # Whoever else waits may be first: then it is waited for again.
            self._busy.addCallback(lambda _: self.force().chainDeferred(result))
        else:
            self._attempt(at_once=True).chainDeferred(result)
        return result

    def _attempt(self, *, at_once: bool = False) -> Deferred[Outcome]:
        before, content = self._look(), self._digest()
        done: Deferred[Outcome] = Deferred()
        self._busy = done

        def finish(problem: str | None) -> None:
            self._busy = None
            changed = self._look() != before
            outcome = self._settle(before, content, problem, at_once=at_once, changed=changed)
            if outcome.said:
                self._tell(outcome)
            done.callback(outcome)

        def refused(failure: Failure) -> None:
            if not isinstance(failure.value, TunnelError):
                self._log.failure("reading {files} failed", failure=failure, files=", ".join(self.files))
            finish(str(failure.value) or type(failure.value).__name__)

        self.in_thread(self.load).addCallback(self.take).addCallbacks(lambda _: finish(None), refused)
        return done

    def _tell(self, outcome: Outcome) -> None:
        # Nothing that is done with the news may keep the files from being looked at again.
        try:
            self.told(outcome)
        except Exception:
            self._log.failure("what came of reading {files} could not be told", files=", ".join(self.files))

    def _settle(
        self, before: _Signature, content: bytes, problem: str | None, *, at_once: bool, changed: bool
    ) -> Outcome:
        """Remember how an attempt ended, and tell of it what is news."""
        now = self.clock.seconds()
        if problem is None:
            self._taken, self._content, self._refused, self._told_bad = before, content, None, False
            return Outcome(taken=True)
        if before != self._refused:
            self._refused, self._since, self._told_bad = before, now, False
        self._tried_at = now
        # While they still change, nobody has said yet that this is how they are meant to be.
        settled = at_once or (not changed and now - self._since >= _SETTLE_SECONDS)
        said = settled and (at_once or not self._told_bad)
        self._told_bad = self._told_bad or settled
        return Outcome(taken=False, problem=problem, said=said)

    def _look(self) -> _Signature:
        """How the files look without reading them, with symbolic links followed."""
        found: list[object] = []
        for file in self.files:
            try:
                status = os.stat(file)
            except OSError as error:
                found.append(error.errno)
            else:
                found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return tuple(found)

    def _digest(self) -> bytes:
        """Of what is in the files."""
        digest = sha256()
        for file in self.files:
            try:
                with open(file, "rb", opener=_without_waiting) as opened:
                    digest.update(sha256(opened.read(_MOST)).digest())
            except OSError as error:
                digest.update(str(error.errno).encode())
        return digest.digest()


def _without_waiting(file: str, flags: int) -> int:
    # A FIFO in the place of a file would hang the daemon.
    return os.open(file, flags | os.O_NONBLOCK | os.O_CLOEXEC)
