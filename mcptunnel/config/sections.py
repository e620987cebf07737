"""The readers of every top-level section but ``mcpServers`` and ``include``: one table per class.

Ranges of single values are here; rules that look at several keys are in :mod:`mcptunnel.config.checks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from mcptunnel.config import schema, syntax
from mcptunnel.config.containers import Listed, Named, Section
from mcptunnel.config.fields import (
    RefusedError,
    boolean,
    choice,
    duration,
    existing_file,
    number,
    path,
    size,
    text,
    whole,
)
from mcptunnel.config.positions import Node, ScalarNode
from mcptunnel.config.report import At
from mcptunnel.config.secrets import WEAK_ADVICE, is_weak
from mcptunnel.config.units import FormatError

__all__ = ["ADMIN", "AGGREGATE", "AUTH", "LOGGING", "REGISTRY", "SECURITY", "SERVER"]

# sun_path of sockaddr_un holds 108 bytes, the last a NUL.
_UNIX_PATH: Final = 107

_DAY: Final = 86_400.0
_YEAR: Final = 365 * _DAY
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_GIB: Final = 1024 * _MIB

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
}
_TLS_NAMES: Final = {
    "ca": "ca_file",
    "ca_cert": "ca_file",
    "client_ca": "ca_file",
    "certs": "certificates",
    "ciphers": "cipher_suites",
    "hsts": "hsts_enabled",
    "min_version": "min_tls_version",
    "proxies": "trusted_proxies",
}
_SERVER_NAMES: Final = {
    "address": "host",
    "bind": "host",
    "listen": "host",
    "processes": "workers",
    "ssl": "tls",
    "url": "public_url",
}

# Headers that frame the message or belong to one connection (RFC 9110 §7.6.1, RFC 9112): not to be configured.
_FRAMING: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "date"}
)


def _bind(node: Node, at: At) -> str:
    host = text(syntax.bind_host, "an address")(node, at)
    if not host.startswith("unix:"):
        return host
    path = os.path.join(at.scope.base or "", host[5:])
    if len(path.encode()) > _UNIX_PATH:
        raise RefusedError(f"the path of the socket is longer than {_UNIX_PATH} bytes; choose a shorter one")
    return f"unix:{path}"


def _hsts_age(node: Node, at: At) -> int:
    return int(duration(0, 100 * _YEAR)(node, at))


def _min_version(node: Node, at: At) -> str:
    # YAML reads 1.2 as a number; its text is what counts.
    if isinstance(node, ScalarNode) and node.text in ("1.0", "1.1", "1"):
        raise RefusedError(f"'{node.text}' is not offered, it is broken (RFC 8996); write 1.2 or 1.3")
    return choice("1.2", "1.3", also={"TLSv1.2": "1.2", "TLSv1.3": "1.3"})(node, at)


CERTIFICATE: Final = Section(
    build=schema.CertificatePair,
    fields={"cert_file": existing_file("certificate"), "key_file": existing_file("private key")},
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

TLS: Final = Section(
    build=schema.TlsConfig,
    fields={
        "mode": choice("disabled", "application", "behind_proxy", "auto"),
        "cert_file": existing_file("certificate"),
        "key_file": existing_file("private key"),
        "ca_file": existing_file("CA certificates"),
        "behind_proxy": boolean,
        "trusted_proxies": Listed(item=text(syntax.network, "a network"), expected="networks", split=True),
        "trust_any_peer": boolean,
        "min_tls_version": _min_version,
        "cipher_suites": Listed(item=text(syntax.cipher, "a suite"), expected="cipher suites", split=True, least=1),
        "hsts_enabled": boolean,
        "hsts_max_age": _hsts_age,
        "client_auth": choice("none", "optional", "required"),
        "certificates": Listed(item=CERTIFICATE, expected="{cert_file, key_file} pairs"),
        "forwarded": FORWARDED,
        "expiry_warning": duration(0, _YEAR),
        "expiry_critical": duration(0, _YEAR),
        "expiry_check_interval": duration(1, 7 * _DAY),
        "loopback_health": boolean,
    },
    synonyms=_CERTIFICATE_NAMES | _TLS_NAMES,
)

_PATIENCE: Final = duration(0.001, _DAY)

LIMITS: Final = Section(
    build=schema.LimitsConfig,
    fields={
        "connections": whole(1, 1_000_000),
        "client_connections": whole(1, 1_000_000),
        "preface_timeout": _PATIENCE,
        "handshake_timeout": _PATIENCE,
        "header_timeout": _PATIENCE,
        "body_timeout": _PATIENCE,
        "idle_timeout": _PATIENCE,
        "write_timeout": _PATIENCE,
        "drain_timeout": duration(0, _DAY),
        "header_bytes": size(_KIB, _MIB),
        "uri_bytes": size(128, _MIB),
        "header_count": whole(8, 10_000),
        "body_bytes": size(_KIB, _GIB),
        "message_bytes": size(_KIB, _GIB),
        "sessions": whole(1, 1_000_000),
        "children": whole(1, 100_000),
        "session_idle_timeout": duration(1, 30 * _DAY),
        "request_timeout": _PATIENCE,
        "request_max_time": duration(0.001, 30 * _DAY),
        "input_timeout": _PATIENCE,
        "parked": whole(1, 1_000_000),
    },
)

SERVER: Final = Section(
    build=schema.ServerConfig,
    fields={
        "host": _bind,
        "port": whole(0, 65535),
        "public_url": text(syntax.public_url, "a URL"),
        "workers": whole(0, 256),
        "proxy_protocol": choice("off", "optional", "required", also={"false": "off", "no": "off"}),
        "tls": TLS,
        "limits": LIMITS,
    },
    synonyms=_SERVER_NAMES,
)


def _response_header(value: str) -> str:
    name = syntax.header_name(value)
    if name.lower() in _FRAMING:
        raise FormatError("is set by the daemon itself; remove the entry")
    if name.lower() == "strict-transport-security":
        raise FormatError("is set by server.tls.hsts_enabled and server.tls.hsts_max_age; use these")
    return name


def _header_or_null(node: Node, at: At) -> str | None:
    if isinstance(node, ScalarNode) and node.kind == "null":
        return None
    return text(syntax.header_value, "a header's value", truth=True)(node, at)


RATE_LIMIT: Final = Section(
    build=schema.RateLimitConfig,
    fields={"requests_per_second": number(0.001, 1_000_000), "burst": whole(1, 1_000_000)},
    synonyms={"rate": "requests_per_second", "rps": "requests_per_second"},
)


def _own_secret(check: Callable[[str], str], node: Node, at: At) -> str:
    """A secret of the operator's, which YAML must not have made a number of."""
    if isinstance(node, ScalarNode) and node.kind not in ("null", "str"):
        raise RefusedError("the secret is a number or truth value to YAML; put it in quotes")
    return text(check, "a secret", secret=True)(node, at)


