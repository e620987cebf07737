"""The site: one resource tree behind any number of connections, and the one clock hand that watches them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Final

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Session
from zope.interface import implementer

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import RequestError
from mcptunnel.core.forwarded import Resolver
from mcptunnel.core.plaintext import Decide
from mcptunnel.core.record import Record
from mcptunnel.web.channel import HTTPChannel
from mcptunnel.web.request import Request
from mcptunnel.web.respond import CommonHeaders

__all__ = ["Site"]

# How often deadlines are looked at; all of them are counted in seconds.
_SWEEP_SECONDS: Final = 1.0


class Site(Factory):
    """A protocol factory that serves a tree of twisted.web resources.

    Args:
        resource: Root of the tree.
        resolver: Decides identities.
        clock: Tells the time since the epoch and runs the sweep.
        admit: Called when a request's head is complete and its identity known, before its body is read and before
            ``100 Continue``. Refuses by raising :class:`~mcptunnel.core.errors.RequestError`.
        on_record: Called with the record of every exchange when it has ended, refused and lost ones included.
        limits: Bounds of every connection.
        headers: ``security.headers``.
        hsts: Value of Strict-Transport-Security; None leaves it out.
        routes: Resources by exact path, found before the tree is walked; such a resource is a leaf.

    Attributes:
        draining: Set by :meth:`drain`: every reply is the last one of its connection.

    Raises:
        ValueError: ``headers`` holds what is no header.
    """

    noisy = False
    _log = Logger()
    # What twisted.web looks for on a site.
    displayTracebacks = False
    isLeaf = False

    def __init__(
        self,
        resource: IResource,
        resolver: Resolver,
        clock: IReactorTime,
        *,
        admit: Callable[[Request], None] | None = None,
        on_record: Callable[[Record], None] | None = None,
        limits: LimitsConfig | None = None,
        headers: Mapping[str, str | None] | None = None,
        hsts: str | None = None,
        routes: Mapping[bytes, IResource] | None = None,
    ) -> None:
        self.resource: Final = resource
        self.resolver: Final = resolver
        self.reactor: Final = clock
        self.seconds: Final = clock.seconds
        self.admit: Final = admit
        self.limits: Final = limits or LimitsConfig()
        self.common: Final = CommonHeaders(headers or {}, hsts)
        self.routes: Final[Mapping[bytes, IResource]] = routes or {}
        self.sessions: dict[bytes, Session] = {}
        self.draining = False
        self._on_record: Final = on_record
        self._channels: set[HTTPChannel] = set()
        self._drained: list[Deferred[None]] = []
        self._sweep: Final = LoopingCall(self._look)
        self._sweep.clock = clock

    def __repr__(self) -> str:
        return f"<Site of {self.resource!r}, {self.connections} connections>"

    # -- connections --------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Open connections; those that became WebSockets are no longer among them."""
        return len(self._channels)

    def buildProtocol(self, addr: IAddress | None) -> HTTPChannel:
        return self._channel(None)

    def refusing(self, decide: Decide) -> IProtocolFactory:
        """A factory of connections to this site on which ``decide`` is asked about every request first.

        What it refuses is answered, and the connection closed; None lets a request pass.
        """
        return _Refusing(self, decide)

    def _channel(self, refuse: Decide | None) -> HTTPChannel:
        return HTTPChannel(self, refuse)

    def opened(self, channel: HTTPChannel) -> None:
        """A channel has its connection."""
        self._channels.add(channel)
        if not self._sweep.running:
            self._sweep.start(_SWEEP_SECONDS, now=False)

    def closed(self, channel: HTTPChannel) -> None:
        """A channel has lost its connection, or given it away."""
        self._channels.discard(channel)
        if not self._channels and self._sweep.running:
            self._sweep.stop()
        self._check_drained()

    def _look(self) -> None:
        now = self.seconds()
        for channel in tuple(self._channels):
            # A LoopingCall that raises stops for good, and every deadline with it.
            try:
                channel.look(now)
            except Exception:
                self._log.failure("looking after {peer} failed", peer=channel.peer)

    # -- the end ------------------------------------------------------------------------------------------------

    def drain(self) -> Deferred[None]:
        """Close idle connections, and every other one after its current request.

        Returns:
            Fires when no request is in flight any more. Cancelling it only ends the waiting.
        """
        self.draining = True
        for channel in tuple(self._channels):
            channel.drain()
        if not self._in_flight():
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._drained.remove)
        self._drained.append(waiting)
        return waiting

    def abort(self) -> None:
        """End every connection now."""
        for channel in tuple(self._channels):
            channel.abort()

    def _in_flight(self) -> bool:
        return any(channel.busy for channel in self._channels)

    def _check_drained(self) -> None:
        if self._drained and not self._in_flight():
            waiting, self._drained = self._drained, []
            for deferred in waiting:
                deferred.callback(None)

    def report(self, record: Record) -> None:
        """An exchange has ended. Whoever took a connection over (``record.protocol`` set to ``ws``) calls it too."""
        if self._on_record is not None:
            try:
                self._on_record(record)
            except Exception:
                self._log.failure("the record of {path} was lost", path=record.path)
        if self.draining:
            self._check_drained()

    # -- what twisted.web's requests and resources ask of a site -------------------------------------------------

    def getResourceFor(self, request: Request) -> IResource:
        return getChildForRequest(self.resource, request)  # type: ignore[no-untyped-call, no-any-return]

    def getChildWithDefault(self, name: bytes, request: Request) -> IResource:
        return self.resource.getChildWithDefault(name, request)  # type: ignore[no-untyped-call, no-any-return]

    def makeSession(self) -> Session:
        """A new twisted.web session. No more than ``limits.sessions`` at a time: anybody may ask for one."""
        if len(self.sessions) >= self.limits.sessions:
            raise RequestError(503, "too_many_sessions", "server.limits.sessions is reached.")
        session = Session(self, token_hex(32).encode("ascii"))  # type: ignore[no-untyped-call]
        self.sessions[session.uid] = session
        session.startCheckingExpiration()  # type: ignore[no-untyped-call]
        return session

    def getSession(self, uid: bytes) -> Session:
        """The session called ``uid``.

        Raises:
            KeyError: There is none.
        """
        return self.sessions[uid]


@define(eq=False)
@implementer(IProtocolFactory)
class _Refusing:
    """See :meth:`Site.refusing`."""

    site: Site
    decide: Decide

    def buildProtocol(self, addr: IAddress | None) -> HTTPChannel:
        return self.site._channel(self.decide)

    def doStart(self) -> None:
        self.site.doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        self.site.doStop()  # type: ignore[no-untyped-call]
