"""From ``mcpServers`` to the objects that connect to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from cryptography import x509
from OpenSSL import crypto
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.core.errors import CertificateError, ConfigError, Finding
from mcptunnel.core.rules import Rules
from mcptunnel.core.wire import Upstream
from mcptunnel.tls.pem import PrivateKey, read_chain, read_file, read_key
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.children import Children
from mcptunnel.upstream.client import Pool
from mcptunnel.upstream.endpoints import Kept, Named, Tunnel
from mcptunnel.upstream.events import EventsUpstream
from mcptunnel.upstream.proxies import Proxy, ProxyError, proxy_for
from mcptunnel.upstream.stdio import StdioUpstream
from mcptunnel.upstream.streamable import HttpUpstream
from mcptunnel.upstream.websocket import WsUpstream

__all__ = ["Upstreams"]


@define(eq=False)
class Upstreams:
    """Every enabled server of a configuration, and what they share.

    Attributes:
        servers: By name, in the order of the configuration.
        children: The child processes.
        pools: The HTTP connections, one pool per server.
    """

    servers: dict[str, Upstream]
    children: Children
    pools: list[Pool] = field(factory=list)

    @classmethod
    def from_config(cls, config: Config, reactor: Any, environ: Mapping[str, str] = os.environ) -> Upstreams:
        """Make them. Nothing is started or connected before it is used.

        Raises:
            CertificateError: A ``ca_file``, ``cert_file`` or ``key_file`` cannot be used.
            ConfigError: The environment names a proxy that cannot be used.
        """
        made = cls({}, Children(reactor, reactor, config.server.limits.children))
        limit = config.server.limits.message_bytes
        for entry in config.servers.values():
            if not entry.enabled:
                continue
            if entry.command is not None:
                made.servers[entry.name] = StdioUpstream(
                    entry.name,
                    argv=(entry.command, *entry.args),
                    env=entry.env,
                    cwd=entry.cwd,
                    children=made.children,
                    max_bytes=limit,
                    rules=rules_of(entry),
                )
            else:
                made.servers[entry.name] = made._at_address(entry, reactor, limit, environ)
        return made

    def _at_address(self, entry: UpstreamConfig, reactor: Any, limit: int, environ: Mapping[str, str]) -> Upstream:
        url = entry.url or ""
        way = _way(entry, reactor, environ)
        if entry.type == "ws":
            return WsUpstream(
                entry.name,
                url=url,
                headers=entry.headers,
                endpoint=way.endpoint,
                clock=reactor,
                max_bytes=limit,
                rules=rules_of(entry),
            )
        pool = Pool(way.endpoint, reactor, reuse=way.forwarding is None)
        self.pools.append(pool)
        address = Address.of(url, entry.headers, way.forwarding)
        events = EventsUpstream(
            entry.name, address=address, pool=pool, clock=reactor, max_bytes=limit, rules=rules_of(entry)
        )
        if entry.type == "sse":
            return events
        return HttpUpstream(
            entry.name,
            address=address,
            pool=pool,
            clock=reactor,
            max_bytes=limit,
            rules=rules_of(entry, mirrored=True),
            older=events if entry.type is None else None,
        )

    def sweep(self) -> None:
        """Close HTTP connections that nobody needs."""
        for pool in self.pools:
            pool.sweep()

    async def close(self) -> None:
        """End every child process and connection; returns when the processes are gone."""
        for pool in self.pools:
            pool.close()
        await self.children.close()


def rules_of(entry: UpstreamConfig, *, mirrored: bool = False) -> Rules:
    """How ``entry`` is to be spoken to.

    Args:
        entry: The server.
        mirrored: Requests travel with headers that repeat the body.
    """
    return Rules(
        era=entry.era,
        sharing=entry.sharing,
        silence=entry.request_timeout,
        longest=entry.request_max_time,
        mirrored=mirrored,
    )


@frozen
class _Way:
    """How connections to a server are made.

    Attributes:
        endpoint: Makes an endpoint.
        forwarding: The proxy that passes on single requests, if that is how the server is reached.
    """

    endpoint: Callable[[], IStreamClientEndpoint]
    forwarding: Proxy | None


def _way(entry: UpstreamConfig, reactor: Any, environ: Mapping[str, str]) -> _Way:
    """The way to the server ``entry``: directly or through a proxy, with TLS or without.

    Raises:
        CertificateError: A file that TLS needs cannot be used.
        ConfigError: The environment names a proxy that cannot be used.
    """
    url = urlsplit(entry.url or "")
    name, secure = url.hostname or "", url.scheme in ("https", "wss")
    port = url.port or (443 if secure else 80)
    options = _tls_options(entry, name) if secure else None
    try:
        proxy = proxy_for(entry.url or "", entry.proxy, environ)
    except ProxyError as e:
        key = f"mcpServers.{entry.name}"
        raise ConfigError([Finding(file="environment", line=None, key=key, message=str(e))]) from None
    forwarding = proxy if url.scheme == "http" else None

    def endpoint() -> IStreamClientEndpoint:
        plain: IStreamClientEndpoint
        if proxy is None:
            plain = Kept(HostnameEndpoint(reactor, name, port))
        else:
            there = Kept(HostnameEndpoint(reactor, proxy.host, proxy.port))
            plain = Named(there, proxy) if forwarding is not None else Tunnel(there, proxy, name, port)
        return plain if options is None else wrapClientTLS(options, plain)

    return _Way(endpoint, forwarding)


def _tls_options(entry: UpstreamConfig, name: str) -> Any:
    """Verify the server's chain and its name (RFC 6125, by service-identity), against ``ca_file`` where given.

    With ``cert_file`` we show that certificate, and what vouches for it, when the server asks.
    """
    trust = None
    if entry.ca_file is not None:
        try:
            with open(entry.ca_file, "rb") as f:
                found = x509.load_pem_x509_certificates(f.read())
        except (OSError, ValueError) as e:
            raise CertificateError(f"{entry.ca_file}: mcpServers.{entry.name}.ca_file: {e}") from None
        trust = trustRootFromCertificates([Certificate(_openssl(c)) for c in found])  # type: ignore[no-untyped-call]
    ours: dict[str, Any] = {}
    if entry.cert_file is not None and entry.key_file is not None:
        chain, key = _pair(entry, entry.cert_file, entry.key_file)
        ours = {
            "privateKey": crypto.PKey.from_cryptography_key(key),
            "certificate": _openssl(chain[0]),
            "extraCertChain": [_openssl(c) for c in chain[1:]],
        }
    return optionsForClientTLS(name, trustRoot=trust, extraCertificateOptions=ours)


def _pair(entry: UpstreamConfig, cert_file: str, key_file: str) -> tuple[tuple[x509.Certificate, ...], PrivateKey]:
    """The certificate that we show a server, with its chain, and its key."""
    file, key_name = cert_file, "cert_file"
    try:
        chain = read_chain(read_file(cert_file))
        file, key_name = key_file, "key_file"
        key = read_key(read_file(key_file))
        if key.public_key() != chain[0].public_key():
            raise CertificateError(f"does not belong to the first certificate in {cert_file}")
    except (OSError, CertificateError) as e:
        raise CertificateError(f"{file}: mcpServers.{entry.name}.{key_name}: {e}") from None
    return chain, key


def _openssl(certificate: x509.Certificate) -> crypto.X509:
    return crypto.X509.from_cryptography(certificate)
