"""A legacy session: what one client has opened with ``initialize``, and its links to the servers behind us.

Our session is never an upstream's session: ids, requests of servers and progress tokens are renumbered in both
directions, so nothing a client says can reach another session's work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final, Protocol

from mcptunnel.core.aggregate import Directory, to_many
from mcptunnel.core.dispatch import to_one
from mcptunnel.core.errors import INVALID_REQUEST, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Id, Message, decode, error_reply, splice
from mcptunnel.core.link import Link, Upstream
from mcptunnel.core.principal import Principal
from mcptunnel.core.replay import Budget, Replay
from mcptunnel.core.routing import Target

__all__ = ["BACKLOG", "Session", "StandingSink"]

# Messages kept for a client that has no stream open for them; the oldest makes room.
BACKLOG: Final = 100
# Requests of servers that a client may leave unanswered.
ASKED: Final = 1000
# The first revision whose clients understand an event without data.
_PRIMED: Final = "2025-11-25"


class StandingSink(Protocol):
    """Where a session's own messages go, as long as it lasts."""

    def message(self, raw: bytes) -> None:
        """A notification or request that belongs to no exchange."""

    def end(self) -> None:
        """The session has ended, or another sink has come."""


class _Asked:
    """A request of a server that waits for the client's response."""

    __slots__ = ("exchange", "id_raw", "link", "token")

    def __init__(self, link: Link, id_raw: bytes, token: bytes | None, exchange: Exchange | None) -> None:
        self.link: Final = link
        self.id_raw: Final = id_raw
        self.token: Final = token
        self.exchange: Final = exchange


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
        closed: True once it has ended.
    """

    def __init__(
        self,
        id_: str,
        principal: Principal,
        target: Target,
        upstreams: Mapping[str, Upstream],
        identity: dict[str, str],
        clock: Callable[[], float],
        on_close: Callable[[Session], None],
        directory: Directory | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.id: Final = id_
        self.principal: Final = principal
        self.target: Final = target
        self.links: Final[dict[str, Link]] = {}
        self.active: Final[dict[Id, Exchange]] = {}
        self.used = clock()
        self.version: str | None = None
        self.closed = False
        self._upstreams: Final = upstreams
        self._identity: Final = identity
        self._clock: Final = clock
        self._on_close: Final = on_close
        self._directory: Final = Directory() if directory is None else directory
        self._budget: Final = Budget() if budget is None else budget
        self._asked: Final[dict[int, _Asked]] = {}
        # What the client said when it opened the session, for servers that have to hear it again.
        self._hello: bytes | None = None
        self._next = 1
        self._standing: StandingSink | None = None
        self._backlog: Final[deque[bytes]] = deque(maxlen=BACKLOG)

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
            if self.target.prefixed:
                to_many(self, exchange, self.target, self._directory, self._identity)
            else:
                to_one(self, exchange, self.target)
        except RpcError as e:
            exchange.fail(e)

    def _ended(self, id_: Id) -> None:
        self.active.pop(id_, None)

    def _opened(self, exchange: Exchange) -> None:
        if exchange.record.code is None and exchange.record.error is None:
            self._hello = exchange.message.raw

    def agree(self, reply: bytes) -> None:
        """Take note of the response to ``initialize`` that goes to the client."""
        message = decode(reply)
        span = message.inside(message.spans["result"], "result").get("protocolVersion")
        version = None if span is None else message.at(span)
        self.version = version if isinstance(version, str) else None

    @cached_property
    def replay(self) -> Replay:
        """What was said on event streams; made when there is one, since most replies are none."""
        return Replay(self.id, self._budget)

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
            span = message.params.get("progressToken")
            number = message.id_at(span)
            asked = self._asked.get(number) if isinstance(number, int) else None
            if span is not None and asked is not None and asked.token is not None:
                asked.link.tell(splice(message.raw, [(span, asked.token)]))
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
        asked = self._asked.pop(message.id, None) if isinstance(message.id, int) else None
        if asked is not None:
            asked.link.tell(message.with_id(asked.id_raw))

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
        for link in self.links.values():
            link.wire.listen()
        while self._backlog and self._standing is sink:
            sink.message(self._backlog.popleft())

    def _listen(self, link: Link) -> None:
        if self.attached and not link.closed:
            link.wire.listen()

    def detach(self, sink: StandingSink) -> None:
        """``sink`` is gone."""
        if self._standing is sink:
            self._standing = None

    # --- from the servers (Owner)

    def link(self, server: str) -> Link:
        """The link to ``server``, opened when there is none: one that was down, or was lost, is given another try."""
        known = self.links.get(server)
        if known is not None:
            return known
        link = Link.open(self._upstreams[server], "legacy", self, self._clock)
        if not link.closed:
            self.links[server] = link
            if self._hello is not None:
                link.introduce(self._hello, self.principal, lambda: self._listen(link))
        return link

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        """A request, or a notification that belongs to no call."""
        if message.method == "notifications/cancelled":
            self._withdrawn(link, message)
            return
        if message.kind != "request":
            self.say(message.raw)
            return
        if message.method == "ping":
            # Ours to answer: it asks whether this connection lives.
            link.tell(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % message.id_raw)
            return
        if len(self._asked) >= ASKED:
            error = RpcError(INVALID_REQUEST, "too many requests wait for the client's answer", reason="unanswered")
            link.tell(error_reply(error, message.id_raw))
            return
        number = self._next
        self._next += 1
        ours = b"%d" % number
        edits = [(message.spans["id"], ours)]
        token = message.meta().get("progressToken") if "_meta" in message.params else None
        if token is not None:
            edits.append((token, ours))
        raw = splice(message.raw, edits)
        exchange = exchange or self._likely_cause(link)
        asked = _Asked(
            link,
            message.id_raw,
            None if token is None else message.raw[token[0] : token[1]],
            exchange,
        )
        self._asked[number] = asked
        if exchange is not None:
            exchange.on_end(lambda _: self._unanswered(number))
            exchange.emit(raw)
        else:
            self.say(raw)

    def link_lost(self, link: Link) -> None:
        """A server's connection is gone. With its only server a session has nothing left."""
        if self.links.get(link.server) is not link:
            # It was never there: the request that wanted it says why.
            return
        del self.links[link.server]
        for number in [n for n, asked in self._asked.items() if asked.link is link]:
            del self._asked[number]
        if not self.target.prefixed:
            self.close()

    def _withdrawn(self, link: Link, message: Message) -> None:
        """A server no longer wants the answer to something it asked."""
        span = message.params.get("requestId")
        wanted = None if span is None else message.raw[span[0] : span[1]]
        for number, asked in self._asked.items():
            if span is not None and asked.link is link and asked.id_raw == wanted:
                raw = splice(message.raw, [(span, b"%d" % number)])
                del self._asked[number]
                if asked.exchange is not None and not asked.exchange.done:
                    asked.exchange.emit(raw)
                else:
                    self.say(raw)
                return

    def _unanswered(self, number: int) -> None:
        """The stream on which request ``number`` went out has ended: if nobody answers, the server must not wait."""
        asked = self._asked.get(number)
        if asked is not None and self._standing is None and not self.closed:
            del self._asked[number]
            error = RpcError(METHOD_NOT_FOUND, "the client left without an answer", reason="client_left")
            asked.link.tell(error_reply(error, asked.id_raw))

    def _likely_cause(self, link: Link) -> Exchange | None:
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
