"""Tests for mcptunnel.core.clienthello, on what OpenSSL's own client says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.clienthello import LARGEST, Hello, read
from mcptunnel.test.tls.handshakes import client, step


def hello(name: bytes | None, version: int | None = None) -> bytes:
    """The first flight of a real client."""
    return step(client(name=name, version=version))


def split(data: bytes, sizes: list[int]) -> bytes:
    """The same message in records of these sizes, the last one repeated (RFC 8446 §5.1 lets a client do that)."""
    message, records, at = data[5:], b"", 0
    for number in range(len(message)):
        size = sizes[min(number, len(sizes) - 1)]
        piece = message[at : at + size]
        if not piece:
            break
        records += data[:3] + len(piece).to_bytes(2) + piece
        at += size
    return records


class ReadTests(SynchronousTestCase):
    """Whole, in pieces, and broken."""

    def test_the_name_of_a_real_client(self) -> None:
        """In both versions; in lower case, without the final dot."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION, None):
            for name, expected in (
                (b"mcp.example.com", "mcp.example.com"),
                (b"MCP.Example.COM", "mcp.example.com"),
                (b"a.test.", "a.test"),
                (b"\xff\xfe", None),
                (None, None),
            ):
                self.assertEqual(read(hello(name, version)), Hello(expected), (name, version))

    def test_it_says_how_much_is_missing(self) -> None:
        """So that a byte more is not read from the beginning each time; with all of it, it knows."""
        whole = hello(b"mcp.example.com")
        self.assertEqual((read(b""), read(whole[:4])), (5, 5))
        self.assertEqual({read(whole[:size]) for size in range(5, len(whole))}, {len(whole)})
        self.assertEqual(read(whole + b"more"), Hello("mcp.example.com"))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(60, 700), min_size=1, max_size=8))
    def test_a_message_may_lie_in_many_records(self, sizes: list[int]) -> None:
        """Fed byte by byte as well: it never asks for more than there is to come."""
        whole = split(hello(b"mcp.example.com"), sizes)
        self.assertEqual(read(whole), Hello("mcp.example.com"))
        have = 0
        while isinstance(need := read(whole[:have]), int):
            self.assertGreater(need, have)
            self.assertLessEqual(need, len(whole))
            have = need
        self.assertEqual(need, Hello("mcp.example.com"))

    def test_what_comes_in_a_thousand_records_is_not_looked_at(self) -> None:
        """Nobody sends that in earnest, and to read it again with each record would cost seconds."""
        whole = split(hello(b"mcp.example.com"), [1])
        self.assertRaises(ValueError, read, whole)
        asked = 0
        have = 0
        with self.assertRaises(ValueError):
            while isinstance(need := read(whole[:have]), int):
                have, asked = need, asked + 1
        self.assertLess(asked, 100)

    def test_no_clienthello_is_refused(self) -> None:
        """Another message, another record, a message that would never fit."""
        good = hello(None)
        for bad in (
            b"\x17" + good[1:],
            good[:3] + b"\x00\x00" + good[5:],
            good[:3] + b"\x40\x01" + bytes(0x4001),
            good[:5] + b"\x02" + good[6:],
            good[:6] + LARGEST.to_bytes(3) + good[9:],
        ):
            with self.assertRaises(ValueError):
                read(bad)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_broken_ones_end_in_a_valueerror_or_a_name(self, data: st.DataObject) -> None:
        """Never in anything else, wherever a byte is wrong."""
        whole = bytearray(hello(b"a.test"))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(5, len(whole) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = read(bytes(whole))
        except ValueError:
            return
        self.assertIsInstance(found, Hello | int)
