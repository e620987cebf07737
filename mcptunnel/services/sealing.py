"""The cipher behind :mod:`mcptunnel.core.seal`.

AES-256-GCM (NIST SP 800-38D). Each life of the daemon has a key of its own, derived (HKDF, RFC 5869) from the first of
``security.seal_keys`` and 16 random bytes that travel with what is sealed: so nonces of different lives cannot meet,
and what was sealed in another life is known as such.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcptunnel.core.seal import Open, Purpose

__all__ = ["KeySeal"]

_LIFE: Final = 16
_NONCE: Final = 12
_TAG: Final = 16
# Other lives whose keys are kept at hand: after a restart, the one before.
_LIVES: Final = 64


class KeySeal:
    """Seals with keys of the configuration; see :class:`mcptunnel.core.seal.Seal`.

    Args:
        keys: Secrets; the first seals, all of them open. Without any, what is sealed ends with this life.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._secrets: Final = tuple(key.encode() for key in keys) or (os.urandom(32),)
        self._life: Final = os.urandom(_LIFE)
        self._key: Final = _derive(self._secrets[0], self._life)
        # Bounded: whoever shows made-up ids makes us derive keys, and not keep them.
        self._keys: Final = lru_cache(_LIVES)(
            lambda life: tuple(AESGCM(_derive(secret, life)) for secret in self._secrets)
        )
        self._cipher: Final = AESGCM(self._key)

    def __repr__(self) -> str:
        return f"<KeySeal {len(self._secrets)} keys>"

    def close(self, purpose: Purpose, holder: str, text: bytes) -> str:
        """Seal ``text`` for ``holder``."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, text, _bound(purpose, holder))
        return _spelled(self._life + nonce + sealed)

    def open(self, purpose: Purpose, holder: str, sealed: str) -> Open | None:
        """The inverse; None for whatever was not sealed with one of the keys for that purpose and holder."""
        try:
            raw = base64.b64decode(sealed.encode("ascii") + b"=" * (-len(sealed) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        # One spelling only: what is known by what was sealed must not come back under another name.
        if _spelled(raw) != sealed or len(raw) < _LIFE + _NONCE + _TAG:
            return None
        life, nonce, text = raw[:_LIFE], raw[_LIFE : _LIFE + _NONCE], raw[_LIFE + _NONCE :]
        for cipher in self._keys(life):
            try:
                return Open(cipher.decrypt(nonce, text, _bound(purpose, holder)), life == self._life)
            except InvalidTag:
                continue
        return None


def _spelled(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _derive(secret: bytes, life: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=life, info=b"mcptunnel seal").derive(secret)


def _bound(purpose: Purpose, holder: str) -> bytes:
    return f"{purpose}:{holder}".encode()
