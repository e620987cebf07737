"""A legacy session: what one client has opened with ``initialize``, and its links to the servers behind us.

Our session is never an upstream's session: ids, requests of servers and progress tokens are renumbered in both
directions, so nothing a client says can reach another session's work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final, Protocol

from attrs import field, frozen

from mcptunnel.core.aggregate import Directory, to_many
from mcptunnel.core.commons import Commons
from mcptunnel.core.dispatch import to_one
from mcptunnel.core.eras import Eras
from mcptunnel.core.errors import INVALID_REQUEST, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hub import Errand
from mcptunnel.core.hubs import Hubs
from mcptunnel.core.jsonrpc import Id, Message, decode
from mcptunnel.core.legacy_on_modern import LegacyOnModern
from mcptunnel.core.link import Link
from mcptunnel.core.opening import Opening
from mcptunnel.core.principal import Principal
from mcptunnel.core.questions import Questions
from mcptunnel.core.record import Record
from mcptunnel.core.replay import Budget, Replay
from mcptunnel.core.routing import Target
from mcptunnel.core.shared_lane import SharedLane
from mcptunnel.core.wire import Lane, Upstream
from mcptunnel.core.wishes import LASTING, Wishes

__all__ = ["BACKLOG", "Session", "StandingSink", "Surroundings"]

# Messages kept for a client that has no stream open for them; the oldest makes room.
BACKLOG: Final = 100
# The first revision whose clients understand an event without data.
_PRIMED: Final = "2025-11-25"


class StandingSink(Protocol):
    """Where a session's own messages go, as long as it lasts."""

    def message(self, raw: bytes) -> None:
        """A notification or request that belongs to no exchange."""

    def end(self) -> None:
        """The session has ended, or another sink has come."""


@frozen(kw_only=True)
class Surroundings:
    """What every session is in.

    Attributes:
        upstreams: The servers by name.
        eras: What is known of them.
        commons: Serves what needs no session of its own.
        hubs: Sessions with servers that several of ours share.
        identity: Our own ``serverInfo`` where several servers are shown as one.
        clock: Seconds.
        patience: Seconds that a client has to answer a question of a server of 2026-07-28.
        budget: What all sessions together keep for replay.
    """

    upstreams: Mapping[str, Upstream]
    eras: Eras
    commons: Commons
    hubs: Hubs
    identity: dict[str, str]
    clock: Callable[[], float]
    patience: float = 600.0
    budget: Budget = field(factory=Budget)


