"""Rules that look at more than one key of ``server.tls``, and at what goes with it.

Every rule is silent when a key it looks at was refused already: one mistake, one finding.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from mcptunnel.config.report import Report
from mcptunnel.config.schema import AlertConfig, CertificatePair, Config, RedirectConfig, TlsConfig
from mcptunnel.config.syntax import is_loopback
from mcptunnel.core.certificates import Threshold
from mcptunnel.core.profiles import PROFILES
from mcptunnel.core.suites import parse as parse_suites

__all__ = ["check_tls", "settle"]

_TLS: Final = "server.tls"
_MODE: Final = "server.tls.mode"
_BEHIND: Final = "server.tls.behind_proxy"
# hstspreload.org: a year at least.
_PRELOAD_AGE: Final = 31_536_000


def settle(tls: TlsConfig, report: Report) -> TlsConfig:
    """``tls`` with what several keys say together: the mode, and the lowest version."""
    if report.sound(_MODE, _BEHIND):
        tls = _settle_mode(tls, report)
    if report.sound(f"{_TLS}.profile", f"{_TLS}.min_tls_version"):
        tls = _settle_version(tls, report)
    return tls


def check_tls(config: Config, report: Report) -> None:
    """What is wrong or doubtful goes into ``report``."""
    tls = config.server.tls
    _check_certificates(tls, report)
    _check_passphrases(tls, report)
    _check_client_auth(config, report)
    _check_suites(tls, report)
    _check_resumption(tls, report)
    _check_thresholds(tls, report)
    _check_hsts(tls, report)
    _check_redirect(config, report)
    _check_alerts(config.alerts, report)


def _settle_mode(tls: TlsConfig, report: Report) -> TlsConfig:
    """The mode that ``mode`` and ``behind_proxy`` together mean."""
    key = _BEHIND
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
    if not report.sound(_MODE, cert, key, pairs, _BEHIND):
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


def _check_client_auth(config: Config, report: Report) -> None:
    tls, rules = config.server.tls, config.auth.client_certificates
    key, ca = f"{_TLS}.client_auth", f"{_TLS}.ca_file"
    crl = f"{_TLS}.crl_file"
    if not report.sound(key, ca, crl, _MODE, _BEHIND):
        return
    if tls.crl_file is not None and tls.ca_file is None:
        report.error(crl, "revokes certificates of authorities that are not named; add ca_file")
    if rules and tls.client_auth == "none":
        report.warn(
            "auth.client_certificates",
            "no client is ever asked for a certificate; write server.tls.client_auth: optional or required",
        )
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


def _check_suites(tls: TlsConfig, report: Report) -> None:
    key = f"{_TLS}.cipher_suites"
    if tls.cipher_suites is not None and report.sound(key, f"{_TLS}.min_tls_version"):
        for index, message in parse_suites(tls.cipher_suites, tls.min_tls_version)[1]:
            report.error(
                key if index < 0 else f"{key}[{index}]", "is named twice; remove one" if index >= 0 else message
            )


def _settle_version(tls: TlsConfig, report: Report) -> TlsConfig:
    """The lowest version is the profile's, unless a higher one is written."""
    lowest, key = PROFILES[tls.profile].min_version, f"{_TLS}.min_tls_version"
    if key not in report.given:
        return evolve(tls, min_tls_version=lowest)
    if tls.min_tls_version < lowest:
        report.error(
            key, f"{tls.min_tls_version} contradicts profile: {tls.profile}, which begins at {lowest}; remove one"
        )
    return tls


def _check_passphrases(tls: TlsConfig, report: Report) -> None:
    places: dict[str, TlsConfig | CertificatePair] = {
        _TLS: tls,
        **{f"{_TLS}.certificates[{i}]": pair for i, pair in enumerate(tls.certificates)},
    }
    if not report.sound(f"{_TLS}.certificates"):
        places = {_TLS: tls}
    for place, pair in places.items():
        file, command = f"{place}.key_passphrase_file", f"{place}.key_passphrase_command"
        if not report.sound(file, command, f"{place}.key_file"):
            continue
        if pair.key_passphrase_file is not None and pair.key_passphrase_command is not None:
            report.error(command, "key_passphrase_file and key_passphrase_command are both given; keep one")
        elif pair.key_file is None and (pair.key_passphrase_file or pair.key_passphrase_command):
            report.error(file if pair.key_passphrase_file else command, "opens no key; add key_file beside it")


def _check_resumption(tls: TlsConfig, report: Report) -> None:
    key, auth = f"{_TLS}.session_resumption", f"{_TLS}.client_auth"
    if report.sound(key, auth) and tls.session_resumption and tls.client_auth != "none":
        report.error(
            key,
            f"a resumed session shows no client certificate, so one that was revoked would go on; remove it, or "
            f"client_auth: {tls.client_auth}",
        )


