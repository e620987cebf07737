"""Writes that reach the socket at once, for plain TCP and UNIX sockets of the server side.

Twisted's transports put every write into a buffer, ask the reactor for a turn and send then. A reply nearly always fits
the kernel's buffer, so one ``send`` now saves that turn: a fifth of what a short request costs. What the kernel does
not take goes Twisted's way, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort

__all__ = ["write_eagerly"]


class _EagerWrites:
    """Mixin for :class:`twisted.internet.tcp.Connection`."""

    # Of the connection this is mixed into.
    socket: Any
    producer: Any
    streamingProducer: bool
    connected: int
    dataBuffer: bytes
    TLS: bool
    _tempDataBuffer: list[bytes]
    _writeDisconnecting: bool

    def write(self, data: bytes) -> None:
        # Bytes that wait go first. A pull producer is asked for more when the buffer runs empty, so it must be filled.
        if (
            self._tempDataBuffer
            or self.dataBuffer
            or not self.connected
            or self._writeDisconnecting
            or self.TLS
            or (self.producer is not None and not self.streamingProducer)
            or type(data) is not bytes
        ):
            super().write(data)  # type: ignore[misc]
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            # Full, or broken: the reactor's next turn finds out which and ends the connection in its own way.
            sent = 0
        if sent < len(data):
            super().write(data[sent:] if sent else data)  # type: ignore[misc]

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))


class _EagerServer(_EagerWrites, tcp.Server):
    pass


class _EagerUNIXServer(_EagerWrites, unix.Server):
    pass


def write_eagerly(port: IListeningPort) -> None:
    """Let every connection that ``port`` accepts from now on write so. Other kinds of ports stay as they are.

    A port makes its connections of the class in its attribute ``transport``, so this works for ports of endpoints and
    for sockets that were passed to us alike.
    """
    if isinstance(port, unix.Port):
        port.transport = _EagerUNIXServer
    elif isinstance(port, tcp.Port):
        port.transport = _EagerServer
