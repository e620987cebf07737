"""``mcptunnel certs`` with real daemons, servers that are wrong in every way, and the programs that have to agree."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from mcptunnel.config.schema import CertificatePair
from mcptunnel.test.tls.certs import DAY, Authority, Issued, mint, pem, write_pair
from mcptunnel.tls.devmint import Minted, mint_leaf
from mcptunnel.tls.pem import read_key
from tests.certificates import NAME, authority, issue
from tests.daemon import Daemon, DaemonCase, python_env
from tests.processes import free_port, require

SECONDS = 60.0
COMMAND = [sys.executable, "-c", "import sys; from mcptunnel.cli import main; sys.exit(main())"]


class CertsCase(DaemonCase):
    """Runs the command as a process."""

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = self.file("ca.pem", authority().pem)

    def file(self, name: str, content: bytes) -> str:
        (self.place / name).write_bytes(content)
        return str(self.place / name)

    def mcptunnel(self, *argv: str, **environ: str) -> tuple[int, str, str]:
        """Status, output, errors."""
        done = subprocess.run(
            [*COMMAND, *argv],
            cwd=self.place,
            env={**os.environ, **python_env(), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.assertNotIn("Traceback", done.stderr)
        return done.returncode, done.stdout, done.stderr

    def shown(self, *argv: str, **environ: str) -> tuple[int, dict[str, Any]]:
        status, said, errors = self.mcptunnel(*argv, "--json", **environ)
        self.assertEqual(errors, "")
        return status, json.loads(said)

    def check(self, port: int, *argv: str, host: str = "localhost") -> tuple[int, dict[str, Any]]:
        return self.shown("certs", "check", f"{host}:{port}", "--ca-file", self.ca_file, *argv)

    def plain(self, **others: Any) -> dict[str, str]:
        """A pair that is not the tests' usual one, as configuration."""
        pair = issue(self.place, **others)
        return {"cert_file": pair.cert_file, "key_file": pair.key_file}


