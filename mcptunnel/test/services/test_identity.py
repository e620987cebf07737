"""The configuration reaches the resolver and the host policy."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import Config, ForwardedConfig, SecurityConfig, ServerConfig, TlsConfig
from mcptunnel.core.addresses import Trust
from mcptunnel.core.errors import ForwardedError
from mcptunnel.services.identity import host_policy_from, resolver_from


class IdentityTests(SynchronousTestCase):
    def test_every_setting_reaches_the_resolver(self):
        """A setting that is read and then lost is worse than none."""
        forwarded = ForwardedConfig(family="forwarded", on_untrusted="reject", max_entries=3, max_bytes=99, prefix=True)
        tls = TlsConfig(trusted_proxies=("10.0.0.0/8", "unix"), forwarded=forwarded)
        policy = resolver_from(Config(server=ServerConfig(tls=tls))).policy
        self.assertEqual(policy.trust, Trust(("10.0.0.0/8", "unix")))
        for name in ("family", "on_untrusted", "max_entries", "max_bytes", "prefix"):
            self.assertEqual(getattr(policy, name), getattr(forwarded, name))

    def test_by_default_a_trusted_proxy_may_name_any_host(self):
        """What the world calls the proxy is not to be guessed from the bound address."""
        self.assertIsNone(resolver_from(Config()).policy.allowed_hosts)

    def test_a_configured_name_is_asked_of_the_proxy_too(self):
        """By allowed_hosts or public_url."""
        tls = TlsConfig(trusted_proxies=("10.0.0.0/8",))
        for config in (
            Config(server=ServerConfig(tls=tls), security=SecurityConfig(allowed_hosts=("a.test",))),
            Config(server=ServerConfig(tls=tls, public_url="https://a.test")),
        ):
            resolver = resolver_from(config)
            identity = resolver.resolve("10.0.0.5", False, [(b"X-Forwarded-Host", b"a.test")])
            self.assertEqual(identity.host, "a.test")
            line = (b"X-Forwarded-Host", b"evil.test")
            error = self.assertRaises(ForwardedError, resolver.resolve, "10.0.0.5", False, [line])
            self.assertEqual((error.status, error.reason), (421, "host_not_allowed"))

    def test_every_setting_reaches_the_host_policy(self):
        """Hosts, origins, public address, bound address."""
        policy = host_policy_from(
            Config(
                server=ServerConfig(public_url="https://mcp.example.com", host="192.0.2.1"),
                security=SecurityConfig(allowed_origins=("https://ui.test",)),
            )
        )
        self.assertTrue(policy.host_allowed("mcp.example.com") and policy.host_allowed("192.0.2.1:3000"))
        self.assertTrue(policy.origin_allowed("https://ui.test") and policy.origin_allowed("https://mcp.example.com"))
        self.assertFalse(policy.host_allowed("evil.test") or policy.origin_allowed("https://evil.test"))
        policy = host_policy_from(Config(security=SecurityConfig(allowed_hosts=("a.test",))))
        self.assertTrue(policy.host_allowed("a.test"))
        self.assertFalse(policy.host_allowed("localhost"))
