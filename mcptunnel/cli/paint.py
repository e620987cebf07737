"""Colour, where somebody sees it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TextIO

__all__ = ["Paint", "paint_for"]

# A text and its kind (good, warn, bad, strong or faint) → the text with what a terminal needs to colour it.
Paint = Callable[[str, str], str]

_CODES: Final = {"good": 32, "warn": 33, "bad": 31, "strong": 1, "faint": 2}


def paint_for(stream: TextIO) -> Paint:
    """Colour for terminals, unless NO_COLOR (https://no-color.org) is set to anything."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return lambda text, _: text
    return lambda text, kind: f"\x1b[{_CODES[kind]}m{text}\x1b[0m"
