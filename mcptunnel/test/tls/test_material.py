"""Tests for mcptunnel.tls.material, with mcptunnel.tls.pem and mcptunnel.tls.chain below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.errors import CertificateError
from mcptunnel.test.tls.certs import DAY, NOW, Authority, KeyKind, mint, pem, write_pair
from mcptunnel.tls import passphrase
from mcptunnel.tls.material import load, load_all


class MaterialTests(SynchronousTestCase):
    """Base: a directory, and words about what was refused."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        Path(self.directory).mkdir(parents=True)

    def refusal(self, pair: CertificatePair, now: float = NOW) -> list[str]:
        """The lines of the refusal."""
        return str(self.assertRaises(CertificateError, load, pair, now)).splitlines()

    def one_line(self, pair: CertificatePair, file: str, *words: str, now: float = NOW) -> None:
        """There is exactly one reason, it begins with the file and says these words."""
        lines = self.refusal(pair, now)
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith(f"{file}: "), lines)
        for word in words:
            self.assertIn(word, lines[0])


class AcceptedTests(MaterialTests):
    """What may be served."""

    def test_every_kind_of_key_in_every_encoding(self) -> None:
        """EC, RSA and Ed25519; PKCS#8, and PKCS#1 or SEC 1."""
        kinds: tuple[tuple[KeyKind, str], ...] = (
            ("p256", "EC"),
            ("p384", "EC"),
            ("p521", "EC"),
            ("rsa2048", "RSA"),
            ("ed25519", "Ed25519"),
        )
        for kind, name in kinds:
            issued = mint("a", names=["localhost"], kind=kind)
            keys = [issued.key_pem()] if kind == "ed25519" else [issued.key_pem(), issued.key_pem("traditional")]
            for key in keys:
                material = load(write_pair(self.directory, kind, issued.chain_pem, key), NOW)
                self.assertEqual(material.kind, name)
                self.assertEqual(material.warnings, ())

    def test_a_key_with_its_ec_parameters_before_it(self) -> None:
        """As ``openssl ecparam -genkey`` writes it."""
        issued = mint("a", names=["localhost"])
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        load(write_pair(self.directory, "a", issued.chain_pem, parameters + issued.key_pem("traditional")), NOW)

    def test_an_encrypted_key_with_its_passphrase(self) -> None:
        """From a file or a command; of either the first line counts."""
        file = Path(self.directory, "passphrase")
        file.write_bytes(b"secret\r\nmore\n")
        rsa = mint("b", names=["localhost"], kind="rsa2048")
        for issued, form in (
            (mint("a", names=["localhost"]), "encrypted"),
            (rsa, "encrypted"),
            (rsa, "encrypted-traditional"),
        ):
            pair = write_pair(self.directory, "a", issued.chain_pem, issued.key_pem(form))  # type: ignore[arg-type]
            load(evolve(pair, key_passphrase_file=str(file)), NOW)
            load(evolve(pair, key_passphrase_command=("/bin/echo", "secret")), NOW)

    def test_a_key_that_others_can_read_is_refused_where_that_counts(self) -> None:
        """With everything else that is wrong."""
        pair = mint("a", names=["localhost"]).write(self.directory)
        os.chmod(pair.key_file, 0o644)
        (line,) = str(self.assertRaises(CertificateError, load, pair, NOW, strict=True)).splitlines()
        self.assertIn("mode 0644", line)
        self.assertIn("key_permissions: warn", line)
        os.chmod(pair.key_file, 0o600)
        self.assertEqual(load(pair, NOW, strict=True).warnings, ())

    def test_a_lone_certificate_of_a_public_authority_is_doubted(self) -> None:
        """It says where its issuer can be had, which only browsers ask."""
        authority = Authority.root()
        for places, warnings in (((), 0), (("http://ca.test/issuer.der",), 1)):
            issued = authority.issue("a", issuer_at=places)
            material = load(issued.write(self.directory), NOW)
            self.assertEqual(len(material.warnings), warnings, places)
        self.assertIn("fullchain.pem", material.warnings[0])
        whole = authority.intermediate().issue("a", issuer_at=places).write(self.directory, "whole")
        self.assertEqual(load(whole, NOW).warnings, ())

    def test_chain_and_key_in_one_file(self) -> None:
        """As HAProxy wants them, so that many people have them."""
        issued = mint("a", names=["localhost"])
        both = Path(self.directory, "both.pem")
        both.write_bytes(issued.key_pem() + issued.chain_pem)
        both.chmod(0o600)
        load(CertificatePair(cert_file=str(both), key_file=str(both)), NOW)

    def test_a_full_chain_and_its_facts(self) -> None:
        """The leaf first; text between the blocks is nothing."""
        authority = Authority.root().intermediate("Between")
        issued = authority.issue("MCP.example.com", "127.0.0.1", "::1")
        chain = b"subject=leaf\n" + issued.chain_pem
        material = load(write_pair(self.directory, "a", chain, issued.key_pem()), NOW)
        self.assertEqual([fact.role for fact in material.facts], ["leaf", "intermediate"])
        leaf, between = material.facts
        self.assertEqual(leaf.names, ("mcp.example.com", "127.0.0.1", "::1"))
        self.assertEqual((leaf.subject, leaf.issuer), ("CN=MCP.example.com", "CN=Between"))
        self.assertEqual(leaf.serial, f"{issued.certificate.serial_number:x}")
        self.assertEqual((leaf.not_before, leaf.not_after), (NOW - 30 * DAY, NOW + 90 * DAY))
        self.assertEqual(between.subject, "CN=Between")

    def test_a_chain_that_ends_with_its_root(self) -> None:
        """Superfluous, and harmless."""
        root = Authority.root()
        issued = root.issue("localhost")
        load(write_pair(self.directory, "a", issued.chain_pem + root.pem, issued.key_pem()), NOW)

    def test_a_clock_five_minutes_behind_the_authority(self) -> None:
        """And not a minute more."""
        pair = mint("a", names=["a"], since=300).write(self.directory)
        load(pair, NOW)
        self.one_line(pair, pair.cert_file, "becomes valid in", now=NOW - 60)

    def test_the_key_is_in_no_repr(self) -> None:
        """Neither its bytes nor its object."""
        material = mint("a", names=["a"]).material(self.directory)
        self.assertNotIn("PrivateKey", repr(material))


