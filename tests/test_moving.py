"""The way from http to https as a daemon walks it: both ports, challenges, the promise that grows, and who is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import yaml
from attrs import frozen

from mcptunnel.config.schema import CertificatePair
from mcptunnel.test.tls.certs import mint
from tests.certificates import NAME, authority, client_context, issue
from tests.clients import CLIENT, HttpClient, Reply, websocket
from tests.daemon import Daemon, DaemonCase, python_env, twistd
from tests.processes import Process, free_port, require

PROXY: Final = "127.0.0.2"
DEMO: Final = "/servers/demo/mcp"
HOUR: Final = 3600.0
CHALLENGE: Final = "/.well-known/acme-challenge/"


@frozen(kw_only=True)
class Got:
    """What curl has seen.

    Attributes:
        code: Its exit status.
        status: Of the last response; 0 without one.
        headers: All header lines of all responses.
        body: Of the last response.
        redirect: Where it would go, or nothing.
    """

    code: int
    status: int
    headers: str
    body: str
    redirect: str

    @property
    def problem(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def header(self, name: str) -> str | None:
        """The value in the last response that has it."""
        found = None
        for line in self.headers.splitlines():
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                found = value.strip()
        return found


class MovingCase(DaemonCase):
    """curl, and daemons with two ports."""

    timeout = 240

    def setUp(self) -> None:
        super().setUp()
        self.curl_path = require("curl")
        self.ca_file = self.place / "ca.pem"
        self.ca_file.write_bytes(authority().pem)

    def curl(self, url: str, *options: str, source: str = CLIENT, to: str = "127.0.0.1") -> Got:
        """One call of curl; whatever name is asked for is at ``to``."""
        body, headers = self.place / "body", self.place / "headers"
        for path in (body, headers):
            path.unlink(missing_ok=True)
        argv = [self.curl_path, "--silent", "--max-time", "15", "--interface", source, "--cacert", str(self.ca_file)]
        argv += ["--noproxy", "*", "--connect-to", f"::{to}:", "--output", str(body), "--dump-header", str(headers)]
        argv += ["--write-out", "%{http_code} %{redirect_url}", *options, url]
        # Nobody's settings but ours.
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=30, check=False, env={"HOME": "/nonexistent"}
        )
        status, _, redirect = done.stdout.partition(" ")
        return Got(
            code=done.returncode,
            status=int(status),
            headers=headers.read_text() if headers.exists() else "",
            body=body.read_text() if body.exists() else "",
            redirect=redirect,
        )

    def moving(self, mode: str, action: str = "redirect", **others: Any) -> tuple[Daemon, str, str]:
        """A daemon with two ports, and the two URLs."""
        port, http = free_port(), free_port()
        tls = {"redirect_http": {"port": http, "action": action}, **others.pop("tls", {})}
        server = {"public_url": f"https://{NAME}:{port}", **others.pop("server", {})}
        daemon = self.daemon(mode, port=port, trusted=(PROXY,), tls=tls, server=server, **others)
        return daemon, f"http://{NAME}:{http}", f"https://{NAME}:{port}"

    def health(self, https: str) -> dict[str, Any]:
        return self.curl(f"{https}/health").problem

    def refused(self, tls: dict[str, Any], pair: CertificatePair | None = None) -> tuple[Process, int]:
        """A daemon that does not start, and its exit status."""
        pair = pair or issue(self.place, "refused")
        section = {"mode": "application", "cert_file": pair.cert_file, "key_file": pair.key_file, **tls}
        config = self.place / "refused.yaml"
        config.write_text(yaml.safe_dump({"server": {"port": free_port(), "tls": section}}))
        process = self.start("refused", twistd(config), env=python_env())
        return process, process.popen.wait(20)

    def number(self, url: str) -> int:
        return int(url.rpartition(":")[2])


class PortsTests(MovingCase):
    """Two ports in each mode, with each action."""

    def test_redirect(self) -> None:
        """What can be led to https is, what has lost a secret is told so, and TLS is closed."""
        for mode in ("auto", "application"):
            daemon, http, https = self.moving(mode)
            for path in ("/mcp?a=b", "/health/ready", "/nowhere"):
                got = self.curl(f"{http}{path}")
                self.assertEqual((got.status, got.redirect), (308, f"{https}{path}"), mode)
                self.assertEqual(self.curl(f"{http}{path}", "--head").status, 308)
            followed = self.curl(f"{http}/health/ready", "--location")
            self.assertEqual((followed.status, followed.body), (200, '{"status":"ok"}'))
            for options in (("--data", "{}"), ("--header", "Authorization: Bearer x"), ("--cookie", "a=b")):
                got = self.curl(f"{http}/mcp", *options)
                self.assertEqual((got.status, got.problem["reason"]), (403, "https_required"), options)
                self.assertIn(f"{https}/mcp", got.problem["detail"])
                self.assertIsNone(got.header("Strict-Transport-Security"))
            # curl: something is wrong with the handshake, or the connection was reset in it.
            self.assertIn(self.curl(http.replace("http:", "https:")).code, (35, 56))
            outcomes = self.health(https)["outcomes_http"]
            self.assertEqual(outcomes["unexpected_tls"], 1)
            self.assertEqual(HttpClient(port=daemon.port).modern(DEMO, "tools/list").status, 200)

    def test_a_proxy_on_the_port_for_http_gets_no_further(self) -> None:
        """It is told to use the other one, where its clients would go round in circles."""
        _, http, https = self.moving("auto")
        got = self.curl(f"{http}/mcp", "--header", "X-Forwarded-Proto: https", source=PROXY)
        self.assertEqual((got.status, got.problem["reason"]), (403, "wrong_port"))
        self.assertIn(str(self.number(https)), got.problem["detail"])
        self.assertEqual(self.curl(f"{http}/mcp", source=PROXY).status, 308)

    def test_serve(self) -> None:
        """Both ports at once; forwarded headers of listed proxies count, and of nobody else."""
        for mode in ("auto", "application"):
            daemon, http, https = self.moving(mode, "serve")
            for client in (HttpClient(port=self.number(http), tls=None), HttpClient(port=daemon.port)):
                reply = client.modern(DEMO, "tools/call", name="echo", arguments={"text": "hi"})
                self.assertEqual((reply.status, reply.text), (200, "hi"), mode)
            with websocket(self.number(http), source="127.0.0.12") as spoken:
                self.assertIn("serverInfo", spoken.initialize())
            self.assertEqual(daemon.record(client="127.0.0.12", protocol="ws", scheme="http")["status"], 101)
            plain = self.curl(f"{http}/health/live")
            self.assertEqual((plain.status, plain.header("Strict-Transport-Security")), (200, None))
            claim = ("--header", "X-Forwarded-Proto: https", "--header", "X-Forwarded-For: 198.51.100.7")
            for source, scheme in ((PROXY, "https"), (CLIENT, "http")):
                got = self.curl(f"{http}/health/live", *claim, source=source)
                self.assertEqual(got.header("Strict-Transport-Security") is not None, scheme == "https")
                client_ip = "198.51.100.7" if source == PROXY else CLIENT
                self.assertEqual(daemon.record(client=client_ip, scheme=scheme)["status"], 200)
            self.assertIn(self.curl(http.replace("http:", "https:")).code, (35, 56))
            # The first port has not become laxer.
            refused = self.curl(https.replace("https:", "http:") + "/mcp", "--data", "{}")
            self.assertEqual(refused.status, 403 if mode == "auto" else 400)

    def test_host_and_port_are_where_it_listens(self) -> None:
        """Its own address, and that of the first port without one."""
        port = free_port()
        self.daemon("application", tls={"redirect_http": {"port": port, "host": "127.0.0.3"}})
        self.assertEqual(self.curl(f"http://{NAME}:{port}/", to="127.0.0.3").status, 308)
        self.assertEqual(self.curl(f"http://{NAME}:{port}/").code, 7)
        # The path of a socket is short.
        place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, place)
        self.daemon("application", tls={"redirect_http": {"port": 80, "host": f"unix:{place}/s"}})
        got = self.curl(f"http://{NAME}/", "--unix-socket", f"{place}/s")
        self.assertEqual((got.status, got.redirect), (308, f"https://{NAME}/"))

    def test_without_it_there_is_no_second_port(self) -> None:
        """The counterpart of all of these."""
        daemon = self.daemon("application")
        got = self.curl(f"https://{NAME}:{daemon.port}/health")
        self.assertIsNone(got.problem["outcomes_http"])

    def test_a_port_that_is_taken_is_named(self) -> None:
        """By its setting, in one line, before anything is served."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process, _ = self.refused({"redirect_http": {"port": port}})
        self.assertIn(f"cannot listen on 127.0.0.1:{port}", process.output())
        self.assertIn("change server.tls.redirect_http.port", process.output())

    def test_a_call_on_the_second_port_is_finished_when_the_daemon_stops(self) -> None:
        """As on the first one."""
        daemon, http, _ = self.moving("auto", "serve")
        replies: list[Reply] = []

        def long_call() -> None:
            client = HttpClient(port=self.number(http), tls=None)
            replies.append(client.modern(DEMO, "tools/call", name="count", arguments={"to": 15}))

        thread = threading.Thread(target=long_call)
        thread.start()
        self.eventually(lambda: self.health_in_flight(daemon) > 0, "no call in flight")
        daemon.stop()
        thread.join(15)
        self.assertEqual([reply.text for reply in replies], ["counted to 15"])

    def health_in_flight(self, daemon: Daemon) -> int:
        return int(self.curl(f"https://{NAME}:{daemon.port}/health").problem["in_flight"])


