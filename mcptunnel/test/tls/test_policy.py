"""Tests for mcptunnel.tls.policy."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.errors import CertificateError, ConfigError
from mcptunnel.core.suites import DEFAULT_SUITES
from mcptunnel.test.tls.certs import NOW, Authority
from mcptunnel.tls.policy import Policy


class FromConfigTests(SynchronousTestCase):
    """``server.tls`` → policy."""

    def ca_file(self, content: bytes) -> str:
        file = Path(self.mktemp())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return str(file)

    def test_the_defaults(self) -> None:
        """TLS 1.2 and 1.3, the intermediate profile, no client certificates, nothing to warn about."""
        policy = Policy.from_config(TlsConfig(mode="application"), NOW)
        self.assertEqual(policy, Policy())
        self.assertEqual(policy.suites, DEFAULT_SUITES)
        self.assertTrue(policy.offers_tls12 and policy.offers_tls13)
        self.assertEqual(policy.alpn, (b"http/1.1",))

    def test_the_minimum_version_switches_tls_1_2_off(self) -> None:
        """Whatever the suites say."""
        policy = Policy.from_config(TlsConfig(min_tls_version="1.3"), NOW)
        self.assertFalse(policy.offers_tls12)
        self.assertTrue(policy.offers_tls13)

    def test_a_list_of_suites_is_the_whole_list(self) -> None:
        """A version without a suite is not offered; for TLS 1.3 that is worth a warning."""
        only13 = Policy.from_config(TlsConfig(cipher_suites=("TLS_AES_256_GCM_SHA384",)), NOW)
        self.assertEqual((only13.offers_tls12, only13.offers_tls13, only13.warnings), (False, True, ()))
        only12 = Policy.from_config(TlsConfig(cipher_suites=("ECDHE-RSA-AES256-GCM-SHA384",)), NOW)
        self.assertEqual((only12.offers_tls12, only12.offers_tls13), (True, False))
        self.assertIn("TLS 1.3 is not offered", only12.warnings[0])

    def test_every_bad_suite_is_a_finding_with_its_index(self) -> None:
        """All of them at once."""
        tls = TlsConfig(cipher_suites=("RC4-MD5", "TLS_AES_256_GCM_SHA384", "eNULL"))
        findings = self.assertRaises(ConfigError, Policy.from_config, tls, NOW).findings
        self.assertEqual([one.key for one in findings], ["server.tls.cipher_suites[0]", "server.tls.cipher_suites[2]"])

    def test_client_certificates_need_an_authority(self) -> None:
        """Otherwise everyone's, or no one's, would do."""
        root = Authority.root()
        for wanted in ("optional", "required"):
            tls = TlsConfig(client_auth=wanted)
            (finding,) = self.assertRaises(ConfigError, Policy.from_config, tls, NOW).findings
            self.assertEqual(finding.key, "server.tls.client_auth")
            policy = Policy.from_config(evolve(tls, ca_file=self.ca_file(root.pem)), NOW)
            self.assertEqual(policy.client_cas, (root.issued.certificate,))

    def test_an_authority_file_that_holds_none_is_refused(self) -> None:
        """Even when nobody asks for client certificates: it is there for a reason."""
        for file, words in ((self.ca_file(b"hello"), "no PEM certificate"), ("/no/such", "cannot be read")):
            error = self.assertRaises(CertificateError, Policy.from_config, TlsConfig(ca_file=file), NOW)
            self.assertIn(f"{file}: ", str(error))
            self.assertIn(words, str(error))
