"""The readers of every top-level section but ``mcpServers`` and ``include``: one table per class.

Ranges of single values are here; rules that look at several keys are in :mod:`mcptunnel.config.checks`.
"""

from __future__ import annotations

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
from mcptunnel.config.tls_sections import ARGV, TLS, bind, own_secret
from mcptunnel.config.units import FormatError

__all__ = ["ADMIN", "AGGREGATE", "ALERTS", "AUTH", "LOGGING", "REGISTRY", "SECURITY", "SERVER"]

_DAY: Final = 86_400.0
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_GIB: Final = 1024 * _MIB

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
        "host": bind,
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


def _seal_key(node: Node, at: At) -> str:
    return own_secret(syntax.seal_key, node, at)


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
    value = own_secret(syntax.secret, node, at)
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
    fields={"san": text(syntax.free_text, "a name"), "subject": text(syntax.subject, "a subject")},
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

ADMIN: Final = Section(
    build=schema.AdminConfig,
    fields={
        "host": bind,
        "port": whole(0, 65535),
        "token": _secret,
        "token_file": existing_file("token"),
    },
)

_ALERT: Final = Section(
    build=schema.AlertConfig,
    fields={
        "webhook": text(syntax.web_url, "a URL"),
        "headers": Named(
            name=syntax.header_name,
            item=text(syntax.header_value, "a header's value", secret=True),
            expected="headers",
            fold=True,
        ),
        "command": ARGV,
        "least": choice("warning", "critical"),
    },
    synonyms={"url": "webhook", "hook": "webhook", "run": "command", "level": "least", "severity": "least"},
)

ALERTS: Final = Listed(item=_ALERT, expected="targets {webhook} or {command}")

LOGGING: Final = Section(
    build=schema.LoggingConfig,
    fields={
        "level": choice("debug", "info", "warn", "error", also={"warning": "warn"}),
        "access": choice("text", "json", "off", also={"false": "off", "no": "off"}),
        "access_file": path,
    },
    synonyms={"format": "access", "file": "access_file", "severity": "level", "verbosity": "level"},
)
