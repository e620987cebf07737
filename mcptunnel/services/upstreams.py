"""From ``mcpServers`` to the objects that connect to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.core.rules import Rules
from mcptunnel.core.wire import Upstream
from mcptunnel.services.ways import Way, way_of
from mcptunnel.upstream.address import Address
from mcptunnel.upstream.children import Children
from mcptunnel.upstream.client import Pool
from mcptunnel.upstream.events import EventsUpstream
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
        ways: To those with an address, by name.
    """

    servers: dict[str, Upstream]
    children: Children
    pools: list[Pool] = field(factory=list)
    ways: dict[str, Way] = field(factory=dict)

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
        way = self.ways[entry.name] = way_of(entry, reactor, environ)
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
