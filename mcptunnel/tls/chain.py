"""Checks on a certificate chain and what is to be known of it. Each check yields what is wrong, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import AuthorityInformationAccessOID

from mcptunnel.core.certificates import Facts, Role
from mcptunnel.tls.pem import PublicKey, weakness

__all__ = [
    "chain_facts",
    "check_complete",
    "check_leaf",
    "check_life",
    "check_links",
    "describe",
    "facts_of",
    "fingerprint",
    "self_signed",
]

# Certificate authorities date certificates back by an hour and more; our own clock may still run behind theirs.
_CLOCK_SKEW: Final = 300.0


def check_life(facts: Sequence[Facts], now: float) -> Iterator[str]:
    """Every certificate is within its life at ``now``, seconds since the epoch."""
    for position, fact in enumerate(facts, 1):
        if now >= fact.not_after:
            yield f"certificate {position} ({fact.subject}) expired {_days(now - fact.not_after)} ago; renew it"
        elif now + _CLOCK_SKEW < fact.not_before:
            yield f"certificate {position} ({fact.subject}) becomes valid in {_days(fact.not_before - now)} only"


def check_links(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    """Each certificate was issued by the next (RFC 8446 §4.4.2 lets servers be lax; clients are not)."""
    for position, (certificate, issuer) in enumerate(pairwise(chain), 1):
        if _issued(certificate, issuer):
            continue
        elsewhere = next(
            (at for at, other in enumerate(chain, 1) if other is not certificate and _issued(certificate, other)), None
        )
        fix = (
            f"its issuer is certificate {elsewhere}: order them leaf first, each followed by its issuer"
            if elsewhere is not None
            else f"put its issuer ({certificate.issuer.rfc4514_string()}) there, or remove what does not belong"
        )
        yield (
            f"certificate {position + 1} ({describe(issuer)}) did not issue certificate {position} "
            f"({describe(certificate)}); {fix}"
        )


def check_complete(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    """Whether the issuers seem to be there that a client needs.

    A doubt, no proof: a lone certificate that says where its issuer's can be had was issued by an intermediate of a
    public authority, which clients do not have. Browsers fetch it; nothing else does.
    """
    if len(chain) != 1 or chain[0].issuer == chain[0].subject:
        return
    try:
        access = chain[0].extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if any(one.access_method == AuthorityInformationAccessOID.CA_ISSUERS for one in access):
        yield (
            f"the certificate stands alone; most clients will refuse it if they do not know its issuer "
            f"({chain[0].issuer.rfc4514_string()}): use the file with the whole chain (fullchain.pem)"
        )


def check_leaf(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    """The first certificate has a usable key, names, and asks for nothing that is not offered."""
    if not chain:
        return
    leaf = chain[0]
    key = leaf.public_key()
    if not isinstance(key, PublicKey):
        yield f"certificate 1 ({describe(leaf)}) has a key of a kind that cannot be served; use EC, RSA or Ed25519"
        return
    yield from (f"certificate 1 ({describe(leaf)}): {problem}" for problem in weakness(key))
    try:
        if not _names(leaf):
            # RFC 9525 §2: the common name is no longer looked at by clients.
            yield f"certificate 1 ({describe(leaf)}) has no DNS name or address in its subject alternative name"
        if x509.TLSFeatureType.status_request in leaf.extensions.get_extension_for_class(x509.TLSFeature).value:
            yield f"certificate 1 ({describe(leaf)}) demands OCSP stapling (must-staple), which is not offered"
    except x509.ExtensionNotFound:
        pass
    except ValueError as error:
        yield f"certificate 1 ({describe(leaf)}) has an extension that cannot be parsed: {error}"


def facts_of(file: str, certificate: x509.Certificate, role: Role, flaw: str | None = None) -> Facts:
    """The facts of ``certificate``, which came from ``file`` and plays ``role``."""
    try:
        names = _names(certificate)
    except ValueError:
        names = ()
    return Facts(
        file=file,
        role=role,
        subject=describe(certificate),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        names=names,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        key=_kind(certificate),
        fingerprint=fingerprint(certificate),
        flaw=flaw,
    )


def chain_facts(file: str, chain: Sequence[x509.Certificate]) -> tuple[Facts, ...]:
    """The facts of a chain that we serve, leaf first."""
    return tuple(facts_of(file, one, "intermediate" if at else "leaf") for at, one in enumerate(chain))


def fingerprint(certificate: x509.Certificate | x509.CertificateRevocationList) -> str:
    """SHA-256 of its DER encoding, lower-case hexadecimal: what ``openssl x509 -fingerprint -sha256`` shows."""
    return certificate.fingerprint(SHA256()).hex()


def self_signed(certificate: x509.Certificate) -> bool:
    """Whether a certificate vouches for itself: it names itself as its issuer, and its own key has signed it."""
    return _issued(certificate, certificate)


def describe(certificate: x509.Certificate) -> str:
    """The subject, or the serial number of a certificate without one."""
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


# The names that RFC 5480 and RFC 8422 use first, and users know.
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def _kind(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and addresses of the subject alternative name.

    Raises:
        ValueError: An extension cannot be parsed.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = (name.lower() for name in names.get_values_for_type(x509.DNSName))
    return (*dns, *map(str, names.get_values_for_type(x509.IPAddress)))


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days" if seconds >= 2 * 86_400 else f"{seconds / 3_600:.0f} hours"
