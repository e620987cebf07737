"""The PROXY header, both versions: valid, malformed, and in any segments."""

from __future__ import annotations

import itertools
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.proxyheader import MAX_HEADER, V2_SIGNATURE, ProxyHeader, _crc32c, parse

V4_BLOCK = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443)
V6_BLOCK = bytes.fromhex("20010db8000000000000000000000009fd000000000000000000000000000001") + struct.pack("!HH", 1, 2)
MAPPED_BLOCK = (bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 7])) * 2 + struct.pack("!HH", 1, 2)
UNIX_BLOCK = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")


def v2(block: bytes = V4_BLOCK, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(block: bytes, *, family: int = 0x11, after: bytes = b"") -> bytes:
    """A header whose last TLV but ``after`` is a right checksum."""
    zeroed = v2(block + tlv(3, bytes(4)) + after, family=family)
    position = len(zeroed) - len(after) - 4
    return zeroed[:position] + _crc32c(zeroed).to_bytes(4, "big") + zeroed[position + 4 :]


V1_LONGEST = b"PROXY UNKNOWN " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2 + [b"65535"] * 2) + b"\r\n"

V4 = {"source": "203.0.113.7", "source_port": 4711, "destination": "10.0.0.1", "destination_port": 443}
VALID: list[tuple[bytes, dict[str, Any]]] = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", V4),
    (
        b"PROXY TCP6 2001:DB8::9 fd00::1 0 65535\r\n",
        {"source": "2001:db8::9", "source_port": 0, "destination": "fd00::1", "destination_port": 65535},
    ),
    (
        b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.0.0.1 4711 443\r\n",
        V4,
    ),
    (b"PROXY UNKNOWN\r\n", {}),
    (b"PROXY UNKNOWN whatever \xff\r\n", {}),
    (V1_LONGEST, {}),
    (v2(), V4),
    (
        v2(V6_BLOCK, family=0x21),
        {"source": "2001:db8::9", "source_port": 1, "destination": "fd00::1", "destination_port": 2},
    ),
    (
        v2(MAPPED_BLOCK, family=0x21),
        {**dict.fromkeys(("source", "destination"), "203.0.113.7"), "source_port": 1, "destination_port": 2},
    ),
    (v2(UNIX_BLOCK, family=0x31), {}),
    (v2(b"", command=0x20, family=0x00), {"local": True}),
    (v2(V4_BLOCK, command=0x20), {"local": True}),
    (v2(b"anything", command=0x20, family=0xFF), {"local": True}),
    (v2(b"", family=0x00), {}),
    (v2(b"unparsed", family=0x00), {}),
    (v2(V4_BLOCK + tlv(1, b"h2") + tlv(4, b"")), V4),
    (v2(V4_BLOCK + tlv(4, bytes(536 - 12 - 3))), V4),
    (with_checksum(V4_BLOCK), V4),
    (with_checksum(V4_BLOCK + tlv(2, b"a.test"), after=tlv(4, b"xyz")), V4),
    (with_checksum(UNIX_BLOCK, family=0x31), {}),
]

MALFORMED = [
    b"GET / HTTP/1.1\r\n",
    b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY\tTCP4",
    b"PROXY \r\n",
    b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 not-an-ip 1.1.1.1 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 trailing\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
    b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 ::2 1 2\r\n",
    b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
    b"PROXY TCP6 [::1] ::2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
    b"PROXY TCP4 1.1.1.1\n2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rX",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 \xb2\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN " + b"a" * 92 + b"\r\n",
    b"PROXY UNKNOWN " + b"a" * 200,
    V2_SIGNATURE[:-1] + b"X",
    b"\r\n\r\nGET",
    v2(command=0x11),
    v2(command=0x31),
    v2(command=0x22),
    v2(family=0x41),
    v2(family=0x13),
    v2(family=0x12),
    v2(family=0x10),
    v2(family=0x22),
    v2(V4_BLOCK[:-1]),
    v2(V4_BLOCK, family=0x21),
    v2(UNIX_BLOCK[:-1], family=0x31),
    v2(b"", length=537),
    v2(b"", command=0x20, length=537),
    v2(b"", length=65535),
    v2(V4_BLOCK + b"\x04"),
    v2(V4_BLOCK + b"\x04\x00"),
    v2(V4_BLOCK + b"\x04\x00\x02x"),
    v2(V4_BLOCK + tlv(3, bytes(4))),
    v2(V4_BLOCK + tlv(3, bytes(3))),
    v2(V4_BLOCK + tlv(3, b"")),
    with_checksum(V4_BLOCK).replace(b"\x12\x67", b"\x12\x68"),
]


def outcome(segments: list[bytes]) -> ProxyHeader | str | None:
    """What a reader gets that asks after every segment; an error is its own kind of answer."""
    buffer = b""
    for segment in segments:
        buffer += segment
        try:
            header = parse(buffer)
        except ValueError:
            return "refused"
        if header is not None:
            return header
    return None


class ParseTests(SynchronousTestCase):
    def test_valid_headers_give_the_true_endpoints(self):
        """And say how many bytes were theirs."""
        for header, expected in VALID:
            self.assertEqual(parse(header), ProxyHeader(consumed=len(header), **expected), header)

    def test_what_follows_belongs_to_the_connection(self):
        """A request, a handshake, or a second header."""
        for header, _ in VALID:
            for rest in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\r\n", header):
                self.assertEqual(parse(header + rest), parse(header))

    def test_malformed_headers_are_refused(self):
        """Each is one that Twisted's own reader accepts, or some reader might."""
        for header in MALFORMED:
            self.assertRaises(ValueError, parse, header)

    def test_one_byte_at_a_time_is_the_same(self):
        """A header is complete exactly with its last byte."""
        for header, _ in VALID:
            for end in range(len(header)):
                self.assertIsNone(parse(header[:end]), header[:end])
        for header in MALFORMED:
            self.assertEqual(outcome([bytes([octet]) for octet in header]), "refused", header)

    def test_no_reader_waits_beyond_the_longest_header(self):
        """Nor, in version 1, beyond its longest line."""
        self.assertEqual(len(V1_LONGEST), 107)
        self.assertIsNone(parse(b"PROXY UNKNOWN " + b"a" * 92))
        self.assertRaises(ValueError, parse, b"PROXY UNKNOWN " + b"a" * 93)
        longest = v2(V4_BLOCK + tlv(4, bytes(536 - 12 - 3)))
        self.assertEqual(len(longest), MAX_HEADER)

    def test_the_checksum_is_crc32c(self):
        """RFC 3720 appendix B.4."""
        self.assertEqual(_crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(_crc32c(b"123456789"), 0xE3069283)

    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.sampled_from([header for header, _ in VALID] + MALFORMED),
            st.binary(max_size=40).map(lambda tail: b"PROXY TCP4 1.1.1.1 " + tail),
            st.binary(max_size=40).map(lambda tail: V2_SIGNATURE + b"\x21" + tail),
            st.binary(max_size=40),
        ),
        st.binary(max_size=8),
        st.lists(st.integers(0, 600), max_size=6),
    )
    def test_segments_never_matter(self, header, rest, cuts):
        """Whole, cut anywhere, and byte by byte agree, for headers good and bad."""
        whole = header + rest
        places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        segments = [whole[start:end] for start, end in itertools.pairwise(places)]
        self.assertEqual(outcome(segments), outcome([whole]))
        self.assertEqual(outcome([bytes([octet]) for octet in whole]), outcome([whole]))
