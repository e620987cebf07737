"""Servers that are reached in other ways than by a plain address: each with the real thing at the other end."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from mcptunnel.test.tls.certs import Authority
from tests.certificates import NAME, authority, issue
from tests.clients import HttpClient
from tests.daemon import Daemon, DaemonCase, python_env
from tests.processes import free_port, require

PATH = "/servers/far/mcp"
PASSWORD = "a-password-that-no-log-shows"


class Case(DaemonCase):
    """A server called ``far``."""

    def far(self, **entry: Any) -> Daemon:
        return self.daemon(servers={"far": entry})

    def echo(self, daemon: Daemon) -> str:
        """What ``far`` says again, or the error that there is instead; in both eras."""
        client = HttpClient(port=daemon.port, tls=None)
        modern = client.modern(PATH, "tools/call", name="echo", arguments={"text": "hello"})
        if "error" in modern.last:
            return str(modern.last["error"]["message"])
        client.initialize(PATH)
        legacy = client.legacy(PATH, "tools/call", name="echo", arguments={"text": "hello"})
        self.assertEqual(legacy.text, modern.text)
        return modern.text

    def served(self, *arguments: str) -> int:
        """A server of :mod:`tests.secured`; its port."""
        port = free_port()
        argv = [sys.executable, "-m", "tests.secured", str(port), *arguments]
        self.start("secured", argv, port, env=python_env(), log=f"secured-{port}")
        return port


class OlderTests(Case):
    """HTTP+SSE of 2024-11-05 at an address of which nothing else is known."""

    def test_the_older_transport_is_found(self) -> None:
        """A POST there is refused; the stream is asked for instead, also by modern clients."""
        port = free_port()
        argv = [sys.executable, "-m", "tests.full", "sse", str(port)]
        self.start("sse", argv, port, env=python_env())
        daemon = self.far(url=f"http://127.0.0.1:{port}/sse")
        client = HttpClient(port=daemon.port, tls=None)
        client.initialize(PATH)
        added = client.legacy(PATH, "tools/call", name="add", arguments={"a": 2, "b": 3})
        self.assertEqual(added.last["result"]["structuredContent"], {"total": 5})
        modern = client.modern(PATH, "tools/call", name="add", arguments={"a": 2, "b": 3})
        self.assertEqual(modern.last["result"]["structuredContent"], {"total": 5})


class TlsTests(Case):
    """An https server that asks for a certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = self.place / "ca.pem"
        self.ca.write_bytes(authority().pem)
        self.server = issue(self.place, "far")
        self.client = issue(self.place, "client", client=True)
        self.port = self.served("tls", self.server.cert_file, self.server.key_file, str(self.ca))

    def test_a_client_certificate_is_shown(self) -> None:
        """Without it the server hangs up, and the error names the server."""
        url = f"https://localhost:{self.port}/mcp"
        mine = {"cert_file": self.client.cert_file, "key_file": self.client.key_file}
        self.assertEqual(self.echo(self.far(url=url, ca_file=str(self.ca), **mine)), "hello")
        self.assertIn("server far is unavailable", self.echo(self.far(url=url, ca_file=str(self.ca))))

    def test_trust_anchors_and_our_certificate_follow_their_files(self) -> None:
        """Without a restart: what is wrong at first, right then, broken at last, which changes nothing."""
        ca, cert, key = (self.place / name for name in ("live-ca.pem", "live.crt", "live.key"))
        stranger = Authority.root("Stranger")
        ca.write_bytes(stranger.pem)
        other = stranger.issue("client", client=True, now=time.time()).write(self.place, "stranger")
        for target, source in ((cert, other.cert_file), (key, other.key_file)):
            target.write_bytes(Path(source).read_bytes())
        daemon = self.far(
            url=f"https://localhost:{self.port}/mcp", ca_file=str(ca), cert_file=str(cert), key_file=str(key)
        )
        self.assertIn("server far is unavailable", self.echo(daemon))
        ca.write_bytes(authority().pem)
        self.eventually(lambda: daemon.process.output().count("certificates were read again") == 1, "not read again")
        # Now we trust it, and it does not trust us.
        self.assertIn("server far is unavailable", self.echo(daemon))
        key.write_bytes(Path(self.client.key_file).read_bytes())
        cert.write_bytes(Path(self.client.cert_file).read_bytes())
        self.eventually(lambda: daemon.process.output().count("certificates were read again") == 2, "not read again")
        self.assertEqual(self.echo(daemon), "hello")
        ca.write_text("nothing")
        self.eventually(lambda: "mcpServers.far: what was read before stays" in daemon.process.output(), "no alarm")
        self.assertEqual(self.echo(daemon), "hello")

    def test_a_server_of_another_name_or_authority_is_refused(self) -> None:
        """Before anything is sent."""
        mine = {"cert_file": self.client.cert_file, "key_file": self.client.key_file}
        # 127.0.0.2 is this machine, too, and not in the certificate.
        for url, more in (
            (f"https://localhost:{self.port}/mcp", {}),
            (f"https://ip6-localhost.invalid:{self.port}/mcp", {"ca_file": str(self.ca)}),
        ):
            self.assertIn("server far is unavailable", self.echo(self.far(url=url, **mine, **more)))


