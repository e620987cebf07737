"""Whether a URI could come from a URI template (RFC 6570), as far as routing needs it.

Every expression stands for anything; what is between them must be there, in order. That says yes to more than the
template could make, and costs time in proportion to the URI whatever the template, which is a server's word.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

__all__ = ["Pattern", "pattern"]

_EXPRESSION: Final = re.compile(r"\{[^{}]*\}")


@frozen
class Pattern:
    """What every URI of a template holds.

    Attributes:
        literals: The texts around the expressions, the first and the last included; one alone where there are none.
    """

    literals: tuple[str, ...]

    @property
    def weight(self) -> int:
        """How much of a URI it fixes: of several that match, the one that says most is meant."""
        return sum(map(len, self.literals))

    def matches(self, uri: str) -> bool:
        """Whether ``uri`` could be meant."""
        first, *rest = self.literals
        if not rest:
            return uri == first
        *inner, last = rest
        end = len(uri) - len(last)
        if not uri.startswith(first) or not uri.endswith(last) or end < len(first):
            return False
        at = len(first)
        for literal in inner:
            # The earliest place leaves the most for what follows.
            found = uri.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return True


def pattern(template: str) -> Pattern:
    """The pattern of ``template``."""
    return Pattern(tuple(_EXPRESSION.split(template)))