class ListingTests(CertsCase):
    """``mcptunnel certs`` beside a running daemon."""

    def several(self) -> Daemon:
        other = authority().issue("*.other.test", now=time.time(), since=-95 * DAY, until=5 * DAY)
        pair = other.write(self.place, "other")
        return self.daemon(
            "application",
            tls={
                **self.plain(name="one"),
                "certificates": [{"cert_file": pair.cert_file, "key_file": pair.key_file}],
                "client_auth": "required",
                "ca_file": self.ca_file,
            },
        )

    def test_several_certificates_one_of_which_is_near_its_end(self) -> None:
        """The daemon serves both, and asks for client certificates all the while; 2 for the five days."""
        daemon = self.several()
        status, shown = self.shown("certs", "--config", str(daemon.config))
        self.assertEqual((status, shown["worst"], shown["errors"]), (2, "critical", []))
        leaves = [one for one in shown["certificates"] if one["role"] == "leaf"]
        self.assertEqual([one["served"] for one in leaves], ["yes", "yes"])
        self.assertEqual([one["verdict"] for one in leaves], ["ok", "critical"])
        self.assertEqual(leaves[1]["chosen_for"], ["*.other.test"])
        self.assertEqual([one["role"] for one in shown["certificates"]], ["leaf", "leaf", "client_ca"])
        status, said, errors = self.mcptunnel("certs", "--config", str(daemon.config))
        self.assertEqual((status, errors), (2, ""))
        self.assertEqual(
            said.splitlines()[0], "certificates critical: *.other.test is critical (4 days left); 1 of 3 are not ok"
        )
        # What it asked for was an ordinary handshake: the daemon says nothing of it that is no everyday matter.
        daemon.stop()

    def test_without_the_daemon(self) -> None:
        """The files are judged all the same."""
        daemon = self.several()
        daemon.stop()
        status, shown = self.shown("certs", "--config", str(daemon.config))
        self.assertEqual(status, 2)
        self.assertEqual([one["served"] for one in shown["certificates"][:2]], ["not running", "not running"])

    def test_files_that_the_daemon_has_not_taken(self) -> None:
        """A certificate without its key, on which it can only go on with the last good pair."""
        pair = issue(self.place, "renewed")
        daemon = self.daemon("auto", tls={"cert_file": pair.cert_file, "key_file": pair.key_file})
        before = self.shown("certs", "--config", str(daemon.config))
        self.assertEqual((before[0], before[1]["certificates"][0]["served"]), (0, "yes"))
        new = authority().issue(NAME, "localhost", now=time.time())
        Path(pair.cert_file).write_bytes(new.chain_pem)
        status, shown = self.shown("certs", "--config", str(daemon.config))
        leaf, served = shown["certificates"]
        self.assertEqual((status, leaf["verdict"], leaf["served"]), (2, "invalid", "other"))
        self.assertEqual(leaf["served_instead"], before[1]["certificates"][0]["sha256"])
        self.assertEqual((served["file"], served["verdict"]), (f"127.0.0.1:{daemon.port}", "ok"))

    def test_a_proxy_header_that_is_demanded(self) -> None:
        """The listener gets one, as from a load balancer that looks whether it lives."""
        daemon = self.daemon("application", trusted=("127.0.0.1",), server={"proxy_protocol": "required"})
        status, shown = self.shown("certs", "--config", str(daemon.config))
        self.assertEqual((status, shown["certificates"][0]["served"]), (0, "yes"))

    def test_a_unix_socket(self) -> None:
        """The listener is found there, too."""
        pair = issue(self.place, "unix")
        tls = {"mode": "application", "cert_file": pair.cert_file, "key_file": pair.key_file}
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        config = self.place / "unix.yaml"
        config.write_text(yaml.safe_dump({"server": {"host": f"unix:{directory}/s", "tls": tls}}))
        process = self.start("twistd", self.twistd(config), env=python_env(), log="twistd-unix")
        self.eventually(lambda: Path(directory, "s").exists(), "no socket", 20)
        status, shown = self.shown("certs", "--config", str(config))
        self.assertEqual((status, shown["certificates"][0]["served"]), (0, "yes"))
        process.stop()

    def test_servers_behind_us(self) -> None:
        """Good, of an unknown authority, of another name, not there."""
        good = self.daemon("application", tls=self.plain(name="good"))
        stranger = Authority.root("Stranger").issue("localhost", now=time.time()).write(self.place, "stranger")
        bad = self.daemon("application", tls={"cert_file": stranger.cert_file, "key_file": stranger.key_file})
        config = self.place / "behind.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "mcpServers": {
                        "good": {"url": f"https://localhost:{good.port}/mcp", "ca_file": self.ca_file},
                        "stranger": {"url": f"https://localhost:{bad.port}/mcp", "ca_file": self.ca_file},
                        "wrong": {"url": f"wss://127.0.0.1:{bad.port}/mcp/ws", "ca_file": stranger.cert_file},
                        "gone": {"url": f"https://localhost:{free_port()}/mcp"},
                    }
                }
            )
        )
        status, shown = self.shown("certs", "--config", str(config))
        self.assertEqual((status, shown["worst"]), (2, "invalid"))
        seen = {one["file"]: one for one in shown["certificates"] if one["role"] == "upstream"}
        self.assertEqual((seen["mcpServers.good"]["verdict"], seen["mcpServers.good"]["flaw"]), ("ok", None))
        self.assertIn("does not know CN=Stranger", seen["mcpServers.stranger"]["flaw"])
        self.assertIn("not for 127.0.0.1", seen["mcpServers.wrong"]["flaw"])
        (error,) = shown["errors"]
        self.assertIn("mcpServers.gone: localhost:", error)
        self.assertIn("nothing listens there", error)
        self.assertEqual(self.shown("certs", "--config", str(config), "--no-upstreams")[0], 0)

    def test_a_server_behind_a_proxy(self) -> None:
        """Asked through it, as the daemon would; its password is shown nowhere."""
        good = self.daemon("application", tls=self.plain(name="far"))
        port = free_port()
        configuration = self.file("tinyproxy.conf", b"Port %d\nListen 127.0.0.1\nBasicAuth us hush\n" % port)
        self.start("tinyproxy", [require("tinyproxy"), "-d", "-c", configuration], port)
        config = self.place / "far.yaml"
        for password, status in (("hush", 0), ("wrong", 3)):
            entry = {
                "url": f"https://localhost:{good.port}/mcp",
                "ca_file": self.ca_file,
                "proxy": f"http://us:{password}@127.0.0.1:{port}",
            }
            config.write_text(yaml.safe_dump({"mcpServers": {"far": entry}}))
            seen, shown = self.shown("certs", "--config", str(config))
            self.assertEqual(seen, status, shown)
        (error,) = shown["errors"]
        self.assertIn(f"the proxy http://127.0.0.1:{port} refuses", error)
        self.assertNotIn("wrong", json.dumps(shown))


