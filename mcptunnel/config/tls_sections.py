"""The readers of ``server.tls``: one table per class, and what they share with the other sections.

Ranges of single values are here; rules that look at several keys are in :mod:`mcptunnel.config.tls_checks`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

from mcptunnel.config import schema, syntax
from mcptunnel.config.containers import Listed, Section, Switched
from mcptunnel.config.fields import (
    Read,
    RefusedError,
    boolean,
    choice,
    duration,
    existing_file,
    path,
    size,
    text,
    whole,
)
from mcptunnel.config.positions import Node, ScalarNode
from mcptunnel.config.report import At
from mcptunnel.config.units import FormatError, parse_duration
from mcptunnel.core.certificates import CRITICAL, WARNING, Threshold

__all__ = ["ARGV", "TLS", "bind", "own_secret"]

# sun_path of sockaddr_un holds 108 bytes, the last a NUL.
_UNIX_PATH: Final = 107

_DAY: Final = 86_400.0
_YEAR: Final = 365 * _DAY
_KIB: Final = 1024

_PERCENT: Final = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,3})?)[ ]*%", re.ASCII)

_CERTIFICATE_NAMES: Final = {
    "cert": "cert_file",
    "certfile": "cert_file",
    "certificate": "cert_file",
    "certificate_file": "cert_file",
    "ssl_certificate": "cert_file",
    "key": "key_file",
    "keyfile": "key_file",
    "private_key": "key_file",
    "ssl_certificate_key": "key_file",
    "passphrase_file": "key_passphrase_file",
    "passphrase_command": "key_passphrase_command",
}
_TLS_NAMES: Final = {
    "ca": "ca_file",
    "ca_cert": "ca_file",
    "client_ca": "ca_file",
    "certs": "certificates",
    "ciphers": "cipher_suites",
    "crl": "crl_file",
    "curves": "groups",
    "ecdh_curves": "groups",
    "hsts": "hsts_enabled",
    "min_version": "min_tls_version",
    "proxies": "trusted_proxies",
    "redirect": "redirect_http",
    "session_tickets": "session_resumption",
    "sni_strict": "unknown_name",
    "strict_sni": "unknown_name",
    "webroot": "acme_webroot",
}


def bind(node: Node, at: At) -> str:
    host = text(syntax.bind_host, "an address")(node, at)
    if not host.startswith("unix:"):
        return host
    path = os.path.join(at.scope.base or "", host[5:])
    if len(path.encode()) > _UNIX_PATH:
        raise RefusedError(f"the path of the socket is longer than {_UNIX_PATH} bytes; choose a shorter one")
    return f"unix:{path}"


def own_secret(check: Callable[[str], str], node: Node, at: At) -> str:
    """A secret of the operator's, which YAML must not have made a number of."""
    if isinstance(node, ScalarNode) and node.kind not in ("null", "str"):
        raise RefusedError("the secret is a number or truth value to YAML; put it in quotes")
    return text(check, "a secret", secret=True)(node, at)


ARGV: Final = Listed(item=text(syntax.free_text, "an argument"), expected="a program and its arguments", least=1)


def _hsts_age(node: Node, at: At) -> int:
    return int(duration(0, 100 * _YEAR)(node, at))


def _min_version(node: Node, at: At) -> str:
    # YAML reads 1.2 as a number; its text is what counts.
    if isinstance(node, ScalarNode) and node.text in ("1.0", "1.1", "1"):
        raise RefusedError(f"'{node.text}' is not offered, it is broken (RFC 8996); write 1.2 or 1.3")
    return choice("1.2", "1.3", also={"TLSv1.2": "1.2", "TLSv1.3": "1.3"})(node, at)


def _threshold(default: Threshold) -> Read[Threshold]:
    """A share of the life, such as ``25%``, or a time, beside which the share of ``default`` still counts."""

    def check(value: str) -> Threshold:
        percent = _PERCENT.fullmatch(value.strip())
        if percent is not None:
            return Threshold(share=float(percent[1]) / 100)
        seconds = parse_duration(value)
        if seconds > _YEAR:
            raise FormatError("is out of range; write at most 365d, or a share of the life such as 25%")
        return Threshold(share=default.share, seconds=seconds)

    return text(check, "a share of the life such as 25%, or a duration such as 30d")


CERTIFICATE: Final = Section(
    build=schema.CertificatePair,
    fields={
        "cert_file": existing_file("certificate"),
        "key_file": existing_file("private key"),
        "key_passphrase_file": existing_file("passphrase"),
        "key_passphrase_command": ARGV,
    },
    required=("cert_file", "key_file"),
    synonyms=_CERTIFICATE_NAMES,
)

FORWARDED: Final = Section(
    build=schema.ForwardedConfig,
    fields={
        "family": choice("xff", "forwarded", "x-real-ip", "none", also={"x-forwarded-for": "xff"}),
        "on_untrusted": choice("strip", "reject"),
        "max_entries": whole(1, 1000),
        "max_bytes": size(64, 64 * _KIB),
        "prefix": boolean,
    },
)

REDIRECT: Final = Section(
    build=schema.RedirectConfig,
    fields={"host": bind, "port": whole(0, 65535), "action": choice("redirect", "serve")},
    required=("port",),
    synonyms={"address": "host", "listen": "host"},
)

_RAMP: Final = Section(
    build=schema.HstsRampConfig,
    fields={"steps": Listed(item=_hsts_age, expected="durations", single=True, least=1), "file": path},
)


TLS: Final = Section(
    build=schema.TlsConfig,
    fields={
        "mode": choice("disabled", "application", "behind_proxy", "auto"),
        "cert_file": existing_file("certificate"),
        "key_file": existing_file("private key"),
        "key_passphrase_file": existing_file("passphrase"),
        "key_passphrase_command": ARGV,
        "key_permissions": choice("strict", "warn"),
        "ca_file": existing_file("CA certificates"),
        "crl_file": existing_file("revocation list"),
        "behind_proxy": boolean,
        "trusted_proxies": Listed(item=text(syntax.network, "a network"), expected="networks", split=True),
        "trust_any_peer": boolean,
        "profile": choice("modern", "intermediate"),
        "min_tls_version": _min_version,
        "cipher_suites": Listed(item=text(syntax.cipher, "a suite"), expected="cipher suites", split=True, least=1),
        "groups": Listed(item=text(syntax.group, "a group"), expected="key exchange groups", split=True, least=1),
        "session_resumption": boolean,
        "unknown_name": choice("default", "refuse"),
        "hsts_enabled": boolean,
        "hsts_max_age": _hsts_age,
        "hsts_include_subdomains": boolean,
        "hsts_preload": boolean,
        "hsts_ramp": Switched(_RAMP),
        "client_auth": choice("none", "optional", "required"),
        "certificates": Listed(item=CERTIFICATE, expected="{cert_file, key_file} pairs"),
        "redirect_http": REDIRECT,
        "acme_webroot": path,
        "forwarded": FORWARDED,
        "expiry_warning": _threshold(WARNING),
        "expiry_critical": _threshold(CRITICAL),
        "expiry_check_interval": duration(1, 7 * _DAY),
        "loopback_health": boolean,
    },
    synonyms=_CERTIFICATE_NAMES | _TLS_NAMES,
)
