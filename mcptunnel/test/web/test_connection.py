"""The transport's side: reading and writing at the client's pace, and how connections end."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.addresses import peer_text
from mcptunnel.test.web.sites import Connection, Later, get, serve, statuses


class PaceTests(SynchronousTestCase):
    """A client that does not read is not written for, and after a while cut off."""

    limits = LimitsConfig(write_timeout=30)

    def test_a_client_that_does_not_read_is_cut_off(self) -> None:
        """Thirty seconds with a full transport."""
        later = Later()
        served = serve(later, limits=self.limits)
        connection = served.connect()
        connection.send(get())
        connection.transport.producer.pauseProducing()
        connection.wait(29)
        self.assertFalse(connection.aborted)
        connection.wait(2)
        self.assertTrue(connection.aborted)

    def test_a_client_that_reads_slowly_but_surely_is_not(self) -> None:
        """What counts is what the transport gets rid of; then it stalls, and is cut off."""
        later = Later()
        connection = serve(later, limits=self.limits).connect()
        connection.send(get())
        transport = connection.transport
        transport.offset, transport._tempDataLen, transport.dataBuffer = 0, 0, bytes(100_000)
        transport.producer.pauseProducing()
        for _ in range(90):
            transport.offset += 1_000
            connection.wait(1)
        self.assertFalse(connection.aborted)
        connection.wait(62)
        self.assertTrue(connection.aborted)

    def test_a_closing_connection_that_is_never_read_is_cut_off(self) -> None:
        """Closing waits for the last bytes; not for ever."""
        connection = serve(limits=self.limits).connect()
        connection.send(get(b"Connection: close\r\n"))
        self.assertTrue(connection.transport.disconnecting)
        connection.wait(29)
        self.assertFalse(connection.aborted)
        connection.wait(2)
        self.assertTrue(connection.aborted)


class EndTests(SynchronousTestCase):
    """The last answer arrives."""

    bad = b"GET  / HTTP/1.1\r\n\r\n"

    def half_closing(self, *, tls: bool) -> tuple[Connection, list[int]]:
        connection = serve().connect(tls=tls)
        calls: list[int] = []
        connection.transport.loseWriteConnection = lambda: calls.append(1)
        return connection, calls

    def test_after_a_refusal_the_client_is_told_the_end_and_heard_out(self) -> None:
        """Half of the connection closes at once, all of it after two seconds: no reset takes the answer away."""
        connection, calls = self.half_closing(tls=False)
        self.assertEqual(statuses(connection.send(self.bad)), [400])
        self.assertEqual((calls, connection.closing), ([1], False))
        self.assertEqual(connection.send(b"x" * 100_000), b"")
        connection.wait(3)
        self.assertTrue(connection.transport.disconnecting)

    def test_tls_is_never_half_closed(self) -> None:
        """Its end has to be said inside of it."""
        connection, calls = self.half_closing(tls=True)
        self.assertEqual(statuses(connection.send(self.bad)), [400])
        connection.wait(3)
        self.assertEqual((calls, connection.transport.disconnecting), ([], True))

    def test_a_connection_at_its_end_is_left_alone_when_the_client_leaves_first(self) -> None:
        """Nothing is closed twice."""
        connection, _ = self.half_closing(tls=False)
        connection.send(self.bad)
        connection.lose()
        connection.wait(5)
        self.assertFalse(connection.closing)
        self.assertEqual(connection.site.connections, 0)

    def test_a_transport_without_tcp_options_will_do(self) -> None:
        """TLS over a UNIX socket claims to be TCP and is not."""

        class Transport(StringTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                raise OSError(95, "Operation not supported")

        connection = serve().connect(tls=True, transport=Transport())
        self.assertEqual(statuses(connection.send(get())), [200])


class PeerTests(SynchronousTestCase):
    """The other end of the socket as text."""

    def test_each_kind_of_address(self) -> None:
        """As the resolver wants it."""
        self.assertEqual(peer_text(IPv4Address("TCP", "192.0.2.1", 5)), "192.0.2.1")
        self.assertEqual(peer_text(IPv6Address("TCP", "2001:db8::1", 5)), "2001:db8::1")
        self.assertEqual(peer_text(UNIXAddress("/run/x")), "unix:")
        self.assertEqual(peer_text(UNIXAddress(None)), "unix:")