class RedirectTests(Case):
    """Servers that say that they are elsewhere."""

    def test_within_the_server_it_is_followed(self) -> None:
        """A relative address is one, too."""
        self.assertEqual(self.echo(self.far(url=f"http://127.0.0.1:{self.served('redirect', '/mcp/')}/mcp")), "hello")

    def test_to_another_server_it_is_not(self) -> None:
        """The error says where to, and what to do; also for one that goes round in circles."""
        port = free_port()
        away = self.served("redirect", f"http://127.0.0.1:{port}/mcp?key=secret")
        said = self.echo(self.far(url=f"http://127.0.0.1:{away}/mcp"))
        self.assertIn(f"http://127.0.0.1:{port}/mcp", said)
        self.assertNotIn("secret", said)
        self.assertIn("url", said)
        self.assertIn(
            "server far is unavailable",
            self.echo(self.far(url=f"http://127.0.0.1:{self.served('redirect', '/x')}/mcp")),
        )


class ProxyTests(Case):
    """tinyproxy between us and the server."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy_port = free_port()
        self.log = self.place / "tinyproxy.log"
        configuration = self.place / "tinyproxy.conf"
        configuration.write_text(
            f'Port {self.proxy_port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{self.log}"\nLogLevel Connect\n'
            f"MaxClients 50\nBasicAuth us {PASSWORD}\nAllow 127.0.0.1\n"
        )
        argv = [require("tinyproxy"), "-d", "-c", str(configuration)]
        self.start("tinyproxy", argv, self.proxy_port)
        self.proxy = f"http://us:{PASSWORD}@127.0.0.1:{self.proxy_port}"

    def asked(self) -> str:
        return Path(self.log).read_text("utf-8", "replace")

    def test_http_and_https_and_websocket_go_through_it(self) -> None:
        """The first by its address, the others through a tunnel."""
        plain = self.upstream()
        self.assertEqual(self.echo(self.far(url=plain, proxy=self.proxy)), "hello")
        self.assertIn(f"POST {plain}", self.asked())
        ca = self.place / "ca.pem"
        ca.write_bytes(authority().pem)
        server, client = issue(self.place, "far"), issue(self.place, "client", client=True)
        port = self.served("tls", server.cert_file, server.key_file, str(ca))
        mine = {"cert_file": client.cert_file, "key_file": client.key_file, "ca_file": str(ca)}
        self.assertEqual(self.echo(self.far(url=f"https://localhost:{port}/mcp", proxy=self.proxy, **mine)), "hello")
        self.assertIn(f"CONNECT localhost:{port}", self.asked())
        inner = self.daemon()
        socket = f"ws://127.0.0.1:{inner.port}/servers/demo/ws"
        self.assertEqual(self.echo(self.far(url=socket, proxy=self.proxy, headers={"Host-Of": NAME})), "hello")
        self.assertIn(f"CONNECT 127.0.0.1:{inner.port}", self.asked())

    def test_what_goes_wrong_with_it_is_said_without_the_password(self) -> None:
        """Refused, a server that it does not find, nobody there."""
        wrong = self.proxy.replace(PASSWORD, "wrong-" + PASSWORD)
        gone = f"http://us:{PASSWORD}@127.0.0.1:{free_port()}"
        for proxy, url in (
            (wrong, "https://localhost:1/mcp"),
            (self.proxy, "https://nowhere.invalid/mcp"),
            (gone, "https://localhost:1/mcp"),
        ):
            daemon = self.far(url=url, proxy=proxy)
            said = self.echo(daemon)
            self.assertIn("proxy", said)
            self.assertNotIn(PASSWORD, said + daemon.process.output())
