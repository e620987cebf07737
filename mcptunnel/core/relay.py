"""The relay: every session, the commons of stateless calls, and the clock that bounds them all.

Downstream transports call :meth:`Relay.open`, :meth:`Relay.find` and :meth:`Relay.stateless`. One sweep a second
(:meth:`Relay.sweep`) is all the timing there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from attrs import frozen

from mcptunnel.core.aggregate import to_many
from mcptunnel.core.directory import Directory
from mcptunnel.core.dispatch import to_one
from mcptunnel.core.errors import METHOD_NOT_FOUND, SESSION_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, error_reply
from mcptunnel.core.link import Link, Upstream
from mcptunnel.core.principal import Principal
from mcptunnel.core.replay import Budget
from mcptunnel.core.routing import Target
from mcptunnel.core.session import Session

__all__ = ["Bounds", "Guest", "Relay"]


@frozen(kw_only=True)
class Bounds:
    """How much and how long. Counts and seconds; see ``server.limits`` in the configuration reference."""

    sessions: int = 10_000
    session_idle: float = 1800.0
    silence: float = 120.0
    longest: float = 3600.0


class Guest(Protocol):
    """A connection that ends with the relay, whether or not it has a session."""

    def end(self) -> None:
        """Say goodbye; called once."""


class _Commons:
    """Links of the modern era: stateless, so one per server serves everybody."""

    def __init__(self, upstreams: Mapping[str, Upstream], clock: Callable[[], float]) -> None:
        self._upstreams: Final = upstreams
        self._clock: Final = clock
        self.links: Final[dict[str, Link]] = {}

    def link(self, server: str) -> Link:
        """The link to ``server``, opened when there is none or the last one was lost."""
        link = self.links.get(server)
        if link is None:
            link = Link.open(self._upstreams[server], "modern", self, self._clock)
            if not link.closed:
                self.links[server] = link
        return link

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        """What belongs to no call. Servers ask nothing in this era (2026-07-28 removed server-to-client requests)."""
        if message.kind == "request":
            error = RpcError(METHOD_NOT_FOUND, "this revision has no requests from servers", reason="era")
            link.tell(error_reply(error, message.id_raw))
            return
        # A log line of a shared connection does not say whose call it is about: only a lone call may have it.
        alone = [call for call in link.calls.values() if not call.done and call.patience != 0]
        if message.method == "notifications/message" and len(alone) == 1:
            alone[0].emit(message.raw)

    def link_lost(self, link: Link) -> None:
        """The next call opens another."""
        if self.links.get(link.server) is link:
            del self.links[link.server]


class Relay:
    """Sessions, links and their bounds.

    Args:
        upstreams: The servers by name.
        bounds: How much and how long.
        clock: Seconds, monotonic.
        mint: Makes an unguessable session id of visible ASCII.
        identity: Our own ``serverInfo`` where several servers are shown as one.
        on_missing: Called with a server and the reason when lists of several servers have to go without its part, once
            until they no longer do; then with None for the reason.

    Attributes:
        guests: Connections that end with the relay.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        bounds: Bounds,
        clock: Callable[[], float],
        mint: Callable[[], str],
        identity: dict[str, str],
        on_missing: Callable[[str, str | None], None] = lambda _server, _why: None,
    ) -> None:
        self._replays: Final = Budget()
        self.sessions: Final[dict[str, Session]] = {}
        self.guests: Final[set[Guest]] = set()
        self.upstreams: Final = upstreams
        self.clock: Final = clock
        self._bounds: Final = bounds
        self._mint: Final = mint
        self._identity: Final = identity
        self._on_missing: Final = on_missing
        # Server to method to reason.
        self._missing: Final[dict[str, dict[str, str]]] = {}
        self._commons: Final = _Commons(upstreams, clock)
        self._directories: Final[dict[Target, Directory]] = {}
        self.closing = False

    def open(self, principal: Principal, target: Target) -> Session:
        """A new session.

        Raises:
            RpcError: There are too many, or the daemon is stopping.
        """
        self._refuse_when_closing()
        if len(self.sessions) >= self._bounds.sessions:
            raise RpcError(
                -32000,
                f"too many sessions ({self._bounds.sessions}, server.limits.sessions)",
                reason="too_many_sessions",
                status=503,
                headers=((b"Retry-After", b"30"),),
            )
        session = Session(
            self._mint(),
            principal,
            target,
            self.upstreams,
            self._identity,
            self.clock,
            self._forget_session,
            Directory(heard=self._heard),
            self._replays,
        )
        self.sessions[session.id] = session
        return session

    def _forget_session(self, session: Session) -> None:
        self.sessions.pop(session.id, None)

    def find(self, id_: str, principal: Principal, target: Target) -> Session:
        """The session a client shows.

        Raises:
            RpcError: 404, for ids that are unknown, ended, another principal's or another address's: they read the
                same, and tell a client to initialize again (MCP 2025-03-26, "Session Management").
        """
        session = self.sessions.get(id_)
        if session is None or session.principal.name != principal.name or session.target != target:
            raise RpcError(
                SESSION_NOT_FOUND,
                "Session not found: initialize a new one",
                reason="unknown_session",
                status=404,
            )
        return session

    def stateless(self, exchange: Exchange, target: Target) -> None:
        """A modern request. It is answered through its sink, refusals included."""
        if exchange.message.method == "subscriptions/listen":
            # Silence is what such a stream is made of.
            exchange.patience = 0
        try:
            self._refuse_when_closing()
            if target.prefixed:
                directory = self._directories.setdefault(target, Directory(heard=self._heard))
                to_many(self._commons, exchange, target, directory, self._identity)
            else:
                to_one(self._commons, exchange, target)
        except RpcError as e:
            exchange.fail(e)

    @property
    def missing(self) -> dict[str, str]:
        """Servers whose part of some list was missing when it was last made, and why."""
        return {server: next(reversed(reasons.values())) for server, reasons in self._missing.items()}

    def _heard(self, server: str, method: str, why: str | None) -> None:
        """Keep account of whose part of a list is missing, each kind of list for itself."""
        if self.closing:
            return
        reasons = self._missing.get(server, {})
        reasons.pop(method, None)
        if why is not None:
            reasons[method] = why
            if server not in self._missing:
                self._missing[server] = reasons
                self._on_missing(server, why)
        elif not reasons and self._missing.pop(server, None) is not None:
            self._on_missing(server, None)

    def _refuse_when_closing(self) -> None:
        if self.closing:
            raise RpcError(-32000, "the daemon is stopping", reason="stopping", status=503)

    def links(self) -> Iterator[Link]:
        """Every open link."""
        yield from list(self._commons.links.values())
        for session in list(self.sessions.values()):
            yield from list(session.links.values())

    @property
    def in_flight(self) -> int:
        """Calls that are not answered yet, subscriptions not counted."""
        return sum(1 for link in self.links() for call in link.calls.values() if call.patience != 0)

    def sweep(self) -> None:
        """Fail calls that took too long and end sessions that nobody uses. Called about once a second."""
        now = self.clock()
        for link in self.links():
            link.expire(now, self._bounds.silence, self._bounds.longest)
        for session in list(self.sessions.values()):
            if not session.active and not session.attached and now - session.used > self._bounds.session_idle:
                session.close()

    def close(self) -> None:
        """End everything: each call gets an error, each session and link is closed, guests leave."""
        self.closing = True
        error = RpcError(-32000, "the daemon is stopping", reason="stopping", status=503)
        for session in list(self.sessions.values()):
            for exchange in list(session.active.values()):
                exchange.fail(error)
            session.close()
        for link in list(self._commons.links.values()):
            for exchange in list(link.calls.values()):
                exchange.fail(error)
            link.close()
        self._commons.links.clear()
        for guest in list(self.guests):
            guest.end()
