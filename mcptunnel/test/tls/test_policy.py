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


class ProfileTests(SynchronousTestCase):
    """Mozilla's guidelines."""

    def test_modern_is_tls_1_3_only(self) -> None:
        """Once the configuration has settled the version; groups are those of both profiles."""
        policy = Policy.from_config(TlsConfig(profile="modern", min_tls_version="1.3"), NOW)
        self.assertEqual((policy.offers_tls12, policy.offers_tls13), (False, True))
        self.assertEqual(policy.groups, ("X25519MLKEM768", "X25519", "P-256", "P-384"))

    def test_what_is_written_comes_before_the_profile(self) -> None:
        """Suites and groups."""
        tls = TlsConfig(cipher_suites=("TLS_AES_128_GCM_SHA256",), groups=("P-256",), session_resumption=True)
        policy = Policy.from_config(evolve(tls, unknown_name="refuse"), NOW)
        self.assertEqual((policy.suites.tls13, policy.groups), (("TLS_AES_128_GCM_SHA256",), ("P-256",)))
        self.assertTrue(policy.resumption and policy.refuse_unknown)


class RevocationTests(SynchronousTestCase):
    """``crl_file``: every authority has its list, signed by it and not too old."""

    def setUp(self) -> None:
        self.root = Authority.root("Root")
        self.below = self.root.intermediate("Below")

    def written(self, content: bytes) -> str:
        file: str = self.mktemp()
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(content)
        return file

    def policy(self, *lists: bytes) -> Policy:
        tls = TlsConfig(
            client_auth="required",
            ca_file=self.written(self.root.pem + self.below.pem),
            crl_file=self.written(b"".join(lists)),
        )
        return Policy.from_config(tls, NOW)

    def refused(self, *lists: bytes) -> str:
        with self.assertRaises(CertificateError) as refused:
            self.policy(*lists)
        error: Exception = refused.exception
        return str(error)

    def test_a_list_for_each_authority(self) -> None:
        """In any order."""
        self.assertEqual(len(self.policy(self.below.revoke(), self.root.revoke()).crls), 2)

    def test_what_would_refuse_every_client_is_refused(self) -> None:
        """A missing list, an old one, one of somebody else, none at all, half of one."""
        root, below = self.root.revoke(), self.below.revoke()
        self.assertIn("holds no list of CN=Below", self.refused(root))
        self.assertIn("the list of CN=Below ended at", self.refused(root, self.below.revoke(until=-1)))
        self.assertIn("is not signed by an authority", self.refused(root, below, Authority.root("Other").revoke()))
        self.assertIn("is not signed by an authority", self.refused(root, Authority.root("Below").revoke()))
        self.assertIn("no PEM revocation list", self.refused(b"nothing"))
        self.assertIn("no PEM revocation list", self.refused(root, below[:-30]))
