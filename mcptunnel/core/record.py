"""What is remembered of one exchange: the single source of the access log, and later of audit and metrics."""

from __future__ import annotations

from attrs import define

__all__ = ["Record"]


@define(eq=False, kw_only=True)
class Record:
    """One client request and all that answered it, as seen by whoever must account for it.

    It is filled in on the way: the edge writes who and how, the relay writes what and where, the edge closes it.
    Nothing in it is a secret: no header value, argument or credential ever enters.

    Attributes:
        protocol: ``http``, ``ws``, or ``sse`` for HTTP+SSE: its stream, each message posted to it, and each request
            in them; only the last has a ``method``.
        started: Seconds on the daemon's clock when the request head was complete.
        peer: The socket's other end.
        client: Client address after the forwarded headers, or None when nobody vouches for one.
        scheme: ``http`` or ``https`` as the client used it.
        host: Host as the client named it.
        verdict: How the identity was decided, see :class:`mcptunnel.core.forwarded.Identity`.
        principal: Name of the credential's owner; ``anonymous`` without one; None before the gate.
        credential: Something came along that only the principal may have; known where it matters, in plaintext.
        verb: HTTP method.
        path: Path without the query string, which may hold what should not be logged.
        era: ``legacy`` or ``modern``, None outside MCP.
        method: JSON-RPC method, None outside MCP.
        target: Tool or prompt name or resource URI as the client named it.
        upstream: Name of the server that answered.
        status: HTTP status, 101 for an upgrade, 0 when nothing was sent.
        error: Reason label of the refusal or failure; None when all went well.
        code: JSON-RPC error code of the reply; None when it was a result.
        received: Body bytes from the client.
        sent: Body bytes to the client.
        duration: Seconds from ``started`` until the last byte was handed to the socket.
    """

    protocol: str = "http"
    started: float = 0.0
    peer: str = ""
    client: str | None = None
    scheme: str = "http"
    host: str = ""
    verdict: str = "direct"
    principal: str | None = None
    credential: bool = False
    verb: str = ""
    path: str = ""
    era: str | None = None
    method: str | None = None
    target: str | None = None
    upstream: str | None = None
    status: int = 0
    error: str | None = None
    code: int | None = None
    received: int = 0
    sent: int = 0
    duration: float = 0.0
