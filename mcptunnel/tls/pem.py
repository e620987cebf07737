"""Bytes of PEM files → certificates and keys. What is wrong is said in words, without the file's name."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mcptunnel.core.errors import CertificateError

__all__ = ["PrivateKey", "PublicKey", "read_chain", "read_crls", "read_file", "read_key", "weakness"]

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_KEY_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_CRL_BLOCK: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
# NIST SP 800-57: 2048 bits are the floor until 2030. TLS 1.3 (RFC 8446 §4.2.3) has signatures for these curves only.
_MIN_RSA_BITS: Final = 2048
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
# A chain and a key are a few KiB. The bound keeps a mistaken path (a log file) from being read whole.
_MAX_FILE: Final = 1024 * 1024


def read_file(file: str) -> bytes:
    """The bytes of a regular file of at most 1 MiB.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.
    """
    with open(file, "rb", opener=_open) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError("not a regular file")
        content = opened.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise OSError("larger than 1 MiB, which no certificate file is")
    return content


def read_chain(content: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate in it, in order; at least one.

    Raises:
        CertificateError: There is none, or one cannot be parsed.
    """
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise CertificateError(_not_pem(content, "certificate", "openssl x509 -inform DER -in FILE"))
    if content.count(b"-----BEGIN CERTIFICATE-----") != content.count(b"-----END CERTIFICATE-----"):
        raise CertificateError("ends in the middle of a certificate; it is damaged, or still being written")
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except ValueError as error:
        raise CertificateError(f"holds a certificate that cannot be parsed: {error}") from error


def read_key(content: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """The one private key in it: PKCS#8, PKCS#1 or SEC 1, of a kind and strength that may be served.

    Args:
        content: PEM.
        passphrase: Opens a key that is encrypted; None when there is none.

    Raises:
        CertificateError: It is not such a key, or the passphrase is missing, wrong, or for a key that needs none.
    """
    blocks = list(_KEY_BLOCK.finditer(content))
    if not blocks:
        raise CertificateError(_not_pem(content, "private key", "openssl pkey -inform DER -in FILE"))
    if len(blocks) > 1:
        raise CertificateError(f"holds {len(blocks)} private keys; one is expected")
    label, block = blocks[0][1], blocks[0][0]
    encrypted = label == b"ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in block
    if encrypted and passphrase is None:
        raise CertificateError(
            "the key is encrypted; set key_passphrase_file or key_passphrase_command beside key_file, or decrypt it "
            "with: openssl pkey -in FILE -out NEW, and protect NEW with chmod 600"
        )
    try:
        key = load_pem_private_key(block, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # OpenSSL says of a wrong passphrase what it says of a damaged file.
        raise CertificateError(
            "the key cannot be decrypted: the passphrase is wrong, or the file is damaged"
            if encrypted
            else f"holds a {label.decode('ascii')} that cannot be parsed as PKCS#8, PKCS#1 or SEC 1: {error}"
        ) from error
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"holds {type(key).__name__.lstrip('_')}; EC, RSA and Ed25519 keys can be served")
    for problem in weakness(key.public_key()):
        raise CertificateError(problem)
    return key


def read_crls(content: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """Every revocation list in it; at least one.

    Raises:
        CertificateError: There is none, or one cannot be parsed.
    """
    blocks = _CRL_BLOCK.findall(content)
    if not blocks or len(blocks) != content.count(b"-----BEGIN X509 CRL-----"):
        raise CertificateError(_not_pem(content, "revocation list", "openssl crl -inform DER -in FILE"))
    try:
        return tuple(x509.load_pem_x509_crl(block) for block in blocks)
    except ValueError as error:
        raise CertificateError(f"holds a revocation list that cannot be parsed: {error}") from error


def weakness(key: PublicKey) -> Iterator[str]:
    """Why ``key`` may not be served, if so."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        yield f"an RSA key of {key.key_size} bits is too weak; at least {_MIN_RSA_BITS} are needed"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        yield f"curve {key.curve.name} cannot be used in TLS 1.3; use one of {', '.join(_CURVES)}"


def _open(file: str, flags: int) -> int:
    # Without O_NONBLOCK a FIFO would hang the daemon here, before it can be seen for what it is.
    return os.open(file, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _not_pem(content: bytes, what: str, command: str) -> str:
    # 0x30 opens an ASN.1 SEQUENCE: DER, or PKCS#12.
    binary = content[:1] == b"\x30"
    seen = "DER or PKCS#12, not PEM" if binary else f"no PEM {what} in it"
    return f"{seen}; convert it with: {command}" if binary else seen
