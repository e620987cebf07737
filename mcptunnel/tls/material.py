"""A certificate chain and its key, checked whole: a pair that loads here can be served.

Everything that is wrong is reported together, each with its file, so that one start finds it all. The key itself never
enters a message or a ``repr``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mcptunnel.config.schema import CertificatePair, ServerConfig
from mcptunnel.config.syntax import is_loopback
from mcptunnel.core.certificates import Facts
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import chain_facts, check_complete, check_leaf, check_life, check_links, describe
from mcptunnel.tls.passphrase import passphrase_for
from mcptunnel.tls.pem import PrivateKey, read_chain, read_file, read_key

__all__ = ["Material", "load", "load_all", "strict_keys"]

T = TypeVar("T")


@frozen(kw_only=True)
class Material:
    """A checked certificate chain and its key.

    Attributes:
        file: The certificate file, as the operator gave it.
        chain: Leaf first, then what vouches for it.
        key: The leaf's private key.
        facts: One for each certificate of the chain, in its order.
        warnings: What the operator should hear about these files.
    """

    file: str
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKey = field(repr=False)
    facts: tuple[Facts, ...]
    warnings: tuple[str, ...] = ()

    @property
    def leaf(self) -> Facts:
        """The facts of the server's own certificate."""
        return self.facts[0]

    @property
    def kind(self) -> str:
        """What kind of key it is, for messages: ``EC``, ``RSA`` or ``Ed25519``."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return "RSA"
        return "EC" if isinstance(self.key, ec.EllipticCurvePrivateKey) else "Ed25519"


def strict_keys(server: ServerConfig) -> bool:
    """Whether a private key that others can read is refused: but on loopback, unless the operator said otherwise."""
    wish = server.tls.key_permissions
    return not is_loopback(server.host) if wish is None else wish == "strict"


def load_all(pairs: Sequence[CertificatePair], now: float, *, strict: bool = False) -> tuple[Material, ...]:
    """Every pair, in order. Blocks on files, and on the commands that give passphrases.

    Args:
        pairs: The default pair first.
        now: Seconds since the epoch.
        strict: Refuse keys that other users can read, instead of warning.

    Raises:
        CertificateError: Something is wrong; one line for each reason, of all files.
    """
    loaded: list[Material] = []
    problems: list[str] = []
    for pair in pairs:
        try:
            loaded.append(load(pair, now, strict=strict))
        except CertificateError as error:
            problems.append(str(error))
    if problems:
        raise CertificateError("\n".join(problems))
    return tuple(loaded)


def load(pair: CertificatePair, now: float, *, strict: bool = False) -> Material:
    """One chain and its key.

    Args:
        pair: Names of the files.
        now: Seconds since the epoch.
        strict: Refuse a key that other users can read, instead of warning.

    Raises:
        CertificateError: Something is wrong; one line for each reason, beginning with the file.
    """
    problems: list[str] = []
    chain = _attempt(pair.cert_file, read_chain, problems) or ()
    key = _attempt(pair.key_file, partial(_key, pair), problems)
    facts = chain_facts(pair.cert_file, chain)
    for check in (check_life(facts, now), check_links(chain), check_leaf(chain)):
        problems.extend(f"{pair.cert_file}: {problem}" for problem in check)
    if chain and key is not None and _spki(key.public_key()) != _spki(chain[0].public_key()):
        problems.append(
            f"{pair.key_file}: does not belong to the first certificate in {pair.cert_file} "
            f"({describe(chain[0])}); the chain must begin with the server's own certificate"
        )
    open_to_others = _permissions(pair.key_file)
    if strict:
        problems.extend(f"{line}, or set server.tls.key_permissions: warn" for line in open_to_others)
    if problems or key is None:
        raise CertificateError("\n".join(problems))
    doubts = (f"{pair.cert_file}: {doubt}" for doubt in check_complete(chain))
    return Material(file=pair.cert_file, chain=chain, key=key, facts=facts, warnings=(*open_to_others, *doubts))


def _key(pair: CertificatePair, content: bytes) -> PrivateKey:
    return read_key(content, passphrase_for(pair))


def _attempt(file: str, read: Callable[[bytes], T], problems: list[str]) -> T | None:
    try:
        return read(read_file(file))
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror or error}")
    except CertificateError as error:
        problems.append(f"{file}: {error}")
    return None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _permissions(file: str) -> tuple[str, ...]:
    """A warning when others than the owner can read the key; PostgreSQL's rule: 0600, or 0640 when root owns it."""
    try:
        status = os.stat(file)
    except OSError:
        # Said already, by whoever tried to read it.
        return ()
    if status.st_mode & (0o037 if status.st_uid == 0 else 0o077):
        mode = stat.S_IMODE(status.st_mode)
        return (f"{file}: the private key is open to other users of this machine (mode {mode:04o}); chmod 600 it",)
    return ()
