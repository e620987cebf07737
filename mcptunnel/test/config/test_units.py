"""Durations and sizes."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.units import FormatError, parse_duration, parse_size


class DurationTests(SynchronousTestCase):
    def test_what_people_write_becomes_seconds(self) -> None:
        """Every unit, alone and together, with and without blanks."""
        cases = {
            "30": 30.0,
            "0": 0.0,
            "1.5": 1.5,
            "30s": 30.0,
            "250ms": 0.25,
            "1h30m": 5400.0,
            "1h 30m": 5400.0,
            "5 min": 300.0,
            "10sec": 10.0,
            "7d": 604800.0,
            "2W": 1209600.0,
            " 1m ": 60.0,
        }
        self.assertEqual({text: parse_duration(text) for text in cases}, cases)

    def test_anything_else_is_refused_with_the_ways_to_write_it(self) -> None:
        """Nothing is guessed: no sign, no exponent, no unit twice, no unknown unit."""
        for text in ("", "s", "-1", "1e3", "1y", "1s2s", "nan", "inf", "1h30", "٣s", "1" * 16, "75 seconds"):
            wrong = self.assertRaises(FormatError, parse_duration, text)
            self.assertIn("write seconds, or a number with ms, s, m, h, d or w", wrong.says)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=20))
    def test_no_text_raises_anything_else(self, text: str) -> None:
        """Whatever stands there is a duration or a FormatError."""
        with contextlib.suppress(FormatError):
            self.assertGreaterEqual(parse_duration(text), 0)


class SizeTests(SynchronousTestCase):
    def test_what_people_write_becomes_bytes(self) -> None:
        """Decimal prefixes count in thousands, binary ones in 1024."""
        cases = {
            "4096": 4096,
            "1B": 1,
            "10kB": 10_000,
            "10KB": 10_000,
            "1KiB": 1024,
            "4 MiB": 4 * 1024**2,
            "1.5MiB": 3 * 512 * 1024,
            "2gb": 2 * 10**9,
            "1GiB": 1024**3,
        }
        self.assertEqual({text: parse_size(text) for text in cases}, cases)

    def test_an_unclear_unit_is_refused_with_both_readings(self) -> None:
        """``4m`` is 4 MiB to nginx and 4 MB to others."""
        wrong = self.assertRaises(FormatError, parse_size, "4m")
        self.assertEqual(wrong.fix, "; did you mean 4MiB or 4MB?")
        self.assertEqual(self.assertRaises(FormatError, parse_size, "4k").fix, "; did you mean 4KiB or 4kB?")

    def test_part_of_a_byte_is_refused(self) -> None:
        """A size is a whole number in the end."""
        self.assertIn("whole number", self.assertRaises(FormatError, parse_size, "0.3B").says)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=20))
    def test_no_text_raises_anything_else(self, text: str) -> None:
        """Whatever stands there is a size or a FormatError."""
        with contextlib.suppress(FormatError):
            self.assertGreaterEqual(parse_size(text), 0)
