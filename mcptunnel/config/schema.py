"""The configuration as frozen classes: names, types, defaults and their reasons.

The names are a contract with configuration files in the field. Durations are seconds, sizes are bytes; in YAML both
may be written with units (``30s``, ``1MiB``). Secrets never appear in a ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from attrs import field, frozen

from mcptunnel.core.certificates import CRITICAL, WARNING, Threshold

__all__ = [
    "DEFAULT_HSTS_MAX_AGE",
    "DEFAULT_HSTS_STEPS",
    "AdminConfig",
    "AggregateConfig",
    "AlertConfig",
    "AuthConfig",
    "CertificatePair",
    "ClientCertificateConfig",
    "Config",
    "ForwardedConfig",
    "HstsRampConfig",
    "JwtConfig",
    "LimitsConfig",
    "LoggingConfig",
    "RateLimitConfig",
    "RedirectConfig",
    "RegistryConfig",
    "SecurityConfig",
    "ServerConfig",
    "TlsConfig",
    "TokenConfig",
    "ToolOverride",
    "UpstreamConfig",
]

TlsMode = Literal["disabled", "application", "behind_proxy", "auto"]

# Two years, the value of Mozilla's guidelines 6.0 and of the browsers' preload lists.
DEFAULT_HSTS_MAX_AGE: Final = 63_072_000

# Five minutes while everything can still be taken back, then as long as it takes to see that renewal works.
DEFAULT_HSTS_STEPS: Final = (300, 86_400, 604_800, 2_592_000)


@frozen(kw_only=True)
class CertificatePair:
    """One certificate chain (PEM, leaf first) and its key.

    Attributes:
        key_passphrase_file: File whose first line opens an encrypted key.
        key_passphrase_command: Command whose first line of output opens it; no shell. At most one of the two.
    """

    cert_file: str
    key_file: str
    key_passphrase_file: str | None = None
    key_passphrase_command: tuple[str, ...] | None = None


@frozen(kw_only=True)
class RedirectConfig:
    """``server.tls.redirect_http``: a second port, on which http is spoken.

    Attributes:
        host: As ``server.host``; None for the same.
        action: ``redirect`` sends clients to https, or tells them why not. ``serve`` still serves them, while they are
            moving, and remembers who they are.
    """

    port: int
    host: str | None = None
    action: Literal["redirect", "serve"] = "redirect"


@frozen(kw_only=True)
class HstsRampConfig:
    """``server.tls.hsts_ramp``: a promise of https that grows with every renewal that worked.

    Attributes:
        steps: Seconds of max-age, one for each certificate that was renewed in time; ``hsts_max_age`` after the last.
        file: Where the step survives a restart; None to begin anew at each start.
    """

    steps: tuple[int, ...] = DEFAULT_HSTS_STEPS
    file: str | None = None


@frozen(kw_only=True)
class ForwardedConfig:
    """How forwarded headers of trusted proxies are read.

    Attributes:
        family: The one family that is believed; all others are deleted.
        on_untrusted: Delete forwarding headers of untrusted peers, or refuse the request.
        max_entries: Longest chain that is read.
        max_bytes: Longest value that is read, all lines of a header together.
        prefix: Believe ``X-Forwarded-Prefix``.
    """

    family: Literal["xff", "forwarded", "x-real-ip", "none"] = "xff"
    on_untrusted: Literal["strip", "reject"] = "strip"
    max_entries: int = 32
    max_bytes: int = 4096
    prefix: bool = False


@frozen(kw_only=True)
class TlsConfig:
    """``server.tls``: the ten fields of the specification, and what belongs beside them.

    Attributes:
        mode: See the table in the guide "TLS modes". ``behind_proxy: true`` without a mode means ``behind_proxy``.
        behind_proxy: The specification's second way to say it; None when absent; must agree with ``mode``.
        trusted_proxies: CIDR networks, addresses, or ``unix`` for peers on a UNIX socket.
        trust_any_peer: Permits ``0.0.0.0/0`` and ``::/0`` in ``trusted_proxies``.
        profile: Mozilla's guidelines: what holds for versions, suites and groups that are not configured.
        min_tls_version: ``1.2`` or ``1.3``.
        cipher_suites: OpenSSL or IANA names; None for the profile's list.
        groups: Key exchange groups in order of preference; None for the profile's list.
        session_resumption: Let clients resume a session under the very name it was made for.
        unknown_name: What a client gets that asks for a name without a certificate: the default one, or a refusal.
        key_permissions: What happens when others can read a private key; None: ``strict`` but on loopback.
        hsts_enabled: Send Strict-Transport-Security on responses whose effective scheme is https.
        hsts_max_age: Seconds; 0 tells browsers to forget.
        hsts_include_subdomains: The promise holds for all names below ours.
        hsts_preload: Browsers may build the promise in.
        hsts_ramp: Let the promise grow; None to make it whole at once.
        client_auth: Ask for client certificates that chain to ``ca_file``.
        crl_file: Revocation lists (PEM) of the authorities in ``ca_file``; every one of them needs its list.
        certificates: More pairs, chosen by the name in the handshake (SNI).
        redirect_http: A second port for http.
        acme_webroot: Directory below which an ACME client puts ``.well-known/acme-challenge/TOKEN``.
        expiry_warning: Remaining life at which a certificate is warned about (a quarter).
        expiry_critical: Remaining life at which it is an error (a tenth).
        expiry_check_interval: Seconds between looks.
        loopback_health: In ``behind_proxy`` mode answer ``/health/*`` to plaintext peers on loopback as well.
    """

    mode: TlsMode = "disabled"
    cert_file: str | None = None
    key_file: str | None = None
    key_passphrase_file: str | None = None
    key_passphrase_command: tuple[str, ...] | None = None
    key_permissions: Literal["strict", "warn"] | None = None
    ca_file: str | None = None
    crl_file: str | None = None
    behind_proxy: bool | None = None
    trusted_proxies: tuple[str, ...] = ()
    trust_any_peer: bool = False
    profile: Literal["modern", "intermediate"] = "intermediate"
    min_tls_version: Literal["1.2", "1.3"] = "1.2"
    cipher_suites: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    session_resumption: bool = False
    unknown_name: Literal["default", "refuse"] = "default"
    hsts_enabled: bool = True
    hsts_max_age: int = DEFAULT_HSTS_MAX_AGE
    hsts_include_subdomains: bool = False
    hsts_preload: bool = False
    hsts_ramp: HstsRampConfig | None = None
    client_auth: Literal["none", "optional", "required"] = "none"
    certificates: tuple[CertificatePair, ...] = ()
    redirect_http: RedirectConfig | None = None
    acme_webroot: str | None = None
    forwarded: ForwardedConfig = ForwardedConfig()
    expiry_warning: Threshold = WARNING
    expiry_critical: Threshold = CRITICAL
    expiry_check_interval: float = 3600.0
    loopback_health: bool = False

    @property
    def pairs(self) -> tuple[CertificatePair, ...]:
        """Every configured pair, the default one first."""
        if self.cert_file is None or self.key_file is None:
            return self.certificates
        first = CertificatePair(
            cert_file=self.cert_file,
            key_file=self.key_file,
            key_passphrase_file=self.key_passphrase_file,
            key_passphrase_command=self.key_passphrase_command,
        )
        return (first, *self.certificates)


@frozen(kw_only=True)
class LimitsConfig:
    """``server.limits``: every bound of one listener. Seconds and bytes.

    Attributes:
        connections: Open connections in all.
        client_connections: Open connections per peer address; trusted proxies are exempt.
        preface_timeout: From accept until the first bytes decide what the connection is.
        handshake_timeout: For the TLS handshake.
        header_timeout: From the first byte of a request until its head is complete.
        body_timeout: Longest pause within a request body.
        idle_timeout: Between requests; above the 60 s of common load balancers, so that they close first.
        write_timeout: Longest time a client may refuse to read.
        drain_timeout: On SIGTERM, for calls in flight to finish.
        header_bytes: Request head in all.
        uri_bytes: Request target.
        header_count: Header lines.
        body_bytes: Request body and WebSocket message.
        message_bytes: One message from an upstream.
        sessions: MCP sessions in all.
        children: Child processes in all; a legacy session has one for each server with a ``command`` that it uses.
        session_idle_timeout: A legacy session without traffic ends.
        request_timeout: Silence of an upstream after which a call fails; progress counts as life.
        request_max_time: Longest life of one call.
        input_timeout: How long a call waits for a client's answer to a question of its server (2026-07-28).
        parked: Calls in all that wait so.
    """

    connections: int = 10_000
    client_connections: int = 1_000
    preface_timeout: float = 5.0
    handshake_timeout: float = 10.0
    header_timeout: float = 10.0
    body_timeout: float = 10.0
    idle_timeout: float = 75.0
    write_timeout: float = 30.0
    drain_timeout: float = 10.0
    header_bytes: int = 16_384
    uri_bytes: int = 8_192
    header_count: int = 100
    body_bytes: int = 4 * 1024 * 1024
    message_bytes: int = 64 * 1024 * 1024
    sessions: int = 10_000
    children: int = 256
    session_idle_timeout: float = 1800.0
    request_timeout: float = 120.0
    request_max_time: float = 3600.0
    input_timeout: float = 600.0
    parked: int = 1_000


@frozen(kw_only=True)
class ServerConfig:
    """``server``: where we listen.

    Attributes:
        host: IPv4 or IPv6 address, host name, ``unix:/path``, or ``systemd:N`` for the N-th passed socket (from 0).
        public_url: What clients call us; drives URLs we emit and the Host and Origin checks. None when not given.
        proxy_protocol: Read a PROXY header (v1 or v2), only ever from ``tls.trusted_proxies``.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    public_url: str | None = None
    workers: int = 1
    proxy_protocol: Literal["off", "optional", "required"] = "off"
    tls: TlsConfig = TlsConfig()
    limits: LimitsConfig = LimitsConfig()


@frozen(kw_only=True)
class RateLimitConfig:
    """``security.rate_limit``: requests per second and burst, per principal and per client network."""

    requests_per_second: float | None = None
    burst: int | None = None


@frozen(kw_only=True)
class SecurityConfig:
    """``security``.

    Attributes:
        headers: Overrides of the default response headers; a None value removes the header.
        allowed_hosts: ``host`` (any port) or ``host:port``; empty means ``public_url`` and the bound names.
        allowed_origins: ``scheme://host[:port]``; empty means ``public_url`` and the bound names.
        seal_keys: The first seals what clients carry for us, all open it. Empty: a random key at each start, so that
            sessions and open questions do not survive a restart.
    """

    headers: Mapping[str, str | None] = field(factory=dict)
    rate_limit: RateLimitConfig | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    seal_keys: tuple[str, ...] = field(default=(), repr=False)


@frozen(kw_only=True)
class TokenConfig:
    """One static bearer token: exactly one of ``token``, ``token_file``, ``token_sha256``.

    Attributes:
        token: The secret itself; write ``${env:NAME}``.
        token_file: File whose first line is the secret.
        token_sha256: Hexadecimal SHA-256 of the secret.
        allow: Patterns over ``server__name``; None allows everything.
    """

    name: str
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    token_sha256: str | None = field(default=None, repr=False)
    allow: tuple[str, ...] | None = None


@frozen(kw_only=True)
class JwtConfig:
    """``auth.jwt``."""

    issuer: str
    audience: str | None = None
    jwks_url: str | None = None


@frozen(kw_only=True)
class ClientCertificateConfig:
    """One rule that turns a verified client certificate into a principal; the first that matches counts.

    Attributes:
        match: ``san``, a pattern (``*``, ``?``, ``[…]``) over its DNS names, URIs, addresses and mail addresses;
            ``subject``, attributes that its subject must have, RFC 4514. Where both are given, both must match.
    """

    name: str
    match: Mapping[str, str]
    allow: tuple[str, ...] | None = None


@frozen(kw_only=True)
class AuthConfig:
    """``auth``. Without any credential and with ``anonymous: false`` only loopback listeners may show servers."""

    anonymous: bool = False
    tokens: tuple[TokenConfig, ...] = ()
    jwt: JwtConfig | None = None
    client_certificates: tuple[ClientCertificateConfig, ...] = ()


def _url_repr(url: str | None) -> str:
    """A URL without its query, where some services put their keys."""
    base, mark, _ = (url or "").partition("?")
    return repr(f"{base}?…") if mark else repr(url)


def _proxy_repr(url: str | None) -> str:
    """A proxy's URL without what it is logged in with."""
    scheme, mark, rest = (url or "").partition("://")
    user, sign, host = rest.rpartition("@")
    return repr(f"{scheme}://…@{host}") if mark and sign and user else repr(url)


@frozen(kw_only=True)
class ToolOverride:
    """What clients see of one tool of a server, instead of what the server says. None: as the server says.

    Attributes:
        hidden: Clients neither see nor call it.
    """

    name: str | None = None
    description: str | None = None
    hidden: bool = False


@frozen(kw_only=True)
class UpstreamConfig:
    """One entry of ``mcpServers``: a child process (``command``) or an address (``url``), never both.

    Attributes:
        name: The entry's key.
        type: How it is spoken to; ``ws`` whenever the URL is one of WebSocket. None: not said, so an http address is
            Streamable HTTP, or HTTP+SSE if that is all it understands.
        era: ``legacy`` is MCP with sessions (until 2025-11-25), ``modern`` the one without; ``auto`` finds out.
        sharing: ``session``: a process or connection for each session; ``shared``: one for all of them.
        request_timeout: Silence after which a call fails; None as in ``server.limits``.
        request_max_time: Longest life of one call; None as in ``server.limits``.
        args: Arguments, never passed through a shell.
        env: Variables added to the child's environment.
        cwd: Working directory of the child; None for the daemon's own.
        url: Address of a server; http, https, ws or wss.
        headers: Header lines sent with every upstream request; values are secret.
        ca_file: CA certificates that an https upstream must chain to, instead of the system's.
        cert_file: The certificate that we show an https or wss server, PEM, ours first; needs ``key_file``.
        key_file: Its private key.
        proxy: http URL of the proxy on the way; ``none`` for no proxy; None as the environment says
            (``HTTPS_PROXY`` and the like).
        tools: Overrides by the server's own names of its tools.
        enabled: False leaves the entry out.
    """

    name: str
    type: Literal["stdio", "http", "sse", "ws"] | None = None
    era: Literal["auto", "legacy", "modern"] = "auto"
    sharing: Literal["session", "shared"] = "session"
    request_timeout: float | None = None
    request_max_time: float | None = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(factory=dict, repr=False)
    cwd: str | None = None
    url: str | None = field(default=None, repr=_url_repr)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    proxy: str | None = field(default=None, repr=_proxy_repr)
    tools: Mapping[str, ToolOverride] = field(factory=dict)
    enabled: bool = True


@frozen(kw_only=True)
class AggregateConfig:
    """``aggregate``: all servers as one, at ``/mcp``.

    Attributes:
        prefix: When names get ``server__`` in front: ``on-collision`` only those that several servers use. None: never
            with one server, always with more.
        timeout: How long a list that several servers contribute to waits for one of them.
    """

    prefix: Literal["always", "never", "on-collision"] | None = None
    timeout: float = 10.0


@frozen(kw_only=True)
class RegistryConfig:
    """``registry``: capability files."""

    paths: tuple[str, ...] = ()


@frozen(kw_only=True)
class AdminConfig:
    """``admin``: the operator's listener.

    Attributes:
        host: As ``server.host``. On a UNIX socket its permissions decide who may use it.
        token: Bearer token for what changes something; None: only on a UNIX socket anything can be changed.
        token_file: File whose first line is that token.
    """

    host: str = "127.0.0.1"
    port: int = 3001
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None


@frozen(kw_only=True)
class AlertConfig:
    """One entry of ``alerts``: who is told when the verdict on a certificate changes, or a renewal is refused.

    Attributes:
        webhook: URL that gets a JSON document by POST.
        headers: Header lines sent with it; values are secret.
        command: Program that gets the same document on its standard input; no shell. Exactly one of the two.
        least: The least verdict that is told of; recoveries from it are told of as well.
    """

    webhook: str | None = field(default=None, repr=_url_repr)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    command: tuple[str, ...] | None = None
    least: Literal["warning", "critical"] = "warning"


@frozen(kw_only=True)
class LoggingConfig:
    """``logging``.

    Attributes:
        level: The least of what the daemon's log shows.
        access: Shape of the access record: ``text``, ``json`` or ``off``.
        access_file: File for access records; None writes them to the daemon's log.
    """

    level: Literal["debug", "info", "warn", "error"] = "info"
    access: Literal["text", "json", "off"] = "text"
    access_file: str | None = None


@frozen(kw_only=True)
class Config:
    """A whole, valid configuration.

    Attributes:
        servers: The enabled and disabled entries of ``mcpServers``, by name, in file order.
        warnings: What the operator should hear at every start, one sentence each.
    """

    server: ServerConfig = ServerConfig()
    security: SecurityConfig = SecurityConfig()
    auth: AuthConfig = AuthConfig()
    servers: Mapping[str, UpstreamConfig] = field(factory=dict)
    aggregate: AggregateConfig = AggregateConfig()
    registry: RegistryConfig = RegistryConfig()
    admin: AdminConfig | None = None
    alerts: tuple[AlertConfig, ...] = ()
    logging: LoggingConfig = LoggingConfig()
    warnings: tuple[str, ...] = ()
