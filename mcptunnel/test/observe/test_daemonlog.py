"""The daemon's log: its lines, its levels, its files."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcptunnel.observe.daemonlog import ACCESS, DaemonLog, as_line, observer_for

NOON = 1_800_000_000.0
STAMP = r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d\d\d "


def event(text: str, level: Any = LogLevel.info, **more: Any) -> dict[str, Any]:
    """As a Logger would make it."""
    return {
        "log_format": "{text}",
        "text": text,
        "log_level": level,
        "log_namespace": "a.b",
        "log_time": NOON,
        **more,
    }


class Terminal(io.StringIO):
    """Somebody watches."""

    def isatty(self) -> bool:
        return True


class Small(io.StringIO):
    """A terminal of a small character set."""

    encoding = "ascii"


class LineTests(SynchronousTestCase):
    def line(self, *args: Any, **more: Any) -> str:
        line = as_line(event(*args, **more))
        assert line is not None
        self.assertRegex(line, STAMP)
        return line.split(" ", 1)[1]

    def test_a_line_has_time_namespace_and_message(self) -> None:
        """The level is not repeated on every line."""
        self.assertEqual(self.line("hello"), "[a.b] hello\n")
        self.assertEqual(self.line("hello", LogLevel.debug), "[a.b] hello\n")

    def test_from_warn_on_the_level_is_shown(self) -> None:
        """So that one search finds all that is wrong."""
        for level in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            self.assertEqual(self.line("hello", level), f"[a.b#{level.name}] hello\n")

    def test_an_event_without_text_is_no_line(self) -> None:
        """Some are for machines only."""
        self.assertIsNone(as_line({"log_level": LogLevel.info, "log_namespace": "x", "log_time": NOON}))

    def test_an_event_without_anything_is_still_a_line(self) -> None:
        """A log that raises loses more than one line."""
        self.assertEqual(as_line({"log_format": "x"}), "- [-] x\n")

    def test_control_characters_are_escaped(self) -> None:
        """No second line, no colour, no line of Unicode, no text that runs backwards."""
        self.assertEqual(
            self.line("a\nb\r\x1b[2J\u2028\u202e\x85\0"), "[a.b] a\\nb\\r\\x1b[2J\\u2028\\u202e\\x85\\x00\n"
        )
        self.assertEqual(self.line("x", log_namespace="n\nm"), "[n\\nm] x\n")

    def test_text_in_other_scripts_stays_readable(self) -> None:
        """Only what cannot be printed is escaped."""
        self.assertEqual(self.line("grüße 世界"), "[a.b] grüße 世界\n")

    def test_a_traceback_stands_below_behind_tabs(self) -> None:
        """What its exception says cannot pass for a line of ours."""
        try:
            raise ValueError("no\n2026-01-01T00:00:00+0000 [a.b] forged\x1b[0m")
        except ValueError:
            line = self.line("failed", LogLevel.critical, log_failure=Failure())
        first, *rest = line.removesuffix("\n").split("\n")
        self.assertEqual(first, "[a.b#critical] failed")
        self.assertIn("Traceback (most recent call last)", rest[0])
        self.assertTrue(all(row.startswith("\t") for row in rest))
        self.assertIn("\t2026-01-01T00:00:00+0000 [a.b] forged\\x1b[0m", rest)

    def test_an_error_of_the_older_log_has_its_traceback_once(self) -> None:
        """Twisted itself still logs this way in places."""
        lines: list[str | None] = []
        observer = legacy.LogPublisher()
        observer.addObserver(lambda happened: lines.append(as_line(happened)))
        observer.msg(isError=1, failure=Failure(ValueError("wrong")), why="reading")
        (line,) = lines
        assert line is not None
        self.assertEqual(line.count("Traceback"), 1)
        self.assertIn("[-#critical] reading\n\tTraceback", line)

    @settings(max_examples=200, deadline=None)
    @given(st.text(), st.text())
    def test_whatever_the_text_is_there_is_one_line(self, text: str, namespace: str) -> None:
        """And it can be written as UTF-8."""
        line = as_line(event(text, log_namespace=namespace))
        if line is not None:
            self.assertEqual(len(line.splitlines()), 1)
            line.encode()


class LevelTests(SynchronousTestCase):
    def shown(self, level: str, namespace: str = "a.b") -> str:
        """The levels of which a log of ``level`` shows events."""
        out = io.StringIO()
        publisher = LogPublisher(observer_for(out, level))
        for each in ("debug", "info", "warn", "error", "critical"):
            Logger(namespace, observer=publisher).emit(LogLevel.levelWithName(each), each[0])
        return "".join(line.rpartition(" ")[2] for line in out.getvalue().splitlines())

    def test_each_level_shows_itself_and_all_above(self) -> None:
        """Nothing hides what is critical."""
        self.assertEqual(
            [self.shown(level) for level in ("debug", "info", "warn", "error")], ["diwec", "iwec", "wec", "ec"]
        )

    def test_access_records_are_not_a_matter_of_level(self) -> None:
        """Their switch is logging.access."""
        self.assertEqual(self.shown("error", ACCESS), "iwec")

    def test_a_small_character_set_loses_no_line(self) -> None:
        """What it has no sign for is escaped."""
        out = Small()
        LogPublisher(observer_for(out, "info"))(event("grüße"))
        self.assertIn("gr\\xfc\\xdfe\n", out.getvalue())


class DaemonLogTests(SynchronousTestCase):
    def say(self, log: DaemonLog, *events: dict[str, Any]) -> None:
        observer = log()
        verifyObject(ILogObserver, observer)
        publisher = LogPublisher(observer)
        for each in events or (event("hello", LogLevel.warn),):
            publisher(each)

    def test_in_the_foreground_it_goes_to_standard_output(self) -> None:
        """With ``-n``, and with ``--logfile=-`` as well."""
        for logfile in (None, "-"):
            out = io.StringIO()
            self.say(DaemonLog(twistd={"nodaemon": 1, "logfile": logfile}, stdout=out))
            self.assertRegex(out.getvalue(), STAMP + r"\[a\.b#warn\] hello\n$")

    def test_the_configured_level_decides(self) -> None:
        """It is set between the making and the asking."""
        out = io.StringIO()
        log = DaemonLog(twistd={"nodaemon": 1}, stdout=out)
        log.level = "error"
        self.say(log)
        self.assertEqual(out.getvalue(), "")

    def test_on_a_terminal_warnings_and_errors_are_coloured(self) -> None:
        """And nothing else is."""
        out = Terminal()
        self.say(
            DaemonLog(twistd={"nodaemon": 1}, stdout=out, environ={}),
            event("i"),
            event("w", LogLevel.warn),
            event("e", LogLevel.error),
        )
        self.assertEqual(
            [line.partition(" ")[2] for line in out.getvalue().splitlines()],
            ["[a.b] i", "\x1b[33m[a.b#warn] w\x1b[0m", "\x1b[31m[a.b#error] e\x1b[0m"],
        )

    def test_who_wants_no_colour_gets_none(self) -> None:
        """By NO_COLOR, by a terminal that has none, or where there is no terminal."""
        for environ, out in (
            ({"NO_COLOR": "1"}, Terminal()),
            ({"TERM": "dumb"}, Terminal()),
            ({"NO_COLOR": ""}, io.StringIO()),
        ):
            self.say(DaemonLog(twistd={"nodaemon": 1}, stdout=out, environ=environ))
            self.assertNotIn("\x1b", out.getvalue())
            self.assertIn("hello", out.getvalue())

    def test_a_daemon_in_the_background_has_no_standard_output(self) -> None:
        """Told before it is one."""
        stopped = self.assertRaises(SystemExit, DaemonLog(twistd={"logfile": "-"}))
        self.assertIn("--logfile=- needs -n", str(stopped))

    def test_a_file_is_written_and_rotated_by_signal(self) -> None:
        """SIGUSR1, acted upon in the reactor."""
        before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        place = Path(self.mktemp())
        place.mkdir()
        path = place / "log"
        queue: list[Any] = []

        class Reactor:
            def callFromThread(self, call: Any) -> None:
                queue.append(call)

        log = DaemonLog(twistd={"nodaemon": 1, "logfile": str(path)}, reactor=Reactor())  # type: ignore[arg-type]
        publisher = LogPublisher(log())
        publisher(event("old"))
        signal.raise_signal(signal.SIGUSR1)
        (rotate,) = queue
        rotate()
        publisher(event("new"))
        self.assertRegex((place / "log.1").read_text(), r"old\n$")
        self.assertRegex(path.read_text(), r"new\n$")

    def test_a_signal_that_has_another_use_keeps_it(self) -> None:
        """As with twistd's own log."""
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        path = self.mktemp()
        self.say(DaemonLog(twistd={"logfile": path}, reactor=object()))  # type: ignore[arg-type]
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
        self.assertIn("hello", Path(path).read_text())

    def test_in_the_background_the_file_has_twistds_name(self) -> None:
        """Where everybody looks who knows twistd."""
        place = Path(self.mktemp())
        place.mkdir()
        here = Path.cwd()
        os.chdir(place)
        self.addCleanup(os.chdir, here)
        self.say(DaemonLog())
        self.assertIn("hello", Path("twistd.log").read_text())
