"""A listener as a service: listens before privileges are dropped, says clearly why it cannot, stops cleanly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcptunnel.tls.endpoints import describe, explain
from mcptunnel.tls.front import FrontFactory

__all__ = ["Listener"]


@define(eq=False, kw_only=True, slots=False)
class Listener(Service):
    """One bound endpoint.

    Attributes:
        endpoint: What to listen on.
        factory: Builds what serves a connection.
        host: Its ``host`` in the configuration, for messages.
        port: Its ``port`` in the configuration, for messages.
        section: Where these two stand.
        drain: Called when no new connections come any more; the service has stopped when its Deferred fires.
            None to stop at once.
    """

    endpoint: IStreamServerEndpoint
    factory: IProtocolFactory
    host: str
    port: int
    section: str = "server"
    drain: Callable[[], Deferred[Any]] | None = None
    _listening: IListeningPort | None = field(init=False, default=None)

    _log = Logger()

    @property
    def address(self) -> IAddress | None:
        """Where it listens now, with the real port where 0 was asked for; None while it does not."""
        return None if self._listening is None else self._listening.getHost()

    @property
    def inet_port(self) -> int | None:
        """The port it listens on now; None while it does not, and on a UNIX socket."""
        return getattr(self.address, "port", None)

    def privilegedStartService(self) -> None:
        """Listen.

        Raises:
            ListenError: It cannot. Raised here, at once, so that the daemon does not start without its listener.
        """
        if self._listening is not None:
            return
        failures: list[Failure] = []
        self.endpoint.listen(self.factory).addCallbacks(self._started, failures.append)
        for failure in failures:
            assert failure.value is not None
            raise explain(self.host, self.port, failure.value, self.section) from failure.value

    def startService(self) -> None:
        self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        stopped = succeed(None) if listening is None else maybeDeferred(listening.stopListening)
        return stopped.addCallback(lambda _: None if self.drain is None else self.drain())

    def _started(self, port: IListeningPort) -> None:
        self._listening = port
        if isinstance(self.factory, FrontFactory):
            self.factory.listens(port)
        self._log.info(
            "listening on {address}", address=describe(self.host, getattr(port.getHost(), "port", self.port))
        )
