"""Which hosts and origins are answered."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.hosts import HostPolicy, authority, normal_origin, split_host


class SplitHostTests(SynchronousTestCase):
    def test_well_formed_hosts(self):
        """Names, addresses, ports, in their one spelling."""
        for text, expected in {
            "Public.Example": ("public.example", None),
            "public.example.": ("public.example", None),
            "public.example:8443": ("public.example", 8443),
            "my_service:1": ("my_service", 1),
            "localhost:65535": ("localhost", 65535),
            "xn--bcher-kva.example": ("xn--bcher-kva.example", None),
            "a" * 63 + ".b": ("a" * 63 + ".b", None),
            "127.0.0.1:3000": ("127.0.0.1", 3000),
            "[::1]": ("[::1]", None),
            "[2001:DB8:0::9]:80": ("[2001:db8::9]", 80),
        }.items():
            self.assertEqual(split_host(text), expected)

    def test_malformed_hosts(self):
        """What could be a different host to the next reader."""
        for text in (
            *(
                "",
                ":80",
                "a:",
                "a:0",
                "a:080",
                "a:65536",
                "a:99999999",
                "a:b",
                "a b",
                "a/@evil",
                "user@a",
                "a,b",
                "a\x00",
            ),
            *(
                "a..b",
                ".a",
                ".",
                "-a.b",
                "a-.b",
                "a" * 64,
                "a." * 127 + "aa",
                "a%2eb",
                "bücher.example",
                "a\n",
                "a;b",
                "a#",
            ),
            *(
                "::1",
                "[::1",
                "[127.0.0.1]",
                "[fe80::1%25eth0]",
                "[::1]80",
                "[]",
                "127.1",
                "0x7f.1",
                "1.2.3.4.5",
                "010.0.0.1",
            ),
            *("2130706433", "1.2.3.256", "a.0x10", "1.2.3.4."),
        ):
            self.assertRaises(ValueError, split_host, text)

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="aZ0.:-_[]%@/ \x00\xe9", max_size=20))
    def test_splitting_is_stable(self, text):
        """What was accepted is accepted again, unchanged."""
        try:
            name, port = split_host(text)
        except ValueError:
            return
        self.assertEqual(split_host(authority(name, port, "other")), (name, port))

    def test_a_default_port_is_left_out(self):
        """RFC 9110 section 4.2.3."""
        self.assertEqual(authority("a", 80, "http"), "a")
        self.assertEqual(authority("a", 443, "https"), "a")
        self.assertEqual(authority("a", 443, "http"), "a:443")
        self.assertEqual(authority("a", None, "http"), "a")

    def test_origins_have_one_spelling(self):
        """RFC 6454: scheme, host and port; nothing else."""
        self.assertEqual(normal_origin("HTTPS://App.Test:443"), "https://app.test")
        self.assertEqual(normal_origin("http://[::1]:5173"), "http://[::1]:5173")
        for text in ("null", "", "app.test", "https://", "https://a/", "https://a?b", "https://u@a", "://a", "1s://a"):
            self.assertRaises(ValueError, normal_origin, text)


class LoopbackTests(SynchronousTestCase):
    """The default: nothing configured, bound to 127.0.0.1."""

    policy = HostPolicy.build()

    def test_this_machines_names_are_answered_on_any_port(self):
        """The bound port is the client's business."""
        for host in ("localhost", "LOCALHOST:3000", "127.0.0.1:3000", "[::1]:9", "localhost."):
            self.assertTrue(self.policy.host_allowed(host), host)

    def test_foreign_names_are_not(self):
        """The attack: evil.test resolves to 127.0.0.1."""
        for host in ("evil.test", "evil.test:3000", "localhost.evil.test", "192.0.2.1", "127.0.0.2", "", "localhost:x"):
            self.assertFalse(self.policy.host_allowed(host), host)

    def test_pages_of_this_machine_may_call(self):
        """A developer's page on another port."""
        for origin in ("http://localhost", "https://localhost:5173", "http://127.0.0.1:1", "http://[::1]:3000"):
            self.assertTrue(self.policy.origin_allowed(origin), origin)

    def test_foreign_pages_may_not(self):
        """Nor sandboxed ones, nor browser extensions."""
        for origin in (
            *(
                "http://evil.test",
                "https://localhost.evil.test",
                "null",
                "",
                "localhost",
                "chrome-extension://localhost",
            ),
            "http://localhost/x",
        ):
            self.assertFalse(self.policy.origin_allowed(origin), origin)

    def test_a_page_of_ours_may_call_us(self):
        """Same origin, given that the request's host was admitted."""
        self.assertFalse(self.policy.origin_allowed("https://app.test"))
        self.assertTrue(self.policy.origin_allowed("https://app.test:443", own="https://app.test"))
        self.assertFalse(self.policy.origin_allowed("https://app.test:444", own="https://app.test"))
        self.assertFalse(self.policy.origin_allowed("https://app.test", own="https://"))

    def test_what_rebinding_cannot_reach_is_admitted_while_nobody_named_us(self):
        """TLS has compared the name with the certificate; a proxy has chosen us by it."""
        self.assertFalse(self.policy.admits("app.test", tls=False, vouched=False))
        self.assertTrue(self.policy.admits("app.test", tls=True, vouched=False))
        self.assertTrue(self.policy.admits("app.test", tls=False, vouched=True))
        self.assertFalse(self.policy.admits("app.test/", tls=True, vouched=True))
        self.assertTrue(self.policy.admits("localhost:3000", tls=False, vouched=False))

    def test_once_named_only_our_names_are_admitted(self):
        """An explicit list holds for everybody."""
        policy = HostPolicy.build(allowed_hosts=["app.test"])
        self.assertTrue(policy.admits("app.test", tls=True, vouched=True))
        self.assertFalse(policy.admits("evil.test", tls=True, vouched=True))


