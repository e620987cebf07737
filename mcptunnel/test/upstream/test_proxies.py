"""Which proxy is on the way to a server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.upstream.proxies import ProxyError, proxy_for

PROXY = "http://ada:secret@proxy.example:3128"


class EnvironmentTests(SynchronousTestCase):
    """What the environment says."""

    def through(self, url: str, exceptions: str = "") -> bool:
        return proxy_for(url, None, {"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions}) is not None

    def test_every_form_of_an_exception(self) -> None:
        """A name with what is below it, an address, a network, and everything."""
        for host, exceptions, through in (
            ("a.example", "", True),
            ("a.example", "*", False),
            ("a.example", "a.example", False),
            ("b.a.example", ".a.example", False),
            ("ba.example", "a.example", True),
            ("a.example", "b.example, A.EXAMPLE.", False),
            ("192.0.2.7", "192.0.2.0/24", False),
            ("192.0.3.7", "192.0.2.0/24", True),
            ("[2001:db8::1]", "[2001:db8::1]", False),
        ):
            self.assertEqual(self.through(f"https://{host}/mcp", exceptions), through, (host, exceptions))

    def test_loopback_is_never_proxied(self) -> None:
        """Whatever the environment says."""
        for host in ("127.0.0.1", "localhost", "[::1]"):
            self.assertFalse(self.through(f"https://{host}/mcp"), host)

    def test_no_text_shows_the_password(self) -> None:
        """Neither of a proxy nor of an error."""
        proxy = proxy_for("wss://a.example/", None, {"HTTPS_PROXY": PROXY})
        self.assertEqual(str(proxy), "http://proxy.example:3128")
        self.assertNotIn("secret", repr(proxy))
        environ = {"HTTPS_PROXY": "socks5://ada:secret@proxy.example"}
        error = self.assertRaises(ProxyError, proxy_for, "https://a.example/", None, environ)
        self.assertIn("HTTPS_PROXY", str(error))
        self.assertNotIn("secret", str(error))
