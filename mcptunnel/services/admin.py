"""From ``admin`` to the operator's listener."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mcptunnel.config.schema import AdminConfig, LimitsConfig, TokenConfig
from mcptunnel.config.secrets import token_digest
from mcptunnel.config.syntax import is_loopback
from mcptunnel.core.addresses import Trust
from mcptunnel.core.forwarded import ForwardedPolicy, Resolver
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.observe.figures import Figures
from mcptunnel.observe.metrics import CONTENT_TYPE, Metrics
from mcptunnel.services.adminside import AdminSide
from mcptunnel.services.listener import Listener
from mcptunnel.tls.endpoints import endpoint_for
from mcptunnel.tls.front import FrontFactory
from mcptunnel.web.admin import AdminGate, MetricsResource, ReloadResource
from mcptunnel.web.site import Site
from mcptunnel.web.tree import Nothing

__all__ = ["admin_from"]


def admin_from(
    config: AdminConfig,
    limits: LimitsConfig,
    reactor: Any,
    figures: Callable[[], Figures],
    reload: Callable[[], Deferred[dict[str, Any]]],
) -> AdminSide:
    """The operator's listener; nothing is bound yet.

    Args:
        config: ``admin``.
        limits: Of its connections.
        reactor: Where it listens.
        figures: For ``/metrics``.
        reload: For ``/admin/reload``.

    Raises:
        ConfigError: ``admin.token_file`` cannot be read.
    """
    local = is_loopback(config.host)
    hosts = HostPolicy.build(public_url=None, allowed_hosts=(), allowed_origins=(), bound_host=config.host)
    site = Site(
        Nothing(),  # type: ignore[no-untyped-call]
        # Nobody in front of it is believed.
        Resolver(ForwardedPolicy(trust=Trust(()), family="none")),
        reactor,
        admit=AdminGate(hosts, _digest(config), local=local),
        limits=limits,
        hsts=None,
        routes={
            b"/metrics": MetricsResource(Metrics(figures).page, CONTENT_TYPE),
            b"/admin/reload": ReloadResource(reload),
        },
    )
    # For its bounds and deadlines: whoever reaches the port may try.
    front = FrontFactory(
        mode="disabled", proxy_protocol="off", trust=Trust(()), limits=limits, clock=reactor, site=site
    )
    listener = Listener(
        endpoint=endpoint_for(reactor, config.host, config.port),
        factory=front,
        host=config.host,
        port=config.port,
        section="admin",
    )
    return AdminSide(listener, site)


def _digest(config: AdminConfig) -> bytes | None:
    if config.token is None and config.token_file is None:
        return None
    return token_digest(TokenConfig(name="admin", token=config.token, token_file=config.token_file))
