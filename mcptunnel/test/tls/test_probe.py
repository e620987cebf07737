"""Tests for mcptunnel.tls.probe, against servers in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.test.tls.certs import LONG, LONG_AGO, Authority, Issued
from mcptunnel.test.tls.handshakes import outgoing
from mcptunnel.tls.probe import Presented, Probe, ProbeError


class Server:
    """One end in memory; what it was asked for is kept."""

    def __init__(self, issued: Issued, *, version: int | None = None, asks: bool = False) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        if version is not None:
            context.set_max_proto_version(version)
        context.use_certificate(crypto.X509.from_cryptography(issued.certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(issued.key))
        for one in issued.issuers:
            context.add_extra_chain_cert(crypto.X509.from_cryptography(one))
        if asks:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        self.names: list[bytes | None] = []
        context.set_tlsext_servername_callback(lambda connection: self.names.append(connection.get_servername()))
        self.tls = SSL.Connection(context, None)
        self.tls.set_accept_state()
        self.told_to_leave = False

    def answer(self, said: bytes) -> bytes:
        self.tls.bio_write(said)
        with contextlib.suppress(SSL.WantReadError, SSL.Error):
            self.tls.do_handshake()
            try:
                self.tls.recv(1)
            except SSL.ZeroReturnError:
                self.told_to_leave = True
        return outgoing(self.tls)


class ProbeTests(SynchronousTestCase):
    """What a server shows, and what would be said against it."""

    def setUp(self) -> None:
        self.root = Authority.root()
        self.trust = [self.root.issued.certificate]

    def run_probe(self, server: Server, name: str | None = "a.test", trust: Any = None, piece: int = 1 << 20) -> Probe:
        probe = Probe(name, self.trust if trust is None else trust)
        said = probe.start()
        for _ in range(8):
            if not said:
                break
            heard, said = server.answer(said), b""
            for at in range(0, len(heard), piece):
                said += probe.receive(heard[at : at + piece])
        return probe

    def shown(self, issued: Issued, **others: Any) -> Presented:
        result = self.run_probe(Server(issued), **others).result
        assert result is not None
        return result

    def leaf(self, *names: str, **others: Any) -> Issued:
        return self.root.issue(*(names or ("a.test",)), **{**LONG, **others})

    def test_a_good_server_shows_its_chain_and_has_no_flaw(self) -> None:
        """Version, suite and group are those of the handshake."""
        issued = self.root.intermediate().issue("a.test", **LONG)
        shown = self.shown(issued)
        self.assertEqual(shown.chain, (issued.certificate, *issued.issuers))
        self.assertEqual((shown.flaws, shown.failure, shown.version), ((), None, "TLSv1.3"))
        self.assertTrue(shown.cipher.startswith("TLS_"), shown.cipher)
        self.assertNotEqual(shown.group, "")

    def test_the_size_of_the_pieces_does_not_matter(self) -> None:
        """Byte by byte it is the same chain."""
        issued = self.leaf()
        self.assertEqual(self.shown(issued, piece=1).chain, (issued.certificate,))

    def test_each_flaw_is_noted_and_the_handshake_goes_on(self) -> None:
        """What a client that checks would stop at."""
        other = Authority.root("Other")
        weak = self.root.intermediate("Old", **LONG_AGO).issue("a.test", **LONG)
        missing = self.root.intermediate().issue("a.test", **LONG)
        cases: Sequence[tuple[Issued, Any, str]] = (
            (self.leaf(**LONG_AGO), None, "certificate has expired"),
            (self.leaf(since=40 * 365 * 86400.0, until=50 * 365 * 86400.0), None, "certificate is not yet valid"),
            (self.leaf(), [other.issued.certificate], "unable to get local issuer certificate"),
            (weak, None, "certificate has expired (CN=Old)"),
            (
                Issued(certificate=missing.certificate, key=missing.key),
                None,
                "unable to get local issuer certificate",
            ),
        )
        for issued, trust, flaw in cases:
            shown = self.shown(issued, trust=trust)
            # How OpenSSL goes on after these words depends on its version.
            self.assertEqual(shown.flaws[0][: len(flaw)], flaw)
            self.assertEqual(shown.chain[0], issued.certificate)
            self.assertEqual(len(shown.flaws), len(set(shown.flaws)))
            self.assertIsNone(shown.failure)

    def test_without_anchors_those_of_the_system_count(self) -> None:
        """To which our authority does not belong."""
        probe = Probe("a.test")
        server = Server(self.leaf())
        probe.receive(server.answer(probe.start()))
        assert probe.result is not None
        self.assertEqual(probe.result.flaws[0], "unable to get local issuer certificate")

    def test_a_name_is_asked_for_and_an_address_is_not(self) -> None:
        """RFC 6066 §3: literal addresses are not permitted there."""
        for name, asked in (("a.test", b"a.test"), ("192.0.2.1", None), ("2001:db8::1", None), (None, None)):
            server = Server(self.leaf())
            self.run_probe(server, name)
            self.assertEqual([name for name in server.names if name is not None], [asked] if asked else [])

    def test_it_says_that_it_leaves(self) -> None:
        """When it is asked to. Nothing else is ever sent; the server has no error to log."""
        for version in (None, SSL.TLS1_2_VERSION):
            server = Server(self.leaf(), version=version)
            probe = self.run_probe(server)
            self.assertFalse(server.told_to_leave)
            server.answer(probe.leave())
            self.assertTrue(server.told_to_leave)

    def test_a_server_that_wants_to_see_ours_has_shown_its_own(self) -> None:
        """TLS 1.2 ends with an alert, after the certificates; in TLS 1.3 the refusal comes when we have left."""
        issued = self.leaf()
        for version, name, failure in ((SSL.TLS1_2_VERSION, "TLSv1.2", "handshake failure"), (None, "TLSv1.3", "")):
            result = self.run_probe(Server(issued, version=version, asks=True)).result
            assert result is not None
            self.assertEqual((result.chain, result.version), ((issued.certificate,), name))
            self.assertIn(failure, result.failure or "")

    def test_whatever_speaks_no_tls_shows_nothing(self) -> None:
        """And so does one that hangs up."""
        probe = Probe("a.test")
        probe.start()
        self.assertRaises(ProbeError, probe.receive, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        probe = Probe("a.test")
        probe.start()
        error = self.assertRaises(ProbeError, probe.lost)
        self.assertEqual(str(error), "the connection was closed during the handshake")

    def test_a_loss_afterwards_changes_nothing(self) -> None:
        """The result stays."""
        probe = self.run_probe(Server(self.leaf()))
        result = probe.result
        probe.lost()
        self.assertIs(probe.result, result)

    def test_a_server_that_is_lost_half_way_has_shown_nothing(self) -> None:
        """The first bytes hold no certificate."""
        server = Server(self.leaf())
        probe = Probe("a.test")
        probe.receive(server.answer(probe.start())[:40])
        self.assertRaises(ProbeError, probe.lost)
