"""Tests for mcptunnel.core.sse: the same events whole, byte by byte and in any pieces."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.sse import COMMENT, Decoder, Event, encode

# Pieces of streams, put together at random: every line end, every field, broken ones.
PIECES = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"\n\n", b"data: a", b"data:b", b"data", b"data:  c", b"event: e", b"id: 7", b"id",
         b"id: \x00", b"retry: 10", b"retry: x", b": note", b"x: y", b"\xef\xbb\xbf", b":", b" ", b"\xc3\xa9",
         b"data: \x0b\x0c"]
    ),
    max_size=25,
).map(b"".join)  # fmt: skip


def whole(stream: bytes, limit: int = 1 << 20) -> list[Event]:
    """All events of ``stream`` fed at once."""
    return Decoder(limit).feed(stream)


def in_pieces(stream: bytes, cuts: list[int]) -> list[Event]:
    """All events of ``stream`` cut at ``cuts``."""
    decoder = Decoder(1 << 20)
    places = [0, *sorted(cuts), len(stream)]
    return [event for a, b in pairwise(places) for event in decoder.feed(stream[a:b])]


def by_the_book(stream: bytes) -> list[Event]:
    """The algorithm of WHATWG HTML 9.2.6, written down once more, on the whole stream."""
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events: list[Event] = []
    data: bytes | None = None
    fields: dict[str, Any] = {}
    for line in lines:
        if not line:
            if data is not None:
                events.append(
                    Event(data[:-1], fields.get("event") or b"message", fields.get("id"), fields.get("retry"))
                )
            data, fields = None, {}
            continue
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            data = (data or b"") + value + b"\n"
        elif name == b"event":
            fields["event"] = value
        elif name == b"id" and b"\0" not in value:
            fields["id"] = value
        elif name == b"retry" and value.isdigit():
            fields["retry"] = int(value)
    return events


class DecoderTests(SynchronousTestCase):
    """Bytes in, events out."""

    @settings(deadline=None, max_examples=100)
    @given(PIECES, st.data())
    def test_how_the_stream_is_cut_makes_no_difference(self, stream: bytes, data: Any) -> None:
        """Whole, byte by byte, at random; and all as the standard says."""
        expected = by_the_book(stream)
        self.assertEqual(whole(stream), expected)
        self.assertEqual(in_pieces(stream, list(range(len(stream)))), expected)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
        self.assertEqual(in_pieces(stream, cuts), expected)

    def test_each_kind_of_line_end_ends_a_line(self) -> None:
        """And CR LF ends one, not two."""
        for end in (b"\n", b"\r", b"\r\n"):
            stream = end.join([b"event: e", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
            self.assertEqual(whole(stream), [Event(b"1\n2", b"e"), Event(b"3")])

    def test_an_event_ended_by_cr_is_dispatched_without_waiting_for_what_follows(self) -> None:
        """A server may say nothing more for minutes; an LF that comes late belongs to the CR."""
        decoder = Decoder(99)
        self.assertEqual(decoder.feed(b"data: 1\r\r"), [Event(b"1")])
        self.assertEqual(decoder.feed(b"\ndata: 2\r\n\r"), [Event(b"2")])
        self.assertEqual(decoder.feed(b"\n"), [])

    def test_a_byte_order_mark_is_no_part_of_the_first_line(self) -> None:
        """Only the very first."""
        mark = b"\xef\xbb\xbf"
        self.assertEqual(whole(mark + b"data: 1\n\n" + mark + b"data: 2\n\n"), [Event(b"1")])

    def test_fields(self) -> None:
        """One space is taken off; what is unknown or malformed is skipped; without data there is no event."""
        self.assertEqual(whole(b"id: 4\nretry: 250\ndata:  x\n\n"), [Event(b" x", b"message", b"4", 250)])
        self.assertEqual(whole(b"id\ndata\n\n"), [Event(b"", b"message", b"", None)])
        self.assertEqual(
            whole(b": hello\nfoo: bar\nretry: 1s\nretry: %b\nid: a\0b\ndata: x\n\n" % (b"9" * 5000)), [Event(b"x")]
        )
        self.assertEqual(whole(b"event: ping\nid: 3\n\ndata: x\n\n"), [Event(b"x")])
        self.assertEqual(whole(COMMENT * 3), [])

    def test_an_event_that_is_too_long_is_refused_at_the_byte_that_is_too_much(self) -> None:
        """On one line, on many, and unfinished."""
        self.assertEqual(whole(b"data: 12345\n\n", 11), [Event(b"12345")])
        for stream in (b"data: 1234567890\n\n", b"data: 12345\ndata: 67890\n\n", b"x" * 12):
            self.assertRaises(ValueError, whole, stream, 10)
        decoder = Decoder(10)
        decoder.feed(b"data: 1234")
        self.assertRaises(ValueError, decoder.feed, b"5")

    def test_many_short_events_are_never_too_long(self) -> None:
        """The bound is on one event."""
        self.assertEqual(len(whole(b"data: 12345\n\n" * 100, 20)), 100)

    def test_a_long_line_in_many_pieces_is_copied_once(self) -> None:
        """The pieces wait as they are: their number does not multiply the work."""
        decoder = Decoder(1 << 20)
        decoder.feed(b"data: ")
        for _ in range(1000):
            self.assertEqual(decoder.feed(b"x" * 100), [])
        self.assertEqual(len(decoder._more), 1000)
        self.assertEqual(decoder.feed(b"\n\n"), [Event(b"x" * 100_000)])


class EncodeTests(SynchronousTestCase):
    """Events out."""

    def test_bytes(self) -> None:
        """Exactly these."""
        self.assertEqual(encode(b"{}"), b"data: {}\n\n")
        self.assertEqual(encode(b"{}", event=b"message", id_=b"7"), b"id: 7\nevent: message\ndata: {}\n\n")
        self.assertEqual(encode(b"a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n")
        self.assertEqual(encode(b""), b"data: \n\n")

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=30))
    def test_what_is_encoded_is_decoded(self, data: bytes) -> None:
        """With line ends made equal, and no event more than was meant."""
        (event,) = whole(encode(data, event=b"e", id_=b"1") + encode(b"end"))[:-1]
        self.assertEqual(event.data, b"\n".join(data.splitlines()))
        self.assertEqual((event.event, event.id), (b"e", b"1"))
