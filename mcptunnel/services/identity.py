"""From the configuration to the two pure judges of where a request comes from, for the daemon and for ``explain``."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import evolve

from mcptunnel.config.schema import Config
from mcptunnel.core.addresses import Trust
from mcptunnel.core.forwarded import ForwardedPolicy, Resolver
from mcptunnel.core.hosts import HostPolicy, split_host

__all__ = ["host_policy_from", "resolver_from"]


def host_policy_from(config: Config) -> HostPolicy:
    """Which hosts and origins this configuration answers.

    Raises:
        ValueError: An entry cannot be read; a configuration that was loaded has none of these.
    """
    policy = HostPolicy.build(
        public_url=config.server.public_url,
        allowed_hosts=config.security.allowed_hosts,
        allowed_origins=config.security.allowed_origins,
        bound_host=config.server.host,
    )
    redirect, url = config.server.tls.redirect_http, config.server.public_url
    if redirect is None or redirect.action != "serve" or url is None or config.security.allowed_hosts:
        return policy
    # While clients move, they still call us by the same name on the port for http.
    name, _ = split_host(urlsplit(url).netloc)
    return evolve(policy, hosts=policy.hosts | {(name, redirect.port)})


def resolver_from(config: Config) -> Resolver:
    """The resolver of client identities.

    A host that a trusted proxy names is held against the host policy only if the operator said what we are called:
    the bound names, which are the default otherwise, say nothing of what the world calls a proxy in front of us.

    Raises:
        ValueError: An entry cannot be read; a configuration that was loaded has none of these.
    """
    forwarded = config.server.tls.forwarded
    hosts = host_policy_from(config)
    return Resolver(
        ForwardedPolicy(
            trust=Trust(config.server.tls.trusted_proxies),
            family=forwarded.family,
            allowed_hosts=hosts.host_allowed if hosts.explicit else None,
            max_entries=forwarded.max_entries,
            max_bytes=forwarded.max_bytes,
            prefix=forwarded.prefix,
            on_untrusted=forwarded.on_untrusted,
        )
    )