def _check_thresholds(tls: TlsConfig, report: Report) -> None:
    warning, critical = f"{_TLS}.expiry_warning", f"{_TLS}.expiry_critical"
    if not report.sound(warning, critical) or not _above(tls.expiry_critical, tls.expiry_warning):
        return
    key = critical if critical in report.given else warning
    report.error(key, "expiry_critical is above expiry_warning; a certificate is warned about first, lower it")


def _above(critical: Threshold, warning: Threshold) -> bool:
    """Whether two thresholds of one kind are in the wrong order."""
    if critical.seconds is None and warning.seconds is None:
        return critical.share > warning.share
    return critical.seconds is not None and warning.seconds is not None and critical.seconds > warning.seconds


def _check_hsts(tls: TlsConfig, report: Report) -> None:
    ramp, preload = f"{_TLS}.hsts_ramp", f"{_TLS}.hsts_preload"
    if not report.sound(
        *(f"{_TLS}.hsts_{name}" for name in ("enabled", "max_age", "include_subdomains")), ramp, preload
    ):
        return
    if not tls.hsts_enabled:
        for key, set_ in ((ramp, tls.hsts_ramp is not None), (preload, tls.hsts_preload)):
            if set_:
                report.error(key, "promises https while hsts_enabled is false; remove one of the two")
        return
    if tls.hsts_ramp is not None:
        if not tls.pairs and report.sound(_MODE, f"{_TLS}.cert_file", f"{_TLS}.certificates"):
            report.error(ramp, "grows with renewals of a certificate, and none is served; add cert_file and key_file")
        elif list(tls.hsts_ramp.steps) != sorted({*tls.hsts_ramp.steps}) or tls.hsts_ramp.steps[-1] > tls.hsts_max_age:
            report.error(ramp, "steps have to grow, and to end below hsts_max_age; put them in order")
    if not tls.hsts_preload:
        return
    if tls.hsts_ramp is not None:
        report.error(preload, "browsers build in a promise that is whole, not one that grows; remove hsts_ramp")
    elif tls.hsts_max_age < _PRELOAD_AGE or not tls.hsts_include_subdomains:
        report.error(preload, "browsers ask for hsts_max_age: 365d or more and hsts_include_subdomains: true")
    elif not _redirects(tls) and report.sound(f"{_TLS}.redirect_http", _MODE):
        report.error(preload, "browsers ask for a redirect from http; add redirect_http: {port: 80}")


def _redirects(tls: TlsConfig) -> bool:
    """Whether http leads to https: here, or at the proxy in front."""
    redirect = tls.redirect_http
    return tls.mode == "behind_proxy" or (redirect is not None and redirect.action == "redirect")


def _check_redirect(config: Config, report: Report) -> None:
    tls, key = config.server.tls, f"{_TLS}.redirect_http"
    redirect = tls.redirect_http
    if redirect is None or not report.sound(key, _MODE, _BEHIND, "server.host", "server.port"):
        return
    if tls.mode in ("disabled", "behind_proxy"):
        report.error(key, f"leads to https, and mode {tls.mode} serves none; write mode: application or auto")
        return
    if redirect.host is None and config.server.host.startswith(("unix:", "systemd:")):
        report.error(key, "server.host is no address that a second port could be opened on; add host")
    elif redirect.port == config.server.port != 0 and redirect.host in (None, config.server.host):
        report.error(key, "the port is that of server; give http a port of its own, such as 80")
    elif redirect.action == "redirect" and not _named(config) and report.sound("server.public_url"):
        report.warn(
            key, "without server.public_url only this machine is redirected, others are told to use https; set it"
        )
    _check_serving(config, redirect, report)


def _named(config: Config) -> bool:
    """Whether the configuration says what clients call us."""
    return config.server.public_url is not None or any(host != "*" for host in config.security.allowed_hosts)


def _check_serving(config: Config, redirect: RedirectConfig, report: Report) -> None:
    host = redirect.host or config.server.host
    if redirect.action == "serve" and not is_loopback(host):
        report.warn(
            f"{_TLS}.redirect_http",
            "clients of this port are served in the clear, tokens too; write action: redirect once they have moved",
        )


def _check_alerts(alerts: tuple[AlertConfig, ...], report: Report) -> None:
    if not report.sound("alerts"):
        return
    for i, alert in enumerate(alerts):
        key = f"alerts[{i}]"
        if (alert.webhook is None) == (alert.command is None):
            several = alert.webhook is not None
            report.error(
                key,
                "webhook and command are both given; keep one"
                if several
                else "names nobody to tell; add webhook (a URL) or command (a program)",
            )
        elif alert.headers and alert.webhook is None:
            report.error(f"{key}.headers", "headers go with a webhook; remove them")
