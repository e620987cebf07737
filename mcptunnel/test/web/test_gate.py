"""Tests for mcptunnel.web.gate: which host, which page, which credential, before any resource is asked."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.principal import Keyring, Principal
from mcptunnel.test.web.sites import Echo, Served, serve
from mcptunnel.web.gate import Gate

CI = Principal(name="ci", allow=("a__*",))
KEYRING = Keyring([(sha256(b"good").digest(), CI)])
PROXY = IPv4Address("TCP", "10.0.0.1", 4000)


def gated(
    *, anonymous: bool = False, keyring: Keyring = KEYRING, trusted: tuple[str, ...] = (), **hosts: Any
) -> Served:
    """An echoing site behind a gate."""
    policy = HostPolicy.build(**{"bound_host": "127.0.0.1", **hosts})
    return serve(Echo(), trusted=trusted, admit=Gate(policy, keyring, anonymous=anonymous))


class Case(SynchronousTestCase):
    """Asks and looks at what came back."""

    def ask(
        self, served: Served, *lines: str, path: str = "/mcp", peer: Any = None, tls: bool = False
    ) -> tuple[int, str, Any]:
        """Status, WWW-Authenticate, and the reason in the body."""
        head = "".join(f"{line}\r\n" for line in lines)
        data = served.connect(peer, tls=tls).send(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        first, _, body = data.partition(b"\r\n\r\n")
        status, *fields = first.decode().split("\r\n")
        challenge = next((f.partition(": ")[2] for f in fields if f.startswith("WWW-Authenticate")), "")
        reason = json.loads(body)["reason"] if b"problem+json" in first else None
        return int(status.split(" ")[1]), challenge, reason


class ChallengeTests(Case):
    """ACME authorities know neither credentials nor our names."""

    def test_challenges_pass_where_they_are_served(self) -> None:
        """Under any host; what lies beside them does not, and without a webroot they do not."""
        for challenges, expected in ((False, 421), (True, 200)):
            gate = Gate(HostPolicy.build(), KEYRING, anonymous=False, challenges=challenges)
            served = serve(Echo(), admit=gate)
            for path, status in (("/.well-known/acme-challenge/x", expected), ("/.well-known/acme-challenge", 421)):
                self.assertEqual(self.ask(served, "Host: new.test", path=path)[0], status, path)
        data = served.connect().send(b"POST /.well-known/acme-challenge/x HTTP/1.1\r\nHost: new.test\r\n\r\n")
        self.assertIn(b" 421 ", data)


class HostTests(Case):
    """The defence against DNS rebinding."""

    def test_hosts_that_are_not_ours_are_misdirected(self) -> None:
        """421, whatever the credential; ours pass."""
        served = gated(anonymous=True)
        for host in ("localhost", "localhost:3000", "127.0.0.1:3000", "LOCALHOST", "[::1]:3000"):
            self.assertEqual(self.ask(served, f"Host: {host}")[0], 200, host)
        for host in ("evil.test", "evil.test:3000", "localhost.evil.test", "192.0.2.1", "127.0.0.2"):
            self.assertEqual(
                self.ask(served, f"Host: {host}", "Authorization: Bearer good")[::2], (421, "host_not_allowed"), host
            )

    def test_what_the_operator_has_listed_is_ours(self) -> None:
        """With its port, or with any."""
        served = gated(anonymous=True, allowed_hosts=("mcp.example.com", "other.example.com:8443"))
        for host, status in (
            ("mcp.example.com", 200),
            ("mcp.example.com:81", 200),
            ("other.example.com:8443", 200),
            ("other.example.com:8444", 421),
            ("localhost", 421),
        ):
            self.assertEqual(self.ask(served, f"Host: {host}")[0], status, host)

    def test_what_is_said_once_is_remembered_and_never_mixed_up(self) -> None:
        """The same host over TLS and over plain text are two questions."""
        served = gated(anonymous=True)
        for _ in range(2):
            self.assertEqual(self.ask(served, "Host: evil.test")[0], 421)
            self.assertEqual(self.ask(served, "Host: evil.test", tls=True)[0], 200)

    def test_a_proxy_may_name_any_host_until_the_operator_has(self) -> None:
        """It has chosen us for that name; a stranger's claim counts for nothing."""
        served = gated(anonymous=True, trusted=("10.0.0.1",))
        lines = ("Host: localhost", "X-Forwarded-For: 192.0.2.9", "X-Forwarded-Host: mcp.example.com")
        self.assertEqual(self.ask(served, *lines, peer=PROXY)[0], 200)
        self.assertEqual(self.ask(served, "Host: mcp.example.com", lines[1])[0], 421)
        explicit = gated(anonymous=True, trusted=("10.0.0.1",), public_url="https://ours.example.com")
        self.assertEqual(self.ask(explicit, *lines, peer=PROXY)[0], 421)

    def test_pages_of_others_may_not_call_us(self) -> None:
        """403; pages of this machine and what the operator listed may."""
        served = gated(anonymous=True)
        for origin, status in (
            ("http://localhost:8080", 200),
            ("http://127.0.0.1", 200),
            ("http://evil.test", 403),
            ("https://localhost.evil.test", 403),
            ("null", 403),
            ("", 403),
            ("file://", 403),
            ("http://localhost/path", 403),
        ):
            found = self.ask(served, "Host: localhost", f"Origin: {origin}")
            self.assertEqual(found[0], status, origin)
            if status == 403:
                self.assertEqual(found[2], "origin_not_allowed")
        listed = gated(anonymous=True, allowed_origins=("https://app.example.com",))
        self.assertEqual(self.ask(listed, "Host: localhost", "Origin: https://app.example.com")[0], 200)
        self.assertEqual(self.ask(listed, "Host: localhost", "Origin: http://app.example.com")[0], 403)

    def test_a_page_of_our_own_name_may_call_us_only_where_the_name_is_ours(self) -> None:
        """Over TLS the certificate says so; behind a proxy that vouches for anything it does not."""
        served = gated(anonymous=True, trusted=("10.0.0.1",))
        self.assertEqual(self.ask(served, "Host: any.test", "Origin: https://any.test", tls=True)[0], 200)
        lines = ("Host: x", "X-Forwarded-For: 192.0.2.9", "X-Forwarded-Host: any.test", "Origin: http://any.test")
        self.assertEqual(self.ask(served, *lines, peer=PROXY)[0], 403)


