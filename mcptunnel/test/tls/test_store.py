"""Tests for mcptunnel.tls.store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.errors import CertificateError
from mcptunnel.core.suites import Suites
from mcptunnel.test.tls.certs import DAY, LONG, NOW, Authority, mint
from mcptunnel.test.tls.handshakes import client, refusal, server_for, shake_with
from mcptunnel.tls.context import resumed
from mcptunnel.tls.material import Material
from mcptunnel.tls.policy import Policy
from mcptunnel.tls.store import CertificateStore


class StoreTests(SynchronousTestCase):
    """Base: stores in memory, and what a client is shown."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        Path(self.directory).mkdir(parents=True)

    def material(self, *names: str, **others: object) -> Material:
        return mint(names[0], names=names, **others).material(self.directory, names[0].replace("*", "_"))  # type: ignore[arg-type]

    def store(self, *materials: Material, policy: Policy | None = None) -> CertificateStore:
        return CertificateStore.of(materials, policy or Policy())

    def shown(self, store: CertificateStore, name: bytes | None = None, version: int | None = None) -> str:
        """The subject that a client which asks for ``name`` sees."""
        mine = client(name=name, version=version)
        shake_with(mine, server_for(store, name))
        certificate = mine.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate.subject.rfc4514_string().removeprefix("CN=")


class ServerNameTests(StoreTests):
    """Which certificate a client gets."""

    def test_exact_then_wildcard_then_default(self) -> None:
        """In both versions; case and a final dot do not count."""
        store = self.store(
            self.material("default.test"),
            self.material("*.example.com"),
            self.material("mcp.example.com"),
            self.material("other.test", "also.test"),
        )
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for name, subject in (
                (None, "default.test"),
                (b"default.test", "default.test"),
                (b"mcp.example.com", "mcp.example.com"),
                (b"MCP.Example.COM", "mcp.example.com"),
                (b"a.example.com", "*.example.com"),
                (b"a.b.example.com", "default.test"),
                (b"example.com", "default.test"),
                (b"also.test", "other.test"),
                (b"unknown.test", "default.test"),
                (b"\xff\xfe", "default.test"),
            ):
                self.assertEqual(self.shown(store, name, version), subject, name)

    def test_one_certificate_serves_every_name(self) -> None:
        """There is no other to choose."""
        self.assertEqual(self.shown(self.store(self.material("a.test")), b"b.test"), "a.test")

    def test_of_two_certificates_for_a_name_the_first_counts(self) -> None:
        """The order of the file is the operator's word."""
        store = self.store(
            self.material("default.test"), self.material("one", "a.test"), self.material("two", "a.test")
        )
        self.assertEqual(self.shown(store, b"a.test"), "one")

    def test_an_unknown_name_may_be_refused(self) -> None:
        """A client that names nothing is none that names something unknown."""
        store = self.store(self.material("default.test"), self.material("*.a.test"), policy=Policy(refuse_unknown=True))
        for name in ("unknown.test", "a.test", "x.y.a.test", ""):
            self.assertIsNone(store.context_for(name), name)
        for known in (None, "default.test", "x.a.test"):
            self.assertIsNotNone(store.context_for(known), known)

    def test_naming_another_host_does_not_avoid_the_client_certificate(self) -> None:
        """``set_context`` alone would leave the verify mode of the default behind, or lose it."""
        authority = Authority.root()
        policy = Policy(client_auth="required", client_cas=(authority.issued.certificate,))
        store = self.store(self.material("default.test"), self.material("other.test"), policy=policy)
        identity = authority.issue("me", client=True, **LONG)
        for name in (b"default.test", b"other.test", b"unknown.test"):
            self.assertIsNotNone(refusal(client(name=name), server_for(store, name)))
            self.assertIsNone(refusal(client(name=name, identity=identity), server_for(store, name)))

    def test_the_minimum_version_holds_for_every_name(self) -> None:
        """OpenSSL would not carry it over; one policy for all makes it hold."""
        store = self.store(self.material("default.test"), self.material("other.test"), policy=Policy(min_version="1.3"))
        for name in (b"default.test", b"other.test"):
            mine = client(name=name, version=SSL.TLS1_2_VERSION)
            self.assertEqual(refusal(mine, server_for(store, name)), "unsupported protocol")


