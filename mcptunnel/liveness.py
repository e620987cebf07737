"""What makes the kernel notice that the other end of a connection is gone without a word.

A peer that has lost power or its network sends nothing, and a stream on which we only listen would wait for ever.
Probes find it within about a minute where the system lets us say how often (Linux); elsewhere within its own time.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.interfaces import ITCPTransport

__all__ = ["keep_alive"]

# Seconds of silence before the first probe, between probes, and how many may be unanswered: 60 s in all.
_IDLE: Final = 30
_INTERVAL: Final = 10
_COUNT: Final = 3
# What has been sent may be unacknowledged, or for want of room not sent, for so long at least.
_UNSENT: Final = 60.0


def keep_alive(transport: Any, patience: float = _UNSENT) -> None:
    """Send what there is at once on ``transport``, and find out when its peer is gone. Nothing where it is not TCP.

    Args:
        transport: The connection.
        patience: Seconds for which the peer may refuse to read; what counts is this or a minute, whichever is longer.
    """
    if not ITCPTransport.providedBy(transport):
        return
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if not isinstance(handle, socket.socket) or handle.family not in (socket.AF_INET, socket.AF_INET6):
        # Twisted's UNIX sockets say that they are TCP, too.
        return
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE),
        ("TCP_KEEPINTVL", _INTERVAL),
        ("TCP_KEEPCNT", _COUNT),
        # Probes are not sent while there is unacknowledged data, such as the comments of a stream (RFC 5482).
        ("TCP_USER_TIMEOUT", int(1000 * max(patience, _UNSENT))),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
