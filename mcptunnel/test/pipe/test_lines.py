"""Tests for mcptunnel.pipe.lines: the same lines however the bytes come, and never more of them than allowed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.pipe.lines import Lines

LIMIT = 8
LONG = "long"


def read(pieces: list[bytes]) -> list[bytes | str]:
    """What comes out, ``LONG`` for each line that is refused; the end is told."""
    lines = Lines(LIMIT)
    found: list[bytes | str] = []
    for piece in [*pieces, None]:
        if piece is None:
            lines.finish()
        else:
            lines.feed(piece)
        while True:
            try:
                line = lines.next()
            except RpcError:
                found.append(LONG)
                continue
            if line is None:
                break
            found.append(line)
    return found


class LinesTests(SynchronousTestCase):
    """Framing."""

    def test_lines(self) -> None:
        """Ends of both kinds, blank lines, a last line without an end, and lines at and above the limit."""
        for data, expected in (
            (b"", []),
            (b"a\nb\n", [b"a", b"b"]),
            (b"a\r\nb\r\n", [b"a", b"b"]),
            (b"\n \n\r\na\n\n", [b"a"]),
            (b"a\nb", [b"a", b"b"]),
            (b"12345678\n", [b"12345678"]),
            (b"123456789\nb\n", [LONG, b"b"]),
            (b"123456789", [LONG]),
            (b"1" * 100 + b"\n" + b"2" * 100 + b"\nc", [LONG, LONG, b"c"]),
        ):
            self.assertEqual(read([data]), expected, data)
            self.assertEqual(read([bytes([byte]) for byte in data]), expected, data)

    @given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"12345", b"\xc3\xa9"])), st.lists(st.integers(0, 60)))
    def test_it_does_not_matter_how_bytes_come(self, parts: list[bytes], cuts: list[int]) -> None:
        """In any pieces."""
        data = b"".join(parts)
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        pieces = [data[a:b] for a, b in pairwise(edges)]
        self.assertEqual(read(pieces), read([data]))

    def test_a_long_line_is_not_kept(self) -> None:
        """It is refused as soon as it is too long, and the rest of it is dropped as it comes."""
        lines = Lines(LIMIT)
        lines.feed(b"x" * (LIMIT + 1))
        error = self.assertRaises(RpcError, lines.next)
        self.assertIn("server.limits.body_bytes", str(error))
        for _ in range(3):
            lines.feed(b"x" * 1000)
            self.assertIsNone(lines.next())
            self.assertEqual(len(lines), 0)
        lines.feed(b"\nnext\n")
        self.assertEqual(lines.next(), b"next")
