"""Tests for mcptunnel.cli.certs.check and mcptunnel.cli.certs.flaws; tests/test_certs_command.py has real servers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mcptunnel.cli.certs import check
from mcptunnel.cli.certs.connect import DialError, Way
from mcptunnel.cli.certs.dial import Seen
from mcptunnel.test.cli.certs.seen import CommandCase, presenting
from mcptunnel.test.tls.certs import DAY, NOW, Authority, mint


class CheckTests(CommandCase):
    """``mcptunnel certs check``, with a server that is not there."""

    def setUp(self) -> None:
        self.patch(time, "time", lambda: NOW)
        self.root = Authority.root()
        self.between = self.root.intermediate()
        self.calls: list[tuple[Way, str | None, Any]] = []

    def presents(self, answer: Seen | Exception) -> None:
        def dial(way: Way, name: str | None, trust: Any, **others: Any) -> Seen:
            self.calls.append((way, name, trust))
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.patch(check, "dial", dial)

    def shown(self, *argv: str) -> tuple[int, dict[str, Any]]:
        status, said, errors = self.run_command("check", *argv, "--json")
        self.assertEqual(errors, "")
        return status, json.loads(said)

    def chain(self, *names: str, **others: Any) -> tuple[x509.Certificate, ...]:
        issued = self.between.issue(*names, **others)
        return issued.certificate, *issued.issuers

    def test_a_good_server(self) -> None:
        """Everything that was seen, and 0."""
        chain = self.chain("mcp.test")
        self.presents(presenting(*chain))
        status, said, errors = self.run_command("check", "mcp.test:8443")
        self.assertEqual((status, errors), (0, ""))
        self.assertEqual(said.splitlines()[0], "mcp.test:8443 ok: 90 days left (mcp.test)")
        for words in (
            "192.0.2.1:443",
            "TLSv1.3, TLS_AES_256_GCM_SHA384, key exchange X25519MLKEM768",
            "mcp.test: covered",
            "2 certificates, trusted by this system",
            "CN=Test Intermediate",
            "issuer  CN=Test Root",
            "EC P-256",
        ):
            self.assertIn(words, said)
        self.assertNotIn("problem", said)
        self.assertEqual(self.calls, [(Way(host="mcp.test", port=8443), "mcp.test", None)])
        status, shown = self.shown("https://mcp.test:8443/mcp")
        self.assertEqual((status, shown["worst"], shown["covered"], shown["trusted"]), (0, "ok", True, True))
        self.assertEqual([one["role"] for one in shown["certificates"]], ["leaf", "intermediate"])
        self.assertEqual(shown["certificates"][0]["days_left"], 90)

    def test_what_is_asked_for(self) -> None:
        """An address is asked for by no name; --name says another one; --ca-file replaces the system's trust."""
        self.presents(presenting(*self.chain("mcp.test", "192.0.2.1", "xn--bcher-kva.test")))
        ca_file = self.mktemp()
        Path(ca_file).write_bytes(self.root.pem)
        self.assertEqual(self.run_command("check", "192.0.2.1")[0], 0)
        self.assertEqual(
            self.run_command("check", "[2001:db8::1]:1", "--name", "bücher.test", "--ca-file", ca_file)[0], 0
        )
        self.assertEqual([name for _, name, _ in self.calls], [None, "xn--bcher-kva.test"])
        self.assertEqual([trust for _, _, trust in self.calls], [None, (self.root.issued.certificate,)])

    def test_a_life_that_ends_soon(self) -> None:
        """By shares of it: a certificate of six days is fine with four days left."""
        for since, until, status, worst in (
            (-2, 4, 0, "ok"),
            (-80, 20, 1, "warning"),
            (-95, 5, 2, "critical"),
        ):
            self.presents(presenting(*self.chain("mcp.test", since=since * DAY, until=until * DAY)))
            seen, shown = self.shown("mcp.test")
            self.assertEqual((seen, shown["worst"]), (status, worst))

    def test_every_flaw_is_a_sentence(self) -> None:
        """All of them at once, with what to do."""
        self.presents(
            presenting(
                *self.chain("other.test", until=-3 * DAY),
                flaws=[
                    "unable to get local issuer certificate",
                    "certificate has expired",
                    "permitted subtree violation",
                ],
            )
        )
        status, said, _ = self.run_command("check", "mcp.test")
        self.assertEqual(status, 2)
        self.assertIn("and 3 more", said.splitlines()[0])
        for words in (
            "certificate 1 (CN=other.test) expired 3 days ago; renew it",
            "not for mcp.test, but for other.test",
            "this system does not know CN=Test Root, which issued CN=Test Intermediate",
            "--ca-file",
            "permitted subtree violation",
            "NOT covered",
            "NOT trusted by this system",
        ):
            self.assertIn(words, said)
        self.assertEqual(said.count("local issuer"), 0, "OpenSSL's words are translated")

    def test_a_missing_intermediate(self) -> None:
        """The certificate itself says where it is to be had."""
        leaf = self.between.issue("mcp.test")
        url = x509.UniformResourceIdentifier("http://ca.test/between.crt")
        access = x509.AuthorityInformationAccess(
            [x509.AccessDescription(x509.oid.AuthorityInformationAccessOID.CA_ISSUERS, url)]
        )
        builder = x509.CertificateBuilder(
            leaf.certificate.issuer,
            leaf.certificate.subject,
            leaf.key.public_key(),
            1,
            leaf.certificate.not_valid_before_utc,
            leaf.certificate.not_valid_after_utc,
            list(leaf.certificate.extensions),
        ).add_extension(access, critical=False)
        certificate = builder.sign(self.between.issued.key, hashes.SHA256())
        self.presents(presenting(certificate, flaws=["unable to verify the first certificate"]))
        (problem,) = self.shown("mcp.test")[1]["problems"]
        for words in ("intermediate certificate is missing", "fullchain.pem", "http://ca.test/between.crt"):
            self.assertIn(words, problem)

    def test_nobody_vouches(self) -> None:
        """Self-signed, or by an authority that is not known."""
        alone = mint("mcp.test", names=["mcp.test"]).certificate
        self.presents(presenting(alone, flaws=["self-signed certificate"]))
        self.assertIn("it is self-signed", self.shown("mcp.test")[1]["problems"][0])
        chain = (*self.chain("mcp.test"), self.root.issued.certificate)
        self.presents(presenting(*chain, flaws=["self-signed certificate in certificate chain"]))
        (problem,) = self.shown("mcp.test")[1]["problems"]
        self.assertIn("ends with CN=Test Root, which this system does not trust", problem)

    def test_what_refuses_nobody_is_a_note(self) -> None:
        """A chain out of order, a client certificate that is missed."""
        leaf, between = self.chain("mcp.test")
        self.presents(presenting(leaf, self.root.issued.certificate, between, hung_up=True))
        status, said, _ = self.run_command("check", "mcp.test")
        self.assertEqual(status, 0)
        self.assertIn("order them leaf first", said)
        self.assertIn("miss a client certificate", said)
        self.presents(presenting(leaf, between, failure="tlsv13 alert certificate required"))
        status, shown = self.shown("mcp.test")
        self.assertEqual((status, len(shown["notes"])), (0, 1))
        self.assertIn("certificate required", shown["notes"][0])

    def test_no_certificate_was_seen(self) -> None:
        """Why, and what to do about it; 2, because no client gets through."""
        for error, words in (
            (DialError("refused", "refuses the connection"), "start the server"),
            (DialError("http", "speaks plain HTTP there, not TLS"), "server.tls.mode"),
            (DialError("alert", "refuses the handshake", "unrecognized_name"), "no certificate for this name"),
            (DialError("alert", "refuses the handshake", "protocol_version"), "from 1.2 on"),
            (DialError("alert", "refuses the handshake", "number 99"), "see its log"),
            (DialError("closed", "closes the connection"), "PROXY header"),
            (DialError("unresolved", "cannot be resolved"), "DNS"),
        ):
            self.presents(error)
            status, said, errors = self.run_command("check", "mcp.test")
            self.assertEqual((status, errors), (2, ""))
            self.assertEqual(len(said.splitlines()), 1, said)
            self.assertIn(f"critical: {error}", said)
            self.assertIn(words, said)
            self.assertEqual(self.shown("mcp.test")[1]["certificates"], [])

    def test_a_file_of_authorities_that_cannot_be_read(self) -> None:
        """3: nothing is known."""
        status, said, errors = self.run_command("check", "mcp.test", "--ca-file", "/no/such.pem")
        self.assertEqual((status, said), (3, ""))
        self.assertIn("/no/such.pem: No such file", errors)

    def test_a_hostile_certificate_gives_the_terminal_no_orders(self) -> None:
        """Neither by its subject nor by its names."""
        evil = mint("a\x1b]0;x\x07\n0 ok", names=["mcp.test"], issuer=self.between.issued)
        self.presents(presenting(evil.certificate))
        said = self.run_command("check", "mcp.test")[1]
        self.assertIn("CN=a?]0\\;x??0 ok", said)
        self.assertNotIn("\x1b", said)

    def test_wrong_usage(self) -> None:
        """Before anything is connected."""
        self.presents(RuntimeError("not called"))
        for argv in (("a b",), ("http://a",), ("a", "--timeout", "0"), ("a", "--name", "b c"), ()):
            self.assertEqual(self.run_command("check", *argv)[0], 2, argv)

    def test_json_may_be_asked_for_before_the_command_too(self) -> None:
        """One option, two places."""
        self.presents(presenting(*self.chain("mcp.test")))
        self.assertEqual(json.loads(self.run_command("--json", "check", "mcp.test")[1])["worst"], "ok")
