"""The whole daemon as one service: read :func:`build` from top to bottom and you have read the architecture."""

from __future__ import annotations

from collections.abc import Callable
from socket import gethostname
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
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
from mcptunnel.services.acme import beside_challenges, elsewhere, unready
from mcptunnel.services.adminside import AdminSide
from mcptunnel.services.alerts import Alerts, reload_alert
from mcptunnel.services.daemon import Daemon
from mcptunnel.services.following import Following
from mcptunnel.services.heartbeat import Heartbeat
from mcptunnel.services.hsts import first_promise, ramp_from
from mcptunnel.services.identity import host_policy_from, resolver_from
from mcptunnel.services.listener import Listener
from mcptunnel.services.recognizing import recognizer_from
from mcptunnel.services.redirect import redirect_listener
from mcptunnel.services.relaying import access_from, relay_from, targets_from
from mcptunnel.services.rotation import rotation_from
from mcptunnel.services.selfcheck import SelfCheck
from mcptunnel.services.serverfiles import server_files
from mcptunnel.services.stragglers import PlaintextReport, reports
from mcptunnel.services.upstreams import Upstreams
from mcptunnel.services.watching import watch_from
from mcptunnel.tls.endpoints import endpoint_for
from mcptunnel.tls.front import FrontFactory
from mcptunnel.tls.material import strict_keys
from mcptunnel.tls.store import CertificateStore
from mcptunnel.tls.tally import Tally
from mcptunnel.web.gate import Gate
from mcptunnel.web.replies import Streams
from mcptunnel.web.site import Site
from mcptunnel.web.tree import routes
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
    for warning in (*config.warnings, *unready(tls)):
        log.warn("{text}", text=warning)

    # Who it is, who may come in, and what is remembered.
    hosts = host_policy_from(config)
    gate = Gate(hosts, _keyring(config), anonymous=_anonymous(config), challenges=tls.acme_webroot is not None)
    record, flush = access_from(config.logging)
    plaintext = None
    if reports(config):
        https = HttpsPolicy.from_config(server.public_url, hosts, lambda: listener.inet_port)
        plaintext = PlaintextReport(https=https, clock=reactor.seconds, then=record)

    # What is served: servers, the relay between them and the clients, and its addresses.
    upstreams = Upstreams.from_config(config, reactor)
    relay = relay_from(config, upstreams, reactor)
    streams = Streams(reactor.seconds, reactor.callLater)
    sockets = McpSocketFactory(server.limits, reactor)

    # Some things that exist only further down are called by what is made here.
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
        elsewhere(tls),
        resolver_from(config),
        reactor,
        admit=gate,
        on_record=plaintext or record,
        limits=server.limits,
        headers=config.security.headers,
        hsts=first_promise(tls),
        routes=routes(
            relay,
            targets_from(config, upstreams),
            streams,
            socket,
            alive,
            details,
        ),
    )
    store = None
    if tls.mode in ("application", "auto"):
        store = CertificateStore.from_config(tls, reactor.seconds(), strict=strict_keys(server))
    # Whoever has to send a PROXY header when it calls us, ourselves included.
    proxies = tls.trusted_proxies if server.proxy_protocol == "required" else ()
    check = SelfCheck(reactor, lambda: listener.address, Trust(proxies))
    front = FrontFactory(
        mode=tls.mode,
        proxy_protocol=server.proxy_protocol,
        trust=Trust(tls.trusted_proxies),
        limits=server.limits,
        clock=reactor,
        site=site,
        refusals=_refusals(config, site, hosts),
        store=store,
        recognize=recognizer_from(config),
        ours=check.is_own,
        tally=Tally(debug=config.logging.level == "debug"),
    )
    for warning in () if store is None else (*store.warnings, *_uncovered(config, store)):
        log.warn("{text}", text=warning)

    # What runs.
    listener = Listener(
        endpoint=endpoint_for(reactor, server.host, server.port), factory=front, host=server.host, port=server.port
    )
    redirect = redirect_listener(config, reactor, site, hosts, front, listener)
    alerts = Alerts.from_config(config.alerts, gethostname(), reactor)
    watch = watch_from(config, store, upstreams.ways, reactor)
    watch.listeners.append(alerts.changed)

    def alarm(trouble: str | None) -> None:
        alerts.tell(reload_alert(trouble, reactor.seconds()))

    def in_thread(work: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), work)

    rotation = ramp = None
    if store is not None:
        rotation = rotation_from(config, store, in_thread, reactor, check)
        ramp = ramp_from(tls, store.facts, site.common.promise, reactor)
        rotation.taken.append(lambda _: watch.look())
        rotation.alarm.append(alarm)
        if ramp is not None:
            rotation.taken.append(lambda _: ramp.look())
    following = Following(rotation, server_files(config, upstreams.ways, in_thread, reactor, alarm), reactor)
    admin = _admin(config, reactor, lambda: daemon) if config.admin is not None else None
    daemon = Daemon(
        config=config,
        relay=relay,
        site=site,
        upstreams=upstreams,
        sockets=sockets,
        listener=listener,
        front=front,
        redirect=redirect,
        store=store,
        following=following,
        watch=watch,
        ramp=ramp,
        plaintext=plaintext,
        alerts=alerts,
        clock=reactor,
        access=flush,
        admin=admin,
    )
    Heartbeat([relay.sweep, streams.sweep, upstreams.sweep, flush], reactor).setServiceParent(daemon)  # type: ignore[no-untyped-call]
    for service in (alerts, watch, ramp, following):
        if service is not None:
            service.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    if admin is not None:
        admin.listener.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    listener.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    if redirect is not None:
        redirect.setServiceParent(daemon)  # type: ignore[no-untyped-call]
    return daemon


def _keyring(config: Config) -> Keyring:
    return Keyring((token_digest(token), Principal(name=token.name, allow=token.allow)) for token in config.auth.tokens)


def _anonymous(config: Config) -> bool:
    """Whether callers without a credential are let in: said so, or nobody has one and only this machine can call.

    The configuration has been refused already where a listener off loopback would show servers to the world.
    """
    return config.auth.anonymous or not (config.auth.tokens or config.auth.jwt or config.auth.client_certificates)


def _admin(config: Config, reactor: Any, daemon: Callable[[], Daemon]) -> AdminSide:
    # A tenth of a second that a daemon without an operator's side need not spend.
    from mcptunnel.services.admin import admin_from  # noqa: PLC0415

    assert config.admin is not None
    return admin_from(
        config.admin, config.server.limits, reactor, lambda: daemon().figures(), lambda: daemon().reload_report()
    )


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
    tls = config.server.tls
    decisions = {
        Action.REFUSE_BAD_REQUEST: tls_only,
        Action.REFUSE_NOT_PROXY: behind_proxy(tls.loopback_health),
        Action.REFUSE_INSECURE: require_https(HttpsPolicy.from_config(config.server.public_url, hosts)),
    }
    return {action: site.refusing(beside_challenges(tls, decide)) for action, decide in decisions.items()}