class BuildTests(SynchronousTestCase):
    def test_public_url_names_us_and_its_pages(self):
        """Beside the names that go with the bound address."""
        policy = HostPolicy.build(public_url="https://MCP.example.com/base", bound_host="127.0.0.1")
        for host in ("mcp.example.com", "mcp.example.com:443", "localhost:3000"):
            self.assertTrue(policy.host_allowed(host), host)
        self.assertFalse(policy.host_allowed("example.com"))
        self.assertTrue(policy.origin_allowed("https://mcp.example.com"))
        self.assertFalse(policy.origin_allowed("http://mcp.example.com"))
        self.assertFalse(policy.origin_allowed("https://mcp.example.com:8443"))
        self.assertTrue(policy.explicit)

    def test_a_port_in_public_url_counts(self):
        """Another port is another service."""
        policy = HostPolicy.build(public_url="https://mcp.example.com:8443")
        self.assertTrue(policy.host_allowed("mcp.example.com:8443"))
        self.assertFalse(policy.host_allowed("mcp.example.com:8444"))
        self.assertFalse(policy.host_allowed("mcp.example.com"))

    def test_a_list_replaces_the_defaults(self):
        """host is any port, host:port that one; 80 and 443 are what clients leave out."""
        policy = HostPolicy.build(
            public_url="https://mcp.example.com", allowed_hosts=["A.test", "b.test:8080", "c.test:443", "[::1]:9"]
        )
        for host in ("a.test", "a.test:1", "b.test:8080", "c.test", "c.test:443", "[0::1]:9"):
            self.assertTrue(policy.host_allowed(host), host)
        for host in ("b.test", "b.test:80", "c.test:8443", "mcp.example.com", "localhost", "[::1]"):
            self.assertFalse(policy.host_allowed(host), host)

    def test_listed_origins_replace_the_defaults_but_for_public_url(self):
        """null only if it is listed."""
        policy = HostPolicy.build(
            public_url="https://mcp.example.com", allowed_origins=["https://UI.test", "http://a.test:8080", "null"]
        )
        for origin in (
            "https://ui.test",
            "https://ui.test:443",
            "http://a.test:8080",
            "null",
            "https://mcp.example.com",
        ):
            self.assertTrue(policy.origin_allowed(origin), origin)
        for origin in ("http://ui.test", "http://a.test", "http://localhost"):
            self.assertFalse(policy.origin_allowed(origin), origin)

    def test_bound_addresses(self):
        """A wildcard is reached by any address; a concrete one by itself; both by this machine's names."""
        for bound in ("0.0.0.0", "::", "", "systemd:0"):
            policy = HostPolicy.build(bound_host=bound)
            for host, allowed in {
                "192.0.2.1:3000": True,
                "[2001:db8::1]": True,
                "localhost": True,
                "a1": False,
            }.items():
                self.assertEqual(policy.host_allowed(host), allowed, (bound, host))
            self.assertFalse(policy.origin_allowed("http://192.0.2.1"))
            listed = HostPolicy.build(bound_host=bound, allowed_hosts=["a.test"])
            self.assertFalse(listed.host_allowed("192.0.2.1") or listed.host_allowed("localhost"))
        for bound, ours in {"192.0.2.1": "192.0.2.1:3000", "FD00::1": "[fd00::1]", "box.lan": "box.lan:3000"}.items():
            policy = HostPolicy.build(bound_host=bound)
            self.assertTrue(policy.host_allowed(ours) and policy.host_allowed("localhost"))
            self.assertFalse(policy.host_allowed("192.0.2.2") or policy.host_allowed("evil.test"))

    def test_a_unix_socket_is_out_of_a_browsers_reach(self):
        """So any host will do, until one is named."""
        self.assertTrue(HostPolicy.build(bound_host="unix:/run/x").host_allowed("app.test"))
        self.assertFalse(
            HostPolicy.build(bound_host="unix:/run/x", public_url="https://a.test").host_allowed("app.test")
        )

    def test_a_star_allows_any_well_formed_host(self):
        """The operator's way to switch the check off."""
        policy = HostPolicy.build(allowed_hosts=["*"])
        self.assertTrue(policy.host_allowed("evil.test"))
        self.assertFalse(policy.host_allowed("evil.test/"))

    def test_entries_that_cannot_be_read_are_refused(self):
        """A list that silently matches nothing locks everybody out."""
        self.assertRaises(ValueError, HostPolicy.build, allowed_hosts=["https://a.test"])
        self.assertRaises(ValueError, HostPolicy.build, allowed_origins=["a.test"])
        self.assertRaises(ValueError, HostPolicy.build, public_url="https://u@a.test")
