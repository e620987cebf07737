"""Tests for mcptunnel.services.upstreams: from configured servers to objects, nothing started yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.core.errors import CertificateError, ConfigError
from mcptunnel.core.link import Link
from mcptunnel.services.upstreams import Upstreams
from mcptunnel.test.tls.certs import mint
from mcptunnel.test.upstream.contract import Collecting
from mcptunnel.testing import make_exchange, request
from mcptunnel.upstream.endpoints import Kept, Named, Tunnel
from mcptunnel.upstream.events import EventsUpstream
from mcptunnel.upstream.stdio import StdioUpstream
from mcptunnel.upstream.streamable import HttpUpstream
from mcptunnel.upstream.websocket import WsUpstream


class UpstreamsTests(SynchronousTestCase):
    """``mcpServers``."""

    environ: Mapping[str, str] = {}

    def make(self, servers: str) -> Upstreams:
        self.reactor: Any = MemoryReactorClock()
        text = "mcpServers:\n" + "\n".join(f"  {line}" for line in servers.splitlines())
        return Upstreams.from_config(load_text(text, name="f", environ={"SECRET": "s"}), self.reactor, self.environ)

    def test_enabled_servers_are_made_in_the_order_of_the_file(self) -> None:
        """Each by its kind; disabled ones are not there; nothing runs or connects."""
        made = self.make(
            'b: {url: "http://127.0.0.1:1/"}\na: {command: cat}\noff: {command: cat, disabled: true}\n'
            'c: {url: "https://c.test/mcp"}'
        )
        self.assertEqual(
            [(n, type(s)) for n, s in made.servers.items()],
            [("b", HttpUpstream), ("a", StdioUpstream), ("c", HttpUpstream)],
        )
        self.assertEqual((len(made.pools), self.reactor.tcpClients, self.reactor.getDelayedCalls()), (2, [], []))

    def test_where_a_url_leads(self) -> None:
        """Host, port, path, query; the Host header as a browser would write it."""
        for url, address, line, host in (
            ("http://docs.test", ("docs.test", 80), b"POST / HTTP/1.1", b"docs.test"),
            ("http://docs.test:8080/mcp?key=1", ("docs.test", 8080), b"POST /mcp?key=1 HTTP/1.1", b"docs.test:8080"),
            ("http://127.0.0.1:9/a/b", ("127.0.0.1", 9), b"POST /a/b HTTP/1.1", b"127.0.0.1:9"),
            ("http://[::1]:9/", ("::1", 9), b"POST / HTTP/1.1", b"[::1]:9"),
            ("https://docs.test/mcp", ("docs.test", 443), b"POST /mcp HTTP/1.1", b"docs.test"),
        ):
            upstream = self.make(f'x: {{url: "{url}"}}').servers["x"]
            assert isinstance(upstream, HttpUpstream)
            head = upstream.address.request(b"POST", b"")
            self.assertTrue(head.startswith(line + b"\r\nHost: " + host + b"\r\n"), head)
            endpoint: Any = upstream.pool._endpoint()
            endpoint = getattr(endpoint, "_wrappedEndpoint", endpoint)._endpoint
            self.assertIsInstance(endpoint, HostnameEndpoint)
            self.assertEqual((endpoint._hostText, endpoint._port), address)

    def test_an_https_server_is_spoken_to_over_tls_only(self) -> None:
        """The endpoint is wrapped; a plain one is not."""
        made = self.make('s: {url: "https://a.test/"}\np: {url: "http://a.test/"}')
        for name, wrapped in (("s", True), ("p", False)):
            upstream = made.servers[name]
            assert isinstance(upstream, HttpUpstream)
            self.assertEqual(not isinstance(upstream.pool._endpoint(), Kept), wrapped)

    def test_a_ca_file_replaces_the_systems_anchors(self) -> None:
        """One that cannot be used is refused with its name and its key."""
        good = mint("ca.test").write(self.mktemp()).cert_file
        self.make(f'x: {{url: "https://a.test/", ca_file: "{good}"}}')
        bad = Path(self.mktemp())
        bad.write_text("no certificate")
        for path in (bad, Path(self.mktemp())):
            error = self.assertRaises(
                CertificateError, self.make, f'x: {{url: "https://a.test/", ca_file: "{path.absolute()}"}}'
            )
            self.assertIn(f"{path.absolute()}: mcpServers.x.ca_file: ", str(error))

    def test_each_type_of_address_has_its_transport(self) -> None:
        """Without a type an http address may turn out to be an old one."""
        made = self.make(
            'a: {url: "http://a.test/"}\nb: {url: "http://a.test/", type: http}\n'
            'c: {url: "http://a.test/", type: sse}\nd: {url: "wss://a.test/"}'
        ).servers
        self.assertEqual([type(s) for s in made.values()], [HttpUpstream, HttpUpstream, EventsUpstream, WsUpstream])
        older = [s.older is not None for s in made.values() if isinstance(s, HttpUpstream)]
        self.assertEqual(older, [True, False])

    def test_a_proxy_on_the_way(self) -> None:
        """It is asked for plain http, and tunnelled through for everything else; never to this machine."""
        self.environ = {"HTTP_PROXY": "http://u:p@env.test:1", "HTTPS_PROXY": "env.test:2", "NO_PROXY": "direct.test"}
        made = self.make(
            'plain: {url: "http://a.test/x", type: http}\nlocal: {url: "http://127.0.0.1:9/"}\n'
            'direct: {url: "http://sub.direct.test/"}\nsecure: {url: "https://a.test/"}\n'
            'socket: {url: "ws://a.test/"}\nmine: {url: "http://127.0.0.1:9/", proxy: "http://mine.test:3"}\n'
            'none: {url: "http://a.test/", proxy: none}'
        ).servers

        def way(name: str) -> Any:
            server: Any = made[name]
            endpoint = server.endpoint() if name == "socket" else server.pool._endpoint()
            return getattr(endpoint, "_wrappedEndpoint", endpoint)

        kinds = {name: type(way(name)) for name in made}
        self.assertEqual(
            kinds,
            {
                **dict.fromkeys(("plain", "mine"), Named),
                **dict.fromkeys(("local", "direct", "none"), Kept),
                **dict.fromkeys(("secure", "socket"), Tunnel),
            },
        )
        self.assertEqual(str(way("mine")._proxy), "http://mine.test:3")
        plain = made["plain"]
        assert isinstance(plain, HttpUpstream)
        self.assertEqual(
            plain.address.request(b"GET", b""),
            b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
        )

    def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(self) -> None:
        """Not by its value, which may hold a password."""
        self.environ = {"https_proxy": "socks5://u:geheim@p"}
        error = str(self.assertRaises(ConfigError, self.make, 'x: {url: "https://a.test/"}'))
        self.assertIn("mcpServers.x: https_proxy of the environment", error)
        self.assertNotIn("geheim", error)

    def test_our_own_certificate_must_fit_its_key(self) -> None:
        """What is wrong is said with the file and its key in the configuration."""
        place = self.mktemp()
        good, other = mint("a.test").write(place, "a"), mint("b.test").write(place, "b")
        entry = 'x: {{url: "https://a.test/", cert_file: "{}", key_file: "{}"}}'
        self.make(entry.format(Path(good.cert_file).absolute(), Path(good.key_file).absolute()))
        wrong = Path(other.key_file).absolute()
        error = self.assertRaises(CertificateError, self.make, entry.format(Path(good.cert_file).absolute(), wrong))
        self.assertIn(f"{wrong}: mcpServers.x.key_file: does not belong to", str(error))

    def test_the_sweep_looks_after_every_pool_and_the_end_closes_them(self) -> None:
        """With no child ever started there is nothing to wait for."""
        made = self.make('x: {url: "http://127.0.0.1:1/"}')
        made.sweep()
        link = Link.open(made.servers["x"], "legacy", Collecting(), lambda: 0.0)
        exchange, sink = make_exchange(request("tools/list"))
        link.request(exchange)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        closed = Deferred.fromCoroutine(made.close())
        self.successResultOf(closed)
        self.assertFalse(sink.answered)
