"""Colour, where somebody sees it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, TextIO

__all__ = ["Paint", "paint_for", "printable", "show"]

# A text and its kind (good, warn, bad, strong or faint) → the text with what a terminal needs to colour it.
Paint = Callable[[str, str], str]

# Our own codes, and everything else that a terminal could take for an order.
_ORDERS: Final = re.compile(r"\x1b\[(?:0|1|2|31|32|33)m|[\x00-\x1f\x7f-\x9f]")

_CODES: Final = {"good": 32, "warn": 33, "bad": 31, "strong": 1, "faint": 2}


def paint_for(stream: TextIO) -> Paint:
    """Colour for terminals, unless NO_COLOR (https://no-color.org) is set to anything."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return lambda text, _: text
    return lambda text, kind: f"\x1b[{_CODES[kind]}m{text}\x1b[0m"


def printable(line: str) -> str:
    """``line`` without what a terminal could take for an order: names in certificates are whatever somebody wrote."""
    return _ORDERS.sub(lambda order: order[0] if len(order[0]) > 1 else "?", line)


def show(as_json: bool, document: Callable[[], Any], lines: Callable[[Paint], Iterable[str]]) -> None:
    """Print what was found on standard output: as one JSON object, or as lines for people.

    Args:
        as_json: Which of the two.
        document: Makes the object.
        lines: Makes the lines, given what colours them.
    """
    if as_json:
        print(json.dumps(document()))
        return
    for line in lines(paint_for(sys.stdout)):
        print(printable(line))
