"""Tests for mcptunnel.tls.layer: it does what Twisted's own layer does, in fewer steps."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from mcptunnel.test.tls.certs import mint
from mcptunnel.test.tls.handshakes import client, outgoing, shake, step
from mcptunnel.tls.context import build
from mcptunnel.tls.handshake import Creator
from mcptunnel.tls.layer import Layer
from mcptunnel.tls.policy import Policy

# More than a batch, and no multiple of a record.
LARGE = bytes(range(256)) * 1024 + b"end"


class Wire(StringTransport):
    """Counts writes."""

    writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)


class Inner(Protocol):
    """Says something at once, if it has something to say, and keeps what it hears."""

    def __init__(self, context: SSL.Context, greeting: bytes) -> None:
        self.context = context
        self.greeting = greeting
        self.received = b""
        self.lost: Any = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.greeting:
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason.value


class Connected:
    """A server's layer with a client in memory."""

    def __init__(self, layer: Any, directory: str, greeting: bytes = b"", groups: bytes | None = None) -> None:
        Path(directory).mkdir(parents=True)
        context = build(mint("a", names=["a"]).material(directory), Policy())
        factory = TLSMemoryBIOFactory(Creator(), False, Factory.forProtocol(Protocol), Clock())
        self.inner = Inner(context, greeting)
        self.wire = Wire()
        alsoProvides(self.wire, ITCPTransport)
        self.layer = layer(factory, self.inner)
        self.layer.makeConnection(self.wire)
        self.client = client(groups=groups)

    def answer(self, said: bytes) -> bytes:
        self.layer.dataReceived(said)
        answer: bytes = self.wire.value()
        self.wire.clear()
        return answer

    def shake(self) -> Connected:
        shake(self.client, self.answer)
        return self

    def heard(self) -> bytes:
        """What the client can read now."""
        heard = b""
        if self.wire.value():
            self.client.bio_write(self.wire.value())
            self.wire.clear()
        with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while piece := self.client.recv(1 << 20):
                heard += piece
        return heard


class TwistedsTests(SynchronousTestCase):
    """What holds for Twisted's layer, and so for ours below."""

    layer: Any = TLSMemoryBIOProtocol

    def connected(self, **others: Any) -> Connected:
        return Connected(self.layer, self.mktemp(), **others)

    def test_bytes_arrive_in_both_directions(self) -> None:
        """Small, empty and large ones."""
        ends = self.connected().shake()
        ends.client.send(b"question")
        ends.layer.dataReceived(outgoing(ends.client))
        self.assertEqual(ends.inner.received, b"question")
        for data in (b"a", b"", LARGE, b"b", LARGE):
            ends.layer.write(data)
            self.assertEqual(ends.heard(), data)

    def test_what_is_written_before_the_handshake_waits_for_it(self) -> None:
        """However large it is."""
        for greeting in (b"hello", LARGE):
            ends = self.connected(greeting=greeting)
            heard = b""
            for _ in range(3):
                said = step(ends.client)
                if said:
                    ends.layer.dataReceived(said)
                heard += ends.heard()
            self.assertEqual(heard, greeting)

    def test_it_is_a_secure_transport_and_what_is_below_it(self) -> None:
        """For those who ask."""
        ends = self.connected().shake()
        self.assertTrue(ISSLTransport.providedBy(ends.layer))
        self.assertTrue(ITCPTransport.providedBy(ends.layer))
        self.assertEqual(ends.layer.getHandle().get_protocol_version_name(), "TLSv1.3")

    def test_losing_the_connection_says_goodbye_after_the_last_byte(self) -> None:
        """The client reads all of it, then a clean end."""
        ends = self.connected().shake()
        ends.layer.write(LARGE)
        ends.layer.loseConnection()
        self.assertEqual(ends.heard(), LARGE)
        self.assertRaises(SSL.ZeroReturnError, ends.client.recv, 1)
        ends.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(ends.inner.lost)
        ends.layer.write(b"too late")
        self.assertEqual(ends.wire.value(), b"")

    def test_a_refusal_reaches_the_client_and_the_protocol(self) -> None:
        """An alert on the wire, and OpenSSL's reason."""
        ends = self.connected(groups=b"P-521")
        self.assertRaises(SSL.Error, ends.shake)
        self.assertTrue(ends.wire.disconnecting)
        ends.layer.connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(ends.inner.lost, SSL.Error)

    def test_garbage_after_the_handshake_ends_the_connection(self) -> None:
        """A record that does not decrypt."""
        ends = self.connected().shake()
        ends.layer.dataReceived(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.assertTrue(ends.wire.disconnecting)
        ends.layer.write(b"too late")
        self.assertRaises(SSL.Error, ends.heard)


class LayerTests(TwistedsTests):
    """Ours."""

    layer = Layer

    def test_a_large_write_takes_a_write_for_each_batch(self) -> None:
        """Sixty-four KiB, where Twisted's takes one for each record of sixteen."""
        ends = self.connected().shake()
        ends.wire.writes = 0
        ends.layer.write(LARGE)
        self.assertEqual(ends.wire.writes, -(-len(LARGE) // (64 * 1024)))

    def test_a_large_write_leaves_no_large_buffer(self) -> None:
        """OpenSSL's never shrinks, so it gets another one; a small write does not."""
        ends = self.connected().shake()
        handle = ends.layer.getHandle()
        first = handle._from_ssl
        ends.layer.write(b"small")
        self.assertIs(handle._from_ssl, first)
        ends.layer.write(LARGE)
        self.assertIsNot(handle._from_ssl, first)
        self.assertEqual(ends.heard(), b"small" + LARGE)

    def test_nothing_is_tried_before_the_first_byte(self) -> None:
        """The handshake has nothing to read: asking OpenSSL costs an exception."""
        ends = self.connected()
        self.assertEqual(ends.layer.getHandle().get_state_string(), b"before SSL initialization")
