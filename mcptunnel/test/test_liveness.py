"""Tests for mcptunnel.liveness, on a real socket that is connected to nobody."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from mcptunnel.liveness import keep_alive


class Wire:
    """A transport over a socket of ours."""

    def __init__(self, handle: Any) -> None:
        directlyProvides(self, ITCPTransport)
        self.handle = handle
        self.said: list[tuple[str, bool]] = []

    def getHandle(self) -> Any:
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.said.append(("nodelay", enabled))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.said.append(("keepalive", enabled))


class KeepAliveTests(SynchronousTestCase):
    """What is set where."""

    def test_a_peer_that_is_gone_is_found_within_a_minute(self) -> None:
        """Probed when nothing is under way, and given up when nothing is acknowledged."""
        with socket.socket() as handle:
            wire = Wire(handle)
            keep_alive(wire)
            self.assertEqual(wire.said, [("nodelay", True), ("keepalive", True)])
            idle, interval, count = (
                handle.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            self.assertEqual(idle + interval * count, 60)
            self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 60_000)

    def test_a_peer_that_may_take_its_time_is_given_it(self) -> None:
        """The kernel must not be stricter than the configuration."""
        with socket.socket() as handle:
            keep_alive(Wire(handle), 300.0)
            self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 300_000)

    def test_what_is_no_socket_is_left_alone(self) -> None:
        """Transports in memory, UNIX sockets."""
        wire = Wire(None)
        keep_alive(wire)
        self.assertEqual(wire.said, [("nodelay", True), ("keepalive", True)])
        keep_alive(object())
        with socket.socket(socket.AF_UNIX) as handle:
            keep_alive(Wire(handle))