class CredentialTests(Case):
    """Who asks."""

    def test_a_good_token_makes_its_principal(self) -> None:
        """The scheme in any case; spaces around the token do not count."""
        served = gated()
        for value in ("Bearer good", "bearer good", "BEARER  good"):
            self.assertEqual(self.ask(served, "Host: localhost", f"Authorization: {value}")[0], 200)
            self.assertEqual(served.records[-1].principal, "ci")
        self.assertIs(served.site.resource.seen[-1].principal, CI)  # type: ignore[attr-defined]

    def test_without_a_credential_there_is_a_challenge_or_nobody(self) -> None:
        """As the configuration says; nobody has a name too."""
        self.assertEqual(self.ask(gated(), "Host: localhost"), (401, "Bearer", "unauthenticated"))
        served = gated(anonymous=True)
        self.assertEqual(self.ask(served, "Host: localhost")[0], 200)
        self.assertEqual(served.records[-1].principal, "anonymous")

    def test_a_wrong_credential_is_never_taken_for_none(self) -> None:
        """Also where nobody would be let in; the challenge says what is wrong."""
        for served in (gated(), gated(anonymous=True), gated(anonymous=True, keyring=Keyring([]))):
            for value in (
                "Bearer bad",
                "Bearer",
                "Bearer ",
                "Basic good",
                "good",
                "",
                "Bearer good x",
                "Bearergood",
                "Bearer\tgood",
            ):
                self.assertEqual(
                    self.ask(served, "Host: localhost", f"Authorization: {value}"),
                    (401, 'Bearer error="invalid_token"', "unauthenticated"),
                    value,
                )
                self.assertIsNone(served.records[-1].principal)

    def test_two_credentials_are_none(self) -> None:
        """400: two readers could take different ones."""
        found = self.ask(gated(), "Host: localhost", "Authorization: Bearer good", "authorization: Bearer good")
        self.assertEqual(found[0], 400)

    def test_a_credential_in_the_address_does_not_count(self) -> None:
        """Addresses end up in logs."""
        self.assertEqual(self.ask(gated(), "Host: localhost", path="/mcp?access_token=good")[0], 401)

    def test_the_host_is_judged_before_the_credential(self) -> None:
        """Nobody learns there whether a token is good."""
        for value in ("Bearer good", "Bearer bad"):
            self.assertEqual(self.ask(gated(), "Host: evil.test", f"Authorization: {value}")[0], 421)


class CertificateTests(Case):
    """What a verified client certificate stands for, told by whoever has shaken hands."""

    def asked(self, served: Served, *lines: str, peer: Any = None, path: str = "/mcp") -> tuple[int, str | None]:
        """The status, and who it was."""
        connection = served.connect(peer, tls=True)
        connection.channel.certified = Principal(name="machine")
        head = "".join(f"{line}\r\n" for line in ("Host: localhost", *lines))
        data = connection.send(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        return int(data[9:12]), served.records[-1].principal

    def test_it_is_a_credential(self) -> None:
        """Also for details of health; a token that is shown beside it counts, good or bad."""
        served = gated()
        self.assertEqual(self.asked(served), (200, "machine"))
        self.assertEqual(self.asked(served, path="/health"), (200, "machine"))
        self.assertEqual(self.asked(served, "Authorization: Bearer good"), (200, "ci"))
        self.assertEqual(self.asked(served, "Authorization: Bearer bad")[0], 401)

    def test_that_of_a_proxy_says_nothing_of_its_clients(self) -> None:
        """Whether it names them or not."""
        served = gated(trusted=("10.0.0.1",))
        for lines in ((), ("X-Forwarded-For: 192.0.2.9",)):
            self.assertEqual(self.asked(served, *lines, peer=PROXY)[0], 401)


class ProbeTests(Case):
    """Health addresses."""

    def test_probes_need_neither_name_nor_credential(self) -> None:
        """Nobody is written down for them."""
        served = gated()
        for path in ("/health", "/health/live", "/health/ready"):
            self.assertEqual(self.ask(served, "Host: 10.1.2.3:3000", path=path)[0], 200)
            self.assertIsNone(served.records[-1].principal)
        for path in ("/health/other", "/healthy", "/health/../mcp", "/HEALTH"):
            self.assertNotEqual(self.ask(served, "Host: 10.1.2.3:3000", path=path)[0], 200, path)

    def test_a_credential_that_is_shown_is_checked(self) -> None:
        """A good one tells who asks; a wrong one is told so."""
        served = gated()
        self.assertEqual(self.ask(served, "Host: x", "Authorization: Bearer good", path="/health")[0], 200)
        self.assertEqual(served.records[-1].principal, "ci")
        self.assertEqual(self.ask(served, "Host: x", "Authorization: Bearer bad", path="/health")[0], 401)
