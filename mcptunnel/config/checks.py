"""Rules that look at more than one key of ``server``, ``security`` and ``auth``.

Every rule is silent when a key it looks at was refused already: one mistake, one finding.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from mcptunnel.config.report import Report
from mcptunnel.config.schema import AuthConfig, Config, ServerConfig, TlsConfig
from mcptunnel.config.secrets import check_same
from mcptunnel.config.syntax import is_loopback
from mcptunnel.core.addresses import Trust
from mcptunnel.core.suites import parse as parse_suites

__all__ = ["check"]

_TLS: Final = "server.tls"
_MODE: Final = "server.tls.mode"
_PROXIES: Final = "server.tls.trusted_proxies"


def check(config: Config, report: Report) -> Config:
    """``config`` with ``server.tls.mode`` settled; what is wrong or doubtful goes into ``report``."""
    if report.sound(_MODE, f"{_TLS}.behind_proxy"):
        config = evolve(config, server=evolve(config.server, tls=_settle_mode(config.server.tls, report)))
    server, tls = config.server, config.server.tls
    _check_certificates(tls, report)
    _check_client_auth(tls, report)
    _check_trust(server, report)
    _check_suites(tls, report)
    _check_order(server, report)
    _check_address(config, report)
    _check_tokens(config.auth, report)
    if report.sound("server.host", "auth", _TLS):
        _check_open_door(config, report)
    _note_unused(config, report)
    return config


def _settle_mode(tls: TlsConfig, report: Report) -> TlsConfig:
    """The mode that ``mode`` and ``behind_proxy`` together mean."""
    key = f"{_TLS}.behind_proxy"
    if tls.behind_proxy and _MODE not in report.given:
        return evolve(tls, mode="behind_proxy")
    if tls.behind_proxy and tls.mode != "behind_proxy":
        report.error(
            key,
            f"true contradicts mode: {tls.mode}; remove behind_proxy, or write mode: behind_proxy "
            "to serve listed proxies only",
        )
    elif tls.behind_proxy is False and tls.mode == "behind_proxy":
        report.error(key, "false contradicts mode: behind_proxy; remove behind_proxy, or choose another mode")
    return tls


def _check_certificates(tls: TlsConfig, report: Report) -> None:
    cert, key, pairs = f"{_TLS}.cert_file", f"{_TLS}.key_file", f"{_TLS}.certificates"
    if not report.sound(_MODE, cert, key, pairs, f"{_TLS}.behind_proxy"):
        return
    if (tls.cert_file is None) != (tls.key_file is None):
        there, missing = ("cert_file", "key_file") if tls.key_file is None else ("key_file", "cert_file")
        report.error(f"{_TLS}.{there}", f"{there} is given without {missing}; add {missing} beside it")
    elif tls.mode == "application" and not tls.pairs:
        report.error(_MODE, "application serves https and has no certificate; add cert_file and key_file")
    elif tls.mode == "auto" and not tls.pairs:
        report.error(
            _MODE,
            "auto serves https to whoever is not a listed proxy, and has no certificate; add cert_file and key_file, "
            "or write mode: behind_proxy to serve listed proxies only",
        )
    elif tls.mode in ("disabled", "behind_proxy") and tls.pairs:
        report.warn(
            cert if tls.cert_file else pairs,
            f"not used in mode {tls.mode}; write mode: auto or application to serve https",
        )


def _check_client_auth(tls: TlsConfig, report: Report) -> None:
    key, ca = f"{_TLS}.client_auth", f"{_TLS}.ca_file"
    if not report.sound(key, ca, _MODE, f"{_TLS}.behind_proxy"):
        return
    if tls.client_auth == "none":
        if tls.ca_file is not None:
            report.warn(ca, "not used while client_auth is none; write client_auth: required to ask for certificates")
    elif tls.mode in ("disabled", "behind_proxy"):
        report.error(
            key,
            f"'{tls.client_auth}' asks for client certificates, and mode {tls.mode} has no TLS to ask in; "
            "write client_auth: none, or mode: application or auto",
        )
    elif tls.ca_file is None:
        report.error(key, f"'{tls.client_auth}' has nothing to check certificates against; add ca_file")


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


def _check_suites(tls: TlsConfig, report: Report) -> None:
    key = f"{_TLS}.cipher_suites"
    if tls.cipher_suites is not None and report.sound(key, f"{_TLS}.min_tls_version"):
        for index, message in parse_suites(tls.cipher_suites, tls.min_tls_version)[1]:
            report.error(
                key if index < 0 else f"{key}[{index}]", "is named twice; remove one" if index >= 0 else message
            )


def _check_order(server: ServerConfig, report: Report) -> None:
    """Pairs of bounds of which one makes sense only below the other."""
    tls, limits = server.tls, server.limits
    warning, critical = f"{_TLS}.expiry_warning", f"{_TLS}.expiry_critical"
    if report.sound(warning, critical) and tls.expiry_critical > tls.expiry_warning:
        key = critical if critical in report.given else warning
        report.error(key, "expiry_critical is above expiry_warning; a certificate is warned about first, lower it")
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
    exposed = any(entry.enabled for entry in config.servers.values())
    local = is_loopback(server.host) or server.host.startswith("systemd:")
    bound = report.place("server.host")
    place = report.place("auth") if "auth" in report.places else bound
    if auth.anonymous:
        if exposed and not local:
            report.warn("auth.anonymous", "whoever reaches this address may use every server without a credential")
        elif auth.tokens:
            report.warn("auth.anonymous", "callers without a token are let in as well; remove it to demand a token")
    elif not auth.tokens and not local:
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
    elif not auth.tokens and exposed and server.host.startswith("systemd:"):
        report.warn(
            "auth",
            "no credential is asked for on the socket that systemd passes; make sure that only this machine reaches "
            "it, or add auth.tokens",
            place,
        )
    elif not auth.tokens and exposed and server.tls.trusted_proxies:
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
        "auth.client_certificates": bool(config.auth.client_certificates) and f"{later}: they let nobody in",
        "registry.paths": bool(config.registry.paths) and "not acted on by this version",
        "admin": config.admin is not None and "not acted on by this version: no admin listener is opened",
    }
    for key, message in unused.items():
        if message:
            report.warn(key, message)
