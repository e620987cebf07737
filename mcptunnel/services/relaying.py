"""From a configuration to the relay and the access log: what every way to serve MCP is made of.

The daemon (:mod:`mcptunnel.services.root`) has them behind a listener, ``mcptunnel stdio`` and ``mcptunnel connect``
(:mod:`mcptunnel.services.piped`) behind two pipes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.logger import Logger

from mcptunnel import __version__
from mcptunnel.config.schema import Config, LoggingConfig
from mcptunnel.core.overrides import Override, Overrides
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target, targets
from mcptunnel.observe.access import AccessLog
from mcptunnel.observe.daemonlog import ACCESS
from mcptunnel.services.sealing import KeySeal
from mcptunnel.services.upstreams import Upstreams

__all__ = ["access_from", "relay_from", "targets_from"]


def relay_from(config: Config, upstreams: Upstreams, reactor: Any) -> Relay:
    """The relay between clients and ``upstreams``. Whoever has it calls its ``sweep`` about once a second."""
    limits = config.server.limits
    return Relay(
        upstreams.servers,
        Bounds(
            sessions=limits.sessions,
            session_idle=limits.session_idle_timeout,
            silence=limits.request_timeout,
            longest=limits.request_max_time,
            parked=limits.parked,
            input_patience=limits.input_timeout,
        ),
        reactor.seconds,
        KeySeal(config.security.seal_keys),
        {"name": "mcptunnel", "version": __version__},
        partial(_tell_missing, Logger()),
    )


def targets_from(config: Config, upstreams: Upstreams) -> Mapping[str, Target]:
    """Base path to what it shows."""
    overrides = Overrides(
        {
            server: {
                tool: Override(name=override.name, description=override.description, hidden=override.hidden)
                for tool, override in entry.tools.items()
            }
            for server, entry in config.servers.items()
        }
    )
    return targets(list(upstreams.servers), config.aggregate.prefix, config.aggregate.timeout, overrides)


def access_from(logging: LoggingConfig) -> tuple[Callable[[Record], None] | None, Callable[[], None]]:
    """Where records go, None for nowhere, and what brings the last of them there."""
    log = Logger(namespace=ACCESS)
    if logging.access == "off":
        return None, lambda: None
    if logging.access_file is None:
        return AccessLog(logging.access, lambda line: log.info("{line}", line=line)), lambda: None
    file = open(logging.access_file, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # for the process's life
    return AccessLog(logging.access, lambda line: print(line, file=file)), file.flush


def _tell_missing(log: Logger, server: str, why: str | None) -> None:
    """A list is not refused because one of its servers is down; whoever runs the daemon must hear of it."""
    if why is None:
        log.info("lists of several servers have the part of {server} again", server=server)
    else:
        log.warn("lists of several servers go without {server}: {why}", server=server, why=why)
