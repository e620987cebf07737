"""The four TLS modes on real sockets, with clients that share no code with us."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.defer import Deferred

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import ListenError
from mcptunnel.test.tls.certs import LONG, Authority
from tests.edge import PROXY, STRANGER, EdgeTestCase, Reply, get, proxy_v1, proxy_v2

CREDENTIAL = "Cookie: session=secret"
POST = get("/mcp", "Content-Length: 0", method="POST")


class ModeTests(EdgeTestCase):
    """Every cell of the table: mode, peer, what it speaks."""

    async def statuses(self, daemon: Any, source: str) -> tuple[int, int, int]:
        """(GET, POST, GET with a credential) in the clear; -1 for a reset."""
        replies = await self.each(
            [
                lambda: self.ask(daemon, get(), source=source),
                lambda: self.ask(daemon, POST, source=source),
                lambda: self.ask(daemon, get("/health/live", CREDENTIAL), source=source),
            ]
        )
        first, second, third = (-1 if reply.reset else reply.status for reply in replies)
        return first, second, third

    async def over_tls(self, daemon: Any, source: str) -> Reply:
        return await self.ask(daemon, get(), source=source, context=self.trusting())

    async def test_disabled(self) -> None:
        """Plaintext for everybody; TLS is closed."""
        daemon = self.start(self.tls("disabled"))
        for source in (STRANGER, PROXY):
            first, second, third = await self.statuses(daemon, source)
            self.assertEqual((first, third), (200, 200))
            self.assertNotIn(second, (-1, 0, 308, 403))
            self.assertEqual((await self.over_tls(daemon, source)).status, 0)

    async def test_application(self) -> None:
        """TLS for everybody; plaintext gets a readable 400."""
        daemon = self.start(self.tls("application"))
        for source in (STRANGER, PROXY):
            self.assertEqual(await self.statuses(daemon, source), (400, 400, 400))
            reply = await self.over_tls(daemon, source)
            self.assertEqual((reply.status, reply.version), (200, "TLSv1.3"))
        refused = await self.ask(daemon, get())
        self.assertIn("https", refused.problem["detail"])

    async def test_behind_proxy(self) -> None:
        """Plaintext for listed proxies only; TLS is closed."""
        daemon = self.start(self.tls("behind_proxy"))
        first, second, third = await self.statuses(daemon, PROXY)
        self.assertEqual((first, third), (200, 200))
        self.assertNotIn(second, (-1, 0, 308, 403))
        self.assertEqual(await self.statuses(daemon, STRANGER), (403, 403, 403))
        self.assertIn("server.tls.trusted_proxies", (await self.ask(daemon, get())).problem["detail"])
        for source in (STRANGER, PROXY):
            self.assertEqual((await self.over_tls(daemon, source)).status, 0)

    async def test_behind_proxy_answers_health_checks_on_loopback_if_told_to(self) -> None:
        """And nothing else."""
        daemon = self.start(self.tls("behind_proxy", loopback_health=True))
        self.assertEqual((await self.ask(daemon, get("/health/live"))).status, 200)
        self.assertEqual((await self.ask(daemon, get("/mcp"))).status, 403)

    async def test_auto(self) -> None:
        """TLS for everybody, plaintext for proxies; a stranger is led to https unless it has shown a secret."""
        daemon = self.start(self.tls("auto"))
        first, second, third = await self.statuses(daemon, PROXY)
        self.assertEqual((first, third), (200, 200))
        self.assertNotIn(second, (-1, 0, 308, 403))
        self.assertEqual(await self.statuses(daemon, STRANGER), (308, 403, 403))
        for source in (STRANGER, PROXY):
            self.assertEqual((await self.over_tls(daemon, source)).status, 200)

    async def test_auto_leads_to_a_configured_host_only(self) -> None:
        """With path and query; and it never offers to upgrade in place."""
        daemon = self.start(self.tls("auto"), public_url="https://mcp.example.com")
        for host in ("mcp.example.com", "evil.test"):
            reply = await self.ask(daemon, get("/a?b=c", host=host))
            self.assertEqual((reply.status, reply.header("Location")), (308, "https://mcp.example.com/a?b=c"))
            self.assertIsNone(reply.header("Upgrade"))
            self.assertIsNone(reply.header("Strict-Transport-Security"))
        reply = await self.ask(daemon, get("/mcp", "Upgrade: TLS/1.0", CREDENTIAL, host="mcp.example.com"))
        self.assertEqual((reply.status, reply.header("Upgrade")), (403, None))
        self.assertIn("https://mcp.example.com/mcp", reply.problem["detail"])

    async def test_both_kinds_of_client_share_one_port_at_once(self) -> None:
        """Sixty connections at a time, each decided for itself."""
        daemon = self.start(self.tls("auto"))
        context = self.trusting()

        def direct() -> Deferred[Reply]:
            return self.ask(daemon, get(), context=context)

        def proxied() -> Deferred[Reply]:
            return self.ask(daemon, get("/health/live", "X-Forwarded-Proto: https"), source=PROXY)

        def plain() -> Deferred[Reply]:
            return self.ask(daemon, get())

        replies = await self.each([direct, proxied, plain] * 20)
        self.assertEqual([reply.status for reply in replies], [200, 200, 308] * 20)

    async def test_what_is_neither_tls_nor_http_is_reset(self) -> None:
        """Noise, SSL 2.0, HTTP/2 in the clear: not one byte of answer."""
        daemon = self.start(self.tls("auto"))
        for first in (b"\x00\x01\x02\x03", b"\x80\x2e\x01\x00\x02", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            reply = await self.ask(daemon, first)
            self.assertEqual((reply.reset, reply.data), (True, b""), first)

    async def test_silence_is_reset(self) -> None:
        """Before the first byte, and in the middle of a handshake."""
        daemon = self.start(self.tls("auto"), limits=LimitsConfig(preface_timeout=0.2, handshake_timeout=0.2))
        for first in (b"", b"\x16\x03\x01\x02\x00\x01"):
            reply = await self.ask(daemon, first)
            self.assertEqual((reply.reset, reply.data), (True, b""), first)

    async def test_connections_over_a_client_s_share_are_closed(self) -> None:
        """Others, and trusted proxies, are served."""
        daemon = self.start(self.tls("auto"), limits=LimitsConfig(client_connections=0))
        refused = await self.ask(daemon, get())
        self.assertEqual(refused.data, b"")
        self.assertEqual((await self.ask(daemon, get(), source=PROXY)).status, 200)


class IdentityTests(EdgeTestCase):
    """Whose word counts, as the access record has it."""

    FORWARDED = ("X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: localhost")

    async def record(self, daemon: Any, **how: Any) -> tuple[str, str]:
        """(client, scheme) of one request that claims to be forwarded."""
        self.records.clear()
        reply = await self.ask(daemon, get("/health/live", *self.FORWARDED), **how)
        self.assertEqual(reply.status, 200)
        (record,) = self.records
        return record["client"], record["scheme"]

    async def test_forwarded_headers_count_from_trusted_peers_only(self) -> None:
        """In the clear, and over TLS from a proxy that encrypts again."""
        truth, claim = (STRANGER, "https"), ("198.51.100.7", "https")
        auto = self.start(self.tls("auto"))
        self.assertEqual(await self.record(auto, context=self.trusting()), truth)
        self.assertEqual(await self.record(auto, context=self.trusting(), source=PROXY), claim)
        self.assertEqual(await self.record(auto, source=PROXY), claim)
        disabled = self.start(self.tls("disabled"))
        self.assertEqual(await self.record(disabled), (STRANGER, "http"))
        self.assertEqual(await self.record(disabled, source=PROXY), claim)

    async def test_a_proxy_that_names_no_scheme_has_http_clients(self) -> None:
        """HSTS follows the effective scheme: sent on https only."""
        daemon = self.start(self.tls("auto"))
        plain = await self.ask(daemon, get(), source=PROXY)
        self.assertIsNone(plain.header("Strict-Transport-Security"))
        for how in ({"source": PROXY}, {"context": self.trusting()}):
            reply = await self.ask(daemon, get("/health/live", "X-Forwarded-Proto: https"), **how)
            self.assertIn("max-age=", reply.header("Strict-Transport-Security") or "")

    async def test_hsts_follows_its_settings(self) -> None:
        """Off, and of another age."""
        off = self.start(self.tls("application", hsts_enabled=False))
        reply = await self.ask(off, get(), context=self.trusting())
        self.assertIsNone(reply.header("Strict-Transport-Security"))
        short = self.start(self.tls("application", hsts_max_age=300))
        reply = await self.ask(short, get(), context=self.trusting())
        self.assertEqual(reply.header("Strict-Transport-Security"), "max-age=300")


class ProxyProtocolTests(EdgeTestCase):
    """PROXY headers before everything else."""

    async def test_before_tls_and_before_plaintext_in_any_segments(self) -> None:
        """Both versions, both families, whole and byte by byte: the record shows the address that was named."""
        daemon = self.start(self.tls("auto"), proxy_protocol="required")
        for header in (proxy_v1, proxy_v2):
            for client in ("198.51.100.7", "2001:db8::7"):
                for bytewise in (False, True):
                    self.records.clear()
                    how: dict[str, Any] = {"source": PROXY, "before": header(client), "bytewise": bytewise}
                    secure = await self.ask(daemon, get(), context=self.trusting(), **how)
                    self.assertEqual((secure.status, secure.version), (200, "TLSv1.3"))
                    plain = await self.ask(daemon, get(), **how)
                    self.assertEqual(plain.status, 308)
                    self.assertEqual([record["client"] for record in self.records], [client, client])

    async def test_trust_is_judged_again_for_the_address_it_names(self) -> None:
        """A load balancer before a trusted proxy: that one's forwarded headers count; a stranger's do not."""
        daemon = self.start(self.tls("auto"), proxy_protocol="required")
        claims = get("/health/live", "X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https")
        through = await self.ask(daemon, claims, source=PROXY, before=proxy_v2(PROXY))
        self.assertEqual((through.status, self.records[-1]["client"]), (200, "198.51.100.7"))
        claimed = await self.ask(daemon, claims, source=PROXY, before=proxy_v2("203.0.113.9"))
        self.assertEqual((claimed.status, self.records[-1]["client"]), (308, "203.0.113.9"))

    async def test_whose_header_is_believed(self) -> None:
        """``off``: nobody's. ``optional``: a listed peer's, if it sends one. ``required``: it must."""
        header = proxy_v1("198.51.100.7")
        for setting, stranger, proxy_with, proxy_without in (
            ("off", 0, 0, 200),
            ("optional", 0, 308, 200),
            ("required", 0, 308, 0),
        ):
            daemon = self.start(self.tls("auto"), proxy_protocol=setting)
            sent = await self.ask(daemon, get(), before=header)
            self.assertEqual((sent.status, sent.data), (stranger, b""), setting)
            self.assertEqual((await self.ask(daemon, get(), source=PROXY, before=header)).status, proxy_with, setting)
            self.assertEqual((await self.ask(daemon, get(), source=PROXY)).status, proxy_without, setting)

    async def test_a_second_header_and_a_broken_one_are_reset(self) -> None:
        """Two would be one too many to believe."""
        daemon = self.start(self.tls("disabled"), proxy_protocol="optional")
        for before in (proxy_v1(PROXY) * 2, proxy_v2(PROXY) + proxy_v1(PROXY), b"PROXY TCP4 a b c d\r\n"):
            reply = await self.ask(daemon, get(), source=PROXY, before=before)
            self.assertEqual((reply.reset, reply.data), (True, b""))


class HandshakeTests(EdgeTestCase):
    """Each field of ``server.tls`` changes a real handshake."""

    async def version(self, daemon: Any, context: ssl.SSLContext, **how: Any) -> str | None:
        """The version of a served connection; None when it was refused."""
        reply = await self.ask(daemon, get(), context=context, **how)
        return reply.version if reply.status == 200 else None

    async def test_every_kind_of_key_and_every_depth_of_chain_verifies(self) -> None:
        """By a client that knows the root only."""
        for kind in ("p256", "p384", "rsa2048", "ed25519"):
            for depth in (0, 1, 2):
                pair = self.issue(kind, depth=depth).write(self.directory, f"{kind}-{depth}")
                daemon = self.start(self.tls("application", cert_file=pair.cert_file, key_file=pair.key_file))
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                    context = self.trusting(minimum_version=version, maximum_version=version)
                    self.assertIsNotNone(await self.version(daemon, context), f"{kind} {depth} {version}")

    async def test_min_tls_version(self) -> None:
        """1.2 by default; 1.3 refuses 1.2, and says so."""
        old = self.trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
        new = self.trusting(minimum_version=ssl.TLSVersion.TLSv1_3)
        daemon = self.start(self.tls("application"))
        self.assertEqual(await self.version(daemon, old), "TLSv1.2")
        self.assertEqual(await self.version(daemon, new), "TLSv1.3")
        daemon = self.start(self.tls("application", min_tls_version="1.3"))
        refused = await self.ask(daemon, get(), context=old)
        self.assertEqual(refused.error, "tlsv1 alert protocol version")
        self.assertEqual(await self.version(daemon, new), "TLSv1.3")

    async def test_cipher_suites(self) -> None:
        """Exactly those that are listed, under either name."""
        daemon = self.start(self.tls("auto", cipher_suites=("TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384")))
        reply = await self.ask(daemon, get(), context=self.trusting())
        self.assertEqual(reply.cipher, "TLS_AES_256_GCM_SHA384")
        context = self.trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
        self.assertEqual((await self.ask(daemon, get(), context=context)).cipher, "ECDHE-ECDSA-AES256-GCM-SHA384")
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual((await self.ask(daemon, get(), context=context)).error, "sslv3 alert handshake failure")

    async def test_client_auth_and_ca_file(self) -> None:
        """None asks for nothing; optional takes none or a good one; required takes a good one only."""
        authority = Authority.root("Client Root")
        ca_file = self.directory / "clients.pem"
        ca_file.write_bytes(authority.pem)
        good = self.identity("good", authority)
        bad = self.identity("bad", Authority.root("Other Root"))
        for setting, anonymous, known, unknown in (
            ("none", 200, 200, 200),
            ("optional", 200, 200, 0),
            ("required", 0, 200, 0),
        ):
            daemon = self.start(self.tls("application", client_auth=setting, ca_file=str(ca_file)))
            for context, status in ((self.trusting(), anonymous), (good, known), (bad, unknown)):
                reply = await self.ask(daemon, get(), context=context)
                self.assertEqual(reply.status, status, f"{setting} {reply}")

    def identity(self, name: str, authority: Authority) -> ssl.SSLContext:
        """A client with a certificate of ``authority``."""
        pair = authority.issue(name, client=True, **LONG).write(self.directory, name)
        context = self.trusting()
        context.load_cert_chain(pair.cert_file, pair.key_file)
        return context

    async def test_alpn(self) -> None:
        """http/1.1 is chosen; a client that wants something else is refused by the alert for it."""
        daemon = self.start(self.tls("application"))
        context = self.trusting()
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.assertEqual((await self.ask(daemon, get(), context=context)).status, 200)
        context = self.trusting()
        context.set_alpn_protocols(["h2"])
        refused = await self.ask(daemon, get(), context=context)
        self.assertEqual(refused.error, "tlsv1 alert no application protocol")

    async def test_more_certificates_by_name(self) -> None:
        """The name in the handshake chooses; without a match the default serves."""
        other = self.authority.issue("other.test", **LONG).write(self.directory, "other")
        daemon = self.start(self.tls("application", certificates=(other,)))
        context = self.trusting()
        self.assertEqual((await self.ask(daemon, get(), context=context)).status, 200)
        reply = await self.ask(daemon, get(), context=context, server_name="other.test")
        self.assertEqual(reply.status, 200)
        wrong = await self.ask(daemon, get(), context=context, server_name="unknown.test")
        self.assertEqual(wrong.error, "certificate verify failed")


class AddressTests(EdgeTestCase):
    """IPv6, both families on one socket, and an address that is taken."""

    async def test_ipv6(self) -> None:
        """TLS and plaintext."""
        daemon = self.start(self.tls("auto", trusted_proxies=("::1",)), host="::1")
        self.assertEqual((await self.ask(daemon, get(), to="::1")).status, 200)
        reply = await self.ask(daemon, get(), to="::1", context=self.trusting())
        self.assertEqual((reply.status, self.records[-1]["client"]), (200, "::1"))

    async def test_every_address_of_both_families(self) -> None:
        """An IPv4 peer keeps its IPv4 name, and the trust that goes with it."""
        daemon = self.start(self.tls("behind_proxy"), host="::")
        self.assertEqual((await self.ask(daemon, get(), source=PROXY)).status, 200)
        self.assertEqual(self.records[-1]["client"], PROXY)
        self.assertEqual((await self.ask(daemon, get())).status, 403)
        self.assertEqual((await self.ask(daemon, get(), to="::1")).status, 403)

    async def test_a_taken_port_is_named(self) -> None:
        """And the daemon does not start."""
        first = self.start(self.tls("disabled"))
        port = self.port(first)
        second = self.build(self.tls("disabled"), port=port)
        error = self.assertRaises(ListenError, second.listener.privilegedStartService)
        self.assertIn(f"cannot listen on 127.0.0.1:{port}: another process listens there", str(error))
