"""Writes that do not wait for the reactor."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet import tcp, unix
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.tls.eager import write_eagerly


@define(eq=False)
class Socket:
    """A socket that takes ``room`` bytes, or raises."""

    room: int = 1_000_000
    sent: bytes = b""
    error: OSError | None = None
    calls: list[int] = field(factory=list)

    def setblocking(self, flag: bool) -> None:
        """Nothing blocks here."""

    def fileno(self) -> int:
        return -1

    def send(self, data: Any) -> int:
        self.calls.append(len(data))
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError(11, "full")
        taken = bytes(data[: self.room])
        self.sent += taken
        self.room -= len(taken)
        return len(taken)


class EagerTests(SynchronousTestCase):
    """In order, complete, and never twice."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.socket = Socket()
        port = tcp.Port(0, Factory(), reactor=self.reactor)
        write_eagerly(port)
        make: Any = port.transport
        self.wire: Any = make(self.socket, Protocol(), ("127.0.0.1", 1), None, 1, self.reactor)
        self.wire.connected = 1

    def test_ports_make_such_connections(self) -> None:
        """TCP and UNIX alike, whoever made the port; one port is changed, not all."""
        for port in (tcp.Port(0, Factory()), unix.Port(b"/nowhere", Factory())):
            before = port.transport
            write_eagerly(port)
            self.assertEqual(port.transport.write.__qualname__, "_EagerWrites.write")
            self.assertTrue(issubclass(port.transport, before))
            self.assertIs(type(port).transport, before)

    def test_other_ports_are_left_alone(self) -> None:
        """What a test's reactor returns, for one."""
        write_eagerly(MemoryReactorClock().listenTCP(0, Factory()))

    def test_a_write_is_sent_at_once(self) -> None:
        """The reactor hears nothing of it."""
        self.wire.write(b"abc")
        self.wire.writeSequence([b"d", b"e"])
        self.assertEqual((self.socket.sent, self.reactor.getWriters()), (b"abcde", []))

    def test_what_the_kernel_does_not_take_follows_in_order(self) -> None:
        """And later writes wait behind it, though there is room again."""
        self.socket.room = 2
        self.wire.write(b"abcd")
        self.assertEqual(self.reactor.getWriters(), [self.wire])
        self.socket.room = 100
        self.wire.write(b"ef")
        self.assertEqual(self.socket.sent, b"ab")
        self.wire.doWrite()
        self.assertEqual((self.socket.sent, self.reactor.getWriters()), (b"abcdef", []))
        self.wire.write(b"g")
        self.assertEqual(self.socket.sent, b"abcdefg")

    def test_a_full_kernel_is_no_error(self) -> None:
        """Everything is kept."""
        self.socket.room = 0
        self.wire.write(b"abc")
        self.socket.room = 100
        self.wire.doWrite()
        self.assertEqual(self.socket.sent, b"abc")

    def test_a_broken_socket_is_left_to_the_reactor(self) -> None:
        """Which ends the connection from its own turn, not from within write()."""
        self.socket.error = BrokenPipeError(32, "broken")
        self.wire.write(b"abc")
        self.assertEqual(self.reactor.getWriters(), [self.wire])
        self.assertIsNotNone(self.wire.doWrite())

    def test_a_push_producer_is_paused_when_the_rest_is_large(self) -> None:
        """Backpressure is Twisted's own."""
        paused: list[int] = []

        class Source:
            def pauseProducing(self) -> None:
                paused.append(1)

        self.wire.registerProducer(Source(), True)
        self.wire.write(b"x" * 100_000)
        self.assertEqual(paused, [])
        self.socket.room = 10
        self.wire.write(b"x" * 100_000)
        self.assertEqual(paused, [1])

    def test_a_pull_producer_is_asked_by_the_reactor(self) -> None:
        """Its bytes go through the buffer, whose running empty is the next question."""

        class Source:
            def resumeProducing(self) -> None:
                """The test writes."""

        self.wire.registerProducer(Source(), False)
        self.wire.write(b"abc")
        self.assertEqual((self.socket.sent, self.reactor.getWriters()), (b"", [self.wire]))

    def test_nothing_is_sent_before_or_after_the_connection(self) -> None:
        """As everywhere in Twisted."""
        self.wire.connected = 0
        self.wire.write(b"abc")
        self.assertEqual(self.socket.calls, [])

    def test_other_things_than_bytes_are_refused(self) -> None:
        """As everywhere in Twisted."""
        self.assertRaises(TypeError, self.wire.write, "text")
