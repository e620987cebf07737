"""What we trust, and what we show others, as facts: PEM files of authorities, of revocation lists, of our own."""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509

from mcptunnel.core.certificates import Facts, Role
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import facts_of, fingerprint
from mcptunnel.tls.pem import read_chain, read_file

__all__ = ["certificates_in", "lists_in"]

_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def certificates_in(file: str, role: Role) -> tuple[Facts, ...]:
    """Every certificate in ``file``, in its order.

    Raises:
        CertificateError: It cannot be read, or holds none, or one that cannot be parsed. Names the file.
    """
    try:
        return tuple(facts_of(file, one, role) for one in read_chain(read_file(file)))
    except (OSError, CertificateError) as error:
        raise CertificateError(f"{file}: {error}") from None


def lists_in(file: str) -> tuple[Facts, ...]:
    """Every revocation list in ``file`` that says when the next one is due; others never get old.

    Raises:
        CertificateError: It cannot be read, or holds none, or one that cannot be parsed. Names the file.
    """
    try:
        found = [x509.load_pem_x509_crl(block) for block in _LIST.findall(read_file(file))]
        if not found:
            raise CertificateError("no PEM revocation list in it")
        return tuple(facts for one in found for facts in _life(file, one))
    except (OSError, ValueError, CertificateError) as error:
        raise CertificateError(f"{file}: {error}") from None


def _life(file: str, found: x509.CertificateRevocationList) -> tuple[Facts, ...]:
    due = found.next_update_utc
    if due is None:
        return ()
    issuer = found.issuer.rfc4514_string()
    return (
        Facts(
            file=file,
            role="crl",
            subject=issuer,
            issuer=issuer,
            serial=_number(found),
            not_before=found.last_update_utc.timestamp(),
            not_after=due.timestamp(),
            fingerprint=fingerprint(found),
        ),
    )


def _number(found: x509.CertificateRevocationList) -> str:
    try:
        return f"{found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number:x}"
    except x509.ExtensionNotFound:
        return ""
