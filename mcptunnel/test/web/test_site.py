"""The site: connections counted, watched, drained."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.static import Data
from zope.interface.verify import verifyObject

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import RequestError
from mcptunnel.test.web.sites import Calling, Echo, Later, serve, statuses

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class SiteTests(SynchronousTestCase):
    """What the site does for all of its connections."""

    def test_it_is_a_protocol_factory_in_both_forms(self) -> None:
        """Ports and TLS wrappers ask for no more; starting one starts nothing by itself."""
        served = serve()
        verifyObject(IProtocolFactory, served.site)
        refusing = served.site.refusing(lambda _: None)
        verifyObject(IProtocolFactory, refusing)
        refusing.doStart()
        refusing.doStop()
        self.assertEqual(served.clock.getDelayedCalls(), [])

    def test_connections_are_counted(self) -> None:
        """Those of a refusing factory too."""
        served = serve()
        connections = [served.connect(), served.connect(refuse=lambda _: None)]
        self.assertEqual(served.site.connections, 2)
        for connection in connections:
            connection.lose()
            connection.lose()
        self.assertEqual(served.site.connections, 0)

    def test_the_clock_is_left_alone_without_connections(self) -> None:
        """One timer for all of them, none for none."""
        served = serve()
        first, second = served.connect(), served.connect()
        self.assertEqual(len(served.clock.getDelayedCalls()), 1)
        first.lose()
        second.lose()
        self.assertEqual(served.clock.getDelayedCalls(), [])
        third = served.connect()
        third.wait(76)
        self.assertTrue(third.closing)

    def test_one_broken_connection_does_not_stop_the_watch(self) -> None:
        """A LoopingCall that raises would never run again."""
        served = serve(limits=LimitsConfig(idle_timeout=5))
        broken, sound = served.connect(), served.connect()
        broken.channel.look = lambda _: 1 / 0  # type: ignore[assignment, method-assign]
        sound.wait(7)
        self.assertTrue(sound.closing)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 7)

    def test_exact_routes_come_before_the_tree(self) -> None:
        """They see the whole path as walked."""
        seen: list[Any] = []

        def render(request: Any) -> bytes:
            seen.append((request.prepath, request.postpath))
            return b"route"

        root = Resource()
        root.putChild(b"a", Data(b"tree", "text/plain"))
        connection = serve(root, routes={b"/a/b": Calling(render)}).connect()
        self.assertTrue(connection.send(GET.replace(b"/ ", b"/a/b?c ", 1)).endswith(b"route"))
        self.assertTrue(connection.send(GET.replace(b"/ ", b"/a ", 1)).endswith(b"tree"))
        self.assertEqual(seen, [([b"a", b"b"], [])])

    def test_sessions_are_bounded(self) -> None:
        """Anybody may ask for one."""
        site = serve(limits=LimitsConfig(sessions=2)).site
        first = site.makeSession()
        self.assertIs(site.getSession(first.uid), first)
        site.makeSession()
        self.assertRaises(RequestError, site.makeSession)
        first.expire()
        site.makeSession()
        self.assertRaises(KeyError, site.getSession, first.uid)

    def test_it_runs_on_a_reactor(self) -> None:
        """The clock is whatever tells the time and keeps appointments."""
        reactor = MemoryReactorClock()
        self.assertIsInstance(reactor, Clock)
        reactor.listenTCP(80, serve().site)
        (_, factory, *_) = reactor.tcpServers[0]
        self.assertTrue(IProtocolFactory.providedBy(factory))


class DrainTests(SynchronousTestCase):
    """The end, without losing a call."""

    def test_idle_connections_close_and_busy_ones_finish(self) -> None:
        """The reply says that it is the last one; then the Deferred fires."""
        later = Later()
        served = serve(later)
        idle, busy = served.connect(), served.connect()
        busy.send(GET + GET)
        drained = served.site.drain()
        self.assertTrue(idle.closing)
        self.assertFalse(busy.closing)
        self.assertNoResult(drained)
        later.seen[0].respond(200, b"text/plain", b"x")
        self.successResultOf(drained)
        reply = busy.received()
        self.assertEqual(statuses(reply), [200])
        self.assertIn(b"\r\nConnection: close\r\n", reply)
        self.assertTrue(busy.closing)
        self.assertEqual(len(later.seen), 1)

    def test_nothing_in_flight_is_drained_at_once(self) -> None:
        """Nobody is waited for."""
        served = serve()
        served.connect()
        self.successResultOf(served.site.drain())

    def test_a_stream_that_began_before_ends_its_connection(self) -> None:
        """Its head had promised otherwise; it closes all the same."""
        later = Later()
        served = serve(later)
        connection = served.connect()
        connection.send(GET)
        later.seen[0].start_stream(200, b"a/b")
        drained = served.site.drain()
        later.seen[0].finish()
        self.successResultOf(drained)
        self.assertTrue(connection.closing)

    def test_a_body_on_its_way_is_still_served(self) -> None:
        """The request had been admitted."""
        served = serve(Echo())
        connection = served.connect()
        connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        drained = served.site.drain()
        self.assertNoResult(drained)
        self.assertEqual(statuses(connection.send(b"cd")), [200])
        self.successResultOf(drained)

    def test_a_lost_client_is_not_waited_for(self) -> None:
        """Its request is over."""
        later = Later()
        served = serve(later)
        connection = served.connect()
        connection.send(GET)
        drained = served.site.drain()
        connection.lose()
        self.successResultOf(drained)

    def test_the_waiting_may_be_given_up(self) -> None:
        """After the drain timeout everything is cut off."""
        later = Later()
        served = serve(later)
        connection = served.connect()
        connection.send(GET)
        drained = served.site.drain()
        drained.cancel()
        self.failureResultOf(drained)
        served.site.abort()
        self.assertTrue(connection.aborted)
