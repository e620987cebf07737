"""Which arguments of which tools a header must repeat, as far as the servers have told.

Asked for only where it matters: a request without headers is to go on over HTTP, or one with headers is to go on
without. Kept for a while, and asked again when a server complains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcptunnel.core.dispatch import Links
from mcptunnel.core.eras import DISCOVER
from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hub import Errand
from mcptunnel.core.jsonrpc import Message, decode, loads
from mcptunnel.core.lists import Part, listing, whole
from mcptunnel.core.mirrors import Mirror, mirrors
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record

__all__ = ["KEPT_SECONDS", "Catalogue"]

KEPT_SECONDS: Final = 300.0
# A list that is asked for on the way of a call must not hold that up for ever.
_PATIENCE: Final = 10.0
_OURSELVES: Final = Principal(name="mcptunnel")
Then = Callable[[tuple[Mirror, ...]], None]


class Catalogue:
    """The tools of every server that are known to repeat arguments in headers.

    Args:
        links: The stateless links.
        clock: Seconds.
    """

    def __init__(self, links: Links, clock: Callable[[], float]) -> None:
        self._links: Final = links
        self._clock: Final = clock
        self._known: Final[dict[str, tuple[float, dict[str, tuple[Mirror, ...]]]]] = {}
        self._waiting: Final[dict[str, list[tuple[str, Then]]]] = {}

    def mirrors(self, server: str, tool: str, then: Then) -> None:
        """Call ``then`` with what the headers of a call of ``tool`` repeat; nothing when that cannot be learned."""
        until, tools = self._known.get(server, (0.0, {}))
        if self._clock() < until:
            then(tools.get(tool, ()))
            return
        waiting = self._waiting.get(server)
        if waiting is not None:
            waiting.append((tool, then))
            return
        self._waiting[server] = [(tool, then)]
        exchange = Exchange(
            message=decode(DISCOVER),
            principal=_OURSELVES,
            era="modern",
            sink=Errand(lambda _reply, _error: None),
            record=Record(),
            patience=_PATIENCE,
        )
        question = listing(exchange, "tools/list")
        whole(self._links, exchange, server, question, _PATIENCE, lambda answer: self._learned(server, answer))

    def forget(self, server: str) -> None:
        """Its tools have changed."""
        self._known.pop(server, None)

    def _learned(self, server: str, answer: Part | Message | RpcError) -> None:
        tools: dict[str, tuple[Mirror, ...]] = {}
        for item in answer.items if isinstance(answer, Part) else ():
            if b"x-mcp-header" in item.raw and (found := mirrors(loads(item.raw).get("inputSchema"))):
                tools[item.name] = found
        if isinstance(answer, Part):
            self._known[server] = self._clock() + KEPT_SECONDS, tools
        for tool, then in self._waiting.pop(server, []):
            then(tools.get(tool, ()))
