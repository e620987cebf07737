"""From ``mcpServers`` to the objects that connect to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from cryptography import x509
from OpenSSL import crypto
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.core.errors import CertificateError
from mcptunnel.core.link import Upstream
from mcptunnel.core.rules import Rules
from mcptunnel.upstream.children import Children
from mcptunnel.upstream.client import Pool
from mcptunnel.upstream.stdio import StdioUpstream
from mcptunnel.upstream.streamable import HttpUpstream

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
    def from_config(cls, config: Config, reactor: Any) -> Upstreams:
        """Make them. Nothing is started or connected before it is used.

        Raises:
            CertificateError: A ``ca_file`` cannot be used.
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
                made.servers[entry.name] = made._over_http(entry, reactor, limit)
        return made

    def _over_http(self, entry: UpstreamConfig, reactor: Any, limit: int) -> HttpUpstream:
        url = urlsplit(entry.url or "")
        name = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        options = _tls_options(entry, name) if url.scheme == "https" else None

        def endpoint() -> IStreamClientEndpoint:
            plain = HostnameEndpoint(reactor, name, port)
            return plain if options is None else wrapClientTLS(options, plain)

        pool = Pool(endpoint, reactor)
        self.pools.append(pool)
        return HttpUpstream(
            entry.name,
            target=((url.path or "/") + (f"?{url.query}" if url.query else "")).encode("ascii", "replace"),
            host=url.netloc.rpartition("@")[2].encode("idna" if not url.netloc.isascii() else "ascii"),
            headers=entry.headers,
            pool=pool,
            clock=reactor,
            max_bytes=limit,
            rules=rules_of(entry, mirrored=True),
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


def _tls_options(entry: UpstreamConfig, name: str) -> Any:
    """Verify the server's chain and its name (RFC 6125, by service-identity), against ``ca_file`` where given."""
    trust = None
    if entry.ca_file is not None:
        try:
            with open(entry.ca_file, "rb") as f:
                found = x509.load_pem_x509_certificates(f.read())
        except (OSError, ValueError) as e:
            raise CertificateError(f"{entry.ca_file}: mcpServers.{entry.name}.ca_file: {e}") from None
        anchors = [Certificate(crypto.X509.from_cryptography(c)) for c in found]  # type: ignore[no-untyped-call]
        trust = trustRootFromCertificates(anchors)  # type: ignore[no-untyped-call]
    return optionsForClientTLS(name, trustRoot=trust)
