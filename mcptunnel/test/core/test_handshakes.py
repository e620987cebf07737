"""Tests for mcptunnel.core.handshakes, on what this OpenSSL says when a real handshake fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.handshakes import HINTS, explain
from mcptunnel.test.tls.certs import LONG, LONG_AGO, Authority, mint
from mcptunnel.test.tls.handshakes import client, refusal, step
from mcptunnel.tls.context import build, cause, verify_error
from mcptunnel.tls.policy import Policy


class CauseTests(SynchronousTestCase):
    """What somebody who reads the log can do something about has a label of its own."""

    def server(self, **policy: Any) -> SSL.Connection:
        place = self.mktemp()
        Path(place).mkdir(parents=True)
        context = build(mint("a", names=["a"]).material(place), Policy(**policy))
        server = SSL.Connection(context, None)
        server.set_accept_state()
        return server

    def label(self, mine: SSL.Connection, **policy: Any) -> str:
        server = self.server(**policy)
        said = refusal(mine, server)
        assert said is not None
        found = explain(said, verify_error(server))
        self.assertIn(found.label, HINTS)
        return found.label

    def test_nothing_in_common(self) -> None:
        """Versions, suites, groups, protocols."""
        self.assertEqual(
            self.label(client(version=SSL.TLS1_1_VERSION, ciphers=b"ALL:@SECLEVEL=0")), "no_shared_version"
        )
        self.assertEqual(self.label(client(version=SSL.TLS1_2_VERSION), min_version="1.3"), "no_shared_version")
        self.assertEqual(
            self.label(client(version=SSL.TLS1_2_VERSION, ciphers=b"ECDHE-RSA-AES128-GCM-SHA256")), "no_shared_cipher"
        )
        self.assertEqual(self.label(client(groups=b"X448")), "no_shared_cipher")
        self.assertEqual(self.label(client(alpn=[b"h2"])), "no_shared_protocol")

    def test_the_clients_certificate(self) -> None:
        """Missing, expired, of another authority; revoked."""
        root = Authority.root()
        asked: dict[str, Any] = {"client_auth": "required", "client_cas": (root.issued.certificate,)}
        self.assertEqual(self.label(client(), **asked), "client_certificate_missing")
        for identity, label in (
            (root.issue("a", client=True, **LONG_AGO), "client_certificate_expired"),
            (Authority.root().issue("a", client=True, **LONG), "client_certificate_unknown_ca"),
            (root.issue("a", **LONG), "client_certificate_refused"),
        ):
            self.assertEqual(self.label(client(identity=identity), **asked), label)
        self.assertEqual(explain("certificate verify failed", 23).label, "client_certificate_revoked")

    def test_our_certificate(self) -> None:
        """What clients say of it in their alerts."""
        for roots, label in ((None, "unknown_ca"), ("other", "unknown_ca")):
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_verify(SSL.VERIFY_PEER, lambda *told: bool(told[-1]))
            mine = SSL.Connection(context, None)
            mine.set_connect_state()
            server = self.server()
            answer = step(server, step(mine))
            mine.bio_write(answer)
            with self.assertRaises(SSL.Error):
                mine.do_handshake()
            server.bio_write(mine.bio_read(65536))
            with self.assertRaises(SSL.Error) as refused:
                server.do_handshake()
            self.assertEqual(explain(cause(refused.exception)).label, label, roots)
        self.assertEqual(explain("ssl/tls alert certificate expired").label, "server_certificate_refused")
        self.assertEqual(explain("sslv3 alert bad certificate").label, "server_certificate_refused")

    def test_no_tls_at_all(self) -> None:
        """Noise within a record."""
        server = self.server()
        with self.assertRaises(SSL.Error) as refused:
            server.bio_write(b"\x16\x03\x01\x00\x05hello")
            server.do_handshake()
        self.assertEqual(explain(cause(refused.exception)).label, "protocol_error")

    def test_what_has_no_row_is_shown_as_it_is(self) -> None:
        """Nobody has to guess what OpenSSL has said."""
        found = explain("something new")
        self.assertEqual((found.label, found.hint), ("other", "for a reason of its own (something new)"))

    def test_the_other_side_is_gone(self) -> None:
        """In the words of Twisted and of OpenSSL."""
        for said in (
            "Connection was closed cleanly.",
            "Connection to the other side was lost in a non-clean fashion: Connection lost.",
            "unexpected eof while reading",
        ):
            self.assertEqual(explain(said).label, "closed", said)
