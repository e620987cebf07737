"""Tests for mcptunnel.cli.certs.listing, with inventory and live below it; tests/test_certs_command.py has daemons."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from mcptunnel.cli import main
from mcptunnel.cli.certs import live
from mcptunnel.cli.certs.connect import DialError, Way
from mcptunnel.cli.certs.dial import Seen
from mcptunnel.config.schema import CertificatePair, Config, ServerConfig, TlsConfig
from mcptunnel.test.cli.certs.seen import CommandCase, presenting
from mcptunnel.test.tls.certs import DAY, LONG, NOW, Authority, Issued, mint
from mcptunnel.upstream.proxies import Proxy


class ListingCase(CommandCase):
    """A directory with a configuration; nothing listens, and no server behind it answers, unless a test says so."""

    def setUp(self) -> None:
        self.patch(time, "time", lambda: NOW)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.root = Authority.root()
        self.between = self.root.intermediate()
        self.answers: dict[tuple[str, str | None], Seen] = {}
        self.calls: list[tuple[Way, str | None, Any]] = []

        def dial(way: Way, name: str | None, trust: Any, **others: Any) -> Seen:
            self.calls.append((way, name, trust))
            try:
                return self.answers[way.host, name]
            except KeyError:
                raise DialError("refused", "refuses the connection: nothing listens there") from None

        self.patch(live, "dial", dial)

    def issue(self, name: str, *names: str, **others: Any) -> tuple[CertificatePair, Issued]:
        issued = self.between.issue(*names, **others)
        return issued.write(self.directory, name), issued

    def pair(self, name: str, *names: str, **others: Any) -> dict[str, str]:
        pair, _ = self.issue(name, *names, **others)
        return {"cert_file": pair.cert_file, "key_file": pair.key_file}

    def file(self, name: str, content: bytes) -> str:
        (self.directory / name).write_bytes(content)
        return str(self.directory / name)

    def configure(self, tls: dict[str, Any], **others: Any) -> str:
        path = self.directory / "mcptunnel.yaml"
        server = {"port": 3000, "tls": {"mode": "application", **tls}, **others.pop("server", {})}
        path.write_text(yaml.safe_dump({"server": server, **others}))
        return str(path)

    def shown(self, path: str, *argv: str) -> tuple[int, dict[str, Any]]:
        status, said, errors = self.run_command("--config", path, "--json", *argv)
        self.assertEqual(errors, "")
        return status, json.loads(said)


class FilesTests(ListingCase):
    """What the files hold."""

    def test_every_certificate_in_play(self) -> None:
        """Ours and their chains, the clients' authorities, revocation lists, what we show servers and trust them by."""
        now = datetime.fromtimestamp(NOW, UTC)
        crl = (
            x509.CertificateRevocationListBuilder(
                self.root.issued.certificate.subject, now - timedelta(1), now + timedelta(7)
            )
            .add_extension(x509.CRLNumber(42), critical=False)
            .sign(self.root.issued.key, hashes.SHA256())
        )
        client = mint("tunnel", issuer=self.root.issued, client=True).write(self.directory, "client")
        path = self.configure(
            {
                **self.pair("one", "a.test", "*.a.test"),
                "certificates": [self.pair("two", "b.test", "a.test")],
                "client_auth": "required",
                "ca_file": self.file("ca.pem", self.root.pem),
                "crl_file": self.file("crl.pem", crl.public_bytes(Encoding.PEM)),
            },
            mcpServers={
                "docs": {
                    "url": "https://docs.test/mcp",
                    "ca_file": self.file("docs.pem", self.root.pem),
                    "cert_file": client.cert_file,
                    "key_file": client.key_file,
                },
                "off": {"url": "https://off.test/mcp", "ca_file": "/no/such.pem", "enabled": False},
                "plain": {"url": "http://plain.test/mcp"},
                "child": {"command": "true"},
            },
        )
        status, shown = self.shown(path, "--no-upstreams")
        self.assertEqual((status, shown["worst"], shown["errors"]), (0, "ok", []))
        seen = [(one["role"], Path(one["file"]).name, one["configured_by"]) for one in shown["certificates"]]
        self.assertEqual(
            seen,
            [
                ("leaf", "one.crt", "server.tls"),
                ("intermediate", "one.crt", "server.tls"),
                ("leaf", "two.crt", "server.tls.certificates[0]"),
                ("intermediate", "two.crt", "server.tls.certificates[0]"),
                ("client_ca", "ca.pem", "server.tls.ca_file"),
                ("crl", "crl.pem", "server.tls.crl_file"),
                ("upstream_ca", "docs.pem", "mcpServers.docs.ca_file"),
                ("upstream_client", "client.crt", "mcpServers.docs"),
            ],
        )
        one, _, two, _, _, revoked, _, _ = shown["certificates"]
        self.assertEqual((one["chosen_for"], one["default"]), (["a.test", "*.a.test"], True))
        self.assertEqual((two["chosen_for"], two["default"]), (["b.test"], False), "of two for a name the first counts")
        self.assertEqual((revoked["serial"], revoked["days_left"]), ("2a", 7))
        self.assertEqual(one["key"], "EC P-256")

    def test_what_is_not_used_is_not_in_play(self) -> None:
        """A mode without TLS; authorities of clients that nobody asks for."""
        pair = self.pair("one", "a.test", until=-DAY)
        status, shown = self.shown(self.configure({**pair, "mode": "behind_proxy", "trusted_proxies": ["10.0.0.1"]}))
        self.assertEqual((status, shown["certificates"]), (0, []))
        self.assertIn("none is in play", self.run_command("--config", self.configure({"mode": "disabled"}))[1])
        good = self.pair("two", "a.test")
        path = self.configure({**good, "ca_file": self.file("old.pem", mint("old", ca=True, until=-DAY).chain_pem)})
        self.assertEqual(self.shown(path)[0], 0)

    def test_all_problems_of_all_files(self) -> None:
        """Each with its file; what can be read is shown all the same."""
        good, _ = self.issue("good", "a.test")
        path = self.configure(
            {
                "cert_file": good.cert_file,
                "key_file": self.file("other.key", mint("other").key_pem()),
                "certificates": [
                    self.pair("old", "old.test", until=-3 * DAY),
                    {"cert_file": "nowhere.crt", "key_file": "nowhere.key"},
                    {"cert_file": self.file("bad.crt", b"hello"), "key_file": good.key_file},
                ],
            },
        )
        status, shown = self.shown(path)
        self.assertEqual((status, shown["worst"]), (2, "invalid"))
        text = "\n".join(shown["errors"])
        for words in (
            "other.key: does not belong to the first certificate",
            "old.crt: certificate 1 (CN=old.test) expired 3 days ago",
            "nowhere.crt: cannot be read: No such file or directory (server.tls.certificates[1].cert_file)",
            "nowhere.key: cannot be read",
            "bad.crt: no PEM certificate in it",
        ):
            self.assertIn(words, text)
        verdicts = [(one["verdict"], one["role"]) for one in shown["certificates"] if one["role"] == "leaf"]
        self.assertEqual(verdicts, [("invalid", "leaf"), ("expired", "leaf")])
        self.assertIn("does not belong", shown["certificates"][0]["flaw"])

    def test_a_file_that_cannot_be_read_is_unknown(self) -> None:
        """3, not 2: this user may not look, which says nothing of the certificate."""
        path = self.configure({**self.pair("one", "a.test"), "key_file": "/no/such.key"})
        status, shown = self.shown(path)
        self.assertEqual((status, shown["worst"], len(shown["errors"])), (3, "unknown", 1))
        self.assertEqual(shown["certificates"][0]["verdict"], "ok")

    def test_a_key_that_others_can_read(self) -> None:
        """As the daemon sees it: a warning on loopback or where that is wished, of no use elsewhere."""
        pair = self.pair("one", "a.test")
        Path(pair["key_file"]).chmod(0o644)
        for wish, host, status in (
            (None, "127.0.0.1", 1),
            (None, "0.0.0.0", 2),
            ("warn", "0.0.0.0", 1),
            ("strict", "127.0.0.1", 2),
        ):
            tls = pair if wish is None else {**pair, "key_permissions": wish}
            path = self.configure(tls, server={"host": host}, auth={"anonymous": True})
            seen, shown = self.shown(path)
            self.assertEqual(seen, status, (wish, host))
            self.assertIn("one.key", shown["errors"][0])
            self.assertEqual(shown["certificates"][0]["verdict"], "ok" if status == 1 else "invalid")

    def test_every_authority_of_clients_needs_its_list(self) -> None:
        """Without one, all of its clients are refused."""
        now = datetime.fromtimestamp(NOW, UTC)
        name = self.root.issued.certificate.subject
        crl = x509.CertificateRevocationListBuilder(name, now - timedelta(1), now + timedelta(7))
        content = crl.sign(self.root.issued.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        other = Authority.root("Other")
        tls = {**self.pair("one", "a.test"), "client_auth": "required", "crl_file": self.file("crl.pem", content)}
        for authorities, status in ((self.root.pem, 0), (self.root.pem + other.pem, 2)):
            seen, shown = self.shown(self.configure({**tls, "ca_file": self.file("ca.pem", authorities)}))
            self.assertEqual(seen, status)
        self.assertIn("holds no list of CN=Other", shown["errors"][0])
        Path(tls["crl_file"]).write_bytes(b"hello")
        self.assertIn(
            "no PEM revocation list",
            self.shown(self.configure({**tls, "ca_file": str(tls["cert_file"])}))[1]["errors"][0],
        )

    def test_a_large_bundle_is_one_row(self) -> None:
        """The system's has authorities that have ended, and nobody minds."""
        old = mint("old", ca=True, until=-DAY).chain_pem
        bundle = old + b"".join(mint(f"ca {number}", ca=True, **LONG).chain_pem for number in range(11))
        pair = {**self.pair("one", "a.test"), "client_auth": "optional"}
        status, shown = self.shown(self.configure({**pair, "ca_file": self.file("many.pem", bundle)}))
        self.assertEqual((status, shown["certificates"][-1]["bundled_with"]), (0, 11))
        status, shown = self.shown(self.configure({**pair, "ca_file": self.file("few.pem", old + self.root.pem)}))
        self.assertEqual((status, shown["worst"]), (2, "expired"))

    def test_thresholds_are_the_configuration_s(self) -> None:
        """As shares of life, so that six days are enough for a certificate of six days."""
        for tls, life, status in (
            ({}, (-2, 4), 0),
            ({}, (-5, 1), 1),
            ({}, (-5.7, 0.3), 2),
            ({"expiry_warning": "10%", "expiry_critical": "1%"}, (-5, 1), 0),
            ({"expiry_warning": "50%"}, (-50, 40), 1),
        ):
            since, until = life
            pair = self.pair("one", "a.test", since=since * DAY, until=until * DAY)
            self.assertEqual(self.shown(self.configure({**pair, **tls}))[0], status, (tls, life))

    def test_a_refused_configuration_is_unknown(self) -> None:
        """With every finding; in both forms."""
        path = self.configure({"mod": "auto", "min_tls_version": "1.1"})
        status, said, errors = self.run_command("--config", path)
        self.assertEqual(status, 3)
        self.assertIn("certificates unknown: ", said.splitlines()[0])
        self.assertEqual(len(errors.splitlines()), 2)
        status, said, errors = self.run_command("--config", path, "--json")
        self.assertEqual((status, json.loads(said)["worst"], len(json.loads(said)["errors"])), (3, "unknown", 2))
        self.assertEqual(self.run_command("--config", "/no/such.yaml")[0], 3)
        self.assertEqual(self.run_command("--conf", "x")[0], 2)


class TextTests(ListingCase):
    """For people."""

    def test_the_first_line_sums_up(self) -> None:
        """Monitoring shows no other."""
        path = self.configure({**self.pair("one", "a.test")})
        status, said, errors = self.run_command("--config", path)
        self.assertEqual((status, errors), (0, ""))
        lines = said.splitlines()
        self.assertEqual(lines[0], "certificates ok: 2 in play, the first to end is a.test in 90 days")
        self.assertRegex(lines[1], r"^ok +90 days +served +a\.test +.*one\.crt$")
        self.assertIn("EC P-256 SHA-256 ", lines[2])
        self.assertIn("for a.test, whoever asks for none of these names; served: not running", lines[3])
        self.assertRegex(lines[4], r"^ok +\d+ days +chain +CN=Test Intermediate")
        near = self.pair("two", "b.test", since=-99 * DAY, until=DAY)
        old = self.pair("three", "c.test", until=-5 * DAY)
        path = self.configure({**self.pair("one", "a.test"), "certificates": [near, old]})
        said = self.run_command("--config", path)[1]
        self.assertIn("c.test is expired (-5 days left); 2 of 6 are not ok", said.splitlines()[0])
        self.assertRegex(said, r"\nproblem: .*three\.crt: certificate 1")

    def test_colour_is_for_terminals(self) -> None:
        """Green, yellow, red."""

        class Terminal(StringIO):
            def isatty(self) -> bool:
                return True

        path = self.configure({**self.pair("one", "a.test", until=-DAY)})
        self.assertNotIn("\x1b", self.run_command("--config", path)[1])
        terminal = Terminal()
        self.patch(os, "environ", {"TERM": "xterm"})
        self.patch(sys, "stdout", terminal)
        self.assertEqual(main(["certs", "--config", path]), 2)
        self.assertIn("\x1b[31mexpired", terminal.getvalue())
        self.assertIn("\x1b[32mok", terminal.getvalue())


class ServedTests(ListingCase):
    """Whether the daemon serves what the files hold."""

    def test_it_does(self) -> None:
        """Asked for by the first name of each; a wildcard by one that it covers."""
        one, first = self.issue("one", "a.test")
        two, second = self.issue("two", "*.b.test")
        self.answers["127.0.0.1", "a.test"] = presenting(first.certificate, flaws=["whatever"])
        self.answers["127.0.0.1", "any.b.test"] = presenting(second.certificate)
        three = self.pair("three", "a.test")
        path = self.configure(
            {
                "cert_file": one.cert_file,
                "key_file": one.key_file,
                "certificates": [{"cert_file": two.cert_file, "key_file": two.key_file}, three],
            }
        )
        status, shown = self.shown(path)
        served = [one["served"] for one in shown["certificates"] if one["role"] == "leaf"]
        self.assertEqual((status, served), (0, ["yes", "yes", None]), "nobody gets the third, so nobody asks for it")

    def test_it_serves_another_one(self) -> None:
        """A renewal that was refused: what is in service counts, too."""
        new, _ = self.issue("new", "a.test")
        old = self.between.issue("a.test", since=-85 * DAY, until=5 * DAY)
        self.answers["127.0.0.1", "a.test"] = presenting(old.certificate)
        path = self.configure({"cert_file": new.cert_file, "key_file": new.key_file})
        status, shown = self.shown(path)
        leaf, instead, between = shown["certificates"]
        self.assertEqual((status, leaf["verdict"], leaf["served"]), (2, "ok", "other"))
        self.assertEqual(leaf["served_instead"], instead["sha256"])
        self.assertEqual((instead["verdict"], instead["file"]), ("critical", "127.0.0.1:3000"))
        self.assertEqual(between["role"], "intermediate")
        self.assertIn("serves another certificate", shown["errors"][0])
        self.answers["127.0.0.1", "a.test"] = presenting(self.between.issue("a.test").certificate)
        self.assertEqual(self.shown(path)[0], 1)
        self.assertIn("served: other (SHA-256 ", self.run_command("--config", path)[1])

    def test_the_way_to_the_listener(self) -> None:
        """Every kind of address; with a PROXY header where one is demanded and believed; None where it is unknown."""
        for server, way in (
            ({"host": "0.0.0.0", "port": 443}, Way(host="127.0.0.1", port=443)),
            ({"host": "::"}, Way(host="::1", port=3000)),
            ({"host": "[2001:db8::1]"}, Way(host="2001:db8::1", port=3000)),
            ({"host": "box.lan"}, Way(host="box.lan", port=3000)),
            ({"host": "unix:/run/x"}, Way(host="/run/x", port=None)),
            ({"host": "systemd:0"}, None),
            ({"port": 0}, None),
            ({"proxy_protocol": "optional"}, Way(host="127.0.0.1", port=3000)),
            ({"proxy_protocol": "required"}, None),
            (
                {"proxy_protocol": "required", "tls": TlsConfig(trusted_proxies=("127.0.0.0/8",))},
                Way(host="127.0.0.1", port=3000, before=b"PROXY UNKNOWN\r\n"),
            ),
        ):
            config = Config(server=ServerConfig(**server))
            self.assertEqual(live.listener_way(config), way, server)


class UpstreamTests(ListingCase):
    """What servers behind us present."""

    def servers(self, **servers: Any) -> str:
        return self.configure({"mode": "disabled"}, mcpServers=servers)

    def test_each_is_asked_and_judged(self) -> None:
        """By its own authorities, its name, and its life."""
        good, old = self.between.issue("good.test"), self.between.issue("old.test", until=-DAY)
        self.answers["good.test", "good.test"] = presenting(good.certificate, *good.issuers)
        self.answers["old.test", "old.test"] = presenting(old.certificate, flaws=["certificate has expired"])
        self.answers["wrong.test", "wrong.test"] = presenting(good.certificate)
        self.answers["192.0.2.7", None] = presenting(
            self.between.issue("192.0.2.7").certificate, flaws=["unable to get local issuer certificate"]
        )
        ca_file = self.file("ca.pem", self.root.pem)
        path = self.servers(
            good={"url": "https://good.test/mcp", "ca_file": ca_file},
            old={"url": "wss://old.test:8443/mcp"},
            wrong={"url": "https://wrong.test/mcp"},
            bare={"url": "https://192.0.2.7/mcp"},
        )
        status, shown = self.shown(path)
        self.assertEqual((status, shown["worst"]), (2, "invalid"))
        seen = {one["file"]: (one["verdict"], one["flaw"]) for one in shown["certificates"] if one["names"]}
        self.assertEqual(seen["mcpServers.good"], ("ok", None))
        self.assertEqual(seen["mcpServers.old"][0], "expired")
        self.assertEqual(seen["mcpServers.wrong"], ("invalid", "it is not for wrong.test"))
        self.assertIn("mcpServers.bare.ca_file", seen["mcpServers.bare"][1] or "")
        ways = {way.host: (way.port, trust) for way, _, trust in self.calls}
        self.assertEqual(ways["good.test"], (443, (self.root.issued.certificate,)))
        self.assertEqual(ways["old.test"], (8443, None))

    def test_one_that_does_not_answer_is_unknown(self) -> None:
        """With its key and the reason; --no-upstreams asks nobody."""
        path = self.servers(gone={"url": "https://gone.test/mcp?key=secret"})
        status, shown = self.shown(path)
        self.assertEqual((status, shown["worst"]), (3, "unknown"))
        self.assertIn("mcpServers.gone: gone.test:443 refuses the connection", shown["errors"][0])
        self.assertNotIn("secret", shown["errors"][0])
        self.calls.clear()
        self.assertEqual(self.shown(path, "--no-upstreams")[0], 0)
        self.assertEqual(self.calls, [])

    def test_through_a_proxy_where_there_is_one(self) -> None:
        """As the daemon would go."""
        self.shown(self.servers(far={"url": "https://far.test/mcp", "proxy": "http://proxy.test:3128"}))
        ((way, name, _),) = self.calls
        self.assertEqual(
            (way, name), (Way(host="far.test", port=443, proxy=Proxy.at("http://proxy.test:3128")), "far.test")
        )

    def test_progress_is_for_terminals(self) -> None:
        """It comes and goes; nothing of it is left."""

        class Terminal(StringIO):
            def isatty(self) -> bool:
                return True

        for kind, expected in (
            (Terminal, "\r\x1b[Kasking 1 servers for their certificates…\r\x1b[K\r\x1b[K"),
            (StringIO, ""),
        ):
            stream = kind()
            self.patch(sys, "stderr", stream)
            self.patch(sys, "stdout", StringIO())
            with live.show_progress() as progress:
                progress("asking 1 servers for their certificates…")
                progress("")
            self.assertEqual(stream.getvalue(), expected)