def _seal_key(node: Node, at: At) -> str:
    return _own_secret(syntax.seal_key, node, at)


SECURITY: Final = Section(
    build=schema.SecurityConfig,
    fields={
        "headers": Named(name=_response_header, item=_header_or_null, expected="headers", fold=True),
        "rate_limit": RATE_LIMIT,
        "allowed_hosts": Listed(item=text(syntax.allowed_host, "a host"), expected="hosts", split=True),
        "allowed_origins": Listed(item=text(syntax.allowed_origin, "an origin"), expected="origins", split=True),
        "seal_keys": Listed(item=_seal_key, expected="secrets", single=True),
    },
    synonyms={
        "hosts": "allowed_hosts",
        "origins": "allowed_origins",
        "cors": "allowed_origins",
        "seal_key": "seal_keys",
    },
)


def _secret(node: Node, at: At) -> str:
    value = _own_secret(syntax.secret, node, at)
    if is_weak(value):
        at.warn(f"the secret is short; {WEAK_ADVICE}")
    return value


_ALLOW: Final = Listed(item=text(syntax.allow_pattern, "a pattern"), expected="patterns", single=True)

TOKEN: Final = Section(
    build=schema.TokenConfig,
    fields={
        "name": text(syntax.token_name, "a name"),
        "token": _secret,
        "token_file": existing_file("token"),
        "token_sha256": text(syntax.sha256, "a SHA-256", secret=True, truth=True),
        "allow": _ALLOW,
    },
    required=("name",),
    synonyms={"bearer": "token", "secret": "token", "value": "token", "file": "token_file", "sha256": "token_sha256"},
)

JWT: Final = Section(
    build=schema.JwtConfig,
    fields={
        "issuer": text(syntax.web_url, "a URL"),
        "audience": text(syntax.free_text, "a text"),
        "jwks_url": text(syntax.web_url, "a URL"),
    },
    required=("issuer",),
    synonyms={"jwks": "jwks_url", "jwks_uri": "jwks_url", "aud": "audience", "iss": "issuer"},
)

_MATCH: Final[Section[dict[str, str]]] = Section(
    build=dict,
    fields={"san": text(syntax.free_text, "a name"), "subject": text(syntax.free_text, "a subject")},
)


def _match(node: Node, at: At) -> dict[str, str]:
    rule = _MATCH(node, at)
    if not rule and at.report.sound(at.key):
        raise RefusedError("matches every certificate; name san or subject")
    return rule


CLIENT_CERTIFICATE: Final = Section(
    build=schema.ClientCertificateConfig,
    fields={"name": text(syntax.token_name, "a name"), "match": _match, "allow": _ALLOW},
    required=("name", "match"),
)

AUTH: Final = Section(
    build=schema.AuthConfig,
    fields={
        "anonymous": boolean,
        "tokens": Listed(item=TOKEN, expected="tokens {name, token}"),
        "jwt": JWT,
        "client_certificates": Listed(item=CLIENT_CERTIFICATE, expected="rules {name, match}"),
    },
    synonyms={"token": "tokens", "bearer": "tokens", "api_keys": "tokens"},
)

AGGREGATE: Final = Section(
    build=schema.AggregateConfig,
    fields={"prefix": choice("always", "never", "on-collision"), "timeout": _PATIENCE},
)

REGISTRY: Final = Section(
    build=schema.RegistryConfig,
    fields={"paths": Listed(item=path, expected="paths", single=True)},
)

ADMIN: Final = Section(build=schema.AdminConfig, fields={"host": _bind, "port": whole(0, 65535)})

LOGGING: Final = Section(
    build=schema.LoggingConfig,
    fields={
        "level": choice("debug", "info", "warn", "error", also={"warning": "warn"}),
        "access": choice("text", "json", "off", also={"false": "off", "no": "off"}),
        "access_file": path,
    },
    synonyms={"format": "access", "file": "access_file", "severity": "level", "verbosity": "level"},
)
