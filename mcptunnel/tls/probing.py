"""Drives a :class:`~mcptunnel.tls.probe.Probe` over an endpoint of Twisted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mcptunnel.tls.probe import Presented, Probe, ProbeError

__all__ = ["look"]


def look(
    endpoint: IStreamClientEndpoint,
    probe: Probe,
    clock: IReactorTime,
    seconds: float,
    *,
    before: bytes = b"",
    connected: Callable[[IAddress], None] = lambda _: None,
) -> Deferred[Presented]:
    """Connect, shake hands, hang up.

    Args:
        endpoint: Leads to where TLS begins with the first byte.
        probe: A fresh one.
        clock: For the bound.
        seconds: For all of it.
        before: Sent first, such as a PROXY header.
        connected: Told our own address on the connection.

    Returns:
        What was presented. Fails with :class:`~mcptunnel.tls.probe.ProbeError` when nothing was, with what the endpoint
        fails with when there is no connection, and with :class:`~twisted.internet.defer.TimeoutError` after that time.
    """
    result: Deferred[Presented] = Deferred(lambda _: connecting.cancel())
    factory = Factory.forProtocol(lambda: _Looking(probe, result, before, connected))
    factory.noisy = False
    connecting = endpoint.connect(factory)
    connecting.addErrback(lambda failure: None if result.called else result.errback(failure))
    return result.addTimeout(seconds, clock)


class _Looking(Protocol):
    """One connection."""

    def __init__(
        self, probe: Probe, result: Deferred[Presented], before: bytes, connected: Callable[[IAddress], None]
    ) -> None:
        self._probe = probe
        self._before = before
        self._connected = connected
        self._result = result
        # The bound, and whoever else gives up, ends the connection as well.
        result.addBoth(self._close)

    def connectionMade(self) -> None:
        wire: Any = self.transport
        self._connected(wire.getHost())
        wire.write(self._before)
        self._send(b"")

    def dataReceived(self, data: bytes) -> None:
        self._send(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._settle(self._probe.lost)

    def _send(self, data: bytes) -> None:
        wire: Any = self.transport
        self._settle(lambda: wire.write(self._probe.receive(data)))

    def _settle(self, step: Any) -> None:
        if self._result.called:
            return
        try:
            step()
        except ProbeError as error:
            self._result.errback(error)
        else:
            if self._probe.result is not None:
                self._result.callback(self._probe.result)

    def _close(self, outcome: Any) -> Any:
        wire: Any = self.transport
        if self._probe.result is not None:
            # They are to be read, so the connection is not reset.
            wire.write(self._probe.leave())
            wire.loseConnection()
        elif wire is not None:
            wire.abortConnection()
        return outcome