# What systemd does: two listening sockets as descriptors 3 and 4, and the variables that say so.
LAUNCH: Final = """
import os, socket, sys
for number, port in ((3, sys.argv[1]), (4, sys.argv[2])):
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        # Out of the way first: it may have one of the two numbers.
        high = os.dup2(listening.fileno(), 20 + number)
os.dup2(23, 3)
os.dup2(24, 4)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
os.execv(sys.argv[3], sys.argv[3:])
"""


class SystemdTests(MovingCase):
    """Both ports as sockets that are passed."""

    def twistd(self, config: Path) -> list[str]:
        return [sys.executable, "-c", LAUNCH, *self.passed, *twistd(config)]

    def test_both_sockets_are_taken(self) -> None:
        """The redirect leads to the port that the first one has, which no setting says."""
        port, http = free_port(), free_port()
        self.passed = (str(port), str(http))
        self.daemon(
            "application",
            port=port,
            server={"host": "systemd:0", "public_url": None},
            tls={"redirect_http": {"port": 80, "host": "systemd:1"}},
        )
        self.assertEqual(self.curl(f"https://localhost:{port}/health/live").status, 200)
        got = self.curl(f"http://localhost:{http}/mcp")
        self.assertEqual((got.status, got.redirect), (308, f"https://localhost:{port}/mcp"))


