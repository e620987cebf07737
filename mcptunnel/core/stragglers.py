"""Who still comes in plaintext: a bounded table of clients, and when each of them is worth a word in the log.

Not here: who counts as one client, and which requests count. Invariant: whatever comes, there are no more entries than
the bound, and no more words a day.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final

from attrs import define

from mcptunnel.core.record import Record

__all__ = ["Straggler", "Stragglers"]

_DAY: Final = 86_400.0
# A client chooses what stands there; a thousand of them may.
_LONGEST: Final = 200


@define(eq=False, kw_only=True)
class Straggler:
    """One client, or one network of clients, and its latest request.

    Attributes:
        client: What it is counted under.
        first: When it first came, seconds since the epoch.
        last: When it came last.
        count: How often it came.
        principal: Name of a credential's owner, the latest that is known; None before that.
        credential: A credential has come along at least once.
        host: What it called us.
        verb: HTTP method.
        path: Without the query.
        verdict: How we know who it is, see :class:`mcptunnel.core.forwarded.Identity`.
        peer: The socket's other end.
        said: When it was last worth a word; None for never.
    """

    client: str
    first: float
    last: float = 0.0
    count: int = 0
    principal: str | None = None
    credential: bool = False
    host: str = ""
    verb: str = ""
    path: str = ""
    verdict: str = ""
    peer: str = ""
    said: float | None = None


class Stragglers:
    """The table.

    Args:
        most: Clients that are remembered, and words a day; who has not come for the longest time is forgotten first.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most: Final = most
        self._known: OrderedDict[str, Straggler] = OrderedDict()
        self._day = 0.0
        self._words = 0

    def __len__(self) -> int:
        return len(self._known)

    def note(self, client: str, record: Record, now: float) -> Straggler | None:
        """Remember a plaintext request of ``client``.

        Returns:
            The client's entry, when it is to be said that it came: once a day.
        """
        known = self._known.get(client)
        if known is None:
            known = self._known[client] = Straggler(client=client, first=now)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(client)
        known.count += 1
        known.last = now
        known.principal = record.principal or known.principal
        known.credential = known.credential or record.credential
        known.verb, known.host, known.path = (text[:_LONGEST] for text in (record.verb, record.host, record.path))
        known.verdict, known.peer = record.verdict, record.peer
        return known if self._worth_a_word(known, now) else None

    def newest(self, most: int) -> list[Straggler]:
        """The latest ``most`` clients, the last one first."""
        return list(islice(reversed(self._known.values()), most))

    def _worth_a_word(self, known: Straggler, now: float) -> bool:
        if known.said is not None and now - known.said < _DAY:
            return False
        # Clients that are forgotten and come again would be new each time.
        if now - self._day >= _DAY:
            self._day, self._words = now, 0
        if self._words >= self._most:
            return False
        self._words += 1
        known.said = now
        return True
