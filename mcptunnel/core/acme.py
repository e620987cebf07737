"""Which requests are those of an ACME authority that looks for the answer to an HTTP-01 challenge (RFC 8555 §8.3).

Such an authority comes in plaintext, from anywhere, without a credential, and a redirect would lead it to where there
may be no certificate yet. So these requests pass before every rule about who may come and how; what they get is one
small public file. Not here: the file.
"""

from __future__ import annotations

import re
from typing import Final

from mcptunnel.core.plaintext import Decide, Decision, PlainRequest, origin_path

__all__ = ["PREFIX", "challenged", "exempting", "token"]

PREFIX: Final = b"/.well-known/acme-challenge/"
# RFC 8555 §8.1: base64url without padding. The bound is ours; authorities use 43 characters.
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{1,256}")


def challenged(method: bytes, path: bytes) -> bool:
    """Whether a request asks for the answer to a challenge, or for what can only be meant as one.

    Args:
        method: As sent.
        path: Path without the query, as sent: nothing that has to be decoded first is taken for one.
    """
    return path.startswith(PREFIX) and method in (b"GET", b"HEAD")


def token(path: bytes) -> str | None:
    """The token that ``path`` asks for, or None where it can be none."""
    name = path.removeprefix(PREFIX)
    return name.decode("ascii") if name != path and _TOKEN.fullmatch(name) else None


def exempting(decide: Decide) -> Decide:
    """``decide``, but letting challenges pass."""

    def decide_others(request: PlainRequest) -> Decision:
        path = origin_path(request.target)
        if path is not None and challenged(request.method, path.partition(b"?")[0]):
            return None
        return decide(request)

    return decide_others
