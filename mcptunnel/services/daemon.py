"""Everything that runs, as one service, and the order in which it stops."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from attrs import astuple, define, field
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled
from twisted.logger import Logger

from mcptunnel import __version__
from mcptunnel.config.schema import Config
from mcptunnel.core.errors import ListenError
from mcptunnel.core.relay import Relay
from mcptunnel.observe.figures import Figures
from mcptunnel.services.adminside import AdminSide
from mcptunnel.services.alerts import Alerts
from mcptunnel.services.certwatch import CertificateWatch
from mcptunnel.services.filewatch import Outcome
from mcptunnel.services.following import Following
from mcptunnel.services.hsts import Ramp
from mcptunnel.services.listener import Listener
from mcptunnel.services.shown import shown
from mcptunnel.services.stragglers import PlaintextReport
from mcptunnel.services.upstreams import Upstreams
from mcptunnel.tls.front import FrontFactory
from mcptunnel.tls.store import CertificateStore
from mcptunnel.web.site import Site
from mcptunnel.ws.protocol import McpSocketFactory

__all__ = ["Daemon"]

# How often the end of the last call is looked for while the daemon drains, and how long streams get to close.
_DRAIN_STEP: Final = 0.05
_CLOSE_SECONDS: Final = 1.0


@define(eq=False, kw_only=True, slots=False)
class Daemon(MultiService):
    """Everything that runs, and the order in which it stops.

    Attributes:
        config: What it was built from.
        relay: Sessions and calls.
        site: Connections.
        upstreams: Servers, child processes, HTTP pools.
        sockets: WebSockets.
        listener: The bound endpoint.
        front: What becomes of each connection.
        redirect: The second endpoint, for http; None without one.
        store: Certificates in service; None in the modes without TLS.
        following: Keeps what is in force the same as its files.
        ramp: The promise of https that grows; None where it is whole from the beginning.
        plaintext: Who comes by http although there is https; None where there is none.
        watch: Over certificates: those in service, those we trust, those that servers present.
        alerts: Who is told of what happens to certificates.
        clock: The reactor.
        access: Brings the last access records to where they go.
        admin: The operator's listener; None without one.
    """

    config: Config
    relay: Relay
    site: Site
    upstreams: Upstreams
    sockets: McpSocketFactory
    listener: Listener
    front: FrontFactory
    redirect: Listener | None
    store: CertificateStore | None
    following: Following
    ramp: Ramp | None
    plaintext: PlaintextReport | None
    watch: CertificateWatch
    alerts: Alerts
    clock: Any
    access: Callable[[], None]
    admin: AdminSide | None = None
    stopping: bool = field(init=False, default=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Bind the listeners, or say in one line why not and end the process with status 1."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except ListenError as e:
            print(f"mcptunnel: {e}", file=sys.stderr)
            raise SystemExit(1) from None

    def reload(self) -> Deferred[Outcome]:
        """Read the files of certificates again now; what is bad changes nothing, and is logged.

        Returns:
            What came of it. Other changes of the configuration need a restart.
        """
        return self.following.reload()

    def reload_report(self) -> Deferred[dict[str, Any]]:
        """:meth:`reload`, and what came of it as a document: ``taken``, ``problems``, ``generation``, ``certificates``.

        ``generation`` is None where no certificates are served.
        """

        def report(outcome: Outcome) -> dict[str, Any]:
            store = self.store
            return {
                "taken": outcome.taken,
                "problems": outcome.problem.splitlines(),
                "generation": None if store is None else store.generation,
                "certificates": [
                    {"subject": leaf.subject, "file": leaf.file, "fingerprint": leaf.fingerprint}
                    for leaf in (() if store is None else store.leaves)
                ],
            }

        return self.reload().addCallback(report)

    def figures(self) -> Figures:
        """What ``/metrics`` shows."""
        tally, rotation = self.front.tally, self.following.rotation
        listeners = {"main": tally.counts} | ({} if self.redirect is None else {"http": _counts(self.redirect)})
        return Figures(
            connections={
                (listener, outcome): count
                for listener, counts in listeners.items()
                for outcome, count in counts.items()
            },
            handshakes={
                (key.version, key.cipher, key.group, str(key.resumed).lower()): count
                for key, count in tally.handshakes.items()
            },
            failures=tally.failures,
            certificates=self.watch.findings,
            generation=None if self.store is None else self.store.generation,
            reloads={} if rotation is None else rotation.counts,
            last_reload=0.0 if rotation is None else rotation.last_taken,
            refused=bool(self.following.troubles),
            plaintext={} if self.plaintext is None else self.plaintext.counts,
            sources={source: error is None for source, error in self.watch.errors.items()},
            alerts={
                (target.delivery.target, outcome): count
                for target in self.alerts.targets
                for outcome, count in target.delivery.counts.items()
            },
        )

    def stopService(self) -> Deferred[Any]:
        # twistd drops the failure of a service that stops: without this line nobody would ever hear of it.
        return Deferred.fromCoroutine(self._stop()).addErrback(
            lambda failure: self._log.failure("the daemon did not stop in order", failure)
        )

    async def _stop(self) -> None:
        """Take no more connections, let calls finish, close streams with a reason, end children."""
        self.stopping = True
        try:
            await super().stopService()  # type: ignore[no-untyped-call]
            await self._drain()
        finally:
            # Whatever went wrong above, no connection, no process and no record is left behind.
            self.site.abort()
            if self.admin is not None:
                self.admin.site.abort()
            for socket in list(self.sockets.sockets):
                socket.dropConnection(abort=True)
            await self.upstreams.close()
            self.access()

    async def _drain(self) -> None:
        self.site.drain().addErrback(lambda _: None)
        until = self.clock.seconds() + self.config.server.limits.drain_timeout
        while self.relay.in_flight and self.clock.seconds() < until:
            await self._wait(_DRAIN_STEP)
        if left := self.relay.in_flight:
            self._log.warn(
                "{left} calls are still unanswered after {seconds:g} s (server.limits.drain_timeout): ending them",
                left=left,
                seconds=self.config.server.limits.drain_timeout,
            )
        self.relay.close()
        for socket in list(self.sockets.sockets):
            socket.leave()
        until = self.clock.seconds() + _CLOSE_SECONDS
        while (self.site.connections or self.sockets.sockets) and self.clock.seconds() < until:
            await self._wait(_DRAIN_STEP)

    def _wait(self, seconds: float) -> Deferred[None]:
        def cancel(_: Deferred[None]) -> None:
            try:
                call.cancel()
            except AlreadyCalled:
                return

        waiting: Deferred[None] = Deferred(cancel)
        call = self.clock.callLater(seconds, waiting.callback, None)
        return waiting

    def reasons(self) -> list[str]:
        """Why no traffic should come; empty when all is well."""
        found = ["stopping"] if self.stopping else []
        if self.watch.serves_expired:
            found.append("certificate_expired")
        return found

    def details(self) -> dict[str, Any]:
        """What ``/health`` tells those who may know."""
        open_links: dict[str, int] = {}
        for link in self.relay.links():
            open_links[link.server] = open_links.get(link.server, 0) + 1
        return {
            "version": __version__,
            "mode": self.config.server.tls.mode,
            "sessions": len(self.relay.sessions),
            "in_flight": self.relay.in_flight,
            "connections": self.site.connections + len(self.sockets.sockets),
            "outcomes": dict(sorted(self.front.tally.counts.items())),
            # The same of the second port.
            "outcomes_http": None if self.redirect is None else dict(sorted(_counts(self.redirect).items())),
            "handshakes": [
                {
                    "version": key.version,
                    "cipher": key.cipher,
                    "group": key.group,
                    "resumed": key.resumed,
                    "count": count,
                }
                for key, count in sorted(self.front.tally.handshakes.items(), key=lambda item: astuple(item[0]))
            ],
            "handshake_failures": dict(sorted(self.front.tally.failures.items())),
            "servers": {
                # Missing: the latest list of several servers had to go without this one, and why.
                name: {
                    "links": open_links.get(name, 0),
                    "missing": self.relay.missing.get(name),
                    # Which eras it speaks, as far as that is known.
                    "eras": self.relay.eras.known(name),
                }
                for name in self.upstreams.servers
            },
            "hsts": None if self.ramp is None else {"max_age": self.ramp.max_age, "step": self.ramp.state.step},
            "plaintext": [] if self.plaintext is None else self.plaintext.shown(),
            "generation": None if self.store is None else self.store.generation,
            # Why what is on disk is not what is in service.
            "refused": self.following.troubles,
            "certificate_verdict": self.watch.worst,
            "certificates": [shown(finding) for finding in self.watch.findings],
            # Why certificates of a source could not be looked at; null where they could.
            "certificate_sources": self.watch.errors,
        }


def _counts(listener: Listener) -> Counter[str]:
    assert isinstance(listener.factory, FrontFactory)
    return listener.factory.tally.counts