class CheckTests(CertsCase):
    """``mcptunnel certs check`` against servers that are good, and wrong in every way."""

    def serve(self, issued: Issued | CertificatePair, *argv: str) -> int:
        """``openssl s_server``; its port."""
        pair = issued if isinstance(issued, CertificatePair) else issued.write(self.place, f"s{free_port()}")
        port = free_port()
        _, *rest = x509.load_pem_x509_certificates(Path(pair.cert_file).read_bytes())
        own = ["-cert", pair.cert_file, "-key", pair.key_file]
        if rest:
            own += ["-cert_chain", self.file(f"rest-{port}.pem", b"".join(map(pem, rest)))]
        self.start("openssl", ["openssl", "s_server", "-accept", str(port), "-quiet", "-www", *own, *argv], port)
        return port

    def issue(self, *names: str, **others: Any) -> Issued:
        return authority().issue(*names, now=time.time(), **others)

    def test_a_daemon(self) -> None:
        """Under its name, by its address, as a URL; version, suite and key exchange are what openssl agrees on, too."""
        daemon = self.daemon("application")
        for target in (f"localhost:{daemon.port}", f"127.0.0.1:{daemon.port}", f"https://localhost:{daemon.port}/mcp"):
            status, shown = self.shown("certs", "check", target, "--ca-file", self.ca_file)
            self.assertEqual((status, shown["worst"], shown["problems"], shown["notes"]), (0, "ok", [], []))
        self.assertEqual(shown["version"], "TLSv1.3")
        self.assertEqual(shown["cipher"], "TLS_AES_128_GCM_SHA256")
        self.assertEqual(shown["group"], "X25519MLKEM768")
        self.assertEqual(shown["address"], f"127.0.0.1:{daemon.port}")
        cert_file = yaml.safe_load(daemon.config.read_text())["server"]["tls"]["cert_file"]
        argv = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", cert_file]
        printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        self.assertEqual(printed.strip().partition("=")[2].replace(":", "").lower(), shown["certificates"][0]["sha256"])

    def test_the_name_decides(self) -> None:
        """Another one, with --name; one that the certificate has not."""
        daemon = self.daemon("application")
        self.assertEqual(self.check(daemon.port, "--name", NAME)[0], 0)
        status, shown = self.check(daemon.port, "--name", "wrong.test")
        self.assertEqual((status, shown["covered"], shown["trusted"]), (2, False, True))
        self.assertIn("not for wrong.test, but for mcp.example.com, localhost, 127.0.0.1", shown["problems"][0])

    def test_nobody_vouches_for_it(self) -> None:
        """This system does not know the tests' authority; with --ca-file it does."""
        daemon = self.daemon("application")
        status, shown = self.shown("certs", "check", f"localhost:{daemon.port}")
        self.assertEqual((status, shown["covered"], shown["trusted"]), (2, True, False))
        self.assertIn("this system does not know CN=mcptunnel outside tests", shown["problems"][0])

    def test_a_daemon_that_demands_client_certificates(self) -> None:
        """What it shows is good; that it then hangs up is a note."""
        for version in ("1.2", "1.3"):
            suites = [] if version == "1.3" else ["ECDHE-ECDSA-AES128-GCM-SHA256"]
            daemon = self.daemon(
                "application",
                tls={
                    **self.plain(name=f"auth{version[-1]}"),
                    "client_auth": "required",
                    "ca_file": self.ca_file,
                    **({"cipher_suites": suites} if suites else {}),
                },
            )
            status, shown = self.check(daemon.port)
            self.assertEqual((status, shown["version"]), (0, f"TLSv{version}"))
            self.assertIn("miss a client certificate", shown["notes"][0])

    def test_lives(self) -> None:
        """Expired, of tomorrow, near its end; an intermediate that has expired."""
        between = authority().intermediate("Old", now=time.time(), since=-30 * DAY, until=-DAY)
        for issued, status, worst, words in (
            (self.issue("localhost", until=-3 * DAY), 2, "expired", "expired 3 days ago; renew it"),
            (self.issue("localhost", since=2.5 * DAY), 2, "not_yet_valid", "becomes valid in 2 days only"),
            (self.issue("localhost", since=-95 * DAY, until=5 * DAY), 2, "critical", ""),
            (self.issue("localhost", since=-80 * DAY, until=20 * DAY), 1, "warning", ""),
            (between.issue("localhost", now=time.time()), 2, "expired", "certificate 2 (CN=Old) expired"),
        ):
            seen, shown = self.check(self.serve(issued))
            self.assertEqual((seen, shown["worst"]), (status, worst), shown)
            self.assertIn(words, " ".join(shown["problems"]))
            self.assertEqual(len(shown["problems"]), 1 if words else 0, shown["problems"])

    def test_chains(self) -> None:
        """Complete, without the intermediate, out of order, self-signed."""
        between = authority().intermediate("Between")
        whole = between.issue("localhost", now=time.time())
        self.assertEqual(self.check(self.serve(whole))[0], 0)
        key = whole.key_pem()
        alone = write_pair(self.place, "alone", pem(whole.certificate), key)
        status, shown = self.check(self.serve(alone))
        self.assertEqual((status, shown["trusted"]), (2, False))
        self.assertIn(
            "does not know CN=Between, which issued CN=localhost, and the server does not send it", shown["problems"][0]
        )
        self.assertIn("fullchain.pem", shown["problems"][0])
        mixed = pem(whole.certificate) + authority().pem + pem(between.issued.certificate)
        status, shown = self.check(self.serve(write_pair(self.place, "mixed", mixed, key)))
        self.assertEqual(status, 0, "clients mend it")
        self.assertIn("order them leaf first", shown["notes"][0])
        status, shown = self.check(self.serve(mint("localhost", names=["localhost"], now=time.time())))
        self.assertEqual(status, 2)
        self.assertIn("it is self-signed", shown["problems"][0])

    def test_what_is_no_tls_server(self) -> None:
        """Plain HTTP of a daemon and of a simple server, an old version, a foreign protocol, nothing, nobody."""
        plain = self.daemon("disabled")
        simple = free_port()
        self.start("http", [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(simple)], simple)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            mute = silent.getsockname()[1]
            for port, words in (
                (plain.port, "serve no TLS there"),
                (simple, "plain HTTP"),
                (mute, "says nothing"),
                (free_port(), "nothing listens"),
            ):
                status, shown = self.check(port, "--timeout", "2", host="127.0.0.1")
                self.assertEqual((status, shown["worst"], len(shown["problems"])), (2, "critical", 1))
                self.assertIn(words, shown["problems"][0])
        status, shown = self.shown("certs", "check", "nobody.invalid", "--timeout", "5")
        self.assertEqual(status, 2)
        self.assertIn("nobody.invalid", shown["problems"][0])

    def test_an_alert(self) -> None:
        """No suite in common."""
        port = self.serve(self.issue("localhost"), "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
        status, shown = self.check(port)
        self.assertEqual(status, 2)
        self.assertIn("refuses the handshake: handshake_failure", shown["problems"][0])

    def test_ipv6(self) -> None:
        """In brackets, and bare."""
        port = free_port()
        pair = self.issue("::1").write(self.place, "six")
        self.daemon_at("::1", port, pair)
        for target in (f"[::1]:{port}", f"https://[::1]:{port}/"):
            status, shown = self.shown("certs", "check", target, "--ca-file", self.ca_file)
            self.assertEqual((status, shown["address"]), (0, f"[::1]:{port}"))

    def daemon_at(self, host: str, port: int, pair: CertificatePair) -> None:
        config = self.place / "six.yaml"
        tls = {"mode": "application", "cert_file": pair.cert_file, "key_file": pair.key_file}
        config.write_text(yaml.safe_dump({"server": {"host": host, "port": port, "tls": tls}}))
        process = self.start("twistd", self.twistd(config), None, env=python_env(), log="twistd-six")
        process.wait_for_port(port, host)
        self.addCleanup(process.stop)


class DevTests(CertsCase):
    """``mcptunnel certs dev``: what other programs think of it."""

    def setUp(self) -> None:
        super().setUp()
        status, said, errors = self.mcptunnel("certs", "dev", "dev", "--name", "mcp.test", "--name", "*.dev.test")
        self.assertEqual((status, errors), (0, ""), said)
        self.dev = self.place / "dev"

    def openssl(self, *argv: str) -> tuple[int, str]:
        done = subprocess.run(
            ["openssl", *argv], cwd=self.place, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def verify(self, name: str, cert: str = "dev/cert.pem") -> tuple[int, str]:
        how = "-verify_ip" if ":" in name or name[0].isdigit() else "-verify_hostname"
        return self.openssl(
            "verify", "-x509_strict", "-no-CApath", "-CAfile", "dev/ca.pem", "-purpose", "sslserver", how, name, cert
        )

    def test_openssl_accepts_it_strictly(self) -> None:
        """For its names, and for no other."""
        for name in ("localhost", "127.0.0.1", "::1", "mcp.test", "a.dev.test"):
            self.assertEqual(self.verify(name), (0, "dev/cert.pem: OK\n"), name)
        self.assertNotEqual(self.verify("evil.test")[0], 0)

    def test_a_stolen_key_is_worth_these_names_only(self) -> None:
        """What it signs for others is refused: by openssl, and by curl and Python in a handshake."""
        stolen = read_key((self.dev / "ca-key.pem").read_bytes())
        thief = Minted(certificate=x509.load_pem_x509_certificate((self.dev / "ca.pem").read_bytes()), key=stolen)  # type: ignore[arg-type]
        for names in (("evil.test",), ("localhost", "evil.test"), ("192.0.2.1",), ("localhost", "10.0.0.1")):
            forged = mint_leaf(names, 30, time.time(), thief)
            self.file("forged.pem", forged.pem)
            status, said = self.verify(names[0], "forged.pem")
            self.assertNotEqual(status, 0)
            self.assertIn("permitted subtree violation", said)
        pair = write_pair(self.place, "forged", forged.pem, forged.key_pem)
        self.assertEqual(names[0], "localhost")
        daemon = self.daemon("application", tls={"cert_file": pair.cert_file, "key_file": pair.key_file})
        self.assertEqual(self.curl(daemon.port), 60)
        self.assertRaises(ssl.SSLCertVerificationError, self.handshake, daemon.port, "localhost")
        status, shown = self.shown("certs", "check", f"localhost:{daemon.port}", "--ca-file", "dev/ca.pem")
        self.assertEqual(status, 2)
        self.assertIn("permitted subtree violation", " ".join(shown["problems"]))

    def curl(self, port: int) -> int:
        url = f"https://localhost:{port}/health/live"
        argv = [require("curl"), "--silent", "--fail", "--ipv4", "--cacert", "dev/ca.pem", url]
        return subprocess.run(argv, cwd=self.place, capture_output=True, timeout=SECONDS, check=False).returncode

    def handshake(self, port: int, name: str) -> None:
        context = ssl.create_default_context(cafile=str(self.dev / "ca.pem"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw, server_hostname=name):
            pass

    def test_clients_that_are_told_to_trust_it_do(self) -> None:
        """curl, Python's strictest check, Node.js, and our own command; also when the certificate is renewed."""
        tls = {"cert_file": str(self.dev / "cert.pem"), "key_file": str(self.dev / "key.pem")}
        node = require("node")
        for renewed in (False, True):
            if renewed:
                (self.dev / "key.pem").unlink()
                status, said, errors = self.mcptunnel("certs", "dev", "dev")
                self.assertEqual((status, errors), (0, ""))
                self.assertIn("kept     dev/ca.pem", said)
                self.assertIn("renewed  dev/cert.pem", said)
            daemon = self.daemon("application", tls=tls)
            self.assertEqual(self.curl(daemon.port), 0)
            for name in ("localhost", "127.0.0.1", "mcp.test", "a.dev.test"):
                self.handshake(daemon.port, name)
            script = f"fetch('https://localhost:{daemon.port}/health/live').then(r => r.text()).then(console.log)"
            environ = {**os.environ, "NODE_EXTRA_CA_CERTS": str(self.dev / "ca.pem")}
            done = subprocess.run([node, "-e", script], env=environ, capture_output=True, timeout=SECONDS, check=False)
            self.assertEqual((done.returncode, done.stdout), (0, b'{"status":"ok"}\n'), done.stderr)
            status, shown = self.shown("certs", "check", f"localhost:{daemon.port}", "--ca-file", "dev/ca.pem")
            self.assertEqual((status, shown["worst"]), (0, "ok"))
            daemon.stop()
