"""Rules that look at more than one key of ``server``, ``security`` and ``auth``.

Every rule is silent when a key it looks at was refused already: one mistake, one finding.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from mcptunnel.config.report import Report
from mcptunnel.config.schema import AuthConfig, Config, ServerConfig
from mcptunnel.config.secrets import check_same
from mcptunnel.config.syntax import is_loopback
from mcptunnel.config.tls_checks import check_tls, settle
from mcptunnel.core.addresses import Trust

__all__ = ["check"]

_TLS: Final = "server.tls"
_MODE: Final = "server.tls.mode"
_PROXIES: Final = "server.tls.trusted_proxies"


def check(config: Config, report: Report) -> Config:
    """``config`` with ``server.tls.mode`` settled; what is wrong or doubtful goes into ``report``."""
    config = evolve(config, server=evolve(config.server, tls=settle(config.server.tls, report)))
    server = config.server
    check_tls(config, report)
    _check_trust(server, report)
    _check_order(server, report)
    _check_address(config, report)
    _check_tokens(config.auth, report)
    _check_admin(config, report)
    if report.sound("server.host", "auth", _TLS):
        _check_open_door(config, report)
    _note_unused(config, report)
    return config


def _check_trust(server: ServerConfig, report: Report) -> None:
    tls = server.tls
    if not report.sound(_PROXIES, f"{_TLS}.trust_any_peer"):
        return
    trust = Trust(tls.trusted_proxies)
    everybody, wide = set(trust.everybody), set(trust.wide)
    for i, rule in enumerate(tls.trusted_proxies):
        key = f"{_PROXIES}[{i}]"
        if rule in everybody:
            if tls.trust_any_peer:
                continue
            report.error(
                key,
                f"{report.shown(key, rule)} trusts everybody, so any client could claim any address; "
                "list the networks of the proxies, "
                "or write trust_any_peer: true if nobody else can reach this port",
            )
        elif rule in wide:
            report.warn(
                key,
                f"{report.shown(key, rule)} is a wide network, and every host in it can claim any client address; "
                "list only the proxies",
            )
    if report.sound(_MODE, f"{_TLS}.behind_proxy", "server.proxy_protocol", "server.host"):
        _check_somebody_trusted(server, report)


def _check_somebody_trusted(server: ServerConfig, report: Report) -> None:
    tls = server.tls
    if tls.mode == "behind_proxy" and not tls.trusted_proxies:
        report.error(
            _MODE if _MODE in report.given else f"{_TLS}.behind_proxy",
            "behind_proxy serves listed proxies only and none is listed, so nobody could connect; "
            "add trusted_proxies: [address or network of the proxy]",
        )
    elif (
        tls.mode == "behind_proxy"
        and server.host.startswith("unix:")
        and "unix" not in tls.trusted_proxies
        and server.proxy_protocol == "off"
    ):
        report.error(_PROXIES, "nobody could connect: whoever connects to a UNIX socket has no address; add unix")
    elif tls.mode == "auto" and not tls.trusted_proxies:
        report.warn(_MODE, "no proxy is listed, so auto serves https only; add trusted_proxies if there is a proxy")
    if not tls.trusted_proxies and server.proxy_protocol == "required":
        report.error("server.proxy_protocol", "no PROXY header would ever be believed; add server.tls.trusted_proxies")
    elif not tls.trusted_proxies and server.proxy_protocol == "optional":
        report.warn("server.proxy_protocol", "no PROXY header is ever believed; add server.tls.trusted_proxies")


def _check_order(server: ServerConfig, report: Report) -> None:
    """Pairs of bounds of which one makes sense only below the other."""
    limits = server.limits
    uri, head = "server.limits.uri_bytes", "server.limits.header_bytes"
    if report.sound(uri, head) and limits.uri_bytes > limits.header_bytes:
        key = uri if uri in report.given else head
        report.warn(key, "uri_bytes is above header_bytes, which holds the URI as well and decides first")
    silence, life = "server.limits.request_timeout", "server.limits.request_max_time"
    if report.sound(silence, life) and limits.request_timeout > limits.request_max_time:
        key = silence if silence in report.given else life
        report.warn(key, "request_timeout is above request_max_time, which decides first")


def _check_address(config: Config, report: Report) -> None:
    server, tls = config.server, config.server.tls
    if "server.port" in report.given and server.host.startswith(("unix:", "systemd:")):
        report.warn("server.port", "not used: server.host names a socket that has no port or has it already")
    if config.admin and report.sound("admin", "server.host", "server.port"):
        same = (config.admin.host, config.admin.port) == (server.host, server.port)
        if same and server.port != 0 and not server.host.startswith("systemd:"):
            report.error("admin", "host and port are those of server; give the admin listener a port of its own")
    url = "server.public_url"
    if server.public_url is None or not report.sound(url, _MODE, _PROXIES, f"{_TLS}.behind_proxy"):
        return
    secure = server.public_url.lower().startswith("https:")
    if not secure and tls.mode in ("application", "auto"):
        report.warn(url, f"says http, but mode {tls.mode} serves clients over https; write https://…")
    elif secure and tls.mode == "disabled" and not tls.trusted_proxies:
        report.warn(
            url, "says https, but TLS is disabled and no proxy in front is listed; set tls.mode or tls.trusted_proxies"
        )


def _check_admin(config: Config, report: Report) -> None:
    admin = config.admin
    if admin is None or not report.sound("admin"):
        return
    if admin.token is not None and admin.token_file is not None:
        report.error("admin.token", "token and token_file are both given; keep one")
    elif admin.token is None and admin.token_file is None and not is_loopback(admin.host):
        report.error(
            "admin.host",
            f"other machines can reach {report.shown('admin.host', admin.host)}, and no token is asked for; add "
            "token_file, or write host: 127.0.0.1 or unix:/path",
        )


def _check_tokens(auth: AuthConfig, report: Report) -> None:
    names: dict[str, str] = {}
    if not report.sound("auth.tokens"):
        # With an item dropped, the positions of the others are no longer known.
        return
    for i, token in enumerate(auth.tokens):
        key = f"auth.tokens[{i}]"
        sources = [name for name in ("token", "token_file", "token_sha256") if getattr(token, name) is not None]
        if not sources:
            report.error(key, "has no secret; add token_file, token_sha256 or token")
        elif len(sources) > 1:
            report.error(key, f"has several secrets ({', '.join(sources)}); keep one")
        if token.allow == ():
            report.warn(f"{key}.allow", "the empty list allows nothing; remove allow to allow everything")
        if token.name in names:
            shown, first = report.shown(f"{key}.name", token.name), report.place(names[token.name])
            report.error(f"{key}.name", f"{shown} is used already, at {first}; choose another name")
        names.setdefault(token.name, f"{key}.name")
    if report.sound("auth.tokens"):
        check_same(auth.tokens, report, files=False)


def _check_open_door(config: Config, report: Report) -> None:
    """Who may use the servers without a credential."""
    server, auth = config.server, config.auth
    credentials = bool(auth.tokens or (auth.client_certificates and server.tls.client_auth != "none"))
    exposed = any(entry.enabled for entry in config.servers.values())
    local = is_loopback(server.host) or server.host.startswith("systemd:")
    bound = report.place("server.host")
    place = report.place("auth") if "auth" in report.places else bound
    if auth.anonymous:
        if exposed and not local:
            report.warn("auth.anonymous", "whoever reaches this address may use every server without a credential")
        elif credentials:
            report.warn("auth.anonymous", "callers without a credential are let in as well; remove it to demand one")
    elif not credentials and not local:
        if exposed:
            report.error(
                "auth",
                f"other machines can reach server.host ({bound}), there are servers to use, and no "
                "credential is asked for; add auth.tokens, or write auth.anonymous: true to let everybody in, "
                "or server.host: 127.0.0.1",
                place,
            )
        else:
            report.warn(
                "auth",
                "no credential is configured: as soon as mcpServers names a server, this address needs auth.tokens "
                "or auth.anonymous: true",
                place,
            )
    elif not credentials and exposed and server.host.startswith("systemd:"):
        report.warn(
            "auth",
            "no credential is asked for on the socket that systemd passes; make sure that only this machine reaches "
            "it, or add auth.tokens",
            place,
        )
    elif not credentials and exposed and server.tls.trusted_proxies:
        report.warn(
            "auth",
            "clients that arrive through the trusted proxies are let in without a credential, wherever they are; "
            "add auth.tokens, or write auth.anonymous: true to say that this is meant",
            place,
        )
    if not local and server.tls.mode == "disabled" and not server.tls.trusted_proxies:
        key = _MODE if _MODE in report.given else "server.host"
        report.warn(key, "TLS is disabled: everything, tokens too, travels in the clear")


def _note_unused(config: Config, report: Report) -> None:
    """What is understood, but not acted on by this version."""
    later = "not enforced by this version"
    unused = {
        "server.workers": config.server.workers != 1 and "not acted on by this version, which runs one process",
        "security.rate_limit": config.security.rate_limit is not None and later,
        "auth.jwt": config.auth.jwt is not None and f"{later}: it lets nobody in",
        "registry.paths": bool(config.registry.paths) and "not acted on by this version",
    }
    for key, message in unused.items():
        if message:
            report.warn(key, message)
