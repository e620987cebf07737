"""A standard error that nobody need read: what does not fit is lost, and nothing waits.

Programs that start us may give us a pipe for it and never look at it. A log that waits until there is room would then
stop everything.
"""

from __future__ import annotations

import io
import os
import select
from contextlib import suppress
from typing import Final

__all__ = ["LossyText"]

# POSIX promises that so much can be written to a pipe that polls as writable: PIPE_BUF, 4096 on Linux, 512 at least.
_PIECE: Final = select.PIPE_BUF


class LossyText(io.TextIOBase):
    """Text for the file descriptor ``number``, which stays as it is: others may write there, too.

    Args:
        number: Open for writing.
        encoding: Of what is written; what it cannot express is escaped.
    """

    def __init__(self, number: int, encoding: str = "utf-8") -> None:
        super().__init__()
        self._number: Final = number
        self._encoding: Final = encoding
        self._poll: Final = select.poll()
        self._poll.register(number, select.POLLOUT)
        # Part of a line is out, and its end is not.
        self._cut = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write as much of ``text`` as can be written now."""
        data = text.encode(self._encoding, "backslashreplace")
        if self._cut:
            data = b"\n" + data
        for start in range(0, len(data), _PIECE):
            if not self._room():
                self._cut = self._cut or start > 0
                break
            with suppress(OSError):
                os.write(self._number, data[start : start + _PIECE])
                self._cut = False
        return len(text)

    def _room(self) -> bool:
        return any(events & select.POLLOUT for _, events in self._poll.poll(0))
