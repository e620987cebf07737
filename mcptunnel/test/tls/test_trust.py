"""Tests for mcptunnel.tls.trust."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.certificates import Facts
from mcptunnel.core.errors import CertificateError
from mcptunnel.test.tls.certs import DAY, NOW, Authority
from mcptunnel.tls.chain import fingerprint
from mcptunnel.tls.trust import FactsFile, certificates_in, lists_in


def revocation_list(authority: Authority, *, number: int | None = 0xABC, since: float = NOW - DAY) -> bytes:
    """A list of ``authority``, renewed after a week."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.issued.certificate.subject)
        .last_update(datetime.fromtimestamp(since, UTC))
        .next_update(datetime.fromtimestamp(since + 7 * DAY, UTC))
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(authority.issued.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Case(SynchronousTestCase):
    """Files."""

    def file(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)


class CertificatesTests(Case):
    """Authorities, and what we show others."""

    def test_every_certificate_of_a_file_in_its_order(self) -> None:
        """With what is written between them."""
        one, two = Authority.root("One"), Authority.root("Two")
        file = self.file(b"One:\n" + one.pem + b"\nTwo:\n" + two.pem)
        facts = certificates_in(file, "client_ca")()
        self.assertEqual(
            [(f.subject, f.role, f.file) for f in facts], [("CN=One", "client_ca", file), ("CN=Two", "client_ca", file)]
        )
        self.assertEqual(facts[0].fingerprint, fingerprint(one.issued.certificate))

    def test_what_cannot_be_used_is_named(self) -> None:
        """The file and the reason."""
        missing = self.mktemp()
        self.assertIn(f"{missing}: ", str(self.assertRaises(CertificateError, certificates_in(missing, "upstream_ca"))))
        empty = self.file(b"nothing")
        error = self.assertRaises(CertificateError, certificates_in(empty, "upstream_ca"))
        self.assertEqual(str(error), f"{empty}: no PEM certificate in it")

    def test_a_file_is_parsed_when_it_has_changed(self) -> None:
        """And looked at each time."""
        parsed: list[bytes] = []

        def parse(content: bytes) -> tuple[Facts, ...]:
            parsed.append(content)
            if content == b"bad":
                raise ValueError("no good")
            return ()

        path = Path(self.file(b"one"))
        look = FactsFile(str(path), parse)
        for content in (b"one", b"one", b"two", b"bad", b"bad", b"two"):
            path.write_bytes(content)
            if content == b"bad":
                self.assertEqual(str(self.assertRaises(CertificateError, look)), f"{path}: no good")
            else:
                look()
        self.assertEqual(parsed, [b"one", b"two", b"bad", b"bad"])
        path.unlink()
        self.assertRaises(CertificateError, look)


class ListsTests(Case):
    """Revocation lists have a life as well."""

    def test_each_list_with_its_life_and_number(self) -> None:
        """From its date to the day when the next one is due."""
        one, two = Authority.root("One"), Authority.root("Two")
        file = self.file(revocation_list(one) + b"\n" + revocation_list(two, number=None))
        first, second = lists_in(file)()
        self.assertEqual((first.subject, first.issuer, first.role, first.file), ("CN=One", "CN=One", "crl", file))
        self.assertEqual((first.not_before, first.not_after, first.serial), (NOW - DAY, NOW + 6 * DAY, "abc"))
        self.assertEqual((second.subject, second.serial), ("CN=Two", ""))
        self.assertNotEqual(first.fingerprint, second.fingerprint)

    def test_what_cannot_be_used_is_named(self) -> None:
        """A file without a list, one with half a list, none."""
        for content, reason in (
            (Authority.root().pem, "no PEM revocation list in it"),
            (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", ""),
        ):
            file = self.file(content)
            self.assertIn(f"{file}: {reason}", str(self.assertRaises(CertificateError, lists_in(file))))
        self.assertRaises(CertificateError, lists_in(self.mktemp()))
