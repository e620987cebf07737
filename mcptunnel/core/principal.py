"""Who a credential says the caller is, and what that principal may reach."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from attrs import frozen

__all__ = ["ANONYMOUS", "Keyring", "Principal", "permits", "reaches"]


_WILDCARD: Final = re.compile(r"[*?\[]")


@frozen(kw_only=True)
class Principal:
    """A caller.

    Attributes:
        name: As configured; appears in logs.
        allow: Patterns (``*``, ``?``, ``[...]``) over ``server__name``, where name is a tool, a prompt or a resource
            URI. None allows everything.
    """

    name: str
    allow: tuple[str, ...] | None = None


ANONYMOUS: Final = Principal(name="anonymous")


def permits(principal: Principal, server: str, name: str) -> bool:
    """The one decision, for lists and for calls alike: may ``principal`` see and use ``name`` of ``server``?"""
    if principal.allow is None:
        return True
    full = f"{server}__{name}"
    return any(fnmatchcase(full, pattern) for pattern in principal.allow)


class Keyring:
    """Static bearer tokens, held as SHA-256 digests only.

    The table is searched by digest: which entry comes near is nothing that a caller who does not know the token can
    steer, so looking it up in a hash table tells as little as comparing every entry in constant time, and costs the
    same for one token and for thousands. What is found is compared once more in constant time.
    """

    def __init__(self, entries: Iterable[tuple[bytes, Principal]]) -> None:
        self._entries: Final = {digest: (digest, principal) for digest, principal in entries}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __repr__(self) -> str:
        return f"<Keyring {len(self._entries)} tokens>"

    def find(self, token: bytes) -> Principal | None:
        """Whose token this is, or None."""
        digest = sha256(token).digest()
        known, principal = self._entries.get(digest, (b"", None))
        return principal if hmac.compare_digest(known, digest) else None


def reaches(principal: Principal, server: str) -> bool:
    """Whether any pattern of ``principal`` could match something of ``server``."""
    if principal.allow is None:
        return True
    full = f"{server}__"
    for pattern in principal.allow:
        fixed, *wild = _WILDCARD.split(pattern, maxsplit=1)
        if fixed.startswith(full) or (wild and full.startswith(fixed)):
            return True
    return False
