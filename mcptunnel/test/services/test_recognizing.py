"""Tests for mcptunnel.services.recognizing and mcptunnel.core.clients."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.core.clients import ClientNames, ClientRule, recognize
from mcptunnel.core.principal import Principal
from mcptunnel.services.recognizing import recognizer_from
from mcptunnel.test.tls.certs import mint

TLS = "server: {tls: {mode: application, cert_file: c, key_file: k, ca_file: a, client_auth: required}}\n"


class RecognizerTests(SynchronousTestCase):
    """Rules of the configuration on real certificates."""

    def who(self, rules: str, certificate: x509.Certificate) -> str | None:
        ask = recognizer_from(load_text(f"{TLS}auth: {{client_certificates: [{rules}]}}"))
        assert ask is not None
        principal = ask(certificate)
        return None if principal is None else principal.name

    def test_by_alternative_name(self) -> None:
        """DNS names, addresses and URIs such as SPIFFE identities; patterns for all of them."""
        uri = "spiffe://example.org/ns/prod/sa/ci"
        one = mint("x", names=["CI.example.org", "192.0.2.1"], uris=[uri], client=True).certificate
        for pattern, expected in (
            ("ci.example.org", "a"),
            ("*.example.org", "a"),
            ("192.0.2.1", "a"),
            (uri, "a"),
            ("spiffe://example.org/ns/prod/*", "a"),
            ("spiffe://example.org/ns/test/*", None),
            ("example.org", None),
            ("x", None),
        ):
            self.assertEqual(self.who(f"{{name: a, match: {{san: '{pattern}'}}}}", one), expected, pattern)

    def test_by_subject(self) -> None:
        """Every attribute that is named must be there; it may have more, but not in one value."""
        one = mint("ci").certificate
        self.assertEqual(one.subject, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ci")]))
        for subject, expected in (("CN=ci", "a"), ("CN=ci,O=Example", None), ("CN=c", None), ("O=ci", None)):
            self.assertEqual(self.who(f"{{name: a, match: {{subject: '{subject}'}}}}", one), expected, subject)
        sly = mint("ci,O=Example").certificate
        self.assertIsNone(self.who("{name: a, match: {subject: 'CN=ci,O=Example'}}", sly))
        self.assertIsNone(self.who("{name: a, match: {subject: 'CN=ci'}}", sly))

    def test_the_first_rule_that_matches_counts(self) -> None:
        """And what is given twice must match twice."""
        one = mint("ci", names=["ci.test"]).certificate
        rules = "{name: a, match: {san: ci.test, subject: 'CN=other'}}, {name: b, match: {san: '*.test'}}"
        self.assertEqual(self.who(f"{rules}, {{name: c, match: {{san: ci.test}}}}", one), "b")

    def test_names_that_cannot_be_read_stand_for_nobody(self) -> None:
        """An authority of ours may have signed anything; the connection goes on without a principal."""

        class Broken:
            extensions = mint("ci", names=["ci.test"]).certificate.extensions

            @property
            def subject(self) -> x509.Name:
                raise ValueError("no string")

        broken: Any = Broken()
        self.assertIsNone(self.who("{name: a, match: {san: ci.test}}", broken))

    def test_where_nobody_is_asked_nobody_is_recognized(self) -> None:
        """No rules, or no certificates."""
        self.assertIsNone(recognizer_from(load_text(TLS)))
        rules = "auth: {client_certificates: [{name: a, match: {san: b}}]}"
        self.assertIsNone(recognizer_from(load_text(rules)))

    def test_a_rule_without_anything_to_look_at_matches_nobody(self) -> None:
        """An empty subject would be part of every one."""
        names = ClientNames(san=("a",), subject=frozenset({("2.5.4.3", "a")}))
        for rule in (
            ClientRule(principal=Principal(name="a")),
            ClientRule(principal=Principal(name="a"), subject=frozenset()),
        ):
            self.assertIsNone(recognize([rule], names))
