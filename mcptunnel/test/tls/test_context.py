"""Tests for mcptunnel.tls.context: real handshakes, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import CertificateError
from mcptunnel.core.suites import Suites
from mcptunnel.test.tls.certs import DAY, LONG, LONG_AGO, Authority, Issued, KeyKind, mint
from mcptunnel.test.tls.handshakes import alert_after, client, refusal, shake_with
from mcptunnel.tls.context import build, cause, rehearse, set_groups, verify_error
from mcptunnel.tls.pem import read_crls
from mcptunnel.tls.policy import Policy

# RFC 8446 §6: a fatal alert record, and RFC 7301 §3.2: no_application_protocol(120).
NO_APPLICATION_PROTOCOL = bytes.fromhex("15 03 03 00 02 02 78")
# X509_V_ERR_UNABLE_TO_GET_CRL, X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_REVOKED.
NO_LIST, EXPIRED, REVOKED = 3, 10, 23


class ContextTests(SynchronousTestCase):
    """Base: a server end for a certificate and a policy."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        Path(self.directory).mkdir(parents=True)

    def server(self, issued: Issued | None = None, **policy: Any) -> SSL.Connection:
        material = (issued or mint("a", names=["localhost"])).material(self.directory)
        connection = SSL.Connection(build(material, Policy(**policy)), None)
        connection.set_accept_state()
        return connection


