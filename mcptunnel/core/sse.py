"""Server-Sent Events (WHATWG HTML §9.2): framing both ways, without I/O."""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = ["COMMENT", "Decoder", "Event", "encode"]

# A comment line: what keeps a stream alive through proxies, and the first byte that makes them send the head.
COMMENT: Final = b":\n\n"


@frozen
class Event:
    """One dispatched event. ``data`` has its lines joined with LF; ``id`` None means the field was absent."""

    data: bytes
    event: bytes = b"message"
    id: bytes | None = None
    retry: int | None = None


def encode(data: bytes, *, event: bytes | None = None, id_: bytes | None = None) -> bytes:
    """One event. ``data`` may span lines; CR, LF and CRLF all end one, as every reader will take them."""
    head = b""
    if id_ is not None:
        head += b"id: %b\n" % id_
    if event is not None:
        head += b"event: %b\n" % event
    if b"\n" in data or b"\r" in data:
        # bytes.splitlines() splits at CR, LF and CRLF only.
        lines = data.splitlines() or [b""]
        return head + b"".join(b"data: %b\n" % line for line in lines) + b"\n"
    return b"%bdata: %b\n\n" % (head, data)


class Decoder:
    """Incremental reader of an event stream.

    Args:
        max_bytes: Longest event (and longest line) that is accepted.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max: Final = max_bytes
        self._tail = b""
        # Further pieces of the unfinished line, joined when it ends: a long line must not be copied for each of them.
        self._more: list[bytes] = []
        self._waiting = 0
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._id: bytes | None = None
        self._retry: int | None = None
        self._start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the events they complete.

        Raises:
            ValueError: An event is longer than ``max_bytes``.
        """
        if self._tail and not self._start and b"\n" not in chunk and b"\r" not in chunk and self._tail[-1:] != b"\r":
            self._more.append(chunk)
            self._waiting += len(chunk)
            self._check_size(len(self._tail) + self._waiting)
            return []
        text = b"".join((self._tail, *self._more, chunk))
        self._more, self._waiting = [], 0
        if self._start:
            if len(text) < 3 and b"\xef\xbb\xbf".startswith(text):
                self._tail = text
                return []
            self._start = False
            text = text.removeprefix(b"\xef\xbb\xbf")
        lines = text.splitlines(keepends=True)
        # An unfinished line waits; a CR at the very end too: an LF that belongs to it may follow.
        self._tail = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        self._check_size(len(self._tail))
        events: list[Event] = []
        for line in lines:
            self._line(line.rstrip(b"\r\n"), events)
        if self._tail.endswith(b"\r") and len(self._tail) == 1 and self._data:
            # A lone CR is an empty line: dispatch now, and swallow the LF that may come.
            self._line(b"", events)
        return events

    def _check_size(self, unfinished: int) -> None:
        if unfinished + self._size > self._max:
            raise ValueError(f"an event is longer than {self._max} bytes")

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(b"\n".join(self._data), self._event or b"message", self._id, self._retry))
            self._data, self._size = [], 0
            self._event, self._id, self._retry = b"", None, None
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            self._check_size(0)
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)
