"""What makes the kernel notice that the other end of a connection is gone without a word.

A peer that has lost power or its network sends nothing, and a stream on which we only listen would wait for ever.
Probes find it within about a minute where the system lets us say how often (Linux); elsewhere within its own time.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, Final, TypeGuard

from twisted.internet.interfaces import ITCPTransport

__all__ = ["hand_on", "keep_alive"]

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
    # Twisted's UNIX sockets say that they are TCP, too.
    if _is_inet(handle):
        _set_pace(handle, patience)


def hand_on(port: Any, patience: float = _UNSENT) -> bool:
    """Let every connection that ``port`` accepts from now on be as :func:`keep_alive` would make it.

    On Linux an accepted socket has the options of the listening one: six calls of the kernel less for each connection.

    Args:
        port: Listens, with its ``socket``.
        patience: As there.

    Returns:
        False where connections inherit nothing, so that each has to be looked after.
    """
    handle = getattr(port, "socket", None)
    if sys.platform != "linux" or not _is_inet(handle):
        return False
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_pace(handle, patience)
    return True


def _is_inet(handle: Any) -> TypeGuard[socket.socket]:
    return isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6)


def _set_pace(handle: socket.socket, patience: float) -> None:
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
