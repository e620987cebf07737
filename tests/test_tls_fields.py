"""Every field of ``server.tls``: one that is turned changes what is seen on the wire.

Clients here are OpenSSL's own, over real sockets, with everything a handshake can tell.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import yaml
from attrs import frozen
from OpenSSL import SSL
from twisted.internet import reactor  # noqa: TID251  # a test is a program
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from mcptunnel.config.load import key_paths, load_text
from mcptunnel.core.errors import CertificateError, ConfigError
from mcptunnel.services.daemon import Daemon
from mcptunnel.services.root import build
from mcptunnel.test.tls.certs import LONG, Issued
from mcptunnel.test.tls.handshakes import client
from mcptunnel.tls.context import cause, resumed
from tests.edge import PROXY, SECONDS, STRANGER, EdgeTestCase, get

# Fields whose tests are elsewhere: module, class and test.
ELSEWHERE: Final = {
    "mode": "test_tls_modes.ModeTests.test_auto",
    "behind_proxy": "test_tls_modes.ModeTests.test_behind_proxy",
    "trusted_proxies": "test_tls_modes.IdentityTests.test_forwarded_headers_count_from_trusted_peers_only",
    "loopback_health": "test_tls_modes.ModeTests.test_behind_proxy_answers_health_checks_on_loopback_if_told_to",
    "hsts_enabled": "test_tls_modes.IdentityTests.test_hsts_follows_its_settings",
    "hsts_max_age": "test_tls_modes.IdentityTests.test_hsts_follows_its_settings",
    "hsts_include_subdomains": "test_response_headers.HeadersTests.test_whatever_is_served",
    "hsts_preload": "test_response_headers.HeadersTests.test_whatever_is_served",
    "hsts_ramp": "test_moving.RampTests.test_it_grows_with_renewals_on_an_open_connection_too_and_survives_a_restart",
    "redirect_http": "test_moving.PortsTests.test_redirect",
    "acme_webroot": "test_moving.ChallengeTests.test_in_every_mode",
}


@frozen(kw_only=True)
class Seen:
    """What a client saw.

    Attributes:
        error: Why it was refused, in OpenSSL's words; None when it was served.
        name: Common name of the certificate it was shown.
        session: To be resumed by the next.
    """

    error: str | None = None
    version: str = ""
    cipher: str = ""
    group: str = ""
    name: str = ""
    resumed: bool = False
    session: Any = None
    context: Any = None
    answer: bytes = b""


def shake(port: int, after: Seen | None = None, **options: Any) -> Seen:
    """A handshake with ``client(**options)``, and a request on it; with the session of ``after`` if given."""
    mine = client(**options)
    if after is not None:
        mine = SSL.Connection(after.context, None)
        if name := options.get("name"):
            mine.set_tlsext_host_name(name)
        mine.set_connect_state()
        mine.set_session(after.session)
    with socket.create_connection(("127.0.0.1", port), SECONDS) as wire:
        try:
            pump(wire, mine, mine.do_handshake)
            mine.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = pump(wire, mine, lambda: mine.recv(65536))
        except (SSL.Error, OSError) as error:
            return Seen(error=cause(error))
        # OpenSSL takes a session for spoilt whose connection has not ended in order.
        mine.shutdown()
        certificate = mine.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return Seen(
            version=mine.get_protocol_version_name(),
            cipher=mine.get_cipher_name() or "",
            group=mine.get_group_name() or "",
            name=certificate.subject.rfc4514_string().removeprefix("CN="),
            resumed=resumed(mine),
            session=mine.get_session(),
            context=mine.get_context(),
            answer=answer,
        )


def pump(wire: socket.socket, mine: SSL.Connection, step: Any) -> Any:
    """Let ``step`` have what comes, until it is done."""
    while True:
        try:
            return step()
        except SSL.WantReadError:
            flush(wire, mine)
            data = wire.recv(65536)
            if not data:
                raise ConnectionResetError("closed") from None
            mine.bio_write(data)
        finally:
            flush(wire, mine)


def flush(wire: socket.socket, mine: SSL.Connection) -> None:
    """Send what it has to say; a server that has hung up is heard of when reading."""
    with contextlib.suppress(SSL.WantReadError, OSError):
        wire.sendall(mine.bio_read(1 << 20))


class FieldTests(EdgeTestCase):
    """Flip it, and look."""

    def served(self, issued: Issued | None = None, extra: str = "", **tls: Any) -> Daemon:
        """A daemon with this ``server.tls``, read from YAML as users write it."""
        pair = (issued or self.issue()).write(self.directory, f"pair-{os.urandom(4).hex()}")
        section = {"mode": "application", "cert_file": pair.cert_file, "key_file": pair.key_file, **tls}
        text = yaml.safe_dump({"server": {"port": 0, "tls": section}, "logging": {"access": "json"}}) + extra
        daemon = build(load_text(text, base=Path.cwd()), reactor)
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(daemon.stopService)
        return daemon

    def shaken(self, daemon: Daemon, after: Seen | None = None, **options: Any) -> Deferred[Seen]:
        return deferToThread(shake, self.port(daemon), after, **options)

    async def test_profile(self) -> None:
        """modern: TLS 1.3 only."""
        old = {"version": SSL.TLS1_2_VERSION}
        self.assertEqual((await self.shaken(self.served(profile="intermediate"), **old)).version, "TLSv1.2")
        self.assertIn("protocol version", (await self.shaken(self.served(profile="modern"), **old)).error or "")

    async def test_min_tls_version(self) -> None:
        """The older one is refused, the newer one served."""
        for lowest, works in (("1.2", True), ("1.3", False)):
            daemon = self.served(min_tls_version=lowest)
            self.assertEqual((await self.shaken(daemon, version=SSL.TLS1_2_VERSION)).error is None, works)
            self.assertEqual((await self.shaken(daemon, version=SSL.TLS1_3_VERSION)).version, "TLSv1.3")

    async def test_cipher_suites(self) -> None:
        """What is named is what is taken, in both versions."""
        for suites in (
            ["TLS_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"],
            ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"],
        ):
            daemon = self.served(cipher_suites=suites)
            self.assertEqual((await self.shaken(daemon, version=SSL.TLS1_3_VERSION)).cipher, suites[0])
            chosen = (await self.shaken(daemon, version=SSL.TLS1_2_VERSION)).cipher
            self.assertEqual(chosen, {1: "ECDHE-ECDSA-CHACHA20-POLY1305"}.get("CHACHA20" in suites[1], suites[1]))

    async def test_groups(self) -> None:
        """The first that both have; what is not named is refused."""
        self.assertEqual((await self.shaken(self.served())).group, "X25519MLKEM768")
        daemon = self.served(groups=["secp384r1"])
        self.assertEqual((await self.shaken(daemon)).group, "secp384r1")
        self.assertIn("handshake failure", (await self.shaken(daemon, groups=b"X25519")).error or "")

    async def test_session_resumption(self) -> None:
        """Off unless switched on, and under the same name only."""
        for on, works in ((False, False), (True, True)):
            daemon = self.served(session_resumption=on)
            first = await self.shaken(daemon, name=b"localhost")
            self.assertEqual((await self.shaken(daemon, first, name=b"localhost")).resumed, works)
            self.assertFalse((await self.shaken(daemon, first, name=b"other.test")).resumed)

    async def test_certificates_and_unknown_name(self) -> None:
        """By the name that is asked for; a name that nobody has gets the first one, or a refusal."""
        other = self.authority.issue("other.test", **LONG).write(self.directory, "other")
        more = [{"cert_file": other.cert_file, "key_file": other.key_file}]
        for unknown, shown in (("default", "localhost"), ("refuse", None)):
            daemon = self.served(certificates=more, unknown_name=unknown)
            self.assertEqual((await self.shaken(daemon, name=b"other.test")).name, "other.test")
            self.assertEqual((await self.shaken(daemon)).name, "localhost")
            seen = await self.shaken(daemon, name=b"unknown.test")
            self.assertEqual(seen.name or None, shown)
            self.assertEqual("unrecognized name" in (seen.error or ""), shown is None)

    async def test_cert_file_and_key_file(self) -> None:
        """Another pair, another certificate."""
        for name in ("a.test", "b.test"):
            self.assertEqual((await self.shaken(self.served(self.authority.issue(name, **LONG)))).name, name)

    async def test_passphrases(self) -> None:
        """A key that is encrypted serves when its passphrase can be had, and not otherwise."""
        issued = self.issue()
        key, word = self.directory / "encrypted.key", self.directory / "word"
        key.write_bytes(issued.key_pem("encrypted"))
        key.chmod(0o600)
        word.write_text("secret\n")
        self.assertRaises(CertificateError, self.served, issued, key_file=str(key))
        for source in (
            {"key_passphrase_file": str(word)},
            {"key_passphrase_command": ["/bin/cat", str(word)]},
        ):
            daemon = self.served(issued, key_file=str(key), **source)
            self.assertIsNone((await self.shaken(daemon)).error)

    async def test_key_permissions(self) -> None:
        """A key that others can read is refused, or served with a warning."""
        issued = self.issue()
        key = self.directory / "open.key"
        key.write_bytes(issued.key_pem())
        key.chmod(0o644)
        error = str(
            self.assertRaises(CertificateError, self.served, issued, key_file=str(key), key_permissions="strict")
        )
        self.assertIn("open to other users", error)
        self.assertIsNone((await self.shaken(self.served(issued, key_file=str(key), key_permissions="warn"))).error)

    async def test_client_auth_and_ca_file(self) -> None:
        """Whether a certificate is asked for, and of whom."""
        now = time.time()
        good = self.authority.issue("machine", client=True, now=now)
        stranger = type(self.authority).root("Stranger").issue("machine", client=True, now=now)
        for auth, outcomes in (
            ("none", (True, True, True)),
            ("optional", (True, True, False)),
            ("required", (False, True, False)),
        ):
            daemon = self.served(client_auth=auth, **({} if auth == "none" else {"ca_file": self.ca_file}))
            for identity, works in zip((None, good, stranger), outcomes, strict=True):
                for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                    seen = await self.shaken(daemon, identity=identity, version=version)
                    self.assertEqual(seen.error is None, works, (auth, identity, version))

    async def test_crl_file(self) -> None:
        """Who is on it is refused; who is not is served."""
        now = time.time()
        good, bad = (self.authority.issue(name, client=True, now=now) for name in ("good", "bad"))
        crl = self.directory / "crl.pem"
        crl.write_bytes(self.authority.revoke(bad, now=now))
        daemon = self.served(client_auth="required", ca_file=self.ca_file, crl_file=str(crl))
        self.assertIsNone((await self.shaken(daemon, identity=good)).error)
        self.assertIn("certificate revoked", (await self.shaken(daemon, identity=bad)).error or "")

    async def test_who_a_client_certificate_stands_for(self) -> None:
        """``auth.client_certificates``: served as that principal, or asked for a token."""
        now = time.time()
        known, other = (self.authority.issue(name, client=True, now=now) for name in ("ci.test", "other.test"))
        rules = "\nauth: {client_certificates: [{name: ci, match: {san: ci.test}}]}"
        daemon = self.served(extra=rules, client_auth="required", ca_file=self.ca_file)
        self.assertIn(b'"certificates"', (await self.shaken(daemon, identity=known)).answer)
        seen = await self.shaken(daemon, identity=other)
        self.assertEqual((seen.error, seen.answer[9:12], b'"certificates"' in seen.answer), (None, b"200", False))

    async def test_expiry(self) -> None:
        """``expiry_warning``, ``expiry_critical`` and how often: what health says of a certificate."""
        half = self.authority.issue("localhost", now=time.time(), since=-50 * 86400.0, until=50 * 86400.0)
        for warning, critical, verdict in (("25%", "10%", "ok"), ("60%", "10%", "warning"), ("90%", "60%", "critical")):
            daemon = self.served(half, expiry_warning=warning, expiry_critical=critical, expiry_check_interval="1s")
            answer = (await self.shaken(daemon)).answer
            self.assertIn(f'"verdict":"{verdict}"'.encode(), answer)

    async def told(self, forwarded: dict[str, Any], *lines: str, source: str = PROXY) -> tuple[int, str | None]:
        """The status of a plaintext request with these header lines, and who the access record says it was."""
        section = {"mode": "disabled", "trusted_proxies": [PROXY], "forwarded": forwarded}
        text = yaml.safe_dump({"server": {"port": 0, "tls": section}, "logging": {"access": "json"}})
        daemon = build(load_text(text), reactor)
        daemon.privilegedStartService()
        daemon.startService()
        try:
            reply = await self.ask(daemon, get("/health/live", *lines), source=source)
        finally:
            await daemon.stopService()
        return reply.status, self.records[-1].get("client")

    async def test_forwarded(self) -> None:
        """Each of its five: which headers count, whose are refused, how long they may be, what else is read."""
        three = "192.0.2.3, 192.0.2.2, 192.0.2.1"
        for forwarded, lines, expected in (
            ({"family": "xff"}, ["X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.9"], (200, "192.0.2.1")),
            ({"family": "x-real-ip"}, ["X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.9"], (200, "192.0.2.9")),
            ({"family": "forwarded"}, ["Forwarded: for=192.0.2.5"], (200, "192.0.2.5")),
            ({"family": "none"}, ["Forwarded: for=192.0.2.5"], (200, PROXY)),
            ({"max_entries": 3}, [f"X-Forwarded-For: {three}"], (200, "192.0.2.1")),
            ({"max_entries": 2}, [f"X-Forwarded-For: {three}"], (400, PROXY)),
            ({"max_bytes": 64}, [f"X-Forwarded-For: {three}"], (200, "192.0.2.1")),
            ({"max_bytes": 64}, [f"X-Forwarded-For: {three}, {three}, {three}"], (400, PROXY)),
            ({"prefix": False}, ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Prefix: //evil"], (200, "192.0.2.1")),
            ({"prefix": True}, ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Prefix: //evil"], (400, PROXY)),
        ):
            self.assertEqual(await self.told(forwarded, *lines), expected, (forwarded, lines))
        for on_untrusted, status in (("strip", 200), ("reject", 400)):
            found = await self.told({"on_untrusted": on_untrusted}, "X-Forwarded-For: 192.0.2.1", source=STRANGER)
            self.assertEqual(found[0], status)

    async def test_trust_any_peer(self) -> None:
        """Everybody is believed, or the daemon does not start."""
        text = "server: {port: 0, tls: {trusted_proxies: [0.0.0.0/0], trust_any_peer: %s}}\nlogging: {access: json}"
        self.assertRaises(ConfigError, load_text, text % "false")
        daemon = build(load_text(text % "true"), reactor)
        daemon.privilegedStartService()
        daemon.startService()
        self.addCleanup(daemon.stopService)
        await self.ask(daemon, get("/health/live", "X-Forwarded-For: 192.0.2.1"), source=STRANGER)
        self.assertEqual(self.records[-1]["client"], "192.0.2.1")

    def test_no_field_is_forgotten(self) -> None:
        """Each has its test: here, where it is said to be, or among those that need no socket."""
        fields = {path.split(".")[2].rstrip("[]") for path in key_paths() if path.startswith("server.tls.")}
        here = {
            *("profile", "min_tls_version", "cipher_suites", "groups", "session_resumption", "certificates"),
            *("unknown_name", "cert_file", "key_file", "key_passphrase_file", "key_passphrase_command"),
            *("key_permissions", "client_auth", "ca_file", "crl_file", "trust_any_peer", "forwarded"),
            *("expiry_warning", "expiry_critical", "expiry_check_interval"),
        }
        self.assertEqual(fields, here | ELSEWHERE.keys())
        for place in ELSEWHERE.values():
            module, case, test = place.split(".")
            self.assertTrue(callable(getattr(getattr(import_module(f"tests.{module}"), case), test)), place)
