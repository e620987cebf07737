"""A directory with a local authority and a certificate by it, for a developer's machine.

What is good stays, so that whatever was told to trust the authority goes on working: the certificate is renewed under
the same authority as long as that may vouch for its names. Nothing is installed anywhere, and no file of somebody else
is ever replaced unasked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.certificates import covers
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import facts_of, fingerprint
from mcptunnel.tls.devmint import Minted, canonical, is_ours, mint_authority, mint_leaf, permits, permitted
from mcptunnel.tls.material import load
from mcptunnel.tls.pem import read_chain, read_file, read_key

__all__ = ["DEFAULT_DAYS", "DEFAULT_NAMES", "Outcome", "ensure"]

DEFAULT_NAMES: Final = ("localhost", "127.0.0.1", "::1")
DEFAULT_DAYS: Final = 365
# Five years: to trust an authority anew is work for people, and this one can do little.
_AUTHORITY_DAYS: Final = 1825
# The share of a certificate's life below which it is made anew.
_NEARLY: Final = 0.1

Done = Literal["kept", "made", "renewed", "replaced"]


@frozen(kw_only=True)
class Outcome:
    """What :func:`ensure` did.

    Attributes:
        ca_file: The authority's certificate: what clients are told to trust.
        ca_key_file: Its key.
        cert_file: The server's certificate.
        key_file: Its key.
        authority: ``kept``, ``made`` where there was none, or ``replaced``: what trusted the old one no longer does.
        leaf: ``kept``, ``made`` or ``renewed``.
        names: What the server's certificate is good for.
        fingerprint: Of the authority, SHA-256, lower-case hexadecimal.
        reason: Why the authority was replaced; empty when it was not.
    """

    ca_file: str
    ca_key_file: str
    cert_file: str
    key_file: str
    authority: Done
    leaf: Done
    names: tuple[str, ...]
    fingerprint: str
    reason: str = ""


def ensure(directory: str, names: Sequence[str], days: int, now: float, *, force: bool = False) -> Outcome:
    """See to it that ``directory`` holds an authority and a server's certificate by it, good for ``names``.

    Names that were given before stay, unless ``force`` is given.

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
    place = _Place(path=Path(directory))
    wanted = tuple(dict.fromkeys((*DEFAULT_NAMES, *map(canonical, names))))
    before = None if force else _certificate(place.cert_file)
    if not force:
        place.check_ours()
    if before is not None:
        wanted = tuple(dict.fromkeys((*wanted, *facts_of("", before, "leaf").names)))
    old = _certificate(place.ca_file)
    if old is not None and before is not None and not force and _good(place, old, wanted, now):
        return place.outcome("kept", "kept", wanted, old)

    authority = None if force else _authority(place)
    reason = "--force was given" if force else _unfit(authority, wanted, now)
    if authority is None or reason:
        authority = mint_authority(wanted, max(days, _AUTHORITY_DAYS), now)
        done: Done = "made" if old is None else "replaced"
    else:
        done = "kept"
    leaf = mint_leaf(wanted, days, now, authority)
    place.write(authority if done != "kept" else None, leaf)
    renewed: Done = "made" if before is None or done != "kept" else "renewed"
    return place.outcome(done, renewed, wanted, authority.certificate, reason if done == "replaced" else "")


@frozen(kw_only=True)
class _Place:
    """The four files."""

    path: Path

    @property
    def ca_file(self) -> str:
        return str(self.path / "ca.pem")

    @property
    def ca_key_file(self) -> str:
        return str(self.path / "ca-key.pem")

    @property
    def cert_file(self) -> str:
        return str(self.path / "cert.pem")

    @property
    def key_file(self) -> str:
        return str(self.path / "key.pem")

    def check_ours(self) -> None:
        """Raise a CertificateError when one of the files is somebody else's."""
        foreign = []
        for cert_file, key_file in ((self.ca_file, self.ca_key_file), (self.cert_file, self.key_file)):
            certificate = _certificate(cert_file)
            if certificate is None or not is_ours(certificate):
                foreign += [file for file in (cert_file, key_file) if os.path.lexists(file)]
        if foreign:
            raise CertificateError(
                f"{', '.join(foreign)}: not made by this command, and not replaced; name another directory, or replace "
                "it with --force"
            )

    def write(self, authority: Minted | None, leaf: Minted) -> None:
        """Keys first: whoever looks at the certificates in between finds the right ones."""
        self.path.mkdir(parents=True, exist_ok=True)
        if authority is not None:
            _write(self.ca_key_file, authority.key_pem, 0o600)
            _write(self.ca_file, authority.pem, 0o644)
        _write(self.key_file, leaf.key_pem, 0o600)
        _write(self.cert_file, leaf.pem, 0o644)

    def outcome(
        self, authority: Done, leaf: Done, names: tuple[str, ...], certificate: x509.Certificate, reason: str = ""
    ) -> Outcome:
        return Outcome(
            ca_file=self.ca_file,
            ca_key_file=self.ca_key_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            authority=authority,
            leaf=leaf,
            names=names,
            fingerprint=fingerprint(certificate),
            reason=reason,
        )


def _good(place: _Place, authority: x509.Certificate, names: Sequence[str], now: float) -> bool:
    """Whether what is there can stay as it is; the authority's key is not needed for that."""
    try:
        leaf = load(CertificatePair(cert_file=place.cert_file, key_file=place.key_file), now)
        leaf.chain[0].verify_directly_issued_by(authority)
    except (CertificateError, InvalidSignature, ValueError, TypeError):
        return False
    nearly = leaf.leaf.remaining(now) < _NEARLY * leaf.leaf.life
    return not nearly and all(name in leaf.leaf.names or covers(leaf.leaf, name) for name in names)


def _authority(place: _Place) -> Minted | None:
    """The authority that is there, with its key; None when it can issue nothing."""
    certificate = _certificate(place.ca_file)
    try:
        key = read_key(read_file(place.ca_key_file))
    except (OSError, CertificateError):
        return None
    if certificate is None or not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return Minted(certificate=certificate, key=key) if key.public_key() == certificate.public_key() else None


def _unfit(authority: Minted | None, names: Sequence[str], now: float) -> str:
    """Why this authority cannot issue a certificate for ``names``; empty when it can."""
    if authority is None:
        return "its key is not there"
    facts = facts_of("", authority.certificate, "intermediate")
    if facts.remaining(now) < _NEARLY * facts.life:
        return "it is about to expire"
    allowed = permitted(authority.certificate)
    missing = [name for name in names if not permits(allowed, name)]
    return f"it may not vouch for {', '.join(missing)}" if missing else ""


def _certificate(file: str) -> x509.Certificate | None:
    """The first certificate in ``file``; None when there is none."""
    try:
        return read_chain(read_file(file))[0]
    except (OSError, CertificateError):
        return None


def _write(file: str, content: bytes, mode: int) -> None:
    """Write beside and rename: who reads meanwhile meets a whole file, and its mode is right from birth."""
    beside = f"{file}.new"
    Path(beside).unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    os.replace(beside, file)
