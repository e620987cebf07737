"""Ids of legacy sessions: sealed, and holding what another life of the daemon needs to go on with the session."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec

from mcptunnel.core.jsonrpc import encode
from mcptunnel.core.principal import Principal
from mcptunnel.core.routing import Target
from mcptunnel.core.seal import Seal

__all__ = ["LIFE_SECONDS", "mint", "read"]

# An id travels in a header of every request: what a client says beyond this is not kept in it.
_HELLO_BYTES: Final = 1500
# For so long after it was opened can a session be gone on with by another life of the daemon.
LIFE_SECONDS: Final = 86_400.0
_decode: Final = msgspec.json.Decoder().decode


def mint(seal: Seal, principal: Principal, target: Target, hello: bytes | None, now: float) -> str:
    """An id that nobody can guess, of visible ASCII.

    Args:
        seal: Seals it.
        principal: Whose session it is; nobody else can show it.
        target: What the session sees; it is unknown anywhere else.
        hello: The client's ``initialize`` request; None for a session that nobody goes on with.
        now: The time.
    """
    kept = "" if hello is None or len(hello) > _HELLO_BYTES else hello.decode()
    return seal.close("session", principal.name, encode([int(now + LIFE_SECONDS), _digest(target), kept]))


def read(seal: Seal, id_: str, principal: Principal, target: Target, now: float) -> bytes | None:
    """What the client of a session of an earlier life has said; None for everything that is no such session."""
    found = seal.open("session", principal.name, id_)
    if found is None or found.ours:
        # Of this life, and not known: it has ended.
        return None
    value: Any = _decode(found.text)
    until, place, hello = value
    return str(hello).encode() if hello and now <= until and place == _digest(target) else None


def _digest(target: Target) -> str:
    return sha256(encode([target.servers, target.merged])).hexdigest()[:16]
