"""What lies at which address."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.resource import IResource, Resource

from mcptunnel.core.errors import RequestError
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.web.health import Health
from mcptunnel.web.mcp import McpResource
from mcptunnel.web.replies import Streams
from mcptunnel.web.request import Request
from mcptunnel.web.sse import MessagesResource, SseResource

__all__ = ["Nothing", "routes"]


class Nothing(Resource):
    """The root of the tree: everything that has an address is in the routes, so here is nothing."""

    isLeaf = True

    def render(self, request: Request) -> int:
        """Say so.

        Raises:
            RequestError: Always, 404.
        """
        raise RequestError(404, "not_found", "There is nothing at this address; MCP is at /mcp and /servers/NAME/mcp.")


def routes(
    relay: Relay,
    targets: Mapping[str, Target],
    streams: Streams,
    socket: Callable[[Target], IResource],
    alive: Callable[[], list[str]],
    details: Callable[[], Mapping[str, Any]],
) -> dict[bytes, IResource]:
    """Every address and what serves it. A slash at the end makes no difference: nothing here redirects.

    Args:
        relay: Where MCP requests go.
        targets: Base path to what it shows, see :func:`mcptunnel.core.routing.targets`.
        streams: Keeps MCP replies alive.
        socket: Makes the WebSocket resource of a target.
        alive: Reasons why the daemon is not ready.
        details: What ``/health`` tells those who may know.
    """
    found: dict[bytes, IResource] = {
        b"/health/live": Health(list),
        b"/health/ready": Health(alive),
        b"/health": Health(alive, details),
    }
    for base, target in targets.items():
        http = McpResource(relay, target, streams)
        # `/mcp` is its own base; a server's address is `/servers/NAME/mcp`.
        address = base if base == "/mcp" else f"{base}/mcp"
        found[address.encode()] = http
        found[f"{base}/ws".encode()] = socket(target)
        # 2024-11-05. Nobody but the stream's own client learns where its messages go.
        sse = SseResource(relay, target, streams, lambda: secrets.token_urlsafe(32))
        found[f"{base}/sse".encode()] = sse
        found[f"{base}/messages".encode()] = MessagesResource(target, sse)
    return found | {path + b"/": resource for path, resource in found.items()}
