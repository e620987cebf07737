"""Certificates for a developer's machine: an authority that can vouch for a few names only, and what it issues.

An authority in a trust store can otherwise speak for every site there is, and its key lies in a project's directory.
Name constraints (RFC 5280 §4.2.1.10) make a stolen key worth no more than these names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mcptunnel.core.errors import CertificateError

__all__ = ["Minted", "canonical", "is_ours", "mint_authority", "mint_leaf", "permits", "permitted"]

# By this we know our own work again, and nothing else is ever replaced unasked.
_ORGANIZATION: Final = "mcptunnel development certificate"
_NAME: Final = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# RFC 5280, upper bound of a common name.
_LONGEST: Final = 64


@frozen(kw_only=True)
class Minted:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, PKCS#8, unencrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def canonical(name: str) -> str:
    """A DNS name (``*.`` in front of it or not) or address, in the one way in which it is compared.

    Raises:
        CertificateError: It is neither.
    """
    try:
        return str(ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    name = name.lower().removesuffix(".")
    try:
        x509.DNSName(name)
    except ValueError as error:
        raise CertificateError(f"{name!r} is not a host name or address: {error}; write it in its xn-- form") from error
    if not _NAME.fullmatch(name):
        raise CertificateError(f"{name!r} is not a host name or address; write mcp.test, *.mcp.test or 192.0.2.1")
    return name


def mint_authority(names: Sequence[str], days: int, now: float) -> Minted:
    """An authority that can vouch for ``names``, and what lies below them in DNS, and for nothing else.

    Args:
        names: Canonical.
        days: Its life.
        now: Seconds since the epoch.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A second authority of the same name would confuse programs, and whoever looks at a list of them.
    subject = _subject(f"mcptunnel development CA {f'{serial:x}'[:8]}")
    constraints = x509.NameConstraints(permitted_subtrees=list(_subtrees(names)), excluded_subtrees=None)
    certificate = (
        _builder(subject, subject, key, days, now)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(constraints, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Minted(certificate=certificate, key=key)


def mint_leaf(names: Sequence[str], days: int, now: float, issuer: Minted) -> Minted:
    """A server's certificate for ``names``, by ``issuer``, which it does not outlive.

    Args:
        names: Canonical.
        days: Its life, unless the issuer's ends before.
        now: Seconds since the epoch.
        issuer: The authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    left = (issuer.certificate.not_valid_after_utc - datetime.fromtimestamp(now, UTC)) / timedelta(days=1)
    certificate = (
        _builder(_subject(names[0][:_LONGEST]), issuer.certificate.subject, key, min(days, left), now)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(signer, critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    return Minted(certificate=certificate, key=key)


def permitted(certificate: x509.Certificate) -> tuple[str, ...]:
    """What an authority of ours may vouch for; empty when it says nothing of it."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(_written(tree) for tree in constraints.permitted_subtrees or ())


def permits(names: Sequence[str], name: str) -> bool:
    """Whether an authority that may vouch for ``names`` may vouch for ``name``, too."""
    bare = name.removeprefix("*.")
    return bare in names or any(bare.endswith(f".{one}") for one in names)


def is_ours(certificate: x509.Certificate) -> bool:
    """Whether this module made it."""
    return any(
        attribute.value == _ORGANIZATION
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float, now: float
) -> x509.CertificateBuilder:
    """What an authority and a leaf have in common."""
    start = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        # An hour back, for clients whose clock is behind.
        .not_valid_before(start - timedelta(hours=1))
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _written(tree: x509.GeneralName) -> str:
    if isinstance(tree, x509.IPAddress) and isinstance(tree.value, IPv4Network | IPv6Network):
        return str(tree.value.network_address)
    return str(tree.value)


def _subtrees(names: Sequence[str]) -> Iterable[x509.GeneralName]:
    for name in dict.fromkeys(name.removeprefix("*.") for name in names):
        try:
            yield x509.IPAddress(ip_network(name))
        except ValueError:
            yield x509.DNSName(name)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
