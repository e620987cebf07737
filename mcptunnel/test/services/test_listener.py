"""Tests for mcptunnel.services.listener."""

from __future__ import annotations

import errno
import os
from typing import Any

from attrs import define, field
from twisted.application.service import IService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcptunnel.core.errors import ListenError
from mcptunnel.services.listener import Listener


@implementer(IListeningPort)
@define(eq=False)
class FakePort:
    """Listens on nothing, until told to stop."""

    stopping: list[Deferred[None]] = field(factory=list)

    def startListening(self) -> None:
        """Not used."""

    def stopListening(self) -> Deferred[None]:
        self.stopping.append(Deferred())
        return self.stopping[-1]

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 4321)


@implementer(IStreamServerEndpoint)
@define(eq=False)
class FakeEndpoint:
    """Gives what it was made with."""

    result: Any
    asked: int = 0

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        self.asked += 1
        return fail(self.result) if isinstance(self.result, Exception) else succeed(self.result)


class ListenerTests(SynchronousTestCase):
    """One endpoint as a service."""

    def listener(self, result: Any, drain: Any = None) -> Listener:
        self.endpoint = FakeEndpoint(result)
        return Listener(
            endpoint=self.endpoint, factory=Factory.forProtocol(Protocol), host="127.0.0.1", port=0, drain=drain
        )

    def test_it_listens_before_privileges_are_dropped_and_only_once(self) -> None:
        """twistd calls both; tests and reloads may call the second alone."""
        listener = self.listener(FakePort())
        self.assertTrue(verifyObject(IService, listener))
        self.assertIsNone(listener.address)
        listener.privilegedStartService()
        self.assertEqual(self.endpoint.asked, 1)
        listener.startService()
        self.assertEqual((self.endpoint.asked, listener.running), (1, True))
        self.assertEqual(listener.address, IPv4Address("TCP", "127.0.0.1", 4321))
        other = self.listener(FakePort())
        other.startService()
        self.assertEqual(self.endpoint.asked, 1)

    def test_why_it_cannot_listen_is_raised_at_once(self) -> None:
        """The daemon must not run without its listener, and the address is named."""
        busy = CannotListenError("127.0.0.1", 3000, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        listener = self.listener(busy)
        error = self.assertRaises(ListenError, listener.privilegedStartService)
        self.assertIn("cannot listen on 127.0.0.1:0: another process listens there", str(error))
        self.assertIsNone(listener.address)

    def test_it_stops_listening_and_then_drains(self) -> None:
        """In this order, and both are waited for."""
        drained: list[Deferred[None]] = []

        def drain() -> Deferred[None]:
            drained.append(Deferred())
            return drained[-1]

        port = FakePort()
        listener = self.listener(port, drain)
        listener.startService()
        stopped = listener.stopService()
        self.assertEqual(len(drained), 0)
        port.stopping[0].callback(None)
        self.assertNoResult(stopped)
        drained[0].callback(None)
        self.successResultOf(stopped)
        self.assertFalse(listener.running)

    def test_it_can_stop_without_having_started_and_start_again(self) -> None:
        """As when another service of the tree fails to start."""
        listener = self.listener(FakePort())
        self.successResultOf(listener.stopService())
        listener.startService()
        self.assertEqual(self.endpoint.asked, 1)
