"""The daemon's own log: one line per event, from a level on, to a file that rotates or to standard output.

``2026-11-22T22:10:21+0000 [namespace] message``; from ``warn`` on the level stands behind the namespace. Control
characters are escaped, so that what a client or a server sent can neither start a line nor steer a terminal. Only
tracebacks have further lines, and each of these begins with a tab.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

from attrs import define, field
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatTime,
)
from twisted.python.logfile import LogFile

__all__ = ["ACCESS", "DaemonLog", "as_line", "observer_for"]

# Access records have a switch of their own, logging.access: they are written whatever the level.
ACCESS: Final = "access"

# The levels that are shown, and their colours: SGR 33 and 31, ECMA-48 §8.3.117.
_COLOURS: Final = {LogLevel.warn: "\x1b[33m", LogLevel.error: "\x1b[31m", LogLevel.critical: "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"


def as_line(event: LogEvent, *, colour: bool = False) -> str | None:
    """``event`` as text with its line end, or None when it says nothing.

    Args:
        event: Of twisted.logger, or of the older twisted.python.log on its way through it.
        colour: Paint warnings and errors, for a terminal.
    """
    failure = event.get("log_failure")
    if failure is None and event.get("isError"):
        # An error of twisted.python.log, which would put the traceback into the text.
        failure = event.get("failure")
        text = formatEvent(event) if failure is None else str(event.get("why") or "Unhandled Error")
    else:
        text = formatEvent(event)
    if not text and failure is None:
        return None
    level = event.get("log_level")
    system = event.get("log_system")
    if system is None:
        system = event.get("log_namespace") or "-"
    start = _COLOURS.get(level)
    if level is not None and start is not None:
        system = f"{system}#{level.name}"
    line = _escaped(f"[{system}] {text}")
    if colour and start is not None:
        line = f"{start}{line}{_PLAIN}"
    lines = [f"{formatTime(event.get('log_time'))} {line}"]
    if failure is not None:
        lines.extend(f"\t{_escaped(row)}" for row in failure.getTraceback().rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """``text`` with everything escaped that is not to be printed, half surrogate pairs too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def observer_for(out: Any, level: str, *, colour: bool = False) -> ILogObserver:
    """An observer that writes to ``out`` what is at least of ``level``.

    Args:
        out: A text file or a ``LogFile``.
        level: ``debug``, ``info``, ``warn`` or ``error``.
        colour: As in :func:`as_line`.
    """
    encoding = getattr(out, "encoding", None) or "utf-8"

    def form(event: LogEvent) -> str | None:
        line = as_line(event, colour=colour)
        # Where the terminal's encoding is a small one, a name in another script must not lose us the line.
        return None if line is None else line.encode(encoding, "backslashreplace").decode(encoding)

    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    predicate.setLogLevelForNamespace(ACCESS, LogLevel.info)
    return FilteringLogObserver(FileLogObserver(out, form), [predicate])


@define(eq=False, kw_only=True)
class DaemonLog:
    """Makes the observer when twistd asks for it, which it does once, after the service was made.

    Attributes:
        twistd: The options of twistd: ``logfile`` and ``nodaemon`` are read.
        level: The least of what is written, from the configuration.
        reactor: Where SIGUSR1, which rotates the file, is acted upon; None: the signal is left alone.
        stdout: Where the log goes without ``--logfile`` in the foreground; None: to ``sys.stdout``.
        environ: For ``NO_COLOR`` and ``TERM``.
    """

    twistd: Mapping[str, Any] = field(factory=dict)
    level: str = "info"
    reactor: IReactorFromThreads | None = None
    stdout: TextIO | None = None
    environ: Mapping[str, str] = field(factory=lambda: os.environ)

    def __call__(self) -> ILogObserver:
        """The observer.

        Raises:
            SystemExit: A daemon in the background is told to log to a standard output that it does not have.
        """
        path, foreground = self.twistd.get("logfile"), bool(self.twistd.get("nodaemon"))
        if path == "-" and not foreground:
            raise SystemExit("mcptunnel: --logfile=- needs -n: a daemon in the background has no standard output")
        if path == "-" or (foreground and not path):
            out = self.stdout or sys.stdout
            return observer_for(out, self.level, colour=self._painted(out))
        file = LogFile.fromFullPath(path or "twistd.log")  # type: ignore[no-untyped-call]
        self._rotate_on_signal(file)
        return observer_for(file, self.level)

    def _painted(self, out: TextIO) -> bool:
        # https://no-color.org: set to anything.
        return out.isatty() and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"

    def _rotate_on_signal(self, file: LogFile) -> None:
        reactor = self.reactor
        # As twistd does it: whoever has a use of their own for the signal keeps it.
        if reactor is None or signal.getsignal(signal.SIGUSR1) not in (None, signal.SIG_DFL):
            return
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
