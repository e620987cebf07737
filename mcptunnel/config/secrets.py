"""Bearer tokens of the configuration as digests, the only form in which the daemon keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from mcptunnel.config import syntax
from mcptunnel.config.interpolate import MAX_VALUE, FileError, read_small_file
from mcptunnel.config.report import Report
from mcptunnel.config.schema import TokenConfig
from mcptunnel.config.units import FormatError
from mcptunnel.core.errors import ConfigError, Finding

__all__ = ["WEAK_ADVICE", "check_same", "is_weak", "secret_in", "token_digest"]

# 16 characters of base64 are 96 bits.
_SHORT: Final = 16
WEAK_ADVICE: Final = "one that cannot be guessed comes from `openssl rand -hex 32`"


def is_weak(secret: str) -> bool:
    """Whether ``secret`` is so short that it may be guessed."""
    return len(secret) < _SHORT


def secret_in(content: bytes) -> str:
    """The secret in a token file: its first line, without blanks around it."""
    first = content.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    return first.decode("utf-8", "replace").strip()


def token_digest(token: TokenConfig) -> bytes:
    """SHA-256 of the secret of ``token``; reads its ``token_file`` if it has one.

    Raises:
        ConfigError: The file cannot be read, or its first line is no token.
    """
    if token.token_sha256 is not None:
        return bytes.fromhex(token.token_sha256)
    if token.token is not None:
        return sha256(token.token.encode()).digest()
    path = token.token_file or ""
    try:
        value = syntax.secret(secret_in(read_small_file(path, MAX_VALUE)))
    except FileError as error:
        raise _refused(token, path, f"the token file {error}") from None
    except FormatError as wrong:
        raise _refused(token, path, f"its first line {wrong.says}") from None
    return sha256(value.encode()).digest()


def check_same(tokens: Sequence[TokenConfig], report: Report, *, files: bool) -> None:
    """Refuse two names for one secret: nobody could say which of them a caller is.

    Args:
        tokens: In the order of ``auth.tokens``.
        report: Takes the findings.
        files: Look into token files as well.
    """
    names: dict[bytes, str] = {}
    for i, token in enumerate(tokens):
        if token.token_file is not None and not files:
            continue
        try:
            digest = token_digest(token)
        except ConfigError:
            # Noted where the file itself is looked at.
            continue
        if digest in names:
            report.error(f"auth.tokens[{i}]", f"has the same secret as {names[digest]}; give each its own")
        names.setdefault(digest, token.name)


def _refused(token: TokenConfig, path: str, message: str) -> ConfigError:
    return ConfigError([Finding(file=path, line=None, key="", message=f"token {token.name}: {message}")])
