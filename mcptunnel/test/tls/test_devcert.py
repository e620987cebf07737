"""Tests for mcptunnel.tls.devcert and the command around it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.errors import CertificateError
from mcptunnel.test.tls.certs import DAY, NOW, mint
from mcptunnel.tls.devcert import Outcome, ensure
from mcptunnel.tls.material import load


class EnsureTests(SynchronousTestCase):
    """A good pair afterwards, and nobody's files destroyed."""

    def setUp(self) -> None:
        self.directory = self.mktemp()

    def ensure(self, *names: str, now: float = NOW, force: bool = False, days: int = 365) -> Outcome:
        return ensure(self.directory, names, days, now, force=force)

    def serial(self, outcome: Outcome) -> int:
        return x509.load_pem_x509_certificate(Path(outcome.cert_file).read_bytes()).serial_number

    def test_the_first_time_it_is_made(self) -> None:
        """With the directory; the pair passes our own checks and the key is its owner's alone."""
        outcome = self.ensure("mcp.test", "192.0.2.1")
        self.assertTrue(outcome.made)
        material = load(CertificatePair(cert_file=outcome.cert_file, key_file=outcome.key_file), NOW)
        self.assertEqual(material.leaf.names, ("localhost", "mcp.test", "127.0.0.1", "::1", "192.0.2.1"))
        self.assertEqual(material.leaf.not_after, NOW + 365 * DAY)
        self.assertEqual(material.warnings, ())
        self.assertEqual(stat.S_IMODE(os.stat(outcome.key_file).st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.directory)), ["cert.pem", "key.pem"])

    def test_it_is_no_authority(self) -> None:
        """Trusting it trusts its names and nothing else."""
        certificate = x509.load_pem_x509_certificate(Path(self.ensure().cert_file).read_bytes())
        self.assertFalse(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        self.assertFalse(usage.key_cert_sign)

    def test_a_good_pair_is_kept(self) -> None:
        """Until a name is missing, or its last day has come."""
        first = self.ensure("a.test")
        again = self.ensure(now=NOW + 300 * DAY)
        self.assertEqual((again.made, self.serial(again)), (False, self.serial(first)))
        more = self.ensure("b.test")
        self.assertTrue(more.made)
        self.assertTrue(self.ensure(now=NOW + 364.5 * DAY).made)

    def test_force_makes_it_anew(self) -> None:
        """Whatever is there."""
        first = self.serial(self.ensure())
        self.assertNotEqual(self.serial(self.ensure(force=True)), first)

    def test_a_good_pair_of_somebody_else_is_kept(self) -> None:
        """A developer may have a better one."""
        Path(self.directory).mkdir(parents=True)
        issued = mint("own", names=["localhost", "127.0.0.1", "::1"])
        Path(self.directory, "cert.pem").write_bytes(issued.chain_pem)
        Path(self.directory, "key.pem").write_bytes(issued.key_pem())
        self.assertFalse(self.ensure().made)

    def test_what_is_not_ours_is_never_replaced_unasked(self) -> None:
        """A real certificate that has expired, a key without its certificate."""
        Path(self.directory).mkdir(parents=True)
        key = Path(self.directory, "key.pem")
        key.write_bytes(b"precious")
        error = self.assertRaises(CertificateError, self.ensure)
        self.assertIn("--force", str(error))
        self.assertIn("key.pem", str(error))
        Path(self.directory, "cert.pem").write_bytes(mint("real", names=["a"]).chain_pem)
        self.assertRaises(CertificateError, self.ensure)
        self.assertEqual(key.read_bytes(), b"precious")
        self.assertTrue(self.ensure(force=True).made)

    def test_a_name_that_is_none_is_refused(self) -> None:
        """Before anything is written."""
        error = self.assertRaises(CertificateError, self.ensure, "bücher.test")
        self.assertIn("xn--", str(error))
        self.assertFalse(Path(self.directory).exists())
