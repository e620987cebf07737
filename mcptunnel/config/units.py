"""Durations and sizes as people write them: ``30s``, ``1h30m``, ``250ms``; ``4MiB``, ``10kB``, ``4096``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

__all__ = ["FormatError", "parse_duration", "parse_size"]

_SECONDS: Final = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "sec": Fraction(1),
    "m": Fraction(60),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
    "w": Fraction(7 * 86400),
}
# SI prefixes count in thousands, IEC prefixes in 1024 (IEC 80000-13). A bare "k" or "m" could be either: not taken.
_BYTES: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_UNCLEAR: Final = {"k": ("KiB", "kB"), "m": ("MiB", "MB"), "g": ("GiB", "GB")}
# Fifteen digits hold every sensible value, and keep a megabyte of digits away from the arithmetic.
_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_PLAIN: Final = re.compile(_NUMBER, re.ASCII)
_PART: Final = re.compile(rf"({_NUMBER})[ \t]*([A-Za-z]{{1,3}})[ \t]*", re.ASCII)

_DURATION_HELP: Final = "write seconds, or a number with ms, s, m, h, d or w, such as 30s, 250ms or 1h30m"
_SIZE_HELP: Final = "write bytes, or a number with kB, MB, GB (1000) or KiB, MiB, GiB (1024), such as 4096 or 4MiB"


class FormatError(ValueError):
    """A value that cannot be read.

    Attributes:
        says: Predicate that follows the value in a message, with the fix. Holds no part of the value.
        fix: A proposal derived from the value; shown only where the value itself may be shown.
    """

    def __init__(self, says: str, fix: str = "") -> None:
        super().__init__(says)
        self.says: Final = says
        self.fix: Final = fix


def parse_duration(text: str) -> float:
    """Seconds in ``text``.

    Raises:
        FormatError: ``text`` is not a duration.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    total, used, position = Fraction(0), set[Fraction](), 0
    while position < len(text):
        part = _PART.match(text, position)
        unit = part and _SECONDS.get(part[2].lower())
        if part is None or unit is None or unit in used:
            raise FormatError(f"is not a duration; {_DURATION_HELP}")
        used.add(unit)
        total += Fraction(part[1]) * unit
        position = part.end()
    if not used:
        raise FormatError(f"is not a duration; {_DURATION_HELP}")
    return float(total)


def parse_size(text: str) -> int:
    """Bytes in ``text``.

    Raises:
        FormatError: ``text`` is not a size, or not a whole number of bytes.
    """
    text = text.strip()
    part = _PART.fullmatch(text)
    unit = _BYTES.get(part[2].lower()) if part else 1
    if part is not None and unit is None and part[2].lower() in _UNCLEAR:
        number, (iec, si) = part[1], _UNCLEAR[part[2].lower()]
        raise FormatError(f"is not a size; {_SIZE_HELP}", f"; did you mean {number}{iec} or {number}{si}?")
    if unit is None or (part is None and not _PLAIN.fullmatch(text)):
        raise FormatError(f"is not a size; {_SIZE_HELP}")
    size = Fraction(part[1] if part else text) * unit
    if size.denominator != 1:
        raise FormatError("is not a whole number of bytes; write a whole number")
    return size.numerator
