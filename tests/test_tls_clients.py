"""The edge as other programs see it: openssl, curl, websockets; UNIX sockets and sockets passed by systemd; twistd."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from websockets.sync.client import connect

from mcptunnel.test.tls.certs import LONG, mint
from mcptunnel.tls.pem import read_key
from tests.edge import PROXY, SECONDS, EdgeTestCase, Reply, get, proxy_v2, receive

_ROOT = str(Path(__file__).parent.parent)
_COMMAND = f"import sys; sys.path.insert(0, {_ROOT!r}); from mcptunnel.cli import main; sys.exit(main())"

# What systemd does between fork and exec: the sockets become descriptors 3 and 4, and the variables name this process.
# By way of numbers beyond all others, so that none is overwritten before it was moved.
_PASSING = """
import os, sys
first, second, *command = sys.argv[1:]
for number, place in ((int(first), 203), (int(second), 204), (203, 3), (204, 4)):
    os.dup2(number, place)
os.closerange(5, 300)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
os.execv(command[0], command)
"""


def run(*command: str, stdin: bytes = b"") -> Deferred[subprocess.CompletedProcess[bytes]]:
    """A program, in a thread."""
    return deferToThread(subprocess.run, command, input=stdin, capture_output=True, timeout=SECONDS, check=False)


class OpensslTests(EdgeTestCase):
    """``openssl s_client`` and keys made by ``openssl``."""

    async def s_client(self, daemon: Any, *options: str) -> str:
        """What it says about a handshake, and what it received."""
        done = await run(
            "openssl",
            "s_client",
            *("-connect", f"127.0.0.1:{self.port(daemon)}", "-servername", "localhost", "-CAfile", self.ca_file),
            *("-verify_return_error", "-ign_eof", *options),
            stdin=get(),
        )
        return (done.stdout + done.stderr).decode("latin-1")

    async def test_versions_and_suites(self) -> None:
        """What is offered by default, to a client of one version."""
        daemon = self.start(self.tls("application"))
        for option, words in (
            ("-tls1_2", "Cipher is ECDHE-ECDSA-"),
            ("-tls1_3", "Cipher is TLS_"),
        ):
            said = await self.s_client(daemon, option)
            for expected in ("Verification: OK", "HTTP/1.1 200", words, "Secure Renegotiation IS"):
                self.assertIn(expected, said)
        self.assertIn("alert protocol version", await self.s_client(daemon, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))
        for cipher in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
            said = await self.s_client(daemon, "-tls1_2", "-cipher", cipher)
            self.assertIn("handshake failure", said)

    async def test_no_session_is_offered(self) -> None:
        """Neither a ticket nor an identifier that another host's connection could use."""
        daemon = self.start(self.tls("application"))
        said = await self.s_client(daemon, "-tls1_2")
        self.assertIn("Verification: OK", said)
        self.assertNotIn("TLS session ticket", said)
        self.assertIn("New, TLSv1.2", said)

    async def test_keys_as_openssl_writes_them(self) -> None:
        """PKCS#8, PKCS#1, SEC 1 with its parameters, Ed25519."""
        for number, command in enumerate(
            (
                ("genpkey", "-algorithm", "ed25519"),
                ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
                ("genrsa", "-traditional", "2048"),
                ("ecparam", "-name", "prime256v1", "-genkey"),
            )
        ):
            key_file = self.directory / f"{number}.key"
            key = (await run("openssl", *command)).stdout
            key_file.write_bytes(key)
            key_file.chmod(0o600)
            issued = mint("localhost", names=["localhost"], issuer=self.authority.issued, key=read_key(key), **LONG)
            cert_file = self.directory / f"{number}.crt"
            cert_file.write_bytes(issued.chain_pem)
            daemon = self.start(self.tls("application", cert_file=str(cert_file), key_file=str(key_file)))
            self.assertIn("HTTP/1.1 200", await self.s_client(daemon), str(command))


class CurlTests(EdgeTestCase):
    """``curl``, and the certificate of ``mcptunnel certs dev``."""

    async def test_the_development_authority_is_trusted_where_it_is_named(self) -> None:
        """By curl, and by Python's strictest check; by nobody else."""
        directory = str(self.directory / "dev")
        made = await run(sys.executable, "-c", _COMMAND, "certs", "dev", directory)
        self.assertEqual((made.returncode, made.stderr), (0, b""))
        cert = f"{directory}/ca.pem"
        daemon = self.start(self.tls("auto", cert_file=f"{directory}/cert.pem", key_file=f"{directory}/key.pem"))
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{self.port(daemon)}/health/live"
            done = await run("curl", "--silent", "--show-error", "--fail", "--cacert", cert, url)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual((await run("curl", "--silent", url)).returncode, 60)
        self.ca_file = cert
        reply = await self.ask(daemon, get(), context=self.trusting())
        self.assertEqual(reply.status, 200)

    async def test_a_redirect_is_followed_to_the_same_port(self) -> None:
        """http to https in one command."""
        daemon = self.start(self.tls("auto"))
        url = f"http://localhost:{self.port(daemon)}/health/live"
        done = await run("curl", "--silent", "--fail", "--ipv4", "--location", "--cacert", self.ca_file, url)
        self.assertEqual(done.returncode, 0)


