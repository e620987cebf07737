"""Tests for mcptunnel.core.plaintext."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RequestError
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.plaintext import HttpsPolicy, PlainRequest, Redirect, behind_proxy, require_https, tls_only


def policy(public_url: str | None = "https://mcp.example.com", allowed: tuple[str, ...] = ()) -> HttpsPolicy:
    return HttpsPolicy.from_config(public_url, HostPolicy.build(public_url=public_url, allowed_hosts=allowed))


def plain(
    method: bytes = b"GET", target: bytes = b"/mcp", host: bytes = b"mcp.example.com", *headers: bytes, peer: str = ""
) -> PlainRequest:
    return PlainRequest(method=method, target=target, host=host, headers=frozenset({b"host", *headers}), peer=peer)


class RequireHttpsTests(SynchronousTestCase):
    """Mode auto, plaintext from a peer that is not trusted."""

    def redirect(self, request: PlainRequest, where: HttpsPolicy | None = None) -> bytes:
        decision = require_https(where or policy())(request)
        assert isinstance(decision, Redirect), decision
        return decision.location

    def refusal(self, request: PlainRequest, where: HttpsPolicy | None = None) -> RequestError:
        decision = require_https(where or policy())(request)
        assert isinstance(decision, RequestError), decision
        return decision

    def test_get_and_head_without_credentials_are_redirected_with_path_and_query(self) -> None:
        """They show nothing that a second try over https would not."""
        for method in (b"GET", b"HEAD"):
            self.assertEqual(self.redirect(plain(method, b"/a/b?c=d")), b"https://mcp.example.com/a/b?c=d")

    def test_every_other_method_is_refused_and_told_the_https_url(self) -> None:
        """A redirected POST would leak its body every time, unnoticed."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"get"):
            error = self.refusal(plain(method))
            self.assertEqual((error.status, error.reason), (403, "https_required"))
            self.assertIn("https://mcp.example.com/mcp", error.message)

    def test_a_get_with_a_credential_is_refused(self) -> None:
        """Wherever it is carried."""
        for header in (b"authorization", b"cookie", b"proxy-authorization", b"mcp-session-id", b"x-api-key"):
            self.assertEqual(self.refusal(plain(b"GET", b"/mcp", b"mcp.example.com", header)).status, 403)
        self.assertEqual(self.refusal(plain(target=b"/mcp?Access_Token=abc")).status, 403)

    def test_a_refusal_does_not_repeat_the_query(self) -> None:
        """It may be the very secret."""
        self.assertNotIn("abc", self.refusal(plain(target=b"/mcp?access_token=abc")).message)

    def test_another_port_leads_to_the_public_url_or_to_the_port_that_speaks_tls(self) -> None:
        """The port that the client used is the one that does not."""
        hosts = HostPolicy.build(allowed_hosts=["mcp.example.com", "other.test:3000"])
        for url, host, location in (
            ("https://mcp.example.com", b"mcp.example.com:80", b"https://mcp.example.com/mcp"),
            ("https://mcp.example.com:8443", b"other.test", b"https://mcp.example.com:8443/mcp"),
            (None, b"mcp.example.com", b"https://mcp.example.com:3000/mcp"),
            (None, b"mcp.example.com:80", b"https://mcp.example.com:3000/mcp"),
            (None, b"other.test", b"https://other.test:3000/mcp"),
        ):
            where = HttpsPolicy.from_config(url, hosts, lambda: 3000)
            self.assertEqual(self.redirect(plain(host=host), where), location)
        for port, text in ((3000, "use https on port 3000"), (None, "use https")):
            where = HttpsPolicy.from_config(None, hosts, lambda port=port: port)  # type: ignore[misc]
            self.assertTrue(self.refusal(plain(host=b"evil.test"), where).message.endswith(text))
        self.assertEqual(self.refusal(plain(), HttpsPolicy.from_config(None, hosts, lambda: None)).status, 403)

    def test_an_https_client_of_a_proxy_is_not_sent_round_in_circles(self) -> None:
        """The proxy has the wrong port."""
        error = self.refusal(PlainRequest(method=b"GET", target=b"/", scheme="https"))
        self.assertEqual((error.status, error.reason), (403, "wrong_port"))

    def test_a_host_we_do_not_have_leads_to_the_public_url(self) -> None:
        """The redirect's host is never the client's claim."""
        for host in (b"evil.test", b"", b"mcp.example.com@evil.test", b"\xff", b"evil.test:443", b"a b"):
            self.assertEqual(self.redirect(plain(host=host)), b"https://mcp.example.com/mcp")

    def test_a_name_of_ours_keeps_the_port_that_was_asked_for(self) -> None:
        """The same port speaks TLS."""
        where = policy("https://mcp.example.com", ("other.example.com", "mcp.example.com:8443"))
        self.assertEqual(
            self.redirect(plain(host=b"OTHER.example.com:3000"), where), b"https://other.example.com:3000/mcp"
        )
        self.assertEqual(self.redirect(plain(host=b"mcp.example.com:8443"), where), b"https://mcp.example.com:8443/mcp")
        self.assertEqual(self.redirect(plain(host=b"mcp.example.com:9"), where), b"https://mcp.example.com/mcp")

    def test_without_a_configured_name_nothing_is_redirected(self) -> None:
        """Any host and any address are no configured names."""
        where = HttpsPolicy.from_config(None, HostPolicy.build(bound_host="0.0.0.0", allowed_hosts=("*",)))
        error = self.refusal(plain(host=b"192.0.2.7:3000"), where)
        self.assertIn("https on this same port", error.message)

    def test_the_bound_name_is_a_configured_name(self) -> None:
        """``localhost`` during development."""
        where = HttpsPolicy.from_config(None, HostPolicy.build(bound_host="127.0.0.1"))
        self.assertEqual(self.redirect(plain(host=b"localhost:3000"), where), b"https://localhost:3000/mcp")

    def test_an_http_public_url_is_no_https_host(self) -> None:
        """Its name is still ours."""
        where = policy("http://mcp.example.com:3000")
        self.assertEqual(self.redirect(plain(host=b"mcp.example.com:3000"), where), b"https://mcp.example.com:3000/mcp")
        self.refusal(plain(host=b"evil.test"), where)

    def test_the_absolute_form_gives_its_path_only(self) -> None:
        """RFC 9112 §3.2.2; the authority in it is a claim."""
        self.assertEqual(self.redirect(plain(target=b"http://evil.test/a?b")), b"https://mcp.example.com/a?b")
        self.assertEqual(self.redirect(plain(target=b"http://evil.test")), b"https://mcp.example.com/")

    def test_targets_that_are_no_path_are_refused(self) -> None:
        """Asterisk form, authority form, and what must not stand in a header."""
        for target in (b"*", b"evil.test:443", b"ftp://a/b", b"/a\r\nSet-Cookie: a=b", b"/a b", b"/\xc3\xa4"):
            self.assertEqual(self.refusal(plain(target=target)).status, 403)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_no_host_and_no_target_leads_elsewhere_or_breaks_a_line(self, target: bytes, host: bytes) -> None:
        """Whatever is sent, the location begins with our own authority and is one visible line."""
        decision = require_https(policy())(plain(target=target, host=host))
        if isinstance(decision, Redirect):
            self.assertRegex(decision.location, rb"\Ahttps://mcp\.example\.com(:\d+)?/[\x21-\x7e]*\Z")


