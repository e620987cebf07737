"""The whole daemon as one service: read :func:`build` from top to bottom and you have read the architecture."""

from __future__ import annotations

from socket import gethostname
from typing import Any
from urllib.parse import urlsplit

from twisted.logger import Logger
from twisted.web.resource import IResource

from mcptunnel.config.schema import Config
from mcptunnel.config.secrets import token_digest
from mcptunnel.core.addresses import Trust
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.plaintext import HttpsPolicy, behind_proxy, require_https, tls_only
from mcptunnel.core.preface import Action
from mcptunnel.core.principal import Keyring, Principal
from mcptunnel.core.record import Record
from mcptunnel.core.routing import Target
from mcptunnel.services.alerts import Alerts
from mcptunnel.services.daemon import Daemon
from mcptunnel.services.heartbeat import Heartbeat
from mcptunnel.services.identity import host_policy_from, resolver_from
from mcptunnel.services.listener import Listener
from mcptunnel.services.relaying import access_from, relay_from, targets_from
from mcptunnel.services.upstreams import Upstreams
from mcptunnel.services.watching import watch_from
from mcptunnel.tls.endpoints import endpoint_for
from mcptunnel.tls.front import FrontFactory
from mcptunnel.tls.store import CertificateStore
from mcptunnel.web.gate import Gate
from mcptunnel.web.replies import Streams
from mcptunnel.web.site import Site
from mcptunnel.web.tree import Nothing, routes
from mcptunnel.ws.protocol import McpSocketFactory
from mcptunnel.ws.resource import McpSocketResource

__all__ = ["build"]


def build(config: Config, reactor: Any) -> Daemon:
    """The daemon of ``config``; nothing is bound, started or connected yet.

    Raises:
        ConfigError: A part of the configuration cannot be carried out.
        CertificateError: A certificate, key or CA file may not be used.
    """
    log = Logger()
    server, tls = config.server, config.server.tls
    for warning in config.warnings:
        log.warn("{text}", text=warning)

    # Who it is, who may come in, and what is remembered.
    hosts = host_policy_from(config)
    gate = Gate(hosts, _keyring(config), anonymous=_anonymous(config))
    record, flush = access_from(config.logging)

    # What is served: servers, the relay between them and the clients, and its addresses.
    upstreams = Upstreams.from_config(config, reactor)
    relay = relay_from(config, upstreams, reactor)
    streams = Streams(reactor.seconds, reactor.callLater)
    sockets = McpSocketFactory(server.limits, reactor)

    # Three things that exist only further down are called by what is made here.
    def socket(target: Target) -> IResource:
        return McpSocketResource(relay, target, sockets, report)

    def report(record: Record) -> None:
        site.report(record)

    def alive() -> list[str]:
        return daemon.reasons()

    def details() -> dict[str, Any]:
        return daemon.details()

    # The edge: HTTP on connections that the front has decided.
    site = Site(
        Nothing(),  # type: ignore[no-untyped-call]
        resolver_from(config),
        reactor,
        admit=gate,
        on_record=record,
        limits=server.limits,
        headers=config.security.headers,
        hsts_max_age=tls.hsts_max_age if tls.hsts_enabled else None,
        routes=routes(
            relay,
            targets_from(config, upstreams),
            streams,
            socket,
            alive,
            details,
        ),
    )
    store = CertificateStore.from_config(tls, reactor.seconds()) if tls.mode in ("application", "auto") else None
    front = FrontFactory(
        mode=tls.mode,
        proxy_protocol=server.proxy_protocol,
        trust=Trust(tls.trusted_proxies),
        limits=server.limits,
        clock=reactor,
        site=site,
        refusals=_refusals(config, site, hosts),
        store=store,
        debug=config.logging.level == "debug",
    )
    for warning in () if store is None else (*store.warnings, *_uncovered(config, store)):
        log.warn("{text}", text=warning)

    # What runs.
    listener = Listener(
        endpoint=endpoint_for(reactor, server.host, server.port), factory=front, host=server.host, port=server.port
    )
    alerts = Alerts.from_config(config.alerts, gethostname(), reactor)
    watch = watch_from(config, store, upstreams.ways, reactor)
    watch.listeners.append(alerts.changed)
    daemon = Daemon(
        config=config,
        relay=relay,
        site=site,
        upstreams=upstreams,
        sockets=sockets,
        listener=listener,
        front=front,
        store=store,
        watch=watch,
        alerts=alerts,
        clock=reactor,
        access=flush,
    )
    Heartbeat([relay.sweep, streams.sweep, upstreams.sweep, flush], reactor).setServiceParent(daemon)  # type: ignore[no-untyped-call]
    alerts.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    watch.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    listener.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    return daemon


def _keyring(config: Config) -> Keyring:
    return Keyring((token_digest(token), Principal(name=token.name, allow=token.allow)) for token in config.auth.tokens)


def _anonymous(config: Config) -> bool:
    """Whether callers without a credential are let in: said so, or nobody has one and only this machine can call.

    The configuration has been refused already where a listener off loopback would show servers to the world.
    """
    return config.auth.anonymous or not (config.auth.tokens or config.auth.jwt or config.auth.client_certificates)


def _uncovered(config: Config, store: CertificateStore) -> list[str]:
    """Clients that call us by ``public_url`` must accept a certificate for it; a proxy in front may have its own."""
    url = config.server.public_url
    host = urlsplit(url or "").hostname
    if host is None or store.covers(host):
        return []
    names = sorted({name for facts in store.facts() if facts.role == "leaf" for name in facts.names})
    return [
        f"no certificate in service names {host}, the host of server.public_url: clients that connect here directly "
        f"will refuse it (named: {', '.join(names) or 'nothing'}); add the name to the certificate, or one to "
        "server.tls.certificates"
    ]


def _refusals(config: Config, site: Site, hosts: HostPolicy) -> dict[Action, Any]:
    """What answers plaintext that the mode does not serve."""
    return {
        Action.REFUSE_BAD_REQUEST: site.refusing(tls_only),
        Action.REFUSE_NOT_PROXY: site.refusing(behind_proxy(config.server.tls.loopback_health)),
        Action.REFUSE_INSECURE: site.refusing(require_https(HttpsPolicy.from_config(config.server.public_url, hosts))),
    }
