"""Tests for mcptunnel.liveness, on a real socket that is connected to nobody."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from mcptunnel.liveness import hand_on, keep_alive


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


class Port:
    """A port over a socket of ours."""

    def __init__(self, handle: Any) -> None:
        self.socket = handle


class HandOnTests(SynchronousTestCase):
    """What a connection has from the port that accepted it."""

    def test_an_accepted_connection_is_as_if_each_had_been_looked_after(self) -> None:
        """Option by option, on IPv4 and IPv6."""
        pace = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        for family, here in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as listening, socket.socket(family) as client:
                self.assertTrue(hand_on(Port(listening), 300.0))
                listening.bind((here, 0))
                listening.listen()
                client.connect(listening.getsockname())
                accepted, _ = listening.accept()
                with accepted, socket.socket(family) as other:
                    keep_alive(Wire(other), 300.0)
                    for option in pace:
                        values = [one.getsockopt(socket.IPPROTO_TCP, option) for one in (accepted, other)]
                        self.assertEqual(values[0], values[1], option)
                    self.assertTrue(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                    self.assertTrue(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_elsewhere_nothing_is_handed_on(self) -> None:
        """Another system, a UNIX socket, a port in memory."""
        with socket.socket() as inet, socket.socket(socket.AF_UNIX) as local:
            self.assertFalse(hand_on(Port(local)))
            self.assertFalse(hand_on(object()))
            self.patch(sys, "platform", "darwin")
            self.assertFalse(hand_on(Port(inet)))
