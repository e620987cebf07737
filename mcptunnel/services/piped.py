"""One client on standard input and output, and everything behind it, as one service: what the daemon is for a network.

No address is bound, and nobody is asked for a credential: whoever could start this process could start the servers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mcptunnel.config.schema import Config
from mcptunnel.core.errors import TunnelError
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay
from mcptunnel.pipe.protocol import McpPipe
from mcptunnel.services.heartbeat import Heartbeat
from mcptunnel.services.relaying import access_from, relay_from, targets_from
from mcptunnel.services.upstreams import Upstreams

__all__ = ["Piped", "piped_from"]

# How often the end of the last call is looked for while calls finish, and how long the client gets to read the rest.
_DRAIN_STEP: Final = 0.05
_CLOSE_SECONDS: Final = 1.0


def piped_from(config: Config, reactor: Any, server: str | None = None) -> Piped:
    """What serves ``config`` on two pipes; nothing is started or connected yet.

    Args:
        config: Of its sections only ``mcpServers``, ``server.limits`` and ``logging`` matter here.
        reactor: Where it runs.
        server: Show this server alone, as ``/servers/NAME/mcp`` does; None: all of them, as ``/mcp`` does.

    Raises:
        TunnelError: There is no such server, or none at all; or a part of the configuration cannot be carried out.
    """
    log = Logger()
    for warning in config.warnings:
        log.warn("{text}", text=warning)
    upstreams = Upstreams.from_config(config, reactor)
    if not upstreams.servers:
        raise TunnelError("there is no server to speak to: add one to mcpServers of the configuration")
    path = "/mcp" if server is None else f"/servers/{server}"
    target = targets_from(config, upstreams).get(path)
    if target is None:
        known = ", ".join(upstreams.servers)
        raise TunnelError(f"--server {server}: the configuration enables no such server; it has: {known}")
    relay = relay_from(config, upstreams, reactor)
    record, flush = access_from(config.logging)

    # Called by the pipe, which exists before the service.
    def ended(why: str, failed: bool) -> None:
        piped.ended(why, failed)

    pipe = McpPipe(relay, target, config.server.limits.body_bytes, path, record or _forget, reactor, ended)
    piped = Piped(config=config, relay=relay, upstreams=upstreams, pipe=pipe, clock=reactor, access=flush)
    Heartbeat([relay.sweep, upstreams.sweep, flush, piped.look], reactor).setServiceParent(piped)  # type: ignore[no-untyped-call]
    return piped


@define(eq=False, kw_only=True, slots=False)
class Piped(MultiService):
    """Everything that runs, and the order in which it stops.

    Attributes:
        config: What it was built from.
        relay: Sessions and calls.
        upstreams: Servers, child processes, connections.
        pipe: The client.
        clock: The reactor.
        access: Brings the last access records to where they go.
        hung_up: Whether the client has closed its end; asked when it has not read for ``server.limits.write_timeout``,
            and nothing was read from it either.
        over: Fires when everything has ended and no child process is left.
        failed: The end came from us and not from the client.
    """

    config: Config
    relay: Relay
    upstreams: Upstreams
    pipe: McpPipe
    clock: Any
    access: Callable[[], None]
    hung_up: Callable[[], bool] = lambda: False
    over: Deferred[None] = field(init=False, factory=Deferred)
    failed: bool = field(init=False, default=False)
    _until: float | None = field(init=False, default=None)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def ended(self, why: str, failed: bool) -> None:
        """The conversation is over: stop."""
        if failed:
            self.failed = True
            self._log.error("{why}: ending", why=why)
        else:
            self._log.debug("{why}: ending", why=why)
        self._begin()

    def look(self) -> None:
        """Once a second: a client that has not read for long may have left."""
        since = self.pipe.paused_at
        if self._until is not None or since is None:
            return
        if self.clock.seconds() - since >= self.config.server.limits.write_timeout and self.hung_up():
            self.ended("the client has closed our standard input and does not read", failed=False)

    def leave(self) -> None:
        """A signal: stop. Calls in flight may finish; when it is not the first word about stopping, they may not."""
        if self._until is None:
            self._begin()
        else:
            self._until = self.clock.seconds()

    def _begin(self) -> None:
        if self._until is None:
            self._until = self.clock.seconds() + self.config.server.limits.drain_timeout
            Deferred.fromCoroutine(self._stop()).addErrback(
                lambda failure: self._log.failure("the end was not in order", failure)
            ).chainDeferred(self.over)

    async def _stop(self) -> None:
        """Hear no more, let calls finish, say why the rest does not, end children."""
        self.pipe.deafen()
        try:
            await self._drain()
        finally:
            # Whatever went wrong above, no process and no record is left behind.
            await self.upstreams.close()
            await self.stopService()  # type: ignore[no-untyped-call]
            self.access()

    async def _drain(self) -> None:
        while self.relay.in_flight and not self.pipe.gone and self._seconds_left() > 0:
            await self._wait()
        if left := self.relay.in_flight:
            self._log.warn("{left} calls are still unanswered: ending them", left=left)
        self.relay.close()
        self.pipe.leave()
        until = self.clock.seconds() + _CLOSE_SECONDS
        while not self.pipe.gone and self.clock.seconds() < until:
            await self._wait()

    def _seconds_left(self) -> float:
        assert self._until is not None
        return self._until - float(self.clock.seconds())

    def _wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.clock.callLater(_DRAIN_STEP, waiting.callback, None)
        return waiting


def _forget(_record: Record) -> None:
    """Nobody keeps access records."""
