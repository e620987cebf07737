"""What we trust, and what we show others, as facts: PEM files of authorities, of revocation lists, of our own."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from attrs import define, field
from cryptography import x509

from mcptunnel.core.certificates import Facts, Role
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import facts_of, fingerprint
from mcptunnel.tls.pem import read_chain, read_crls, read_file

__all__ = ["FactsFile", "certificates_in", "list_facts", "lists_in"]


@define(eq=False)
class FactsFile:
    """A file to look at again and again. It is parsed when its bytes have changed: a system's bundle takes 10 ms.

    Attributes:
        file: Its path.
        parse: From its bytes to facts; raises ValueError or CertificateError.
    """

    file: str
    parse: Callable[[bytes], tuple[Facts, ...]]
    _digest: bytes = field(init=False, default=b"")
    _facts: tuple[Facts, ...] = field(init=False, default=())

    def __call__(self) -> tuple[Facts, ...]:
        """The facts of what is in the file now.

        Raises:
            CertificateError: It cannot be read, or does not hold what it should. Names the file.
        """
        try:
            content = read_file(self.file)
            digest = sha256(content).digest()
            if digest != self._digest:
                self._facts, self._digest = self.parse(content), digest
        except (OSError, ValueError, CertificateError) as error:
            raise CertificateError(f"{self.file}: {error}") from None
        return self._facts


def certificates_in(file: str, role: Role) -> FactsFile:
    """Every certificate in ``file``, in its order."""
    return FactsFile(file, lambda content: tuple(facts_of(file, one, role) for one in read_chain(content)))


def lists_in(file: str) -> FactsFile:
    """Every revocation list in ``file`` that says when the next one is due; others never get old."""
    return FactsFile(
        file, lambda content: tuple(facts for one in read_crls(content) for facts in list_facts(file, one))
    )


def list_facts(file: str, found: x509.CertificateRevocationList) -> tuple[Facts, ...]:
    """The facts of a revocation list in ``file``; none of one that does not say when the next is due."""
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
    except (x509.ExtensionNotFound, ValueError):
        return ""
