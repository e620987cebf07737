"""Certificates for tests, minted at run time: authorities, chains, every kind of key, and everything that is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from attrs import define, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from mcptunnel.config.schema import CertificatePair
from mcptunnel.tls.material import Material, load

KeyKind = Literal["p256", "p384", "p521", "k1", "rsa2048", "rsa1024", "ed25519", "ed448", "dsa"]

# A moment in 2027. Tests that compare with the machine's clock pass their own.
NOW = 1_800_000_000.0
DAY = 86_400.0
# Valid whatever the machine's clock says, for what OpenSSL verifies: it looks at no other clock.
LONG: dict[str, Any] = {"since": -20 * 365 * DAY, "until": 50 * 365 * DAY}
LONG_AGO: dict[str, Any] = {"since": -20 * 365 * DAY, "until": -15 * 365 * DAY}


def new_key(kind: KeyKind) -> Any:
    """A fresh private key."""
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case "k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "rsa2048":
            return _rsa()
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "dsa":
            return dsa.generate_private_key(2048)


@cache
def _rsa() -> rsa.RSAPrivateKey:
    # The one slow key is made once for the whole run.
    return rsa.generate_private_key(65537, 2048)


@frozen(kw_only=True)
class Issued:
    """A certificate, its key, and the certificates that vouch for it, nearest first."""

    certificate: x509.Certificate
    key: Any
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        return b"".join(pem(certificate) for certificate in (self.certificate, *self.issuers))

    def key_pem(self, form: Literal["pkcs8", "traditional", "encrypted", "encrypted-traditional"] = "pkcs8") -> bytes:
        private_format = PrivateFormat.PKCS8 if form in ("pkcs8", "encrypted") else PrivateFormat.TraditionalOpenSSL
        secret = BestAvailableEncryption(b"secret") if "encrypted" in form else NoEncryption()
        written: bytes = self.key.private_bytes(Encoding.PEM, private_format, secret)
        return written

    def write(self, directory: str | Path, name: str = "server") -> CertificatePair:
        """Write chain and key as ``NAME.crt`` and ``NAME.key``, the key for its owner alone."""
        return write_pair(directory, name, self.chain_pem, self.key_pem())

    def material(self, directory: str | Path, name: str = "server", now: float = NOW) -> Material:
        """Written, and loaded again."""
        return load(self.write(directory, name), now)


@define(eq=False)
class Authority:
    """Issues certificates."""

    issued: Issued

    @classmethod
    def root(cls, name: str = "Test Root", kind: KeyKind = "p256") -> Authority:
        return cls(mint(name, kind=kind, ca=True, **LONG))

    def intermediate(self, name: str = "Test Intermediate", **others: Any) -> Authority:
        return Authority(mint(name, ca=True, issuer=self.issued, **{**LONG, **others}))

    def issue(self, *names: str, **others: Any) -> Issued:
        return mint(names[0] if names else "nameless", names=names, issuer=self.issued, **others)

    @property
    def pem(self) -> bytes:
        return pem(self.issued.certificate)

    def revoke(
        self, *revoked: Issued | x509.Certificate, now: float = NOW, since: float = -DAY, until: float = 30 * DAY
    ) -> bytes:
        """A revocation list of these, PEM; ``since`` and ``until`` are seconds from ``now``."""
        moment = datetime.fromtimestamp(now, UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.issued.certificate.subject)
            .last_update(moment + timedelta(seconds=since))
            .next_update(moment + timedelta(seconds=until))
        )
        for one in revoked:
            number = (one.certificate if isinstance(one, Issued) else one).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number)
            builder = builder.add_revoked_certificate(entry.revocation_date(moment + timedelta(seconds=since)).build())
        return builder.sign(self.issued.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def mint(
    subject: str,
    *,
    names: Sequence[str] = (),
    kind: KeyKind = "p256",
    ca: bool = False,
    issuer: Issued | None = None,
    now: float = NOW,
    since: float = -30 * DAY,
    until: float = 90 * DAY,
    client: bool = False,
    must_staple: bool = False,
    issuer_at: Sequence[str] = (),
    uris: Sequence[str] = (),
    key: Any = None,
) -> Issued:
    """One certificate, for a new key of ``kind`` unless ``key`` is given. Self-signed without an issuer.

    ``since`` and ``until`` are seconds from ``now``.
    """
    key = new_key(kind) if key is None else key
    moment = datetime.fromtimestamp(now, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment + timedelta(seconds=since))
        .not_valid_after(moment + timedelta(seconds=until))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(ca), critical=True)
    )
    if issuer is not None:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(authority, critical=False)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    general = [*map(_general, names), *map(x509.UniformResourceIdentifier, uris)]
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if issuer_at:
        access = [
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
            for url in issuer_at
        ]
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    if must_staple:
        feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
        builder = builder.add_extension(feature, critical=False)
    signer = issuer.key if issuer else key
    plain = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    certificate = builder.sign(signer, None if plain else hashes.SHA256())
    # The root is the client's to know; what we send ends below it.
    above = (issuer.certificate, *issuer.issuers) if issuer and not _self_signed(issuer) else ()
    return Issued(certificate=certificate, key=key, issuers=above)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def write_pair(directory: str | Path, name: str, chain: bytes, key: bytes) -> CertificatePair:
    """Two files with these bytes."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    cert_file, key_file = place / f"{name}.crt", place / f"{name}.key"
    cert_file.write_bytes(chain)
    key_file.write_bytes(key)
    os.chmod(key_file, 0o600)
    return CertificatePair(cert_file=str(cert_file), key_file=str(key_file))


def _self_signed(issued: Issued) -> bool:
    return issued.certificate.subject == issued.certificate.issuer


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
