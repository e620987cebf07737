"""Lines out of bytes, in bounded memory."""

from __future__ import annotations

from typing import Final

from mcptunnel.core.errors import INVALID_REQUEST, RpcError

__all__ = ["Lines"]


class Lines:
    """Takes bytes as they come and gives lines, without their ends and without those that are blank.

    Once it was asked for all lines, no more than the limit is left of what was fed: a line that becomes too long is
    refused as soon as that is known, and the rest of it is dropped as it comes.

    Args:
        limit: Longest line, in bytes (``server.limits.body_bytes``).
    """

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._kept = bytearray()
        # No line ends before this offset.
        self._searched = 0
        self._dropping = False

    def __len__(self) -> int:
        """Bytes that have come and are in no line yet that was taken."""
        return len(self._kept)

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._kept += data

    def finish(self) -> None:
        """Nothing will follow: what is left is a line, too."""
        if self._kept or self._dropping:
            self._kept += b"\n"

    def next(self) -> bytes | None:
        """The next line, or None before there is one.

        Raises:
            RpcError: It is too long. Once for each such line.
        """
        while (end := self._kept.find(b"\n", self._searched)) >= 0:
            line = bytes(self._kept[:end]) if end <= self._limit else None
            del self._kept[: end + 1]
            self._searched = 0
            if self._dropping:
                self._dropping = False
            elif line is None:
                raise self._too_long()
            elif line := line.strip():
                return line
        self._searched = len(self._kept)
        if self._dropping or self._searched > self._limit:
            known, self._dropping = self._dropping, True
            self._kept.clear()
            self._searched = 0
            if not known:
                raise self._too_long()
        return None

    def _too_long(self) -> RpcError:
        return RpcError(
            INVALID_REQUEST,
            f"a line is longer than {self._limit} bytes (server.limits.body_bytes)",
            reason="body_too_large",
        )
