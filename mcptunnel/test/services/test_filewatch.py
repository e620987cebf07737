"""Tests for mcptunnel.services.filewatch: files that are replaced in every way there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import CertificateError
from mcptunnel.services.filewatch import FileWatch, Outcome


class FileWatchTests(SynchronousTestCase):
    """Two files that must say the same: what is good is taken, what is bad is told once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.place = Path(self.mktemp())
        self.place.mkdir(parents=True)
        self.files = (self.place / "cert", self.place / "key")
        self.write("1", "1")
        self.taken: list[str] = []
        self.told: list[Outcome] = []
        self.waiting: list[tuple[Deferred[str], Callable[[], str]]] | None = None
        self.watch = FileWatch(
            files=tuple(map(str, self.files)),
            load=self.load,
            take=self.taken.append,
            told=self.told.append,
            in_thread=self.in_thread,
            clock=self.clock,
        )

    def write(self, *contents: str) -> None:
        for file, content in zip(self.files, contents, strict=False):
            file.write_text(content)

    def load(self) -> str:
        cert, key = (file.read_text() for file in self.files)
        if cert != key:
            raise CertificateError(f"{cert} is not {key}")
        return cert

    def in_thread(self, work: Callable[[], str]) -> Deferred[str]:
        if self.waiting is None:
            return maybeDeferred(work)
        done: Deferred[str] = Deferred()
        self.waiting.append((done, work))
        return done

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.watch.tick()

    def test_nothing_new_is_nothing_to_do(self) -> None:
        """Not even read."""
        self.wait(30)
        self.assertEqual((self.taken, self.told), ([], []))

    def test_what_is_new_and_good_is_taken_at_once(self) -> None:
        """Written in place, renamed, or reached by another link; one after the other."""
        self.write("2", "2")
        self.wait(0.25)
        self.assertEqual(self.taken, ["2"])
        for file in self.files:
            other = file.with_suffix(".new")
            other.write_text("3")
            other.replace(file)
        self.wait(0.25)
        self.assertEqual(self.taken, ["2", "3"])
        self.assertEqual([outcome.taken for outcome in self.told], [True, True])

    def test_a_directory_that_is_swapped_by_a_link(self) -> None:
        """As Kubernetes does: the files are links to ``..data/…``, and ``..data`` is what changes."""
        for version in ("4", "5"):
            (self.place / version).mkdir()
            for file in self.files:
                (self.place / version / file.name).write_text(version)
        for file in self.files:
            file.unlink()
            file.symlink_to(f"..data/{file.name}")
        for version in ("4", "5"):
            os.symlink(version, self.place / "..tmp")
            os.replace(self.place / "..tmp", self.place / "..data")
            self.wait(0.25)
        self.assertEqual(self.taken, ["4", "5"])

    def test_half_a_change_is_waited_for(self) -> None:
        """The second file comes within two seconds: nobody hears of it."""
        self.write("2")
        self.wait(1.5)
        self.assertEqual((self.taken, self.told), ([], []))
        self.write("2", "2")
        self.wait(0.25)
        self.assertEqual(self.taken, ["2"])
        self.assertEqual([(outcome.taken, outcome.problem) for outcome in self.told], [(True, "")])

    def test_what_stays_bad_is_told_once(self) -> None:
        """And again only when it is bad in another way; then that it is good."""
        self.write("2")
        self.wait(300)
        self.assertEqual([(outcome.taken, outcome.problem) for outcome in self.told], [(False, "2 is not 1")])
        self.write("3")
        self.wait(300)
        self.assertEqual([outcome.problem for outcome in self.told], ["2 is not 1", "3 is not 1"])
        self.write("3", "3")
        self.wait(0.25)
        self.assertEqual((self.taken, self.told[-1].taken), (["3"], True))

    def test_a_file_that_is_gone_is_bad(self) -> None:
        """What was taken stays, and it is taken up again when it is back."""
        self.files[1].unlink()
        with capturedLogs() as events:
            self.wait(3)
        self.assertEqual([outcome.taken for outcome in self.told], [False])
        # It was no refusal of ours, so that the log has all of it.
        self.assertTrue(any(event["log_level"] is LogLevel.critical for event in events))
        self.write("1", "1")
        self.wait(0.25)
        self.assertEqual(self.taken, ["1"])
        self.flushLoggedErrors(FileNotFoundError)

    def test_what_was_refused_is_tried_again_now_and_then(self) -> None:
        """Without a change on disk: a certificate may have become valid."""
        good = False

        def load() -> str:
            if not good:
                raise CertificateError("not yet")
            return "2"

        self.watch.load = load
        self.write("2", "2")
        self.wait(10)
        good = True
        self.wait(50)
        self.assertEqual(self.taken, [])
        self.wait(12)
        self.assertEqual(self.taken, ["2"])

    def test_a_change_that_leaves_no_trace_is_found_within_a_minute(self) -> None:
        """On file systems that tell the same of another file."""
        self.patch(FileWatch, "_look", lambda watch: watch._taken)
        self.write("2", "2")
        self.wait(50)
        self.assertEqual(self.taken, [])
        self.wait(12)
        self.assertEqual(self.taken, ["2"])

    def test_asked_for_it_is_read_changed_or_not(self) -> None:
        """What is bad is told at once, and each time."""
        self.assertTrue(self.successResultOf(self.watch.force()).taken)
        self.assertEqual(self.taken, ["1"])
        self.write("2")
        for _ in range(2):
            outcome = self.successResultOf(self.watch.force())
            self.assertEqual((outcome.taken, outcome.problem), (False, "2 is not 1"))
        self.assertEqual([outcome.taken for outcome in self.told], [True, False, False])

    def test_one_attempt_at_a_time(self) -> None:
        """Whoever asks meanwhile gets one of its own, that began afterwards."""
        self.waiting = []
        self.write("2", "2")
        self.watch.tick()
        asked = self.watch.force()
        self.watch.tick()
        self.assertEqual(len(self.waiting), 1)
        for expected in (["2"], ["2", "3"]):
            done, work = self.waiting.pop(0)
            done.callback(work())
            self.assertEqual(self.taken, expected)
            self.write("3", "3")
        self.assertTrue(self.successResultOf(asked).taken)

    def test_many_who_ask_at_once_wait_for_each_other(self) -> None:
        """Never are two reading at the same time, and each gets an answer."""
        self.waiting = []
        asked = [self.watch.force() for _ in range(3)]
        for left in (2, 1, 0):
            (only,) = self.waiting
            self.waiting.clear()
            only[0].callback(only[1]())
            self.assertEqual(sum(not one.called for one in asked), left)
        self.assertEqual((self.taken, self.waiting), (["1"] * 3, []))

    def test_a_listener_that_fails_stops_nothing(self) -> None:
        """It is logged; the next change is seen."""

        def fail(outcome: Outcome) -> None:
            raise RuntimeError("no")

        self.watch.told = fail
        for version in ("2", "3"):
            self.write(version, version)
            self.wait(0.25)
        self.assertEqual(self.taken, ["2", "3"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