class Session:
    """One client's legacy session.

    Attributes:
        id: What the client shows; unguessable.
        principal: Whose session it is; nobody else may use it.
        target: What it sees.
        links: Open links by server name.
        active: Requests of the client that are not answered yet, by the client's id.
        used: When the client was last heard, on the daemon's clock.
        version: The revision that the client was told of in the response to ``initialize``, None before.
        hello: What the client said when it opened the session, for servers that have to hear it again.
        resumed: It was opened in an earlier life of the daemon.
        closed: True once it has ended.
    """

    def __init__(
        self,
        id_: str,
        principal: Principal,
        target: Target,
        around: Surroundings,
        on_close: Callable[[Session], None],
        directory: Directory | None = None,
    ) -> None:
        self.id: Final = id_
        self.principal: Final = principal
        self.target: Final = target
        self.links: Final[dict[str, Lane]] = {}
        self.active: Final[dict[Id, Exchange]] = {}
        self.used = around.clock()
        self.version: str | None = None
        self.closed = False
        self.resumed = False
        self._around: Final = around
        self._clock: Final = around.clock
        self._on_close: Final = on_close
        self._directory: Final = Directory() if directory is None else directory
        self._wishes: Final[dict[str, Wishes]] = {}
        self.hello: bytes | None = None
        self._standing: StandingSink | None = None
        self._backlog: Final[deque[bytes]] = deque(maxlen=BACKLOG)
        self._questions: Final = Questions(self.say, lambda: self.attached or self.closed)

    def __repr__(self) -> str:
        return f"<Session of {self.principal.name} {len(self.active)} active>"

    # --- from the client

    def request(self, exchange: Exchange) -> None:
        """A request of the client. It is answered through its sink, refusals included."""
        self.used = self._clock()
        id_ = exchange.message.id
        if id_ is None or id_ in self.active:
            exchange.fail(
                RpcError(INVALID_REQUEST, "a request with this id is still in progress", reason="duplicate_id")
            )
            return
        self.active[id_] = exchange
        exchange.on_end(lambda _: self._ended(id_))
        if exchange.message.method == "initialize":
            exchange.on_end(self._opened)
        try:
            if self.target.merged:
                to_many(self, exchange, self.target, self._directory, self._around.identity)
            else:
                to_one(self, exchange, self.target)
        except RpcError as e:
            exchange.fail(e)

    def _ended(self, id_: Id) -> None:
        self.active.pop(id_, None)

    def _opened(self, exchange: Exchange) -> None:
        if exchange.record.code is None and exchange.record.error is None:
            self.hello = exchange.message.raw

    def agree(self, reply: bytes) -> None:
        """Take note of the response to ``initialize`` that goes to the client."""
        message = decode(reply)
        span = message.inside(message.spans["result"], "result").get("protocolVersion")
        version = None if span is None else message.at(span)
        self.version = version if isinstance(version, str) else None

    @cached_property
    def replay(self) -> Replay:
        """What was said on event streams; made when there is one, since most replies are none."""
        return Replay(self.id, self._around.budget)

    @property
    def primes(self) -> bool:
        """Whether event streams begin with an event without data, which older clients cannot read."""
        return self.version is not None and self.version >= _PRIMED

    def notification(self, message: Message) -> None:
        """A notification of the client.

        Raises:
            RpcError: Its params cannot be read.
        """
        self.used = self._clock()
        if message.method == "notifications/cancelled":
            wanted = message.id_at(message.params.get("requestId"))
            exchange = None if wanted is None else self.active.get(wanted)
            if exchange is not None and exchange.message.method != "initialize":
                span = message.params.get("reason")
                exchange.abandon(None if span is None else message.raw[span[0] : span[1]])
        elif message.method == "notifications/progress":
            self._questions.progress(message)
        else:
            initialized = message.method == "notifications/initialized"
            for link in list(self.links.values()):
                if initialized and link.introduced:
                    continue
                link.tell(message.raw)
                if initialized:
                    # Whoever attached before there was a revision (a WebSocket does) has waited for this.
                    self._listen(link)

    def response(self, message: Message) -> None:
        """The client's response to a request of a server. One that nobody asked for is dropped."""
        self.used = self._clock()
        self._questions.answered(message)

    @property
    def attached(self) -> bool:
        """Whether there is a sink for messages that belong to no request."""
        return self._standing is not None

    def attach(self, sink: StandingSink) -> None:
        """Take ``sink`` for messages that belong to no request. There is at most one: an earlier one ends."""
        earlier, self._standing = self._standing, None
        if earlier is not None:
            earlier.end()
        self._standing = sink
        for link in list(self.links.values()):
            link.listen()
        while self._backlog and self._standing is sink:
            sink.message(self._backlog.popleft())

    def _listen(self, link: Lane) -> None:
        if self.attached:
            link.listen()

    def detach(self, sink: StandingSink) -> None:
        """``sink`` is gone."""
        if self._standing is sink:
            self._standing = None

    # --- to the servers (Links)

    def forward(self, server: str, exchange: Exchange) -> None:
        """Send ``exchange`` to ``server``, in whatever era it speaks."""
        method = exchange.message.method
        if method in LASTING:
            self._wishes.setdefault(server, Wishes()).watch(exchange)
        lane = self._lane(server)
        unknown = self._around.eras.speaks(server, "legacy") is None
        if method == "initialize" and unknown and not isinstance(lane, LegacyOnModern):
            Opening(lane, self._around.eras, self._around.commons, lambda: self._cross(server)).start(exchange)
        else:
            lane.request(exchange)

    def _lane(self, server: str) -> Lane:
        """The lane to ``server``, opened when there is none: one that was down, or was lost, is given another try."""
        known = self.links.get(server)
        if known is not None:
            return known
        around = self._around
        lane: Lane
        if around.eras.speaks(server, "legacy") is False:
            return self._cross(server)
        if around.upstreams[server].rules.sharing == "shared":
            lane = SharedLane(server, around.hubs, self, self.principal, self.link_lost)
        else:
            lane = Link.open(around.upstreams[server], "legacy", self, self._clock)
        return self._take(lane)

    def _cross(self, server: str) -> Lane:
        """A bridge to ``server``, which speaks only the other era, in place of what led there before."""
        around = self._around
        earlier = self.links.pop(server, None)
        if earlier is not None:
            earlier.close()
        return self._take(LegacyOnModern(server, around.commons, self, self.principal, self._clock, around.patience))

    def _take(self, lane: Lane) -> Lane:
        if not lane.closed:
            self.links[lane.server] = lane
            if self.hello is not None:
                try:
                    lane.introduce(self.hello, self.principal, lambda: self._restore(lane))
                except RpcError:
                    del self.links[lane.server]
                    raise
        return lane

    def _restore(self, lane: Lane) -> None:
        """Ask a server again for what the client has asked an earlier link for."""
        for raw in self._wishes[lane.server].requests() if lane.server in self._wishes else ():
            lane.request(
                Exchange(
                    message=decode(raw),
                    principal=self.principal,
                    era="legacy",
                    sink=Errand(lambda _reply, _error: None),
                    record=Record(),
                )
            )
        self._listen(lane)

    def tick(self) -> None:
        """Let the bridges look at the time. Called about once a second."""
        for lane in list(self.links.values()):
            if isinstance(lane, LegacyOnModern):
                lane.tick()

    # --- from the servers (Owner)

    def from_server(self, link: Lane, message: Message, exchange: Exchange | None) -> None:
        """A request, or a notification that belongs to no call."""
        if message.method == "notifications/cancelled":
            self._questions.withdrawn(link, message)
        elif message.kind != "request":
            self._directory.changed(link.server, message.method)
            self.say(message.raw)
        elif message.method == "ping":
            # Ours to answer: it asks whether this connection lives.
            link.tell(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % message.id_raw)
        else:
            self._questions.ask(link, message, exchange or self._likely_cause(link))

    def session_lost(self, link: Link) -> bool:
        """The server has forgotten us: say again what the client has said."""
        if self.hello is None:
            return False
        link.introduce(self.hello, self.principal, lambda: self._restore(link))
        return True

    def doubted(self, link: Link) -> None:
        """Nothing: it has answered in this era before."""

    def link_lost(self, link: Lane) -> None:
        """A server's connection is gone. The next request opens another, which is told what the client has said."""
        if self.links.get(link.server) is not link:
            # It was never there: the request that wanted it says why.
            return
        del self.links[link.server]
        self._questions.forget(link)
        if isinstance(link, Link) and link.turned_away:
            self._around.eras.doubt(link.server, "legacy")

    def _likely_cause(self, link: Lane) -> Exchange | None:
        """The call a server's request belongs to, on transports that do not say: the latest one in progress."""
        calls = [exchange for exchange in link.calls.values() if not exchange.done]
        if len(calls) > 1 and self._standing is not None:
            return None
        return calls[-1] if calls else None

    def say(self, raw: bytes) -> None:
        """Send a message that belongs to no request, now or as soon as the client listens."""
        if self._standing is not None:
            self._standing.message(raw)
        else:
            self._backlog.append(raw)

    # --- the end

    def close(self) -> None:
        """End the session: what is in progress is abandoned, upstream sessions are ended."""
        if self.closed:
            return
        self.closed = True
        error = RpcError(INVALID_REQUEST, "the session has ended", reason="session_ended", status=404)
        for exchange in list(self.active.values()):
            exchange.fail(error)
        for link in list(self.links.values()):
            link.close()
        self.links.clear()
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.end()
        if "replay" in self.__dict__:
            self.replay.close()
        self._on_close(self)
