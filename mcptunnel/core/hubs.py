"""The sessions that we keep with legacy servers for clients that have none with them: found by whom they serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from mcptunnel.core.eras import Eras
from mcptunnel.core.errors import RpcError
from mcptunnel.core.hub import Hub, hello
from mcptunnel.core.jsonrpc import encode, loads
from mcptunnel.core.mcp import LATEST_LEGACY
from mcptunnel.core.principal import Principal
from mcptunnel.core.wire import Upstream

__all__ = ["HUBS", "Hubs", "capabilities_of"]

# Of all servers together; one that nobody uses now makes room.
HUBS: Final = 1000
_sorted: Final = msgspec.json.Encoder(order="sorted").encode


@lru_cache(256)
def capabilities_of(raw: bytes) -> tuple[str, Any]:
    """The capabilities of a client, in one spelling whatever the client's, and decoded.

    Raises:
        ValueError: They cannot be read.
    """
    value = loads(raw)
    return _sorted(value).decode(), value if isinstance(value, dict) else {}


class Hubs:
    """Every hub.

    Args:
        upstreams: The servers by name.
        eras: Told of servers that do not speak the legacy era after all.
        clock: Seconds.
        identity: Who we say that we are.
        idle: Seconds after which a hub that nobody uses is closed.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        eras: Eras,
        clock: Callable[[], float],
        identity: dict[str, str],
        idle: float,
    ) -> None:
        self._upstreams: Final = upstreams
        self._eras: Final = eras
        self._clock: Final = clock
        self._identity: Final = encode(identity)
        self._idle: Final = idle
        self._open: Final[dict[tuple[str, str, str], Hub]] = {}

    def find(self, server: str, capabilities: bytes, principal: Principal) -> Hub:
        """The hub for clients of ``principal`` with ``capabilities``, opened when there is none.

        With ``sharing: shared`` one serves all principals.

        Args:
            server: The server's name.
            capabilities: A raw object.
            principal: On whose behalf.

        Raises:
            RpcError: There are too many, and each is in use.
        """
        spelled, _ = capabilities_of(capabilities)
        shared = self._upstreams[server].rules.sharing == "shared"
        key = server, "" if shared else principal.name, spelled
        hub = self._open.get(key)
        if hub is None or hub.link.closed:
            self._make_room()
            greeting = hello(LATEST_LEGACY, spelled.encode(), self._identity)
            hub = Hub.open(self._upstreams[server], greeting, principal, self._clock)
            if not hub.link.closed:
                self._open[key] = hub
        return hub

    def _make_room(self) -> None:
        if len(self._open) < HUBS:
            return
        idle = [(hub.used, key) for key, hub in self._open.items() if not hub.busy]
        if not idle:
            raise RpcError(-32000, f"too many sessions with servers ({HUBS})", reason="too_many_hubs", status=503)
        self._open.pop(min(idle)[1]).close()

    def sweep(self) -> None:
        """Close what nobody uses, forget what is lost. Called about once a second."""
        now = self._clock()
        for key, hub in list(self._open.items()):
            if hub.link.closed:
                del self._open[key]
                if hub.link.turned_away:
                    self._eras.doubt(key[0], "modern")
            elif not hub.busy and now - hub.used > self._idle:
                del self._open[key]
                hub.close()

    def __iter__(self) -> Iterator[Hub]:
        return iter(list(self._open.values()))

    def close(self) -> None:
        """Close every hub."""
        for hub in self._open.values():
            hub.close()
        self._open.clear()
