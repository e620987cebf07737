"""Tests for mcptunnel.observe.lossy: it never waits, and what is written is whole lines."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.observe.lossy import LossyText


class LossyTests(SynchronousTestCase):
    """At one end of a pipe."""

    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.text = LossyText(self.writing)

    def read(self) -> bytes:
        os.set_blocking(self.reading, False)
        found = b""
        try:
            while data := os.read(self.reading, 65536):
                found += data
        except BlockingIOError:
            pass
        return found

    def test_what_fits_is_written(self) -> None:
        """In UTF-8, long lines too; half surrogate pairs are escaped."""
        self.addCleanup(os.close, self.writing)
        for text, expected in (("é\n", "é\n".encode()), ("x" * 10_000 + "\n", b"x" * 10_000 + b"\n")):
            self.assertEqual(self.text.write(text), len(text))
            self.assertEqual(self.read(), expected)
        self.text.write("\udc80\n")
        self.assertEqual(self.read(), b"\\udc80\n")

    def test_nobody_reads(self) -> None:
        """The rest is lost, and the descriptor still waits for whoever else writes there."""
        self.addCleanup(os.close, self.writing)
        for _ in range(10_000):
            self.text.write("x" * 99 + "\n")
        self.assertTrue(os.get_blocking(self.writing))
        lines = self.read().split(b"\n")
        self.assertEqual(lines.pop(), b"")
        self.assertGreater(len(lines), 100)
        self.assertEqual(set(lines), {b"x" * 99})
        self.text.write("again\n")
        self.assertEqual(self.read(), b"again\n")

    def test_a_line_that_was_cut_is_ended(self) -> None:
        """Before the next one."""
        self.addCleanup(os.close, self.writing)
        self.text.write("x" * 1_000_000 + "\n")
        self.assertEqual(set(self.read()), {ord("x")})
        self.text.write("again\n")
        self.assertEqual(self.read(), b"\nagain\n")

    def test_nobody_is_there(self) -> None:
        """The other end is closed, or ours."""
        self.text.write("a\n")
        os.close(self.reading)
        self.text.write("b\n")
        os.close(self.writing)
        self.text.write("c\n")
        self.reading, other = os.pipe()
        self.addCleanup(os.close, other)
