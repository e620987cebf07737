"""The chunked decoder."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RequestError
from mcptunnel.web.body import ChunkedBody


def decode(data: bytes, limit: int = 1000, trailer_limit: int = 1000) -> tuple[bytes, bytes | None]:
    body = ChunkedBody(limit, trailer_limit)
    rest = body.feed(data)
    return bytes(body.content), rest


class ChunkedBodyTests(SynchronousTestCase):
    """Content, leftover, and everything that is refused."""

    def assertRefused(self, data: bytes, status: int, **limits: int) -> None:
        with self.assertRaises(RequestError) as caught:
            decode(data, **limits)
        self.assertEqual(caught.exception.status, status, data)

    def test_content_and_leftover(self) -> None:
        """What follows the last chunk is somebody else's, byte for byte."""
        self.assertEqual(
            decode(b'3\r\nabc\r\n00A;x="y"\r\n0123456789\r\n0\r\n\r\n\r\nGET'), (b"abc0123456789", b"\r\nGET")
        )

    def test_an_empty_body(self) -> None:
        """Only the last chunk, in any number of zeros."""
        self.assertEqual(decode(b"0\r\n\r\n"), (b"", b""))
        self.assertEqual(decode(b"0000\r\n\r\nx"), (b"", b"x"))

    def test_trailers_are_skipped(self) -> None:
        """They have to be header lines, and have a bound."""
        self.assertEqual(decode(b"0\r\nA: b\r\nC: d\r\n\r\nx"), (b"", b"x"))
        self.assertRefused(b"0\r\nA b\r\n\r\n", 400)
        self.assertRefused(b"0\r\nA: \x01\r\n\r\n", 400)
        self.assertEqual(decode(b"0\r\nA: b\r\n\r\n", trailer_limit=6), (b"", b""))
        self.assertRefused(b"0\r\nA: b\r\n\r\n", 431, trailer_limit=5)

    def test_every_other_spelling_of_a_size_is_refused(self) -> None:
        """RFC 9112 §7.1: hexadecimal digits and nothing else."""
        for line in (
            b"",
            b" 3",
            b"3 ",
            b"0x3",
            b"+3",
            b"-3",
            b"3_0",
            b"g",
            b"3\t",
            b"3 a",
            b";x",
            b"\xc2\xb2",
            b"3;a\x00b",
        ):
            self.assertRefused(line + b"\r\nabc\r\n0\r\n\r\n", 400)

    def test_line_ends_are_crlf(self) -> None:
        """A bare LF or CR is refused at once, wherever it stands."""
        for data in (
            b"3\nabc\r\n",
            b"3\r\nabc\n",
            b"3\r\nabc\r\r\n",
            b"3\rx\r\n",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"\n",
        ):
            self.assertRefused(data, 400)

    def test_the_limit_is_exact(self) -> None:
        """Announced sizes count, before their content arrives; no number is too long to be too large."""
        self.assertEqual(decode(b"5\r\nabcde\r\n0\r\n\r\n", limit=5)[0], b"abcde")
        self.assertRefused(b"6\r\n", 413, limit=5)
        self.assertRefused(b"5\r\nabcde\r\n1\r\n", 413, limit=5)
        for size in (b"10000000000000004", b"F" * 16, b"F" * 200, b"0" * 100 + b"6"):
            self.assertRefused(size + b"\r\n", 413, limit=5)

    def test_endless_lines_are_refused(self) -> None:
        """Of whatever kind."""
        self.assertRefused(b"0" * 5000, 400)
        self.assertRefused(b"1;" + b"x" * 5000 + b"\r\n", 400)

    def test_a_body_that_is_mostly_framing_is_refused(self) -> None:
        """Long extensions on tiny chunks; tiny chunks alone are fine."""
        self.assertRefused((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 20, 400)
        self.assertEqual(len(decode(b"1\r\na\r\n" * 900 + b"0\r\n\r\n")[0]), 900)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=30), max_size=8),
        st.lists(st.integers(1, 15), max_size=40),
        st.binary(max_size=10),
    )
    def test_any_segmentation_gives_the_same_content(self, chunks: list[bytes], cuts: list[int], rest: bytes) -> None:
        """And the leftover begins where the body ends."""
        data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        self.assertEqual(decode(data + rest), (b"".join(chunks), rest))
        body = ChunkedBody(1000, 1000)
        position = 0
        for cut in cuts:
            part = data[position : min(position + cut, len(data) - 1)]
            position += len(part)
            self.assertIsNone(body.feed(part))
        self.assertEqual(body.feed(data[position:] + rest), rest)
        self.assertEqual(bytes(body.content), b"".join(chunks))
