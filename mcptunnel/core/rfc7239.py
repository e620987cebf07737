"""The ``Forwarded`` header of RFC 7239, cut into its elements and their parameters.

Strict on purpose: a value that two readers could cut differently lets a client write what looks like a proxy's word
(CVE-2026-32762 split on ``;`` inside quotes). Not here: what the parameters mean.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_forwarded"]

# RFC 9110 §5.6.2.
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9110 §5.6.4; the two alternatives share no first character, so matching is linear.
_QUOTED: Final = r'"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)"'
# RFC 7239 §4: forwarded-pair = token "=" value; no white space inside an element.
_PAIR: Final = re.compile(rf"({_WORD})=(?:({_WORD})|{_QUOTED})")
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_SPACE: Final = re.compile(r"[ \t]*")


def parse_forwarded(text: str) -> list[dict[str, str]]:
    """The elements of a ``Forwarded`` value in their order, each as its parameters with lower-case names.

    Args:
        text: All lines of the header joined by commas, which makes them one list (RFC 9110 §5.3).

    Raises:
        ValueError: It is not by the grammar, or names a parameter twice in one element (RFC 7239 §4).
    """
    elements = []
    position = _skip(text, 0)
    while True:
        start = position
        element, position = _element(text, position)
        # RFC 9110 §5.6.1.2: empty list elements are ignored.
        if position > start:
            elements.append(element)
        position = _skip(text, position)
        if position == len(text):
            return elements
        if text[position] != ",":
            raise ValueError(f"unexpected {text[position]!r} at offset {position}")
        position = _skip(text, position + 1)


def _element(text: str, position: int) -> tuple[dict[str, str], int]:
    """RFC 7239 §4: ``[ forwarded-pair ] *( ";" [ forwarded-pair ] )``."""
    parameters: dict[str, str] = {}
    while True:
        if match := _PAIR.match(text, position):
            name, token, quoted = match.groups()
            name = name.lower()
            if name in parameters:
                raise ValueError(f"parameter {name!r} stands twice in one element")
            parameters[name] = token if token is not None else _QUOTED_PAIR.sub(r"\1", quoted)
            position = match.end()
        if not text.startswith(";", position):
            return parameters, position
        position += 1


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
