"""What a session has said on its event streams, so that a client whose connection broke can hear the rest.

MCP 2025-03-26 … 2025-11-25, Transports, "Resumability and Redelivery": an event's id names its session, its stream and
its place in it; replaying gives the later events of that one stream. One store per session, bounded in events and
bytes for all of its streams together, and a budget for the stores of all sessions; the oldest event makes room.
"""

from __future__ import annotations

import re
from collections import deque
from hashlib import blake2s
from typing import Final

from mcptunnel.core import sse

__all__ = ["BUDGET_BYTES", "EVENTS", "KEPT_BYTES", "RETRY_MILLISECONDS", "Budget", "Replay", "Trail"]

# Of one session. The latest event is kept whatever its size: it may be the response that the client has missed.
EVENTS: Final = 256
KEPT_BYTES: Final = 1 << 20
# Of all sessions together; beyond it each keeps its latest event only.
BUDGET_BYTES: Final = 64 << 20
# How long a client waits before it connects again: what the official SDKs do on their own.
RETRY_MILLISECONDS: Final = 1000

_EVENT_ID: Final = re.compile(rb"([0-9a-f]{12})-(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})")


class Budget:
    """What all stores together may keep.

    Attributes:
        limit: Bytes.
        used: Bytes that are kept now.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = BUDGET_BYTES) -> None:
        self.limit: Final = limit
        self.used = 0


class Trail:
    """The events of one stream.

    Attributes:
        holder: The transport's own object that goes on with the stream; None when nothing more will come.
    """

    __slots__ = ("_events", "_last", "_name", "_replay", "holder", "number")

    def __init__(self, replay: Replay, name: bytes, number: int) -> None:
        self.number: Final = number
        self.holder: object | None = None
        self._replay: Final = replay
        self._name: Final = name
        self._last = 0
        self._events: Final[deque[bytes]] = deque()

    def add(self, data: bytes) -> bytes:
        """Keep one more event; returns its id."""
        self._last += 1
        self._events.append(data)
        self._replay.added(self, len(data))
        return self._id(self._last)

    def prime(self) -> bytes:
        """An event that carries nothing but the place so far: from then on a client can come back (2025-11-25)."""
        return b"retry: %d\n%b" % (RETRY_MILLISECONDS, sse.encode(b"", id_=self._id(self._last)))

    def after(self, place: int) -> list[tuple[bytes, bytes]] | None:
        """Id and data of each event after ``place`` that is still kept; None when there was no such place."""
        if place > self._last:
            return None
        first = self._last - len(self._events) + 1
        return [(self._id(n), data) for n, data in enumerate(self._events, first) if n > place]

    def end(self) -> None:
        """Nothing more will come; what there is can be replayed for as long as it is kept."""
        self.holder = None
        if not self._events:
            self._replay.forget(self)

    def forget(self) -> None:
        """Nothing more will come, and there is nothing to come back for."""
        self.holder = None
        self._replay.forget(self)

    def drop_oldest(self) -> int:
        """Make room; returns how much."""
        size = len(self._events.popleft())
        if not self._events and self.holder is None and self.number:
            self._replay.forget(self)
        return size

    def _id(self, place: int) -> bytes:
        return b"%b-%d-%d" % (self._name, self.number, place)


class Replay:
    """The streams of one session.

    Args:
        session: The session's id; event ids of another session are none here.
        budget: Shared with the stores of other sessions.

    Attributes:
        standing: The stream of messages that belong to no request; it is always known.
    """

    def __init__(self, session: str, budget: Budget) -> None:
        self._budget: Final = budget
        # A digest: the session's id is a secret, event ids end up in logs.
        self._name: Final = blake2s(session.encode(), digest_size=6).hexdigest().encode("ascii")
        self._next = 1
        self._bytes = 0
        # Whose each kept event is, in the order in which they came.
        self._order: Final[deque[Trail]] = deque()
        self.standing: Final = Trail(self, self._name, 0)
        self._trails: Final[dict[int, Trail]] = {0: self.standing}

    def __len__(self) -> int:
        return len(self._order)

    def begin(self, holder: object) -> Trail:
        """A new stream, which ``holder`` writes to until it ends."""
        trail = self._trails[self._next] = Trail(self, self._name, self._next)
        trail.holder = holder
        self._next += 1
        return trail

    def find(self, id_: bytes) -> tuple[Trail, list[tuple[bytes, bytes]]] | None:
        """The stream of an event, and id and data of what came after it.

        Returns:
            None for what is no id, an event that never was, one of another session, and one of a stream that is
            over and no longer kept: they read the same.
        """
        found = _EVENT_ID.fullmatch(id_)
        if found is None or found[1] != self._name:
            return None
        trail = self._trails.get(int(found[2]))
        past = None if trail is None else trail.after(int(found[3]))
        return None if trail is None or past is None else (trail, past)

    def added(self, trail: Trail, size: int) -> None:
        """An event of ``trail`` is kept from now on; others may have to go."""
        self._order.append(trail)
        self._bytes += size
        budget = self._budget
        budget.used += size
        while len(self._order) > 1 and (
            len(self._order) > EVENTS or self._bytes > KEPT_BYTES or budget.used > budget.limit
        ):
            dropped = self._order.popleft().drop_oldest()
            self._bytes -= dropped
            budget.used -= dropped

    def close(self) -> None:
        """The session is over: give back what it has kept."""
        self._budget.used -= self._bytes
        self._bytes = 0

    def forget(self, trail: Trail) -> None:
        """``trail`` can no longer be found. What it holds makes room in its turn."""
        self._trails.pop(trail.number, None)
