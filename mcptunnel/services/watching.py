"""From the configuration to the watch over every certificate that matters to us."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.interfaces import IReactorTime

from mcptunnel.config.schema import Config
from mcptunnel.core.certificates import Role, Thresholds
from mcptunnel.services.certwatch import CertificateWatch, Source
from mcptunnel.services.presented import sources_of
from mcptunnel.services.ways import Way
from mcptunnel.tls.store import CertificateStore
from mcptunnel.tls.trust import certificates_in, lists_in

__all__ = ["watch_from"]


def watch_from(
    config: Config, store: CertificateStore | None, ways: dict[str, Way], clock: IReactorTime
) -> CertificateWatch:
    """The watch over what we serve, whom we trust and show ourselves to, and what https servers present.

    Args:
        config: Names the files.
        store: What is served; None in the modes without TLS.
        ways: To servers with an address, by name.
        clock: The reactor.
    """
    tls = config.server.tls
    served = [] if store is None else [Source(name="server.tls", facts=store.facts)]
    return CertificateWatch(
        sources=(*served, *_trusted(config), *_shown(config), *sources_of(ways, clock)),
        thresholds=Thresholds(warning=tls.expiry_warning, critical=tls.expiry_critical),
        interval=tls.expiry_check_interval,
        clock=clock,
    )


def _trusted(config: Config) -> Iterator[Source]:
    """Client certificates must chain to these; without ``client_auth`` nobody asks for any."""
    tls = config.server.tls
    if tls.client_auth == "none":
        return
    if tls.ca_file is not None:
        yield _file("server.tls.ca_file", tls.ca_file, "client_ca")
    if tls.crl_file is not None:
        yield Source(name="server.tls.crl_file", facts=lists_in(tls.crl_file))


def _shown(config: Config) -> Iterator[Source]:
    """Servers must chain to these, and get to see those."""
    for entry in config.servers.values():
        if not entry.enabled:
            continue
        if entry.ca_file is not None:
            yield _file(f"mcpServers.{entry.name}.ca_file", entry.ca_file, "upstream_ca")
        if entry.cert_file is not None:
            yield _file(f"mcpServers.{entry.name}.cert_file", entry.cert_file, "upstream_client")


def _file(name: str, file: str, role: Role) -> Source:
    return Source(name=name, facts=certificates_in(file, role))
