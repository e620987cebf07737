"""A chunked request body: bytes in, content and leftover out, bounded as it arrives.

Strict RFC 9112 §7.1: lines end with CRLF, sizes are bare hexadecimal digits. Extensions are skipped and trailers
dropped, both bounded. Invariant: the bytes after the last chunk are handed back untouched, however the input was cut.
"""

from __future__ import annotations

import re
from typing import Final

from mcptunnel.core.errors import RequestError

__all__ = ["ChunkedBody", "too_large"]

# RFC 9112 §7.1: chunk-size [ chunk-ext ]; an extension begins with ";" and has no control characters but HTAB.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
# A chunk-size line with its extension; longer ones have no honest use (nginx refuses extensions over a page).
_LINE_BYTES: Final = 4096
# Framing beyond what honest chunks need, as in Go's net/http: 16 KiB, plus 16 bytes and twice its size per chunk.
_EXCESS_BYTES: Final = 16 * 1024

_SIZE, _DATA, _END, _TRAILERS = range(4)


class ChunkedBody:
    """Decodes one chunked body.

    Args:
        limit: Content bytes that are accepted.
        trailer_limit: Bytes of trailer lines that are skipped.

    Attributes:
        content: What has been decoded so far.
    """

    __slots__ = ("_excess", "_held", "_left", "_limit", "_state", "_trailer_left", "content")

    def __init__(self, limit: int, trailer_limit: int) -> None:
        self.content = bytearray()
        self._limit: Final = limit
        self._trailer_left = trailer_limit
        self._state = _SIZE
        self._held = b""
        self._left = 0
        self._excess = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take more input.

        Returns:
            None while the body is incomplete; then what followed it, often empty.

        Raises:
            RequestError: 400 for broken framing, 413 when the content exceeds the limit, 431 for endless trailers.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        position = 0
        while True:
            if self._state == _DATA:
                taken = data[position : position + self._left]
                self.content += taken
                position += len(taken)
                self._left -= len(taken)
                if self._left:
                    return None
                self._state = _END
            end = data.find(b"\n", position)
            if end < 0:
                if len(data) - position > _LINE_BYTES:
                    raise RequestError(400, "bad_chunk", "A line of the chunked framing is too long.")
                self._held = data[position:]
                return None
            if data[end - 1 : end] != b"\r" or end == position:
                raise RequestError(400, "bad_chunk", "A line of the chunked framing does not end with CR LF.")
            line = data[position : end - 1]
            position = end + 1
            if self._line(line):
                return data[position:]

    def _line(self, line: bytes) -> bool:
        """Take one line without its CRLF; True when it was the last one."""
        if self._state == _SIZE:
            self._size(line)
        elif self._state == _END:
            if line:
                raise RequestError(400, "bad_chunk", "A chunk is longer than its announced size.")
            self._state = _SIZE
        else:
            if not line:
                return True
            # RFC 9112 §7.1.2 allows to discard trailers; nobody behind us asked for them.
            if _TRAILER.fullmatch(line) is None:
                raise RequestError(400, "bad_trailer", "A trailer line is malformed.")
            self._trailer_left -= len(line) + 2
            if self._trailer_left < 0:
                raise RequestError(431, "trailers_too_large", "The trailers exceed server.limits.header_bytes.")
        return False

    def _size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(line) > _LINE_BYTES:
            raise RequestError(400, "bad_chunk", "A chunk does not begin with its size in hexadecimal digits.")
        digits = match[1].lstrip(b"0")
        # Sixteen digits are more than any limit; whoever writes them hopes for an overflow.
        size = int(digits, 16) if 0 < len(digits) <= 16 else self._limit + 1 if digits else 0
        if len(self.content) + size > self._limit:
            raise too_large(self._limit)
        self._excess = max(0, self._excess + len(line) + 2 - 16 - 2 * size)
        if self._excess > _EXCESS_BYTES:
            raise RequestError(400, "bad_chunk", "The chunked body is mostly framing.")
        self._left = size
        self._state = _DATA if size else _TRAILERS


def too_large(limit: int) -> RequestError:
    """The refusal of a body of more than ``limit`` bytes."""
    return RequestError(413, "body_too_large", f"The request body exceeds server.limits.body_bytes, {limit}.")