class BehindProxyTests(SynchronousTestCase):
    """Mode behind_proxy, a peer that is not a listed proxy."""

    def test_everything_is_refused_and_names_the_setting(self) -> None:
        """Peers on loopback as well: no network is trusted by itself."""
        for peer in ("203.0.113.9", "127.0.0.1", "unix:"):
            error = behind_proxy(False)(plain(target=b"/health/live", peer=peer))
            assert isinstance(error, RequestError)
            self.assertEqual((error.status, error.reason), (403, "untrusted_peer"))
            self.assertIn("server.tls.trusted_proxies", error.message)
            self.assertIn(peer, error.message)

    def test_the_switch_lets_health_checks_on_loopback_pass(self) -> None:
        """And nothing else, from nowhere else."""
        decide = behind_proxy(True)
        for peer in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
            for target in (b"/health", b"/health/ready", b"/health/live?verbose"):
                self.assertIsNone(decide(plain(target=target, peer=peer)), f"{peer} {target!r}")
        for peer, method, target in (
            ("127.0.0.1", b"GET", b"/mcp"),
            ("127.0.0.1", b"POST", b"/health"),
            ("127.0.0.1", b"GET", b"/healthy"),
            ("127.0.0.1", b"GET", b"/health/../mcp"),
            ("127.0.0.1", b"GET", b"/health/%2e%2e/mcp"),
            ("203.0.113.9", b"GET", b"/health"),
            ("unix:", b"GET", b"/health"),
        ):
            self.assertIsInstance(
                decide(plain(method, target, peer=peer)), RequestError, f"{peer} {method!r} {target!r}"
            )


class TlsOnlyTests(SynchronousTestCase):
    """Mode application, plaintext."""

    def test_it_is_a_readable_400(self) -> None:
        """It says what to do."""
        error = tls_only(plain())
        assert isinstance(error, RequestError)
        self.assertEqual(error.status, 400)
        self.assertIn("use https://", error.message)
