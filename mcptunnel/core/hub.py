"""One session with a legacy server that serves several clients: what is common to them, and whose is what.

The hub opens the session itself. What its members ask of the server to last is counted: one subscription upstream for
all who want the resource, and the most verbose of the log levels. What the server says is told to those whom it
concerns and to nobody else; where that cannot be known, to nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import define

from mcptunnel.core.errors import METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, decode, encode, error_reply
from mcptunnel.core.link import Link, unavailable
from mcptunnel.core.mcp import LEVELS
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.wire import Upstream

__all__ = ["Errand", "Hub", "Member", "hello"]

_CHANGES: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)
_UPDATED: Final = "notifications/resources/updated"
Done = Callable[[Message | None, RpcError | None], None]


class Member(Protocol):
    """One of those whom a hub serves."""

    def heard(self, message: Message, exchange: Exchange | None = None) -> None:
        """A notification that concerns it; ``exchange`` is the one call of its that it can only be about, if any."""

    def asked(self, message: Message, exchange: Exchange) -> None:
        """A request of the server, because of ``exchange``, which is the member's."""

    def hub_lost(self, hub: Hub) -> None:
        """The session with the server is over; calls have failed already."""


class Errand:
    """The sink of a request of our own; ``done(reply, error)`` hears how it ended."""

    __slots__ = ("_done",)

    def __init__(self, done: Done) -> None:
        self._done: Final = done

    def message(self, raw: bytes) -> None:
        """Nobody has asked for progress."""

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._done(decode(raw), error)

    def cancelled(self) -> None:
        """Whoever has cancelled it knows."""


def hello(version: str, capabilities: bytes, info: bytes) -> bytes:
    """An ``initialize`` request; ``capabilities`` and ``info`` are raw objects."""
    return (
        b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":%b,"capabilities":%b,"clientInfo":%b}}'
        % (encode(version), capabilities, info)
    )


@define(eq=False)
class _Wanted:
    """A resource that somebody wants to hear of.

    Attributes:
        members: Who.
        waiting: Who wait for the server to grant it; None once it has answered.
    """

    members: set[Member]
    waiting: list[Done] | None


