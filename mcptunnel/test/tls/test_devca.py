"""Tests for mcptunnel.tls.devca, with mcptunnel.tls.devmint below it."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.errors import CertificateError
from mcptunnel.test.tls.certs import DAY, NOW, mint
from mcptunnel.tls.devca import Outcome, ensure
from mcptunnel.tls.devmint import canonical, permits, permitted
from mcptunnel.tls.material import load


def certificate(file: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(file).read_bytes())


class EnsureTests(SynchronousTestCase):
    """A good certificate afterwards, trust that lasts, and nobody's files destroyed."""

    def setUp(self) -> None:
        self.directory = self.mktemp()

    def ensure(self, *names: str, now: float = NOW, force: bool = False, days: int = 365) -> Outcome:
        return ensure(self.directory, names, days, now, force=force)

    def did(self, outcome: Outcome) -> tuple[str, str]:
        return outcome.authority, outcome.leaf

    def test_the_first_time_everything_is_made(self) -> None:
        """With the directory; the pair passes our own checks and the keys are their owner's alone."""
        outcome = self.ensure("MCP.test.", "192.0.2.1")
        self.assertEqual(self.did(outcome), ("made", "made"))
        material = load(CertificatePair(cert_file=outcome.cert_file, key_file=outcome.key_file), NOW)
        self.assertEqual(material.leaf.names, ("localhost", "mcp.test", "127.0.0.1", "::1", "192.0.2.1"))
        self.assertEqual(material.leaf.not_after, NOW + 365 * DAY)
        self.assertEqual((len(material.chain), material.warnings), (1, ()))
        for key_file in (outcome.key_file, outcome.ca_key_file):
            self.assertEqual(stat.S_IMODE(os.stat(key_file).st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.directory)), ["ca-key.pem", "ca.pem", "cert.pem", "key.pem"])
        material.chain[0].verify_directly_issued_by(certificate(outcome.ca_file))

    def test_the_authority_can_vouch_for_these_names_only(self) -> None:
        """RFC 5280 §4.2.1.10, critical; and for no further authority."""
        extensions = certificate(self.ensure("mcp.test", "*.dev.test", "192.0.2.1").ca_file).extensions
        constraints = extensions.get_extension_for_class(x509.NameConstraints)
        self.assertTrue(constraints.critical)
        self.assertEqual(
            list(constraints.value.permitted_subtrees or ()),
            [
                x509.DNSName("localhost"),
                x509.IPAddress(ip_network("127.0.0.1/32")),
                x509.IPAddress(ip_network("::1/128")),
                x509.DNSName("mcp.test"),
                x509.DNSName("dev.test"),
                x509.IPAddress(ip_network("192.0.2.1/32")),
            ],
        )
        basic = extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertEqual((basic.critical, basic.value.ca, basic.value.path_length), (True, True, 0))
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical)
        self.assertEqual((usage.value.key_cert_sign, usage.value.digital_signature), (True, False))

    def test_what_is_good_is_kept(self) -> None:
        """Also without the authority's key, which a careful person takes away."""
        first = self.ensure("a.test")
        os.unlink(first.ca_key_file)
        for names in ((), ("a.test",), ("A.TEST", "127.0.0.1")):
            again = self.ensure(*names, now=NOW + 300 * DAY)
            self.assertEqual(self.did(again), ("kept", "kept"))
            self.assertEqual(again.fingerprint, first.fingerprint)
            self.assertIn("a.test", again.names)

    def test_renewal_keeps_the_authority_and_the_names(self) -> None:
        """So that trust stays: at the end of its life, and for a name that is permitted already."""
        first = self.ensure("a.test")
        later = self.ensure(now=NOW + 330 * DAY)
        self.assertEqual(self.did(later), ("kept", "renewed"))
        self.assertEqual(later.fingerprint, first.fingerprint)
        self.assertIn("a.test", later.names)
        below = self.ensure("x.a.test", now=NOW + 331 * DAY)
        self.assertEqual((self.did(below), below.reason), (("kept", "renewed"), ""))
        pair = CertificatePair(cert_file=below.cert_file, key_file=below.key_file)
        self.assertIn("x.a.test", load(pair, NOW + 331 * DAY).leaf.names)

    def test_a_new_name_needs_a_new_authority(self) -> None:
        """It is said which; the names from before stay."""
        first = self.ensure("a.test")
        subject = certificate(first.ca_file).subject
        more = self.ensure("b.test")
        self.assertEqual(self.did(more), ("replaced", "made"))
        self.assertEqual(more.reason, "it may not vouch for b.test")
        self.assertEqual(more.names, ("localhost", "127.0.0.1", "::1", "b.test", "a.test"))
        self.assertNotEqual(more.fingerprint, first.fingerprint)
        self.assertNotEqual(certificate(more.ca_file).subject, subject, "two authorities of one name confuse programs")

    def test_an_old_authority_is_replaced_with_its_certificate(self) -> None:
        """Before a certificate by it would be cut short to nothing."""
        self.ensure()
        for years, did in ((1, ("kept", "renewed")), (2, ("kept", "renewed")), (4.6, ("replaced", "made"))):
            outcome = self.ensure(now=NOW + years * 365 * DAY)
            self.assertEqual(self.did(outcome), did, years)
        self.assertEqual(outcome.reason, "it is about to expire")

    def test_a_certificate_does_not_outlive_its_authority(self) -> None:
        """Nobody would take it."""
        self.ensure()
        outcome = self.ensure(now=NOW + 4.4 * 365 * DAY)
        self.assertEqual(self.did(outcome), ("kept", "renewed"))
        leaf, authority = certificate(outcome.cert_file), certificate(outcome.ca_file)
        self.assertEqual(leaf.not_valid_after_utc, authority.not_valid_after_utc)

    def test_without_its_key_an_authority_is_replaced_when_it_is_needed(self) -> None:
        """Not before."""
        first = self.ensure()
        os.unlink(first.ca_key_file)
        outcome = self.ensure(now=NOW + 350 * DAY)
        self.assertEqual((self.did(outcome), outcome.reason), (("replaced", "made"), "its key is not there"))

    def test_a_broken_pair_is_mended(self) -> None:
        """Ours, but useless: without its key, or with another one."""
        first = self.ensure()
        for content in (None, mint("other").key_pem()):
            if content is None:
                os.unlink(first.key_file)
            else:
                Path(first.key_file).write_bytes(content)
            self.assertEqual(self.did(self.ensure()), ("kept", "renewed"))
            load(CertificatePair(cert_file=first.cert_file, key_file=first.key_file), NOW)

    def test_force_makes_everything_anew(self) -> None:
        """With exactly the names given."""
        first = self.ensure("a.test")
        outcome = self.ensure("b.test", force=True)
        self.assertEqual(self.did(outcome), ("replaced", "made"))
        self.assertNotIn("a.test", outcome.names)
        self.assertNotEqual(outcome.fingerprint, first.fingerprint)

    def test_a_self_signed_certificate_of_an_older_version_is_replaced(self) -> None:
        """It was ours."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mcptunnel development certificate")])
        start = datetime.fromtimestamp(NOW, UTC)
        old = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=9))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("mcp.test")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        Path(self.directory).mkdir(parents=True)
        Path(self.directory, "cert.pem").write_bytes(old.public_bytes(Encoding.PEM))
        Path(self.directory, "key.pem").write_bytes(b"old")
        outcome = self.ensure()
        self.assertEqual(self.did(outcome), ("made", "made"))
        self.assertIn("mcp.test", outcome.names)

    def test_what_is_not_ours_is_never_replaced_unasked(self) -> None:
        """A real certificate, a key without its certificate, an authority."""
        for number, files in enumerate((("key.pem",), ("cert.pem", "key.pem"), ("ca.pem",), ("ca-key.pem",))):
            self.directory = self.mktemp()
            Path(self.directory).mkdir(parents=True)
            for file in files:
                real = mint("real", names=["localhost"]).chain_pem if file == "cert.pem" else b"precious"
                Path(self.directory, file).write_bytes(real)
            error = self.assertRaises(CertificateError, self.ensure)
            self.assertIn("--force", str(error), number)
            for file in files:
                self.assertIn(file, str(error))
            self.assertEqual(sorted(os.listdir(self.directory)), sorted(files))
            self.assertEqual(self.ensure(force=True).leaf, "made")

    def test_a_name_that_is_none_is_refused(self) -> None:
        """Before anything is written."""
        for name in ("bücher.test", "a b", "", "a..b", "http://a", "*", "a.*.b"):
            self.assertRaises(CertificateError, self.ensure, name)
        self.assertIn("xn--", str(self.assertRaises(CertificateError, self.ensure, "bücher.test")))
        self.assertFalse(Path(self.directory).exists())


class NameTests(SynchronousTestCase):
    """Names as they are compared."""

    def test_names_are_written_in_one_way(self) -> None:
        """Case, the last dot, brackets and zeros do not count."""
        for name, expected in (("A.Test.", "a.test"), ("[::1]", "::1"), ("0:0:0:0:0:0:0:1", "::1"), ("*.A", "*.a")):
            self.assertEqual(canonical(name), expected)

    def test_an_authority_permits_what_lies_below_a_name(self) -> None:
        """DNS constraints are so; addresses are exact, and a mere ending is no parent."""
        names = ("a.test", "192.0.2.1")
        for name, allowed in (
            ("a.test", True),
            ("x.a.test", True),
            ("*.a.test", True),
            ("ba.test", False),
            ("test", False),
            ("192.0.2.1", True),
            ("192.0.2.2", False),
        ):
            self.assertEqual(permits(names, name), allowed, name)

    def test_a_certificate_without_constraints_permits_nothing(self) -> None:
        """It is none of ours."""
        self.assertEqual(permitted(mint("a", ca=True).certificate), ())