class WebSocketTests(EdgeTestCase):
    """autobahn takes a connection over from the HTTP channel, whatever is below."""

    def chat(self, port: int, source: str, before: bytes, secure: bool) -> str | None:
        """Open, ping, close; the subprotocol that was agreed on."""
        raw = socket.create_connection(("127.0.0.1", port), SECONDS, (source, 0))
        raw.sendall(before)
        scheme = "wss" if secure else "ws"
        with connect(
            f"{scheme}://localhost:{port}/mcp/ws",
            sock=raw,
            ssl=self.trusting() if secure else None,
            subprotocols=["mcp"],  # type: ignore[list-item]
            proxy=None,
        ) as session:
            self.assertTrue(session.ping().wait(SECONDS))
            session.send("{" * 10)
            session.recv(SECONDS)
            return session.subprotocol

    async def test_over_tls_in_the_clear_and_behind_a_proxy_header(self) -> None:
        """Frames go both ways, and the connection is forgotten when it ends."""
        daemon = self.start(self.tls("auto"), proxy_protocol="optional")
        port = self.port(daemon)
        for source, before, secure in (
            ("127.0.0.1", b"", True),
            (PROXY, b"", False),
            (PROXY, b"", True),
            (PROXY, proxy_v2("198.51.100.7"), True),
            (PROXY, proxy_v2(PROXY), False),
        ):
            self.assertEqual(await deferToThread(self.chat, port, source, before, secure), "mcp")
        front: Any = daemon.listener.factory
        for _ in range(100):
            if not front.admission.open:
                break
            await deferToThread(time.sleep, 0.02)
        self.assertEqual(front.admission.open, 0)


class LocalSocketTests(EdgeTestCase):
    """``host: unix:/path``."""

    async def test_a_trusted_local_proxy(self) -> None:
        """For the daemon's user and group alone; gone when the daemon is."""
        # A UNIX socket's path holds 107 bytes, which trial's directories do not fit in.
        directory = mkdtemp(prefix="mcptunnel")
        self.addCleanup(shutil.rmtree, directory)
        path = f"{directory}/s"
        daemon = self.start(self.tls("behind_proxy", trusted_proxies=("unix",)), host=f"unix:{path}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
        reply = await deferToThread(_over_unix, path, get("/health/live", "X-Forwarded-For: 198.51.100.7"))
        self.assertEqual((reply.status, self.records[-1]["client"]), (200, "198.51.100.7"))
        await daemon.stopService()
        self.assertFalse(os.path.exists(path))


class TwistdTests(EdgeTestCase):
    """``twistd -n mcptunnel`` as a process."""

    def twistd(self, text: str, *prefix: str, **options: Any) -> subprocess.Popen[bytes]:
        """Started with this configuration, ended with the test."""
        file = self.directory / "mcptunnel.yaml"
        file.write_text(text)
        twistd = str(Path(sys.executable).with_name("twistd"))
        process = subprocess.Popen(
            [*prefix, twistd, "--nodaemon", "--pidfile=", "mcptunnel", "--config", str(file.absolute())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": _ROOT},
            **options,
        )
        self.addCleanup(self._end, process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

    async def test_sockets_passed_by_systemd(self) -> None:
        """TCP and UNIX; the UNIX socket and its mode stay systemd's own when the daemon ends."""
        directory = mkdtemp(prefix="mcptunnel")
        self.addCleanup(shutil.rmtree, directory)
        path = f"{directory}/s"
        with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
            tcp.bind(("127.0.0.1", 0))
            unix.bind(path)
            os.chmod(path, 0o600)
            for listening in (tcp, unix):
                listening.listen()
            for number, ask in ((0, self._over(tcp)), (1, lambda: _over_unix(path, get()))):
                process = self.twistd(
                    f"server: {{host: 'systemd:{number}'}}\n",
                    *(sys.executable, "-c", _PASSING, str(tcp.fileno()), str(unix.fileno())),
                    pass_fds=(tcp.fileno(), unix.fileno()),
                )
                reply = await deferToThread(ask)
                self.assertEqual(reply.status, 200)
                process.terminate()
                output = (await deferToThread(process.communicate))[0]
                self.assertIn(b"Server Shut Down", output)
                self.assertNotIn(b"Traceback", output)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

    def _over(self, listening: socket.socket) -> Any:
        def ask() -> Reply:
            with socket.create_connection(listening.getsockname(), SECONDS) as connection:
                connection.sendall(get())
                return receive(connection, Reply())

        return ask

    async def test_a_taken_port_ends_it_with_the_reason(self) -> None:
        """Non-zero, naming the address."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            process = self.twistd(f"server: {{port: {port}}}\n")
            output = (await deferToThread(process.communicate, timeout=SECONDS))[0].decode()
        self.assertNotEqual(process.returncode, 0)
        self.assertIn(f"cannot listen on 127.0.0.1:{port}: another process listens there", output)

    async def test_bad_certificates_end_it_with_every_reason(self) -> None:
        """Before any socket is opened."""
        pair = mint("old", names=["a"], until=-60.0, now=1_600_000_000.0).write(self.directory, "old")
        process = self.twistd(
            "server:\n  tls:\n    mode: application\n"
            f"    cert_file: {Path(pair.cert_file).absolute()}\n    key_file: {Path(pair.key_file).absolute()}\n"
        )
        output = (await deferToThread(process.communicate, timeout=SECONDS))[0].decode()
        self.assertNotEqual(process.returncode, 0)
        self.assertRegex(output, r"old\.crt: certificate 1 \(CN=old\) expired \d+ days ago")
        self.assertNotIn("Traceback", output)
        self.assertNotIn("listening on", output)


def _over_unix(path: str, request: bytes) -> Reply:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(path)
        connection.sendall(request)
        return receive(connection, Reply())