class ResumptionTests(StoreTests):
    """A session is worth something under its own name only, if at all."""

    def resumed(
        self,
        store: CertificateStore,
        first: bytes | None,
        second: bytes | None,
        version: int | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> bool:
        """Whether a session that was made for ``first`` is resumed by a client that asks for ``second``."""
        mine = client(name=first, version=version)
        shake_with(mine, server_for(store, first))
        session = mine.get_session()
        assert session is not None
        between()
        again = SSL.Connection(mine.get_context(), None)
        if second is not None:
            again.set_tlsext_host_name(second)
        again.set_connect_state()
        again.set_session(session)
        return resumed(shake_with(again, server_for(store, second)))

    def test_off_unless_asked_for(self) -> None:
        """In both versions."""
        store = self.store(self.material("a.test"))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertFalse(self.resumed(store, b"a.test", b"a.test", version))

    def test_under_the_same_name_only(self) -> None:
        """Not under another name of another certificate, nor of the same one, nor of a wildcard, nor under none."""
        store = self.store(
            self.material("a.test", "also-a.test"),
            self.material("b.test"),
            self.material("*.c.test"),
            policy=Policy(resumption=True),
        )
        names = (b"a.test", b"also-a.test", b"b.test", b"x.c.test", b"y.c.test", b"unknown.test", None)
        exact = {b"a.test", b"also-a.test", b"b.test"}
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for first in names:
                for second in names:
                    expected = first == second and first in exact
                    self.assertEqual(self.resumed(store, first, second, version), expected, (first, second, version))

    def test_new_keys_end_old_sessions(self) -> None:
        """As does another certificate."""
        store = self.store(self.material("a.test"), policy=Policy(resumption=True))
        others = [self.material("a.test")]
        for end, expected in ((lambda: None, True), (store.renew_keys, False), (lambda: store.swap(others), False)):
            self.assertEqual(self.resumed(store, b"a.test", b"a.test", between=end), expected)


class SwapTests(StoreTests):
    """New certificates without a dropped connection."""

    def test_the_next_connection_gets_the_new_certificate(self) -> None:
        """The default and the named ones."""
        store = self.store(self.material("old.test"))
        self.assertEqual((store.generation, self.shown(store)), (1, "old.test"))
        store.swap([self.material("new.test"), self.material("more.test")])
        self.assertEqual((store.generation, self.shown(store)), (2, "new.test"))
        self.assertEqual(self.shown(store, b"more.test"), "more.test")
        self.assertEqual([fact.subject for fact in store.facts()], ["CN=new.test", "CN=more.test"])

    def test_an_open_connection_goes_on_with_the_old_one(self) -> None:
        """Also one whose handshake has only begun."""
        store = self.store(self.material("old.test"))
        server = server_for(store)
        store.swap([self.material("new.test")])
        mine = client()
        shake_with(mine, server)
        certificate = mine.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        self.assertEqual(certificate.subject.rfc4514_string(), "CN=old.test")

    def test_a_refused_generation_changes_nothing(self) -> None:
        """Neither an empty one nor one that no client could use."""
        suites = Suites(tls12=("ECDHE-ECDSA-AES128-GCM-SHA256",), tls13=())
        store = self.store(self.material("old.test"), policy=Policy(suites=suites))
        self.assertRaises(CertificateError, store.swap, [])
        rsa = self.material("rsa.test", kind="rsa2048")
        text = str(self.assertRaises(CertificateError, store.swap, [self.material("fine.test"), rsa]))
        self.assertIn("rsa.test.crt: ", text)
        self.assertEqual((store.generation, self.shown(store)), (1, "old.test"))
        store.swap([self.material("new.test")])
        self.assertEqual(store.generation, 2)


class ConfigTests(StoreTests):
    """From ``server.tls``."""

    def test_the_default_pair_comes_first(self) -> None:
        """And all certificates of all chains have facts."""
        first = Authority.root().intermediate("Between").issue("first.test").write(self.directory, "first")
        second = mint("second.test", names=["second.test"]).write(self.directory, "second")
        tls = TlsConfig(mode="application", cert_file=first.cert_file, key_file=first.key_file, certificates=(second,))
        store = CertificateStore.from_config(tls, NOW)
        self.assertEqual(self.shown(store), "first.test")
        self.assertEqual(self.shown(store, b"second.test"), "second.test")
        self.assertEqual(
            [(fact.subject, fact.role) for fact in store.facts()],
            [("CN=first.test", "leaf"), ("CN=Between", "intermediate"), ("CN=second.test", "leaf")],
        )
        self.assertEqual(store.warnings, ())

    def test_covering_a_host_is_a_matter_of_any_certificate(self) -> None:
        """Also by wildcard."""
        store = self.store(self.material("a.test"), self.material("*.example.com"))
        self.assertTrue(store.covers("a.test") and store.covers("b.example.com"))
        self.assertFalse(store.covers("b.test"))

    def test_what_is_wrong_is_refused(self) -> None:
        """No certificate at all, a missing one, an expired one."""
        old = mint("a", names=["a"], until=-DAY).write(self.directory)
        for tls in (
            TlsConfig(mode="application"),
            TlsConfig(mode="application", cert_file="/no/such", key_file="/no/such"),
            TlsConfig(mode="application", certificates=(old,)),
        ):
            self.assertRaises(CertificateError, CertificateStore.from_config, tls, NOW)

    def test_warnings_of_policy_and_files_are_collected(self) -> None:
        """Both are for the operator."""
        pair = mint("a", names=["a"]).write(self.directory)
        Path(pair.key_file).chmod(0o644)
        tls = TlsConfig(
            mode="application",
            cert_file=pair.cert_file,
            key_file=pair.key_file,
            cipher_suites=("ECDHE-ECDSA-AES128-GCM-SHA256",),
        )
        store = CertificateStore.from_config(tls, NOW)
        self.assertEqual(len(store.warnings), 2)