class ChallengeTests(MovingCase):
    """HTTP-01 in every mode, from everybody, by http and by https."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.place / "webroot" / ".well-known" / "acme-challenge"
        self.directory.mkdir(parents=True)
        (self.directory / "tok_EN-1").write_text("tok_EN-1.thumbprint")
        (self.place / "webroot" / "secret").write_text("secret")
        (self.directory / "link").symlink_to(self.place / "webroot" / "secret")
        self.webroot = {"acme_webroot": str(self.place / "webroot")}
        # A name that is not ours yet, and a token that nobody has shown.
        self.strict = {"auth": {"tokens": [{"name": "t", "token": "t" * 40}]}}

    def check(self, base: str, source: str) -> None:
        got = self.curl(f"{base}{CHALLENGE}tok_EN-1", "--insecure", source=source)
        self.assertEqual((got.status, got.body), (200, "tok_EN-1.thumbprint"), base)
        self.assertEqual(got.header("Content-Type"), "text/plain")
        self.assertEqual(self.curl(f"{base}{CHALLENGE}tok_EN-1", "--insecure", "--head", source=source).status, 200)
        for name in ("unknown", "link", "..%2f..%2fsecret", "../../secret", "tok_EN-1/"):
            got = self.curl(f"{base}{CHALLENGE}{name}", "--insecure", "--path-as-is", source=source)
            self.assertEqual((got.status, got.problem["reason"]), (404, "no_challenge"), f"{base} {name}")

    def test_in_every_mode(self) -> None:
        """Where clients are redirected, refused, told to use TLS, or served; and where TLS is spoken, by TLS."""
        for mode in ("disabled", "behind_proxy", "application", "auto"):
            second = free_port()
            tls = dict(self.webroot)
            if mode in ("application", "auto"):
                tls |= {"redirect_http": {"port": second}}
            daemon = self.daemon(mode, trusted=(PROXY,), tls=tls, **self.strict)
            for source in (CLIENT, PROXY):
                self.check(f"http://new.test:{daemon.port}", source)
                if mode in ("application", "auto"):
                    self.check(f"http://new.test:{second}", source)
                    self.check(f"https://new.test:{daemon.port}", source)
            # Nothing else has been opened by it.
            got = self.curl(f"http://new.test:{daemon.port}{CHALLENGE}tok_EN-1", "--data", "x")
            self.assertNotIn(got.status, (200, 404), mode)
            self.assertNotIn(self.curl(f"http://new.test:{daemon.port}/.well-known/x").status, (200, 404), mode)

    def test_without_a_webroot_they_are_requests_like_any_other(self) -> None:
        """Redirected, refused, told to use TLS, or of a host that is not ours."""
        for mode, status in (("disabled", 421), ("behind_proxy", 403), ("application", 400), ("auto", 308)):
            daemon = self.daemon(mode, trusted=(PROXY,), **self.strict)
            self.assertEqual(self.curl(f"http://new.test:{daemon.port}{CHALLENGE}tok_EN-1").status, status, mode)

    def test_a_webroot_that_is_not_there_is_said_and_found_when_it_is_made(self) -> None:
        """The daemon may be the first to start."""
        later = self.place / "later"
        daemon = self.daemon("disabled", tls={"acme_webroot": str(later)})
        self.assertIn("server.tls.acme_webroot", daemon.process.output())
        url = f"http://new.test:{daemon.port}{CHALLENGE}a"
        self.assertEqual(self.curl(url).status, 404)
        (later / CHALLENGE.strip("/")).mkdir(parents=True)
        (later / CHALLENGE.strip("/") / "a").write_text("b")
        self.assertEqual((self.curl(url).status, self.curl(url).body), (200, "b"))


class RampTests(MovingCase):
    """The promise of https over renewals."""

    steps: Final = ["5m", "1d"]

    def run_ramp(self, pair: CertificatePair, **ramp: Any) -> Daemon:
        tls = {"cert_file": pair.cert_file, "key_file": pair.key_file, "hsts_ramp": {"steps": self.steps, **ramp}}
        return self.daemon("application", tls={**tls, "hsts_max_age": "30d", "hsts_include_subdomains": True})

    def promised(self, daemon: Daemon) -> int:
        value = self.curl(f"https://{NAME}:{daemon.port}/health/live").header("Strict-Transport-Security")
        assert value is not None
        self.assertTrue(value.endswith("; includeSubDomains"), value)
        return int(value.partition(";")[0].removeprefix("max-age="))

    def renew(self, daemon: Daemon, number: int) -> None:
        """A certificate that was issued ``number`` hours after the first one; SIGHUP."""
        issue(self.place, "ramp", since=-30 * 24 * HOUR + number * HOUR)
        self.reload(daemon)

    def reload(self, daemon: Daemon) -> None:
        before = daemon.process.output().count("certificates were read again")
        os.kill(daemon.process.popen.pid, signal.SIGHUP)
        self.eventually(
            lambda: daemon.process.output().count("certificates were read again") > before, "nothing was read again"
        )

    def test_it_grows_with_renewals_on_an_open_connection_too_and_survives_a_restart(self) -> None:
        """With its file. The same certificate read again is no renewal."""
        pair = issue(self.place, "ramp", since=-30 * 24 * HOUR)
        file = self.place / "hsts.json"
        daemon = self.run_ramp(pair, file=str(file))
        self.assertEqual(self.promised(daemon), 300)
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        with contextlib.closing(self.connection(daemon)) as connection:
            self.assertIn(b"max-age=300;", self.live(connection))
            self.reload(daemon)
            self.assertIn(b"max-age=300;", self.live(connection))
            self.renew(daemon, 1)
            self.assertIn(b"max-age=86400;", self.live(connection))
        health = self.curl(f"https://{NAME}:{daemon.port}/health").problem
        self.assertEqual(health["hsts"], {"max_age": 86_400, "step": 1})
        daemon.stop()
        again = self.run_ramp(pair, file=str(file))
        self.assertEqual(self.promised(again), 86_400)
        self.renew(again, 2)
        self.assertEqual(self.promised(again), 30 * 86_400)
        again.stop()
        file.write_text("{")
        broken = self.run_ramp(pair, file=str(file))
        self.assertEqual(self.promised(broken), 300)
        self.assertIn("server.tls.hsts_ramp.file", broken.process.output())

    def connection(self, daemon: Daemon) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", daemon.port), 15)
        return client_context().wrap_socket(plain, server_hostname=NAME)

    def live(self, connection: ssl.SSLSocket) -> bytes:
        connection.sendall(f"HEAD /health/live HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65_536)
            self.assertTrue(chunk, data)
            data += chunk
        return data

    def test_an_address_in_digits_is_promised_nothing(self) -> None:
        """RFC 6797 §8.1.1; nor is anybody by http."""
        daemon = self.run_ramp(issue(self.place, "ramp"))
        for host in ("127.0.0.1", "[::1]"):
            got = self.curl(f"https://localhost:{daemon.port}/health/live", "--header", f"Host: {host}:{daemon.port}")
            self.assertEqual((got.status, got.header("Strict-Transport-Security")), (200, None))
        got = self.curl(f"http://{NAME}:{daemon.port}/health/live")
        self.assertEqual((got.status, got.header("Strict-Transport-Security")), (400, None))

    def test_without_a_file_it_begins_anew(self) -> None:
        """The counterpart."""
        pair = issue(self.place, "ramp", since=-30 * 24 * HOUR)
        daemon = self.run_ramp(pair)
        self.renew(daemon, 1)
        self.assertEqual(self.promised(daemon), 86_400)
        daemon.stop()
        self.assertEqual(self.promised(self.run_ramp(pair)), 300)

    def test_a_renewal_after_expiry_begins_anew(self) -> None:
        """Clients that had been promised https were locked out."""
        pair = issue(self.place, "ramp", since=-30 * 24 * HOUR)
        daemon = self.run_ramp(pair)
        issue(self.place, "ramp", since=-29 * 24 * HOUR, until=2.0)
        self.reload(daemon)
        time.sleep(2.5)
        self.renew(daemon, 48)
        self.assertEqual(self.promised(daemon), 300)
        self.assertIn("renewed after it had expired", daemon.process.output())

    def test_a_self_signed_certificate_has_no_ramp(self) -> None:
        """The daemon names the setting and does not start; without the ramp it does."""
        pair = mint(NAME, names=[NAME], now=time.time()).write(self.place, "own")
        process, status = self.refused({"hsts_ramp": True}, pair)
        self.assertEqual(status, 1)
        self.assertIn("server.tls.hsts_ramp", process.output())
        self.daemon("application", tls={"cert_file": pair.cert_file, "key_file": pair.key_file})


class ReportTests(MovingCase):
    """Who still comes in plaintext."""

    def test_everybody_is_seen_on_either_port_whatever_the_answer(self) -> None:
        """Redirected, refused, served; who comes by https is not, nor through a proxy that says so."""
        token = {"auth": {"tokens": [{"name": "ci", "token": "t" * 40}]}}
        bearer = ("--header", f"Authorization: Bearer {'t' * 40}")
        for mode in ("auto", "application"):
            for action in ("redirect", "serve"):
                daemon, http, https = self.moving(mode, action, **token)
                main = https.replace("https:", "http:")
                self.curl(f"{main}/one", source="127.0.0.11")
                self.curl(f"{http}/two?secret", source="127.0.0.12")
                self.curl(f"{http}/three", *bearer, source="127.0.0.13")
                self.curl(f"{https}/four", *bearer, source="127.0.0.14")
                if mode == "auto":
                    self.curl(f"{main}/five", "--header", "X-Forwarded-Proto: https", source=PROXY)
                shown = self.curl(f"{https}/health", *bearer).problem["plaintext"]
                seen = [(one["client"], one["request"], one["principal"], one["credential"]) for one in shown]
                self.assertEqual(
                    seen,
                    [
                        ("127.0.0.13", "GET /three", "ci" if action == "serve" else None, True),
                        ("127.0.0.12", "GET /two", None, False),
                        ("127.0.0.11", "GET /one", None, False),
                    ],
                    (mode, action),
                )
                log = daemon.process.output()
                self.assertIn("127.0.0.13 (", log)
                self.assertIn(f"let it use {https}, and replace its credential", log)
                self.assertNotIn("secret", log)

    def test_it_is_said_once_and_counted(self) -> None:
        """Also in mode disabled, where the public URL promises https."""
        daemon = self.daemon("disabled")
        http = f"http://{NAME}:{daemon.port}"
        for _ in range(3):
            self.curl(f"{http}/mcp", source="127.0.0.11")
        (one,) = [one for one in self.curl(f"{http}/health").problem["plaintext"] if one["client"] == "127.0.0.11"]
        self.assertEqual((one["count"], one["host"]), (3, f"{NAME}:{daemon.port}"))
        self.assertEqual(daemon.process.output().count("127.0.0.11 (anonymous) still comes in plaintext"), 1)
        silent = self.daemon("disabled", server={"public_url": f"http://{NAME}"})
        self.curl(f"http://{NAME}:{silent.port}/mcp", source="127.0.0.11")
        self.assertEqual(self.curl(f"http://{NAME}:{silent.port}/health").problem["plaintext"], [])