class RefusedTests(MaterialTests):
    """What may not be served, each with its file and the reason."""

    def setUp(self) -> None:
        super().setUp()
        self.good = mint("a", names=["localhost"])

    def pair(self, chain: bytes | None = None, key: bytes | None = None) -> CertificatePair:
        return write_pair(
            self.directory,
            "server",
            self.good.chain_pem if chain is None else chain,
            self.good.key_pem() if key is None else key,
        )

    def test_a_missing_file(self) -> None:
        """Both are reported when both are missing."""
        lines = self.refusal(CertificatePair(cert_file="/no/such.crt", key_file="/no/such.key"))
        self.assertEqual(
            lines,
            [
                "/no/such.crt: cannot be read: No such file or directory",
                "/no/such.key: cannot be read: No such file or directory",
            ],
        )

    def test_a_directory_a_pipe_and_a_giant(self) -> None:
        """None of them blocks or fills the memory."""
        pair = self.pair()
        pipe, giant = str(Path(self.directory, "pipe")), str(Path(self.directory, "giant"))
        os.mkfifo(pipe)
        with open(giant, "wb") as opened:
            opened.truncate(3 * 1024 * 1024)
        for file, words in ((self.directory, "irectory"), (pipe, "not a regular file"), (giant, "larger than 1 MiB")):
            self.one_line(CertificatePair(cert_file=file, key_file=pair.key_file), file, words)

    def encrypted(self, **passphrase: Any) -> CertificatePair:
        pair = write_pair(self.directory, "a", self.good.chain_pem, self.good.key_pem("encrypted"))
        return evolve(pair, **passphrase)

    def test_a_chain_that_ends_in_the_middle(self) -> None:
        """As a file does that is still being written."""
        whole = Authority.root().intermediate().issue("a")
        pair = write_pair(self.directory, "a", whole.chain_pem[:-40], whole.key_pem())
        self.one_line(pair, pair.cert_file, "ends in the middle of a certificate")

    def test_an_encrypted_key_without_its_passphrase(self) -> None:
        """In both encodings."""
        rsa = mint("b", names=["localhost"], kind="rsa2048")
        for issued, form in ((self.good, "encrypted"), (rsa, "encrypted"), (rsa, "encrypted-traditional")):
            pair = write_pair(self.directory, "a", issued.chain_pem, issued.key_pem(form))  # type: ignore[arg-type]
            self.one_line(pair, pair.key_file, "the key is encrypted", "key_passphrase_file", "openssl pkey")

    def test_a_passphrase_that_does_not_fit(self) -> None:
        """It is not shown, wherever it comes from."""
        file = Path(self.directory, "wrong")
        file.write_text("nobody-may-see-this\n")
        for wrong in (
            {"key_passphrase_file": str(file)},
            {"key_passphrase_command": ("/bin/echo", "nobody-may-see-this")},
        ):
            pair = self.encrypted(**wrong)
            (line,) = self.refusal(pair)
            self.assertIn("the passphrase is wrong", line)
            self.assertNotIn("nobody-may-see-this", line)

    def test_a_passphrase_that_cannot_be_had(self) -> None:
        """No file, an empty one, no program, one that fails, one that says nothing, one that does not end."""
        self.patch(passphrase, "_SECONDS", 0.2)
        empty = Path(self.directory, "empty")
        empty.write_text("\n")
        for source, words in (
            ({"key_passphrase_file": "/no/such"}, "/no/such: cannot be read"),
            ({"key_passphrase_file": str(empty)}, "its first line is no passphrase"),
            ({"key_passphrase_command": ("/no/such",)}, "/no/such: cannot be run"),
            ({"key_passphrase_command": ("/bin/false",)}, "/bin/false: ended with status 1"),
            ({"key_passphrase_command": ("/bin/true",)}, "its first line is no passphrase"),
            ({"key_passphrase_command": ("/bin/sleep", "60")}, "gave no passphrase in 0.2 s"),
        ):
            pair = self.encrypted(**source)
            self.one_line(pair, pair.key_file, words)

    def test_files_without_pem(self) -> None:
        """Empty, swapped, DER."""
        issued = self.good
        for chain in (b"", issued.key_pem(), b"hello"):
            pair = self.pair(chain=chain)
            self.one_line(pair, pair.cert_file, "no PEM certificate in it")
        for key in (b"", issued.chain_pem):
            pair = self.pair(key=key)
            self.one_line(pair, pair.key_file, "no PEM private key in it")
        der = self.pair(chain=issued.certificate.public_bytes(Encoding.DER))
        self.one_line(der, der.cert_file, "DER or PKCS#12", "openssl x509 -inform DER")
        der = self.pair(key=issued.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        self.one_line(der, der.key_file, "DER or PKCS#12", "openssl pkey -inform DER")

    def test_broken_pem(self) -> None:
        """A block whose content is no certificate, or no key."""
        pair = self.pair(chain=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.one_line(pair, pair.cert_file, "cannot be parsed")
        pair = self.pair(key=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        self.one_line(pair, pair.key_file, "PRIVATE KEY that cannot be parsed")

    def test_two_keys_in_one_file(self) -> None:
        """Which one would be a guess."""
        pair = self.pair(key=self.good.key_pem() + mint("b").key_pem())
        self.one_line(pair, pair.key_file, "holds 2 private keys")

    def test_weak_and_unusable_keys(self) -> None:
        """Certificate and key are both named, since both have to be replaced."""
        cases: tuple[tuple[KeyKind, str, str], ...] = (
            ("rsa1024", "1024 bits is too weak", "1024 bits is too weak"),
            ("k1", "curve secp256k1 cannot be used", "curve secp256k1 cannot be used"),
            ("ed448", "cannot be served", "EC, RSA and Ed25519 keys can be served"),
            ("dsa", "cannot be served", "EC, RSA and Ed25519 keys can be served"),
        )
        for kind, about_certificate, about_key in cases:
            pair = mint("a", names=["a"], kind=kind).write(self.directory)
            lines = self.refusal(pair)
            self.assertEqual(len(lines), 2, lines)
            self.assertIn(about_key, next(line for line in lines if line.startswith(pair.key_file)))
            self.assertIn(about_certificate, next(line for line in lines if line.startswith(pair.cert_file)))

    def test_a_key_of_another_certificate(self) -> None:
        """The commonest mistake of all."""
        pair = self.pair(key=mint("b").key_pem())
        self.one_line(pair, pair.key_file, "does not belong to the first certificate", pair.cert_file, "CN=a")

    def test_an_expired_leaf_and_an_expired_intermediate(self) -> None:
        """Either way clients refuse."""
        pair = mint("a", names=["a"], until=-3 * DAY).write(self.directory)
        self.one_line(pair, pair.cert_file, "certificate 1 (CN=a) expired 3 days ago")
        pair = Authority.root().intermediate("Old", until=-3600).issue("a").write(self.directory)
        self.one_line(pair, pair.cert_file, "certificate 2 (CN=Old) expired 1 hours ago")

    def test_a_leaf_of_tomorrow(self) -> None:
        """It says when."""
        pair = mint("a", names=["a"], since=10 * DAY).write(self.directory)
        self.one_line(pair, pair.cert_file, "becomes valid in 10 days only")

    def test_a_chain_out_of_order(self) -> None:
        """Where the issuer is in the file, its place is named."""
        root = Authority.root()
        between = root.intermediate("Between")
        leaf = between.issue("localhost")
        middle = pem(between.issued.certificate)
        pair = self.pair(pem(leaf.certificate) + root.pem + middle, leaf.key_pem())
        lines = self.refusal(pair)
        self.assertIn("certificate 2 (CN=Test Root) did not issue certificate 1 (CN=localhost)", lines[0])
        self.assertIn("its issuer is certificate 3: order them leaf first", lines[0])

    def test_the_intermediate_first(self) -> None:
        """Then the key does not fit either; both are said."""
        between = Authority.root().intermediate("Between")
        leaf = between.issue("localhost")
        pair = self.pair(pem(between.issued.certificate) + pem(leaf.certificate), leaf.key_pem())
        text = "\n".join(self.refusal(pair))
        self.assertIn("did not issue certificate 1 (CN=Between)", text)
        self.assertIn("the chain must begin with the server's own certificate", text)

    def test_a_certificate_that_does_not_belong(self) -> None:
        """A stranger of the right name as well: signatures are verified."""
        leaf = Authority.root().issue("localhost")
        for stranger in (Authority.root("Other").pem, Authority.root().pem):
            pair = self.pair(leaf.chain_pem + stranger, leaf.key_pem())
            self.one_line(pair, pair.cert_file, "did not issue certificate 1", "remove what does not belong")

    def test_a_certificate_twice(self) -> None:
        """A self-signed one issued itself, so that this is no broken link; any other is."""
        leaf = Authority.root().issue("localhost")
        pair = self.pair(leaf.chain_pem * 2, leaf.key_pem())
        self.one_line(pair, pair.cert_file, "certificate 2 (CN=localhost) did not issue certificate 1")

    def test_a_leaf_without_names(self) -> None:
        """Clients look at nothing else since RFC 9525."""
        pair = mint("a").write(self.directory)
        self.one_line(pair, pair.cert_file, "no DNS name or address in its subject alternative name")

    def test_a_leaf_that_demands_a_staple(self) -> None:
        """Clients would refuse it without one."""
        pair = mint("a", names=["a"], must_staple=True).write(self.directory)
        self.one_line(pair, pair.cert_file, "must-staple")

    def test_everything_is_reported_together_for_all_pairs(self) -> None:
        """One start finds it all."""
        good = self.good.write(self.directory, "good")
        old = mint("old", until=-DAY).write(self.directory, "old")
        none = CertificatePair(cert_file="/no/such.crt", key_file="/no/such.key")
        lines = str(self.assertRaises(CertificateError, load_all, [good, old, none], NOW)).splitlines()
        self.assertEqual(len(lines), 4, lines)
        self.assertEqual(
            [line.split(": ")[0] for line in lines], [old.cert_file, old.cert_file, "/no/such.crt", "/no/such.key"]
        )
        self.assertEqual(len(load_all([good, good], NOW)), 2)


class PermissionTests(MaterialTests):
    """Keys that others can read are warned about."""

    def warnings(self, mode: int) -> tuple[str, ...]:
        pair = mint("a", names=["a"]).write(self.directory)
        os.chmod(pair.key_file, mode)
        return load(pair, NOW).warnings

    def test_a_key_for_its_owner_alone_is_fine(self) -> None:
        """Readable or not even writable."""
        self.assertEqual(self.warnings(0o600), ())
        self.assertEqual(self.warnings(0o400), ())

    def test_a_key_for_everybody_is_not(self) -> None:
        """The file, its mode, and what to do."""
        (line,) = self.warnings(0o644)
        self.assertIn("server.key", line)
        self.assertIn("0644", line)
        self.assertIn("chmod 600", line)

    def test_a_key_for_its_group_is_fine_when_root_owns_it(self) -> None:
        """PostgreSQL's rule."""
        expected = 0 if os.getuid() == 0 else 1
        self.assertEqual(len(self.warnings(0o640)), expected)
        self.assertEqual(len(self.warnings(0o660)), 1)
