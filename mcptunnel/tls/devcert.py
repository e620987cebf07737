"""A self-signed certificate for a developer's machine. Nobody but its maker has reason to trust it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.certificates import DAY, covers
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.material import load

__all__ = ["DEFAULT_DAYS", "DEFAULT_NAMES", "Outcome", "ensure", "mint"]

DEFAULT_NAMES: Final = ("localhost", "127.0.0.1", "::1")
DEFAULT_DAYS: Final = 365
# By this we know our own work again, and nothing else is ever replaced unasked.
_ORGANIZATION: Final = "mcptunnel development certificate"


@frozen(kw_only=True)
class Outcome:
    """What :func:`ensure` did.

    Attributes:
        cert_file: The certificate.
        key_file: Its key.
        made: False when the pair that was there is still good.
    """

    cert_file: str
    key_file: str
    made: bool


def ensure(directory: str, names: Sequence[str], days: int, now: float, *, force: bool = False) -> Outcome:
    """See to it that ``directory`` holds ``cert.pem`` and ``key.pem`` that are good for ``names``.

    A good pair stays. One that we made and that is about to expire, or lacks a name, is made anew.

    Args:
        directory: Made if it is not there.
        names: DNS names and addresses beside :data:`DEFAULT_NAMES`.
        days: Life of a new certificate.
        now: Seconds since the epoch.
        force: Replace whatever is there.

    Raises:
        CertificateError: Something else is there, or a name is not one.
        OSError: The files cannot be written.
    """
    wanted = tuple(dict.fromkeys((*DEFAULT_NAMES, *names)))
    place = Path(directory)
    pair = CertificatePair(cert_file=str(place / "cert.pem"), key_file=str(place / "key.pem"))
    there = [file for file in (pair.cert_file, pair.key_file) if Path(file).exists()]
    if there and not force:
        if _good(pair, wanted, now):
            return Outcome(cert_file=pair.cert_file, key_file=pair.key_file, made=False)
        if not _ours(pair.cert_file):
            raise CertificateError(
                f"{', '.join(there)}: not a development certificate made by this command and not usable as one; "
                "name another directory, or replace it with --force"
            )
    certificate, key = mint(wanted, days, now)
    place.mkdir(parents=True, exist_ok=True)
    _write(pair.key_file, key, 0o600)
    _write(pair.cert_file, certificate, 0o644)
    return Outcome(cert_file=pair.cert_file, key_file=pair.key_file, made=True)


def mint(names: Sequence[str], days: int, now: float) -> tuple[bytes, bytes]:
    """A certificate and its key, both PEM.

    Raises:
        CertificateError: A name is neither an address nor an ASCII host name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64]),
        ]
    )
    start = datetime.fromtimestamp(now, UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back, for clients whose clock is behind.
        .not_valid_before(start - timedelta(hours=1))
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # Not an authority: whoever trusts it trusts these names and nothing else, even if the key is stolen.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise CertificateError(f"{name!r} is not a host name or address: {error}; write it in its xn-- form") from error


def _good(pair: CertificatePair, names: Sequence[str], now: float) -> bool:
    try:
        leaf = load(pair, now).leaf
    except CertificateError:
        return False
    return leaf.remaining(now) > DAY and all(covers(leaf, name) for name in names)


def _ours(file: str) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(Path(file).read_bytes())
    except (OSError, ValueError):
        return False
    return any(
        attribute.value == _ORGANIZATION
        for attribute in certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    )


def _write(file: str, content: bytes, mode: int) -> None:
    """Write beside and rename: who reads meanwhile meets a whole file, and its mode is right from birth."""
    beside = f"{file}.new"
    Path(beside).unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    os.replace(beside, file)
