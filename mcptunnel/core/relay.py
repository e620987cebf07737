"""The relay: every session, the commons of stateless calls, and the clock that bounds them all.

Downstream transports call :meth:`Relay.open`, :meth:`Relay.find` and :meth:`Relay.stateless`. One sweep a second
(:meth:`Relay.sweep`) is all the timing there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from attrs import frozen

from mcptunnel.core.aggregate import to_many
from mcptunnel.core.batch import BATCH_VERSION
from mcptunnel.core.commons import Commons
from mcptunnel.core.directory import Directory
from mcptunnel.core.dispatch import to_one
from mcptunnel.core.envelope import PARTS
from mcptunnel.core.eras import Eras
from mcptunnel.core.errors import SESSION_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hubs import Hubs
from mcptunnel.core.jsonrpc import decode, splice
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import subject
from mcptunnel.core.parked import Parked
from mcptunnel.core.principal import Principal
from mcptunnel.core.routing import Target
from mcptunnel.core.seal import Seal, open_state, seal_state
from mcptunnel.core.session import Session, Surroundings
from mcptunnel.core.session_ids import mint, read
from mcptunnel.core.wire import Upstream

__all__ = ["Bounds", "Guest", "Relay"]


@frozen(kw_only=True)
class Bounds:
    """How much and how long. Counts and seconds; see ``server.limits`` in the configuration reference."""

    sessions: int = 10_000
    session_idle: float = 1800.0
    silence: float = 120.0
    longest: float = 3600.0
    parked: int = 1000
    input_patience: float = 600.0


class Guest(Protocol):
    """A connection that ends with the relay, whether or not it has a session."""

    def end(self) -> None:
        """Say goodbye; called once."""


class Relay:
    """Sessions, links and their bounds.

    Args:
        upstreams: The servers by name.
        bounds: How much and how long.
        clock: Seconds since the epoch, since what is sealed says until when it holds.
        seal: Seals the ids of sessions and what clients bring back.
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
        seal: Seal,
        identity: dict[str, str],
        on_missing: Callable[[str, str | None], None] = lambda _server, _why: None,
    ) -> None:
        self.sessions: Final[dict[str, Session]] = {}
        self.guests: Final[set[Guest]] = set()
        self.upstreams: Final = upstreams
        self.clock: Final = clock
        self.eras: Final = Eras(upstreams)
        self._bounds: Final = bounds
        self._seal: Final = seal
        self._identity: Final = identity
        self._on_missing: Final = on_missing
        # Server to method to reason.
        self._missing: Final[dict[str, dict[str, str]]] = {}
        self._parked: Final = Parked(clock, bounds.parked, bounds.input_patience)
        self._hubs: Final = Hubs(upstreams, self.eras, clock, identity, bounds.session_idle)
        self._commons: Final = Commons(upstreams, self.eras, self._hubs, self._parked, clock)
        self._around: Final = Surroundings(
            upstreams=upstreams,
            eras=self.eras,
            commons=self._commons,
            hubs=self._hubs,
            identity=identity,
            clock=clock,
            patience=bounds.input_patience,
        )
        self._directories: Final[dict[Target, Directory]] = {}
        # Sessions of an earlier life that have ended in this one; the oldest makes room.
        self._ended: Final[dict[str, None]] = {}
        # Modern requests that are not answered yet.
        self._active: Final[set[Exchange]] = set()
        self.closing = False

    def open(self, principal: Principal, target: Target, hello: bytes | None = None) -> Session:
        """A new session.

        Args:
            principal: Whose it is.
            target: What it sees.
            hello: The client's ``initialize`` request, where the client shows the session's id later: the id holds it,
                so that another daemon with the same keys can go on with the session.

        Raises:
            RpcError: There are too many, or the daemon is stopping.
        """
        self._refuse_when_closing()
        self._refuse_more()
        return self._begin(mint(self._seal, principal, target, hello, self.clock()), principal, target)

    def _refuse_more(self) -> None:
        if len(self.sessions) >= self._bounds.sessions:
            raise RpcError(
                -32000,
                f"too many sessions ({self._bounds.sessions}, server.limits.sessions)",
                reason="too_many_sessions",
                status=503,
                headers=((b"Retry-After", b"30"),),
            )

    def _begin(self, id_: str, principal: Principal, target: Target) -> Session:
        session = Session(id_, principal, target, self._around, self._forget_session, self._directory())
        self.sessions[session.id] = session
        return session

    def _directory(self) -> Directory:
        return Directory(heard=self._heard, seal=self._seal)

    def _forget_session(self, session: Session) -> None:
        if self.sessions.pop(session.id, None) is not None and session.resumed:
            while len(self._ended) >= self._bounds.sessions:
                del self._ended[next(iter(self._ended))]
            self._ended[session.id] = None

    def find(self, id_: str, principal: Principal, target: Target, version: str | None = None) -> Session:
        """The session a client shows; one of an earlier life of the daemon is gone on with.

        Args:
            id_: What the client shows.
            principal: Who shows it.
            target: Where.
            version: The revision that the request names.

        Raises:
            RpcError: 404, for ids that are unknown, ended, another principal's or another address's: they read the
                same, and tell a client to initialize again (MCP 2025-03-26, "Session Management").
        """
        session = self.sessions.get(id_) or self._resume(id_, principal, target, version)
        if session is None or session.principal.name != principal.name or session.target != target:
            raise RpcError(
                SESSION_NOT_FOUND,
                "Session not found: initialize a new one",
                reason="unknown_session",
                status=404,
            )
        return session

    def _resume(self, id_: str, principal: Principal, target: Target, version: str | None) -> Session | None:
        hello = None if id_ in self._ended else read(self._seal, id_, principal, target, self.clock())
        if hello is None or self.closing:
            return None
        self._refuse_more()
        session = self._begin(id_, principal, target)
        session.resumed = True
        session.hello = hello
        # MCP 2025-06-18, Transports, "Protocol Version Header": absent is 2025-03-26.
        session.version = version or BATCH_VERSION
        return session

    def stateless(self, exchange: Exchange, target: Target) -> None:
        """A modern request. It is answered through its sink, refusals included."""
        self._active.add(exchange)
        exchange.on_end(self._active.discard)
        if exchange.message.method == "subscriptions/listen":
            # Silence is what such a stream is made of.
            exchange.patience = 0
        try:
            self._refuse_when_closing()
            if exchange.message.method in PARTS and self._resumed(exchange):
                return
            if target.merged:
                directory = self._directories.get(target) or self._directories.setdefault(target, self._directory())
                to_many(self._commons, exchange, target, directory, self._identity)
            else:
                to_one(self._commons, exchange, target)
        except RpcError as e:
            exchange.fail(e)

    def _resumed(self, exchange: Exchange) -> bool:
        """Whether ``exchange`` goes on with a call that waits here; what it brings back for a server is unsealed."""
        message, principal = exchange.message, exchange.principal
        exchange.seal = lambda state: seal_state(
            self._seal, message, principal, state, self.clock() + self._bounds.input_patience
        )
        span = message.params.get("requestState")
        if span is None:
            return False
        state = open_state(self._seal, message, principal, self.clock())
        if state.kind == "parked":
            exchange.record.target = subject(message)
            self._parked.take(state.value, principal).come_back(exchange)
            return True
        if state.kind == "theirs":
            exchange.message = decode(splice(message.raw, [(span, state.value.encode())]))
        return False

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
        yield from self._commons.all_links()
        for session in list(self.sessions.values()):
            yield from (lane for lane in list(session.links.values()) if isinstance(lane, Link))

    @property
    def in_flight(self) -> int:
        """Requests of clients that are not answered yet, subscriptions not counted."""
        legacy = sum(len(session.active) for session in self.sessions.values())
        return legacy + sum(exchange.patience != 0 for exchange in self._active)

    def sweep(self) -> None:
        """Fail calls that took too long and end sessions that nobody uses. Called about once a second."""
        now = self.clock()
        for link in list(self.links()):
            rules = self.upstreams[link.server].rules
            silence = self._bounds.silence if rules.silence is None else rules.silence
            link.expire(now, silence, self._bounds.longest if rules.longest is None else rules.longest)
        self._commons.sweep()
        for session in list(self.sessions.values()):
            if not session.active and not session.attached and now - session.used > self._bounds.session_idle:
                session.close()
            else:
                session.tick()

    def close(self) -> None:
        """End everything: each call gets an error, each session and link is closed, guests leave."""
        self.closing = True
        error = RpcError(-32000, "the daemon is stopping", reason="stopping", status=503)
        for session in list(self.sessions.values()):
            for exchange in list(session.active.values()):
                exchange.fail(error)
            session.close()
        for exchange in list(self._active):
            exchange.fail(error)
        self._commons.close()
        for guest in list(self.guests):
            guest.end()