class Hub:
    """One session with one legacy server.

    Attributes:
        link: The connection.
        used: When somebody last used it.
        members: Who hears of changes.
    """

    link: Link

    def __init__(self, greeting: bytes, principal: Principal, clock: Callable[[], float]) -> None:
        self.members: Final[set[Member]] = set()
        self.used = clock()
        self._greeting: Final = greeting
        self._principal: Final = principal
        self._clock: Final = clock
        self._owners: Final[dict[Exchange, Member]] = {}
        self._opening: list[Done] | None = []
        self._attached: Final[set[Member]] = set()
        self._uris: Final[dict[str, _Wanted]] = {}
        self._levels: Final[dict[object, int]] = {}
        self._level: int | None = None

    @classmethod
    def open(cls, upstream: Upstream, greeting: bytes, principal: Principal, clock: Callable[[], float]) -> Hub:
        """A hub whose session is being opened.

        Args:
            upstream: The server.
            greeting: The ``initialize`` request.
            principal: On whose behalf.
            clock: Seconds.
        """
        hub = cls(greeting, principal, clock)
        hub.link = Link.open(upstream, "legacy", hub, clock)
        if not hub.link.closed:
            hub.session_lost(hub.link)
        return hub

    def now(self) -> float:
        """The time."""
        return self._clock()

    @property
    def busy(self) -> bool:
        """Whether anybody uses it now."""
        return bool(self._owners or self._uris or self.members or self._attached)

    def when_open(self, done: Done) -> None:
        """Call ``done`` with the answer to ``initialize``, an error perhaps, or with our error if there is none."""
        if self.link.closed:
            self._tell_closed(self.link, [done])
        elif self._opening is not None:
            self._opening.append(done)
        else:
            done(self.link.welcome, None)

    def _tell_closed(self, link: Link, waiting: list[Done]) -> None:
        for done in waiting:
            if link.turned_away:
                done(link.welcome, None)
            else:
                done(None, unavailable(link.server, link.why))

    def request(self, exchange: Exchange, member: Member) -> None:
        """Send a request of ``member``."""
        self.used = self._clock()
        self._owners[exchange] = member
        exchange.on_end(self._ended)
        self.link.request(exchange)

    def _ended(self, exchange: Exchange) -> None:
        del self._owners[exchange]

    def errand(self, method: str, params: bytes, done: Done) -> None:
        """Send a request of our own."""
        raw = b'{"jsonrpc":"2.0","id":0,"method":%b,"params":%b}' % (encode(method), params)
        self.link.request(
            Exchange(message=decode(raw), principal=self._principal, era="legacy", sink=Errand(done), record=Record())
        )

    def attach(self, member: Member) -> None:
        """``member`` relies on the session from now on, and is told when that is over."""
        self._attached.add(member)

    def join(self, member: Member) -> None:
        """``member`` hears of changes from now on; the way for them is opened."""
        self.members.add(member)
        self.link.listen()

    def leave(self, member: Member) -> None:
        """``member`` is gone: what it had asked for and nobody else wants is taken back."""
        self.members.discard(member)
        self._attached.discard(member)
        for uri in [uri for uri, wanted in self._uris.items() if member in wanted.members]:
            self.unsubscribe(member, uri, lambda _reply, _error: None)
        if self._levels.pop(member, None) is not None:
            self._tune()
        self.used = self._clock()

    # --- what lasts

    def subscribe(self, member: Member, uri: str, done: Done) -> None:
        """``member`` wants to hear when ``uri`` changes. ``done`` gets None twice where nothing had to be asked."""
        known = self._uris.get(uri)
        if known is not None:
            known.members.add(member)
            if known.waiting is None:
                done(None, None)
            else:
                known.waiting.append(done)
            return
        wanted = self._uris[uri] = _Wanted({member}, [done])

        def answered(reply: Message | None, error: RpcError | None) -> None:
            refused = error is not None or (reply is not None and reply.kind == "error")
            if refused and self._uris.get(uri) is wanted:
                del self._uris[uri]
            waiting, wanted.waiting = wanted.waiting or [], None
            for tell in waiting:
                tell(reply, error)

        self.errand("resources/subscribe", b'{"uri":%b}' % encode(uri), answered)

    def unsubscribe(self, member: Member, uri: str, done: Done) -> None:
        """``member`` no longer wants that."""
        wanted = self._uris.get(uri)
        if wanted is not None:
            wanted.members.discard(member)
        if wanted is None or wanted.members:
            done(None, None)
            return
        del self._uris[uri]
        self.errand("resources/unsubscribe", b'{"uri":%b}' % encode(uri), done)

    def level(self, member: object, level: int | None, then: Callable[[], None] = lambda: None) -> None:
        """``member`` wants log messages from ``level`` on, a place in :data:`LEVELS`; None for none.

        Args:
            member: Who.
            level: From which level on.
            then: Called when the server has been told, where it had to be.
        """
        if level is None:
            self._levels.pop(member, None)
        else:
            self._levels[member] = level
        self._tune(then)

    def _tune(self, then: Callable[[], None] = lambda: None) -> None:
        level = min(self._levels.values(), default=None)
        if level is None or level == self._level or not self.offers("logging"):
            then()
            return
        self._level = level
        self.errand("logging/setLevel", b'{"level":%b}' % encode(LEVELS[level]), lambda _reply, _error: then())

    def offers(self, capability: str, feature: str | None = None) -> bool:
        """Whether the server has said that it can do that; False before it has said anything."""
        welcome = self.link.welcome
        if welcome is None or welcome.kind != "result":
            return False
        try:
            value = welcome.at(welcome.spans["result"])
        except RpcError:
            return False
        found = value.get("capabilities", {}).get(capability) if isinstance(value, dict) else None
        return found is not None and (feature is None or bool(isinstance(found, dict) and found.get(feature)))

    # --- from the server (Owner)

    def session_lost(self, link: Link) -> bool:
        link.introduce(self._greeting, self._principal, self._ready)
        return True

    def _ready(self) -> None:
        self._level = None
        self._tune()
        # Those that nobody has answered yet wait to be sent.
        for uri in [uri for uri, wanted in self._uris.items() if wanted.waiting is None]:
            self.errand("resources/subscribe", b'{"uri":%b}' % encode(uri), lambda _reply, _error: None)
        if self.members:
            self.link.listen()
        waiting, self._opening = self._opening or [], None
        for done in waiting:
            done(self.link.welcome, None)

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        """To whom it concerns."""
        if message.kind == "request":
            self._asked(message, exchange)
        elif message.method in _CHANGES or message.method == "notifications/cancelled":
            for member in list(self.members | set(self._owners.values())):
                member.heard(message)
        elif message.method == _UPDATED:
            uri = message.param("uri")
            wanted = self._uris.get(uri) if isinstance(uri, str) else None
            for member in () if wanted is None else list(wanted.members):
                member.heard(message)
        else:
            # A log line of a shared connection does not say whose call it is about: only a lone call may have it.
            alone = [call for call in self._owners if not call.done]
            if len(alone) == 1:
                self._owners[alone[0]].heard(message, alone[0])

    def _asked(self, message: Message, exchange: Exchange | None) -> None:
        if message.method == "ping":
            self.link.tell(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % message.id_raw)
            return
        cause = self._cause(exchange)
        if cause is None:
            error = RpcError(METHOD_NOT_FOUND, "it cannot be told which client this is for", reason="no_client")
            self.link.tell(error_reply(error, message.id_raw))
        else:
            self._owners[cause].asked(message, cause)

    def _cause(self, exchange: Exchange | None) -> Exchange | None:
        """The call that something belongs to; where nobody says, the latest one if all are of one member."""
        if exchange is not None and exchange in self._owners:
            return exchange
        calls = [call for call in self._owners if not call.done]
        return calls[-1] if len({self._owners[call] for call in calls}) == 1 else None

    def doubted(self, link: Link) -> None:
        """Nothing is known here of eras."""

    def link_lost(self, link: Link) -> None:
        waiting, self._opening = self._opening or [], None
        # Perhaps while it is being opened, so that we do not have it yet.
        self._tell_closed(link, waiting)
        for member in list(self.members | self._attached):
            member.hub_lost(self)

    def close(self) -> None:
        """End the session with the server."""
        self.link.close()
