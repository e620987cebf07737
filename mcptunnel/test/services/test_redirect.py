"""Tests for mcptunnel.services.redirect: the second port, as part of a daemon in memory."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError

from mcptunnel.core.errors import ListenError
from mcptunnel.services.daemon import Daemon
from mcptunnel.test.services.test_daemon import Case, Wire
from mcptunnel.test.tls.certs import LONG, mint
from mcptunnel.tls.front import FrontFactory

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


class RedirectCase(Case):
    """Mode auto on port 3000, http on port 80."""

    def text(self, redirect: str = "{port: 80}", tls: str = "", server: str = "", more: str = "") -> str:
        pair = mint("localhost", names=["localhost"], **LONG).write(self.mktemp())
        return (
            f"server: {{{server or 'public_url: https://mcp.example.com'}, tls: {{mode: auto, "
            f"cert_file: '{pair.cert_file}', key_file: '{pair.key_file}', redirect_http: {redirect}{tls}}}}}\n"
            f"auth: {{tokens: [{{name: ci, token: {'x' * 40}}}]}}\n{more}"
        )

    def front(self, daemon: Daemon) -> FrontFactory:
        assert daemon.redirect is not None
        assert isinstance(daemon.redirect.factory, FrontFactory)
        return daemon.redirect.factory

    def http(self, daemon: Daemon, data: bytes, peer: str = "192.0.2.1", host: str = "mcp.example.com") -> bytes:
        """What comes back on the second port."""
        transport = Wire(peerAddress=IPv4Address("TCP", peer, 4000))
        protocol: Any = self.front(daemon).buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if b" HTTP/1.1" in data:
            head, _, rest = data.partition(b"\r\n")
            data = head + f"\r\nHost: {host}\r\n".encode() + rest + b"\r\n"
        protocol.dataReceived(data)
        self.transport = transport
        reply: bytes = transport.value()
        return reply


class RedirectTests(RedirectCase):
    """What is served there."""

    def test_get_is_redirected_and_everything_else_told(self) -> None:
        """The MCP address, health, what is nowhere: none is served here."""
        daemon = self.build(self.text())
        for path in (b"/mcp", b"/health/live", b"/nowhere?x=y"):
            reply = self.http(daemon, b"GET %b HTTP/1.1\r\n" % path)
            self.assertTrue(reply.startswith(b"HTTP/1.1 308 "), reply)
            self.assertIn(b"\r\nLocation: https://mcp.example.com%b\r\n" % path, reply)
        for data in (b"POST /mcp HTTP/1.1\r\n", b"GET /mcp HTTP/1.1\r\nAuthorization: Bearer x\r\n"):
            reply = self.http(daemon, data)
            self.assertTrue(reply.startswith(b"HTTP/1.1 403 "), reply)
            self.assertIn(b"https://mcp.example.com/mcp", reply)
            self.assertNotIn(b"Strict-Transport-Security", reply)

    def test_a_listed_proxy_is_no_exception(self) -> None:
        """Not even for its https clients, who would go round in circles."""
        daemon = self.build(self.text(tls=", trusted_proxies: [10.0.0.5]"))
        self.assertIn(b" 308 ", self.http(daemon, b"GET / HTTP/1.1\r\n", peer="10.0.0.5"))
        reply = self.http(daemon, b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\n", peer="10.0.0.5")
        self.assertEqual(json.loads(reply.partition(b"\r\n\r\n")[2])["reason"], "wrong_port")

    def test_without_a_public_url_the_port_that_speaks_tls_is_named(self) -> None:
        """The one it really listens on."""
        daemon = self.build(self.text(server="host: 127.0.0.1, port: 0"))
        self.assertIn(b'use https"', self.http(daemon, b"POST / HTTP/1.1\r\n", host="evil.test"))
        daemon.privilegedStartService()
        port = getattr(daemon.listener.address, "port", None)
        reply = self.http(daemon, b"GET / HTTP/1.1\r\n", host="localhost:80")
        self.assertIn(f"Location: https://localhost:{port}/\r\n".encode(), reply)
        self.assertIn(f"use https on port {port}".encode(), self.http(daemon, b"GET / HTTP/1.1\r\n", host="evil.test"))

    def test_serve_serves_everything_as_mode_disabled_would(self) -> None:
        """With a token, under the public name; forwarded headers of listed proxies count."""
        daemon = self.build(self.text("{port: 80, action: serve}", tls=", trusted_proxies: [10.0.0.5]"))
        self.assertIn(b" 200 ", self.http(daemon, b"GET /health/live HTTP/1.1\r\n"))
        self.assertIn(b" 401 ", self.http(daemon, b"POST /mcp HTTP/1.1\r\n"))
        token = b"Authorization: Bearer " + b"x" * 40 + b"\r\n"
        self.assertIn(b" 404 ", self.http(daemon, b"GET /nowhere HTTP/1.1\r\n" + token))
        self.assertIn(b" 421 ", self.http(daemon, b"GET /nowhere HTTP/1.1\r\n" + token, host="evil.test"))
        proto = b"GET /health/live HTTP/1.1\r\nX-Forwarded-Proto: https\r\n"
        self.assertIn(b"Strict-Transport-Security", self.http(daemon, proto, peer="10.0.0.5"))
        self.assertNotIn(b"Strict-Transport-Security", self.http(daemon, proto))

    def test_serve_answers_to_the_public_name_without_its_port(self) -> None:
        """Which clients that are yet to move do not use."""
        daemon = self.build(self.text("{port: 80, action: serve}", server="public_url: 'https://mcp.example.com:8443'"))
        token = b"Authorization: Bearer " + b"x" * 40 + b"\r\n"
        self.assertIn(b" 404 ", self.http(daemon, b"GET /nowhere HTTP/1.1\r\n" + token))
        self.assertIn(b" 421 ", self.http(daemon, b"GET /nowhere HTTP/1.1\r\n" + token, host="mcp.example.com:81"))

    def test_tls_is_closed_and_counted(self) -> None:
        """It is spoken on the other port; health has the count."""
        daemon = self.build(self.text())
        self.assertEqual(self.http(daemon, HELLO), b"")
        self.assertTrue(self.transport.disconnected)
        self.http(daemon, b"GET / HTTP/1.1\r\n")
        self.assertEqual(daemon.details()["outcomes_http"], {"serve_plain": 1, "unexpected_tls": 1})
        self.assertEqual(daemon.details()["outcomes"], {})

    def test_challenges_come_first(self) -> None:
        """Before the redirect, and in a plaintext that is served."""
        place = Path(self.mktemp()) / ".well-known" / "acme-challenge"
        place.mkdir(parents=True)
        (place / "token").write_text("answer")
        for action in ("redirect", "serve"):
            webroot = place.parent.parent.resolve()
            daemon = self.build(self.text(f"{{port: 80, action: {action}}}", tls=f", acme_webroot: '{webroot}'"))
            reply = self.http(daemon, b"GET /.well-known/acme-challenge/token HTTP/1.1\r\n", host="new.test")
            self.assertTrue(reply.endswith(b"answer"), reply)
            reply = self.http(daemon, b"GET /.well-known/acme-challenge/other HTTP/1.1\r\n", host="new.test")
            self.assertTrue(reply.startswith(b"HTTP/1.1 404 "), reply)

    def test_who_comes_is_reported(self) -> None:
        """With what it carried, redirected or refused."""
        daemon = self.build(self.text())
        self.http(daemon, b"GET /a HTTP/1.1\r\n")
        self.http(daemon, b"POST /b?secret HTTP/1.1\r\nX-Api-Key: secret\r\n", peer="192.0.2.2")
        shown = daemon.details()["plaintext"]
        self.assertEqual(
            [(one["client"], one["request"], one["credential"]) for one in shown],
            [("192.0.2.2", "POST /b", True), ("192.0.2.1", "GET /a", False)],
        )


class FrontTests(RedirectCase):
    """What happens before the first request is as on the first port."""

    def test_proxy_headers_of_listed_peers_are_believed(self) -> None:
        """And of nobody else."""
        daemon = self.build(
            self.text(
                tls=", trusted_proxies: [10.0.0.5]",
                server="public_url: https://mcp.example.com, proxy_protocol: optional",
            )
        )
        header = b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 80\r\n"
        request = b"GET / HTTP/1.1\r\nHost: mcp.example.com\r\n\r\n"
        front = self.front(daemon)
        for peer, status in (("10.0.0.5", b"HTTP/1.1 308 "), ("192.0.2.1", b"")):
            transport = Wire(peerAddress=IPv4Address("TCP", peer, 4000))
            protocol: Any = front.buildProtocol(transport.getPeer())
            protocol.makeConnection(transport)
            protocol.dataReceived(header + request)
            self.assertEqual(transport.value()[:13], status)
        self.assertEqual([one["client"] for one in daemon.details()["plaintext"]], ["192.0.2.9"])
        self.assertEqual(daemon.details()["outcomes_http"]["proxy_untrusted"], 1)

    def test_silence_is_ended(self) -> None:
        """After ``server.limits.preface_timeout``."""
        daemon = self.build(self.text())
        transport = Wire(peerAddress=IPv4Address("TCP", "192.0.2.1", 4000))
        protocol: Any = self.front(daemon).buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        self.reactor.pump([1.0] * 4)
        self.assertFalse(transport.disconnected)
        self.reactor.pump([1.0] * 2)
        self.assertTrue(transport.disconnected)


class PortTests(RedirectCase):
    """Where it listens, and what it shares with the first port."""

    def test_both_ports_are_bound_before_privileges_are_dropped_and_closed_together(self) -> None:
        """The second one on its own address, or on that of the first."""
        for redirect, interface in (("{port: 80}", "127.0.0.1"), ("{port: 80, host: 127.0.0.2}", "127.0.0.2")):
            daemon = self.build(self.text(redirect))
            daemon.privilegedStartService()
            bound = [(port, interface) for port, _, _, interface in self.reactor.tcpServers]
            self.assertEqual(bound, [(3000, "127.0.0.1"), (80, interface)])
            daemon.startService()
            daemon.stopService()
            self.reactor.pump([0.1] * 20)
            self.assertEqual(self.reactor.stopped, 2)

    def test_a_port_that_is_taken_is_named_with_its_setting(self) -> None:
        """In one line, and the daemon does not start."""
        daemon = self.build(self.text())
        listen = self.reactor.listenTCP

        def refuse(port: int, *args: Any, **others: Any) -> Any:
            if port == 80:
                raise CannotListenError("127.0.0.1", 80, OSError(errno.EADDRINUSE, "in use"))
            return listen(port, *args, **others)

        self.patch(self.reactor, "listenTCP", refuse)
        said = io.StringIO()
        self.patch(sys, "stderr", said)
        self.assertRaises(SystemExit, daemon.privilegedStartService)
        self.assertIn(
            "cannot listen on 127.0.0.1:80: another process listens there; stop it or change "
            "server.tls.redirect_http.port",
            said.getvalue(),
        )

    def test_a_socket_that_systemd_has_not_passed_is_named(self) -> None:
        """``systemd:N`` and ``unix:`` are as good as for the first port."""
        error = self.assertRaises(ListenError, self.build, self.text("{port: 80, host: 'systemd:1'}"))
        self.assertIn("cannot listen on systemd:1", str(error))
        daemon = self.build(self.text("{port: 80, host: 'unix:/run/http.sock'}"))
        assert daemon.redirect is not None
        self.assertEqual(daemon.redirect.host, "unix:/run/http.sock")

    def test_connections_of_both_ports_are_counted_together(self) -> None:
        """A second port is no second share."""
        server = "public_url: https://mcp.example.com, limits: {client_connections: 2}"
        daemon = self.build(self.text(server=server))
        peer = IPv4Address("TCP", "192.0.2.1", 4000)
        fronts = [front.buildProtocol(peer) for front in (daemon.front, self.front(daemon), daemon.front)]
        self.assertEqual([front is None for front in fronts], [False, False, True])

    def test_without_it_there_is_one_port(self) -> None:
        """As always."""
        daemon = self.build()
        self.assertIsNone(daemon.redirect)
        self.assertIsNone(daemon.details()["outcomes_http"])