class PolicyTests(ContextTests):
    """What the policy says is what a handshake gets."""

    def test_every_kind_of_certificate_shakes_hands_in_both_versions(self) -> None:
        """And its whole chain is sent."""
        kinds: tuple[KeyKind, ...] = ("p256", "p384", "rsa2048", "ed25519")
        for kind in kinds:
            issued = Authority.root().intermediate().issue("localhost", kind=kind)
            for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
                mine = client(version=version)
                shake_with(mine, self.server(issued))
                self.assertEqual(mine.get_protocol_version_name(), name)
                chain = mine.get_peer_cert_chain(as_cryptography=True)
                self.assertEqual(chain, [issued.certificate, *issued.issuers])

    def test_the_minimum_version_refuses_the_older(self) -> None:
        """TLS 1.2 is refused when 1.3 is the minimum, and taken when it is not."""
        self.assertIsNone(refusal(client(version=SSL.TLS1_2_VERSION), self.server()))
        self.assertEqual(
            refusal(client(version=SSL.TLS1_2_VERSION), self.server(min_version="1.3")), "unsupported protocol"
        )
        self.assertIsNone(refusal(client(version=SSL.TLS1_3_VERSION), self.server(min_version="1.3")))

    def test_tls_1_1_is_always_refused(self) -> None:
        """RFC 8996."""
        old = client(version=SSL.TLS1_1_VERSION, ciphers=b"ALL:@SECLEVEL=0")
        self.assertEqual(refusal(old, self.server()), "unsupported protocol")

    def test_only_configured_suites_are_taken(self) -> None:
        """In both versions."""
        suites = Suites(tls12=("ECDHE-ECDSA-AES256-GCM-SHA384",), tls13=("TLS_CHACHA20_POLY1305_SHA256",))
        mine = client()
        shake_with(mine, self.server(suites=suites))
        self.assertEqual(mine.get_cipher_name(), "TLS_CHACHA20_POLY1305_SHA256")
        mine = client(version=SSL.TLS1_2_VERSION)
        shake_with(mine, self.server(suites=suites))
        self.assertEqual(mine.get_cipher_name(), "ECDHE-ECDSA-AES256-GCM-SHA384")
        other = client(version=SSL.TLS1_2_VERSION, ciphers=b"ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual(refusal(other, self.server(suites=suites)), "no shared cipher")

    def test_our_order_of_suites_counts(self) -> None:
        """Where TLS 1.2 is offered: whatever the client's is, in both versions."""
        # Both clients name AES-256 first; in TLS 1.3 OpenSSL's own do.
        for version, ours in (
            (SSL.TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"),
            (SSL.TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256"),
        ):
            theirs = b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"
            mine = client(version=version, ciphers=theirs)
            shake_with(mine, self.server())
            self.assertEqual(mine.get_cipher_name(), ours)

    def test_with_tls_1_3_alone_the_client_chooses(self) -> None:
        """Mozilla guidelines 6.0: server order off. OpenSSL's own client names AES-256 first."""
        mine = client(version=SSL.TLS1_3_VERSION)
        shake_with(mine, self.server(min_version="1.3"))
        self.assertEqual(mine.get_cipher_name(), "TLS_AES_256_GCM_SHA384")

    def test_a_client_that_names_chacha20_first_gets_it(self) -> None:
        """A telephone without AES hardware knows why."""
        mine = client(
            version=SSL.TLS1_2_VERSION, ciphers=b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
        )
        shake_with(mine, self.server())
        self.assertEqual(mine.get_cipher_name(), "ECDHE-ECDSA-CHACHA20-POLY1305")

    def test_suites_without_authenticated_encryption_or_forward_secrecy_are_not_offered(self) -> None:
        """To an RSA key neither."""
        issued = mint("a", names=["a"], kind="rsa2048")
        for name in (b"AES128-GCM-SHA256", b"ECDHE-RSA-AES128-SHA", b"DHE-RSA-AES128-GCM-SHA256"):
            mine = client(version=SSL.TLS1_2_VERSION, ciphers=name + b":@SECLEVEL=0")
            self.assertEqual(refusal(mine, self.server(issued)), "no shared cipher", name.decode())

    def test_key_exchange_is_post_quantum_where_the_client_can(self) -> None:
        """And X25519 where it cannot."""
        mine = client()
        server = shake_with(mine, self.server())
        self.assertEqual(server.get_group_name(), "X25519MLKEM768")
        server = shake_with(client(groups=b"X25519"), self.server())
        self.assertEqual((server.get_group_name() or "").lower(), "x25519")

    def test_other_groups_are_refused(self) -> None:
        """What the helper below pyOpenSSL is for: the library's own list has these."""
        for group in (b"P-521", b"X448"):
            self.assertIsNotNone(refusal(client(groups=group), self.server()), group.decode())

    def test_no_session_can_be_resumed(self) -> None:
        """No ticket and no session, so that none can move between virtual hosts."""
        mine = client(version=SSL.TLS1_2_VERSION)
        server = self.server()
        shake_with(mine, server)
        again = SSL.Connection(mine.get_context(), None)
        again.set_connect_state()
        session = mine.get_session()
        assert session is not None
        again.set_session(session)
        second = SSL.Connection(server.get_context(), None)
        second.set_accept_state()
        shake_with(again, second)
        self.assertNotEqual(again.master_key(), mine.master_key())


class AlpnTests(ContextTests):
    """RFC 7301: no guessing about what is spoken inside."""

    def test_http_1_1_is_chosen(self) -> None:
        """Also from among others."""
        mine = client(alpn=[b"h2", b"http/1.1"])
        shake_with(mine, self.server())
        self.assertEqual(mine.get_alpn_proto_negotiated(), b"http/1.1")

    def test_a_client_without_alpn_is_served(self) -> None:
        """It speaks HTTP/1.1."""
        mine = client()
        shake_with(mine, self.server())
        self.assertEqual(mine.get_alpn_proto_negotiated(), b"")

    def test_a_client_of_another_protocol_gets_the_alert_for_it(self) -> None:
        """Against ALPACA: a request meant for an FTP or h2 server is never read as ours."""
        for offered in ([b"h2"], [b"ftp"]):
            self.assertEqual(alert_after(client(alpn=offered), self.server()), NO_APPLICATION_PROTOCOL)


class ClientCertificateTests(ContextTests):
    """``client_auth``."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority.root("Client Root")
        self.known = self.authority.issue("client", client=True, **LONG)
        self.through = self.authority.intermediate().issue("client", client=True, **LONG)
        self.unknown = Authority.root("Other Root").issue("client", client=True, **LONG)
        self.expired = self.authority.issue("client", client=True, **LONG_AGO)
        self.for_servers = self.authority.issue("client", **LONG)

    def asking(self, how: str) -> SSL.Connection:
        return self.server(client_auth=how, client_cas=(self.authority.issued.certificate,))

    def test_none_does_not_ask(self) -> None:
        """A client that has one keeps it to itself."""
        server = shake_with(client(identity=self.known), self.asking("none"))
        self.assertIsNone(server.get_peer_certificate(as_cryptography=True))

    def test_required_takes_only_certificates_of_its_authority(self) -> None:
        """In both versions."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for identity in (self.known, self.through):
                server = shake_with(client(identity=identity, version=version), self.asking("required"))
                self.assertEqual(server.get_peer_certificate(as_cryptography=True), identity.certificate)
            for bad in (None, self.unknown, self.expired, self.for_servers):
                self.assertIsNotNone(refusal(client(identity=bad, version=version), self.asking("required")))

    def test_optional_takes_none_or_a_good_one(self) -> None:
        """A bad one is refused, not ignored."""
        server = shake_with(client(), self.asking("optional"))
        self.assertIsNone(server.get_peer_certificate(as_cryptography=True))
        server = shake_with(client(identity=self.known), self.asking("optional"))
        self.assertEqual(server.get_peer_certificate(as_cryptography=True), self.known.certificate)
        self.assertEqual(refusal(client(identity=self.unknown), self.asking("optional")), "certificate verify failed")

    def test_what_is_on_a_revocation_list_is_refused(self) -> None:
        """The certificate itself, one that was issued below a revoked one, and one of an authority without a list."""
        below = self.authority.intermediate("Below")
        both = (self.authority.issued.certificate, below.issued.certificate)
        good, bad = below.issue("good", client=True, **LONG), below.issue("bad", client=True, **LONG)
        lists = {"since": -19 * 365 * DAY, "until": 49 * 365 * DAY}

        def verdict(identity: Issued, top: bytes, under: bytes, version: int) -> int | str | None:
            crls = read_crls(top + under)
            server = self.server(client_auth="required", client_cas=both, crls=crls)
            refused = refusal(client(identity=identity, version=version), server)
            return verify_error(server) if refused else None

        clean = self.authority.revoke(**lists), below.revoke(**lists)
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertIsNone(verdict(good, *clean, version))
            self.assertEqual(verdict(bad, clean[0], below.revoke(bad, **lists), version), REVOKED)
            self.assertEqual(verdict(good, self.authority.revoke(below.issued, **lists), clean[1], version), REVOKED)
            other = self.authority.intermediate("Without").issue("c", client=True, **LONG)
            self.assertEqual(verdict(other, *clean, version), NO_LIST)
            self.assertEqual(verdict(self.expired, *clean, version), EXPIRED)

    def test_the_client_is_told_whose_certificates_are_taken(self) -> None:
        """So that it can choose the right one."""
        mine = client(identity=self.known, version=SSL.TLS1_2_VERSION)
        shake_with(mine, self.asking("required"))
        self.assertEqual([name.CN for name in mine.get_client_ca_list()], ["Client Root"])


class RehearseTests(ContextTests):
    """What no client could use is found at once."""

    def rehearse(self, kind: KeyKind, **policy: Any) -> None:
        material = mint("a", names=["a"], kind=kind).material(self.directory)
        rules = Policy(**policy)
        rehearse(build(material, rules), material, rules)

    def test_everything_that_loads_passes_by_default(self) -> None:
        """P-521 too, which is no key exchange group of ours but a fine signature."""
        kinds: tuple[KeyKind, ...] = ("p256", "p384", "p521", "rsa2048", "ed25519")
        for kind in kinds:
            self.rehearse(kind, min_version="1.3")
        for kind in ("p256", "p384", "rsa2048", "ed25519"):
            self.rehearse(kind)

    def test_suites_that_do_not_go_with_the_key_are_refused(self) -> None:
        """The file, the version, the reason and the fix."""
        suites = Suites(tls12=("ECDHE-ECDSA-AES128-GCM-SHA256",), tls13=("TLS_AES_128_GCM_SHA256",))
        self.rehearse("p256", suites=suites)
        text = str(self.assertRaises(CertificateError, self.rehearse, "rsa2048", suites=suites))
        for words in ("server.crt: ", "TLS 1.2", "no shared cipher", "RSA key"):
            self.assertIn(words, text)

    def test_required_client_certificates_do_not_get_in_the_way(self) -> None:
        """We have none to show ourselves."""
        self.rehearse("p256", client_auth="required", client_cas=(Authority.root().issued.certificate,))


class HelperTests(SynchronousTestCase):
    """The one place below pyOpenSSL, and the words for errors."""

    def test_groups_are_set_and_unknown_ones_left_out(self) -> None:
        """An older OpenSSL has no X25519MLKEM768; what is set then is the rest, and no error is left behind."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.assertTrue(set_groups(context, ("X25519MLKEM768", "X25519")))
        for groups in (("NOSUCHGROUP", "X448"), ("X448", "NOSUCHGROUP"), ("NOSUCHGROUP", "X448", "NEITHER")):
            self.assertTrue(set_groups(context, groups), groups)
        self.assertFalse(set_groups(context, ("NOSUCHGROUP",)))
        context.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256")

    def test_without_the_function_the_library_s_list_stays(self) -> None:
        """It is private to pyOpenSSL and may go away."""
        self.patch(SSL, "_lib", object())
        self.assertFalse(set_groups(object(), ("X25519",)))  # type: ignore[arg-type]

    def test_causes(self) -> None:
        """OpenSSL's queue, or any exception's own text, or its name."""
        self.assertEqual(cause(SSL.Error([("a", "b", "no shared cipher"), ("", "", "bad")])), "no shared cipher, bad")
        self.assertEqual(cause(ValueError("what")), "what")
        self.assertEqual(cause(SSL.Error()), "Error")
