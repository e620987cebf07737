"""Tests for mcptunnel.tls.front: every decision, without a socket."""

from __future__ import annotations

import struct
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from zope.interface import implementer

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.addresses import Trust
from mcptunnel.core.preface import Action, Mode
from mcptunnel.core.principal import Principal
from mcptunnel.test.tls.certs import LONG, Authority, mint
from mcptunnel.test.tls.handshakes import client, outgoing, shake, step
from mcptunnel.tls.context import cause
from mcptunnel.tls.front import Front, FrontFactory
from mcptunnel.tls.policy import Policy
from mcptunnel.tls.store import CertificateStore
from mcptunnel.tls.tally import HandshakeKey, Tally

PROXY = IPv4Address("TCP", "10.0.0.1", 40_000)
STRANGER = IPv4Address("TCP", "203.0.113.9", 40_000)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def v1(source: str, port: int = 5555) -> bytes:
    """A PROXY v1 header."""
    family, here = ("TCP6", "2001:db8::1") if ":" in source else ("TCP4", "192.0.2.1")
    return f"PROXY {family} {source} {here} {port} 443\r\n".encode()


def v2(source: str, port: int = 5555) -> bytes:
    """A PROXY v2 header."""
    address = ip_address(source)
    here = ip_address("2001:db8::1" if address.version == 6 else "192.0.2.1")
    block = address.packed + here.packed + struct.pack("!HH", port, 443)
    family = 0x21 if address.version == 6 else 0x11
    return b"\r\n\r\n\x00\r\nQUIT\n\x21" + bytes([family]) + struct.pack("!H", len(block)) + block


LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


class Served(Protocol):
    """Stands for an HTTP channel: remembers, and answers with what it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received = b""
        self.lost: Failure | None = None
        self.certified: Principal | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.peer: Any = self.transport.getPeer()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class Serving(Factory):
    """Stands for a site, or for one that refuses."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.built: list[Served] = []
        self.started = 0

    def buildProtocol(self, addr: IAddress | None) -> Served:
        self.built.append(Served(self.name))
        return self.built[-1]

    def startFactory(self) -> None:
        self.started += 1

    def stopFactory(self) -> None:
        self.started -= 1


@implementer(ITCPTransport)
class Wire(StringTransport):
    """A TCP transport whose end can be told."""

    aborted = False
    options: tuple[str, ...] = ()

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.options = (*self.options, "nodelay")

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.options = (*self.options, "keepalive")

    def getTcpNoDelay(self) -> bool:
        return True

    def getTcpKeepAlive(self) -> bool:
        return True

    def loseWriteConnection(self) -> None:
        """Not used."""


class FrontTests(SynchronousTestCase):
    """Base: a front factory with a clock, and connections to it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = Serving("site")
        self.refusals = {
            action: Serving(action.name)
            for action in (Action.REFUSE_BAD_REQUEST, Action.REFUSE_INSECURE, Action.REFUSE_NOT_PROXY)
        }
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def store(self, **policy: Any) -> CertificateStore:
        directory = self.mktemp()
        Path(directory).mkdir(parents=True)
        return CertificateStore.of([mint("a", names=["localhost"]).material(directory)], Policy(**policy))

    def front(
        self,
        mode: Mode = "disabled",
        *,
        proxy_protocol: Any = "off",
        trusted: tuple[str, ...] = ("10.0.0.0/8",),
        limits: LimitsConfig | None = None,
        store: CertificateStore | None = None,
    ) -> FrontFactory:
        if store is None and mode in ("application", "auto"):
            store = self.store()
        return FrontFactory(
            mode=mode,
            proxy_protocol=proxy_protocol,
            trust=Trust(trusted),
            limits=limits or LimitsConfig(),
            clock=self.clock,
            site=self.site,
            refusals=self.refusals,
            store=store,
            tally=Tally(debug=True),
        )

    def connect(self, factory: FrontFactory, peer: IAddress = STRANGER) -> tuple[Front, Wire]:
        front = factory.buildProtocol(peer)
        assert front is not None
        wire = Wire(peerAddress=peer)
        wire.protocol = front  # type: ignore[attr-defined]
        front.makeConnection(wire)
        return front, wire

    def outcome(self, factory: FrontFactory, peer: IAddress, *segments: bytes) -> str:
        """What became of a connection: the name of who serves it, ``reset``, or ``waiting``."""
        front, wire = self.connect(factory, peer)
        for segment in segments:
            front.dataReceived(segment)
        if wire.aborted:
            return "reset"
        if front.wrappedProtocol is None:
            return "waiting"
        name = getattr(front.wrappedProtocol, "name", "tls")
        if name != "tls":
            self.assertTrue(front.wrappedProtocol.received, "the first bytes are lost")
        return str(name)

    def warnings(self) -> list[str]:
        return [event["what"] for event in self.events if event.get("log_level") is LogLevel.warn and "what" in event]


class TableTests(FrontTests):
    """The table of the TLS modes."""

    HELLO = step(client())

    def test_every_cell(self) -> None:
        """Mode, peer, and the first bytes."""
        table: dict[Mode, tuple[str, str, str]] = {
            # plaintext of a stranger, plaintext of a trusted proxy, TLS of either
            "disabled": ("site", "site", "reset"),
            "application": ("REFUSE_BAD_REQUEST", "REFUSE_BAD_REQUEST", "tls"),
            "behind_proxy": ("REFUSE_NOT_PROXY", "site", "reset"),
            "auto": ("REFUSE_INSECURE", "site", "tls"),
        }
        for mode, (stranger, proxy, tls) in table.items():
            factory = self.front(mode)
            self.assertEqual(self.outcome(factory, STRANGER, REQUEST), stranger, mode)
            self.assertEqual(self.outcome(factory, PROXY, REQUEST), proxy, mode)
            self.assertEqual(self.outcome(factory, STRANGER, self.HELLO), tls, mode)
            self.assertEqual(self.outcome(factory, PROXY, self.HELLO), tls, mode)

    def test_what_is_neither_is_reset(self) -> None:
        """HTTP/2 in plaintext, SSL 2.0, noise."""
        for mode in ("application", "behind_proxy", "auto"):
            factory = self.front(mode)
            for peer in (STRANGER, PROXY):
                for first in (
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"\x80\x2e\x01\x00\x02",
                    b"\x00\x01\x02",
                    b"\x16\x02\x00",
                ):
                    self.assertEqual(self.outcome(factory, peer, first), "reset", (mode, first))

    def test_one_byte_at_a_time_decides_the_same(self) -> None:
        """And no byte is lost on the way."""
        factory = self.front()
        front, _ = self.connect(factory)
        for byte in REQUEST:
            front.dataReceived(bytes([byte]))
        self.assertEqual(self.site.built[0].received, REQUEST)

    def test_both_kinds_of_client_share_the_port(self) -> None:
        """Each connection is decided for itself; none teaches the next."""
        factory = self.front("auto")
        for _ in range(3):
            self.assertEqual(self.outcome(factory, PROXY, REQUEST), "site")
            self.assertEqual(self.outcome(factory, STRANGER, REQUEST), "REFUSE_INSECURE")
            self.assertEqual(self.outcome(factory, STRANGER, self.HELLO), "tls")
        self.assertEqual(factory.tally.counts, {"serve_plain": 3, "refuse_insecure": 3, "serve_tls": 3})

    def test_mapped_addresses_are_the_addresses_they_mean(self) -> None:
        """A dual-stack socket shows a proxy's IPv4 address in IPv6 spelling."""
        mapped = IPv6Address("TCP", "::ffff:10.0.0.1", 40_000)
        self.assertEqual(self.outcome(self.front("behind_proxy"), mapped, REQUEST), "site")

    def test_a_unix_socket_is_trusted_by_its_own_rule(self) -> None:
        """And not otherwise."""
        peer = UNIXAddress(None)
        self.assertEqual(self.outcome(self.front("behind_proxy", trusted=("unix",)), peer, REQUEST), "site")
        self.assertEqual(self.outcome(self.front("behind_proxy"), peer, REQUEST), "REFUSE_NOT_PROXY")

    def test_mode_and_certificates_must_agree(self) -> None:
        """A mode that speaks TLS cannot be built without them, nor the other way round."""
        build = {
            "proxy_protocol": "off",
            "trust": Trust(),
            "limits": LimitsConfig(),
            "clock": self.clock,
            "site": self.site,
        }
        self.assertRaises(AssertionError, FrontFactory, mode="auto", **build)
        self.assertRaises(AssertionError, FrontFactory, mode="disabled", store=self.store(), **build)


class ProxyProtocolTests(FrontTests):
    """PROXY headers: whose, how many, and what they change."""

    def test_a_trusted_header_names_the_peer(self) -> None:
        """Versions 1 and 2, IPv4 and IPv6; what is behind it sees that address."""
        for header in (v1, v2):
            for source in ("198.51.100.7", "2001:db8::7"):
                front, wire = self.connect(self.front(proxy_protocol="optional"), PROXY)
                front.dataReceived(header(source) + REQUEST)
                served = self.site.built[-1]
                self.assertEqual((served.peer.host, served.peer.port), (source, 5555))
                self.assertEqual(served.received, REQUEST)
                assert served.transport is not None
                served.transport.write(b"hello")
                self.assertEqual(wire.value(), b"hello")

    def test_it_may_come_byte_by_byte(self) -> None:
        """Load balancers and networks split where they like."""
        for header in (v1("198.51.100.7"), v2("198.51.100.7"), LOCAL):
            front, _ = self.connect(self.front(proxy_protocol="required"), PROXY)
            for byte in header + REQUEST:
                front.dataReceived(bytes([byte]))
            self.assertEqual(self.site.built[-1].received, REQUEST)

    def test_without_an_address_the_peer_stays(self) -> None:
        """LOCAL and UNKNOWN: the proxy speaks for itself, and keeps its trust."""
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            factory = self.front("behind_proxy", proxy_protocol="required")
            self.assertEqual(self.outcome(factory, PROXY, header + REQUEST), "site")
            self.assertEqual(self.site.built[-1].peer, PROXY)

    def test_trust_is_judged_again_for_the_named_address(self) -> None:
        """A load balancer in front of a proxy, and one in front of the world."""
        factory = self.front("behind_proxy", proxy_protocol="optional")
        self.assertEqual(self.outcome(factory, PROXY, v1("10.9.9.9") + REQUEST), "site")
        self.assertEqual(self.outcome(factory, PROXY, v2("198.51.100.7") + REQUEST), "REFUSE_NOT_PROXY")
        self.assertEqual(
            self.outcome(self.front("auto", proxy_protocol="optional"), PROXY, v1("198.51.100.7"), REQUEST),
            "REFUSE_INSECURE",
        )

    def test_a_stranger_may_send_none(self) -> None:
        """It could name any address; the operator hears of it once."""
        factory = self.front("auto", proxy_protocol="optional")
        for header in (v1("10.0.0.9"), v2("10.0.0.9"), LOCAL):
            self.assertEqual(self.outcome(factory, STRANGER, header + REQUEST), "reset")
        self.assertEqual(factory.tally.counts["proxy_untrusted"], 3)
        self.assertEqual(self.warnings(), ["proxy_untrusted"])

    def test_a_stranger_without_one_is_served_as_ever(self) -> None:
        """``required`` is about those who are listed."""
        factory = self.front(proxy_protocol="required")
        self.assertEqual(self.outcome(factory, STRANGER, REQUEST), "site")
        self.assertEqual(self.outcome(factory, PROXY, REQUEST), "reset")
        self.assertEqual(factory.tally.counts["proxy_missing"], 1)
        self.assertEqual(self.outcome(factory, PROXY, v1("198.51.100.7") + REQUEST), "site")

    def test_optional_takes_a_trusted_peer_without_one(self) -> None:
        """As during a change-over."""
        self.assertEqual(self.outcome(self.front(proxy_protocol="optional"), PROXY, REQUEST), "site")

    def test_switched_off_it_is_reset_also_from_a_trusted_peer(self) -> None:
        """And the setting is named."""
        factory = self.front()
        self.assertEqual(self.outcome(factory, PROXY, v1("198.51.100.7") + REQUEST), "reset")
        self.assertEqual(self.warnings(), ["unexpected_proxy"])

    def test_what_becomes_of_a_connection_is_logged_if_asked_for(self) -> None:
        """Who, what and why; otherwise it is counted only."""
        factory = self.front("behind_proxy")
        self.outcome(factory, STRANGER, REQUEST)
        factory.tally.debug = False
        self.outcome(factory, PROXY, REQUEST)
        (event,) = [event for event in self.events if event.get("log_namespace", "").startswith("mcptunnel.tls.tally")]
        self.assertEqual((event["peer"], event["what"]), ("203.0.113.9", "refuse_not_proxy"))
        self.assertEqual(factory.tally.counts, {"refuse_not_proxy": 1, "serve_plain": 1})

    def test_a_second_header_is_reset(self) -> None:
        """In the same segment or later, of the same version or the other."""
        factory = self.front(proxy_protocol="optional")
        for segments in (
            (v1("10.0.0.9") + v1("10.0.0.8"),),
            (v1("10.0.0.9"), v2("10.0.0.8")),
            (v2("10.0.0.9"), b"PROX", b"Y TCP4"),
            (LOCAL, LOCAL),
        ):
            self.assertEqual(self.outcome(factory, PROXY, *segments), "reset", segments)
        self.assertEqual(factory.tally.counts["proxy_twice"], 4)

    def test_a_malformed_one_is_reset(self) -> None:
        """As soon as that is clear."""
        factory = self.front(proxy_protocol="optional")
        for header in (b"PROXY TCP4 a b 1 2\r\n", b"PROXY " + b"x" * 120, b"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x00"):
            self.assertEqual(self.outcome(factory, PROXY, header), "reset", header)

    def test_half_a_header_waits_and_is_reset_at_the_deadline(self) -> None:
        """Trust does not make it patient."""
        factory = self.front(proxy_protocol="required")
        front, wire = self.connect(factory, PROXY)
        front.dataReceived(b"PROXY TCP4 ")
        self.clock.advance(4.9)
        self.assertFalse(wire.aborted)
        self.clock.advance(0.1)
        self.assertTrue(wire.aborted)


class DeadlineTests(FrontTests):
    """Who says nothing does not stay."""

    def test_silence_is_reset_at_the_preface_timeout(self) -> None:
        """Exactly then, and counted."""
        factory = self.front(limits=LimitsConfig(preface_timeout=3.0))
        _, wire = self.connect(factory)
        self.clock.advance(2.9)
        self.assertFalse(wire.aborted)
        self.clock.advance(0.1)
        self.assertTrue(wire.aborted)
        self.assertEqual(factory.tally.counts, {"preface_timeout": 1})

    def test_a_decided_connection_is_left_alone(self) -> None:
        """From then on the deadlines are the channel's."""
        front, wire = self.connect(self.front())
        front.dataReceived(REQUEST)
        self.clock.advance(1000)
        self.assertFalse(wire.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_half_open_handshake_is_reset_at_the_handshake_timeout(self) -> None:
        """Counted once, and the HTTP channel was never built."""
        factory = self.front("application")
        front, wire = self.connect(factory)
        self.clock.advance(4)
        front.dataReceived(b"\x16\x03\x01")
        self.clock.advance(9.9)
        self.assertFalse(wire.aborted)
        self.clock.advance(0.1)
        self.assertTrue(wire.aborted)
        front.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(factory.tally.counts, {"serve_tls": 1, "handshake_timeout": 1})
        self.assertEqual(self.site.built, [])

    def test_a_connection_that_leaves_silently_is_forgotten(self) -> None:
        """Load balancers look whether the port is open, all day long."""
        factory = self.front()
        front, _ = self.connect(factory)
        front.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(10)
        self.assertEqual(factory.tally.counts, {"silent": 1})
        self.assertEqual(factory.admission.open, 0)

    def test_after_a_reset_nothing_is_read_any_more(self) -> None:
        """Bytes that are already on their way do not bring the connection back."""
        factory = self.front("behind_proxy")
        front, wire = self.connect(factory, PROXY)
        front.dataReceived(b"\x16\x03\x01")
        self.assertTrue(wire.aborted)
        front.dataReceived(REQUEST)
        self.assertIsNone(front.wrappedProtocol)


class CapTests(FrontTests):
    """Connection limits."""

    def open(self, factory: FrontFactory, peer: IAddress) -> Front | None:
        front = factory.buildProtocol(peer)
        if front is not None:
            front.makeConnection(Wire(peerAddress=peer))
        return front

    def test_the_total_holds_for_everybody(self) -> None:
        """And frees when one leaves."""
        factory = self.front(limits=LimitsConfig(connections=2))
        first = self.open(factory, PROXY)
        self.assertIsNotNone(self.open(factory, STRANGER))
        self.assertIsNone(self.open(factory, PROXY))
        self.assertEqual(self.warnings(), ["connections"])
        assert first is not None
        first.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(self.open(factory, PROXY))

    def test_a_client_s_share_holds_for_it_alone(self) -> None:
        """A refused connection takes nothing from the total, and a trusted proxy has no share."""
        factory = self.front(limits=LimitsConfig(client_connections=1))
        self.assertIsNotNone(self.open(factory, STRANGER))
        self.assertIsNone(self.open(factory, STRANGER))
        self.assertIsNotNone(self.open(factory, IPv4Address("TCP", "203.0.113.10", 1)))
        for _ in range(3):
            self.assertIsNotNone(self.open(factory, PROXY))
        self.assertEqual(factory.admission.open, 5)
        self.assertEqual(factory.tally.counts, {"client_connections": 1})

    def test_clients_behind_a_load_balancer_are_counted_one_by_one(self) -> None:
        """By the address that its PROXY header names; leaving gives the share back."""
        factory = self.front(limits=LimitsConfig(client_connections=1), proxy_protocol="required")
        first, _ = self.connect(factory, PROXY)
        first.dataReceived(v1("198.51.100.7") + REQUEST)
        self.assertEqual(self.outcome(factory, PROXY, v1("198.51.100.7") + REQUEST), "reset")
        self.assertEqual(self.outcome(factory, PROXY, v1("198.51.100.8") + REQUEST), "site")
        first.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.outcome(factory, PROXY, v1("198.51.100.7") + REQUEST), "site")

    def test_every_end_gives_back_what_was_taken(self) -> None:
        """Served, refused, reset, silent: nothing is left of any of them."""
        factory = self.front("auto", proxy_protocol="optional", limits=LimitsConfig(client_connections=1))
        cases = (
            (STRANGER, REQUEST),
            (STRANGER, b"\x16\x03\x01"),
            (STRANGER, v1("10.0.0.1")),
            (STRANGER, b""),
            (PROXY, v1("198.51.100.7") + REQUEST),
            (PROXY, v1("198.51.100.7") + b"\x00"),
            (PROXY, LOCAL),
        )
        for peer, first in cases:
            front, _ = self.connect(factory, peer)
            front.dataReceived(first)
            front.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((factory.admission.open, factory.admission._clients), (0, {}))


class TlsTests(FrontTests):
    """From the first byte of a handshake to the channel."""

    def shake(
        self,
        factory: FrontFactory,
        mine: SSL.Connection,
        peer: IAddress = STRANGER,
        before: bytes = b"",
    ) -> tuple[Front, Wire]:
        front, wire = self.connect(factory, peer)
        if before:
            front.dataReceived(before)

        def theirs(said: bytes) -> bytes:
            front.dataReceived(said)
            answer: bytes = wire.value()
            wire.clear()
            return answer

        shake(mine, theirs)
        return front, wire

    def test_the_channel_gets_the_clear_text_over_a_secure_transport(self) -> None:
        """Built when the handshake is complete, with the TLS layer as its transport."""
        factory = self.front("application")
        mine = client()
        front, wire = self.shake(factory, mine)
        (served,) = self.site.built
        self.assertTrue(ISSLTransport.providedBy(served.transport))
        self.assertEqual(served.peer, STRANGER)
        mine.send(REQUEST)
        front.dataReceived(outgoing(mine))
        self.assertEqual(served.received, REQUEST)
        wire.clear()
        assert served.transport is not None
        served.transport.write(b"hello")
        mine.bio_write(wire.value())
        self.assertEqual(mine.recv(100), b"hello")
        self.assertEqual(
            factory.tally.handshakes, {HandshakeKey("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", False): 1}
        )
        front.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(served.lost)
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_request_in_the_last_flight_of_the_handshake_is_not_lost(self) -> None:
        """Fast clients send both in one segment."""
        factory = self.front("application")
        front, wire = self.connect(factory)
        mine = client()
        for _ in range(2):
            try:
                mine.do_handshake()
            except SSL.WantReadError:
                front.dataReceived(outgoing(mine))
                mine.bio_write(wire.value())
        mine.send(REQUEST)
        front.dataReceived(outgoing(mine))
        self.assertEqual(self.site.built[0].received, REQUEST)

    def test_a_proxy_header_before_the_handshake_names_the_peer(self) -> None:
        """The TLS layer passes it on."""
        factory = self.front("application", proxy_protocol="required")
        self.shake(factory, client(), PROXY, v2("198.51.100.7"))
        self.assertEqual(self.site.built[0].peer.host, "198.51.100.7")

    def test_a_failed_handshake_is_counted_with_its_cause(self) -> None:
        """The first one is logged with what to do; the peer gets the alert, and no channel was built."""
        store = self.store(client_auth="required", client_cas=(Authority.root().issued.certificate,))
        factory = self.front("application", store=store)
        front, wire = self.connect(factory)

        def theirs(said: bytes) -> bytes:
            front.dataReceived(said)
            answer: bytes = wire.value()
            wire.clear()
            return answer

        self.assertRaises(SSL.Error, shake, client(), theirs)
        front.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(factory.tally.counts["handshake_failed"], 1)
        self.assertEqual(self.site.built, [])
        self.assertEqual(factory.tally.failures, {"client_certificate_missing": 1})
        (event,) = [event for event in self.events if event.get("label") == "client_certificate_missing"]
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertIn("server.tls.client_auth is required", event["hint"])

    def test_plain_http_where_tls_is_spoken_is_a_cause_too(self) -> None:
        """Counted with the others, and said with what to do; it is answered, so that it is no failed handshake."""
        factory = self.front("application")
        self.assertEqual(self.outcome(factory, STRANGER, REQUEST), "REFUSE_BAD_REQUEST")
        self.assertEqual(factory.tally.failures, {"plain_http": 1})
        self.assertEqual(factory.tally.counts, {"refuse_bad_request": 1})
        (event,) = [event for event in self.events if event.get("label") == "plain_http"]
        self.assertIn("server.tls.redirect_http", event["hint"])

    def test_a_name_without_a_certificate_may_be_refused(self) -> None:
        """By an alert that clients understand (RFC 6066 §3), and none of TLS is begun."""
        factory = self.front("application", store=self.store(refuse_unknown=True))
        mine = client(name=b"unknown.test")
        with self.assertRaises(SSL.Error) as refused:
            self.shake(factory, mine)
        self.assertIn("unrecognized name", cause(refused.exception))
        self.assertEqual(factory.tally.failures, {"unknown_name": 1})
        self.assertEqual(self.site.built, [])
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_first_message_in_many_pieces_is_waited_for(self) -> None:
        """As the larger ones of today arrive; what cannot be read is OpenSSL's to refuse."""
        factory = self.front("application")
        front, wire = self.connect(factory)
        hello = step(client(name=b"a.test"))
        for byte in hello[:-1]:
            front.dataReceived(bytes([byte]))
        self.assertEqual((wire.value(), front.wrappedProtocol), (b"", None))
        front.dataReceived(hello[-1:])
        self.assertTrue(wire.value().startswith(b"\x16\x03\x03"))
        broken, wire = self.connect(factory)
        broken.dataReceived(hello[:5] + b"\x63" + hello[6:])
        self.assertTrue(wire.value().startswith(b"\x15\x03"))

    def test_a_client_certificate_is_told_of(self) -> None:
        """To whoever serves the connection, before the first request; without one, nobody is named."""
        authority = Authority.root()
        store = self.store(client_auth="optional", client_cas=(authority.issued.certificate,))
        factory = self.front("application", store=store)
        factory.recognize = lambda certificate: Principal(name=certificate.subject.rfc4514_string())
        self.shake(factory, client(identity=authority.issue("me", client=True, **LONG)))
        self.shake(factory, client())
        self.assertEqual([served.certified for served in self.site.built], [Principal(name="CN=me"), None])

    def test_a_client_that_leaves_in_the_middle_is_a_failed_handshake(self) -> None:
        """Such as one that does not like our certificate and says nothing."""
        factory = self.front("application")
        front, _ = self.connect(factory)
        front.dataReceived(b"\x16\x03\x01")
        front.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(factory.tally.counts["handshake_failed"], 1)
        self.clock.advance(100)
        self.assertEqual(factory.tally.counts["handshake_timeout"], 0)


class TransportTests(FrontTests):
    """What the chosen protocol gets as its transport."""

    def test_the_socket_itself_without_a_proxy_header(self) -> None:
        """What goes out takes no way round."""
        front, wire = self.connect(self.front())
        front.dataReceived(REQUEST)
        self.assertIs(self.site.built[0].transport, wire)
        self.assertEqual(wire.options, ("nodelay", "keepalive"))

    def test_behind_a_proxy_header_it_is_the_socket_in_all_but_the_peer(self) -> None:
        """Its interfaces, its producers, its attributes."""
        front, wire = self.connect(self.front(proxy_protocol="optional"), PROXY)
        front.dataReceived(v1("198.51.100.7") + REQUEST)
        transport: Any = self.site.built[0].transport
        self.assertTrue(IPushProducer.providedBy(transport) and ITCPTransport.providedBy(transport))
        self.assertEqual(transport.getHost(), wire.getHost())
        producer = object()
        transport.registerProducer(producer, True)
        self.assertIs(wire.producer, producer)
        transport.pauseProducing()
        self.assertEqual(wire.producerState, "paused")
        self.assertIs(transport.protocol, front)
        transport.writeSequence([b"a", b"b"])
        transport.abortConnection()
        self.assertEqual((wire.value(), wire.aborted), (b"ab", True))

    def test_autobahn_can_take_the_connection_over(self) -> None:
        """In the clear, behind a PROXY header; its frames then come to it and its end as well."""
        for before, peer in ((b"", STRANGER), (v2("198.51.100.7"), PROXY)):
            front, _wire = self.connect(self.front(proxy_protocol="optional"), peer)
            front.dataReceived(before + REQUEST)
            served = self.site.built[-1]
            taken: list[Any] = []

            class Taker(Protocol):
                def connectionMade(self) -> None:
                    taken.append("made")  # noqa: B023

                def dataReceived(self, data: bytes) -> None:
                    taken.append(data)  # noqa: B023

                def connectionLost(self, reason: Any = None) -> None:
                    taken.append("lost")  # noqa: B023

            # The lines of WebSocketResource.render that move a connection, under a request with this much of one.
            factory: Any = WebSocketServerFactory("ws://localhost")
            factory.buildProtocol = lambda _: Taker()
            WebSocketResource(factory).render(_Request(served))
            self.assertIsNone(served.transport)
            front.dataReceived(b"frame")
            front.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(taken[0], "made")
            self.assertEqual(taken[-2:], [b"frame", "lost"])
            self.assertIsNone(served.lost)


class FactoryTests(FrontTests):
    """The factory's own life."""

    def test_stopping_ends_what_is_undecided_and_nothing_else(self) -> None:
        """Calls in flight are the site's to finish."""
        factory = self.front("auto")
        factory.doStart()
        served, served_wire = self.connect(factory, PROXY)
        served.dataReceived(REQUEST)
        _, silent = self.connect(factory)
        shaking, shaking_wire = self.connect(factory)
        shaking.dataReceived(b"\x16\x03\x01")
        factory.doStop()
        self.assertEqual((served_wire.aborted, silent.aborted, shaking_wire.aborted), (False, True, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_site_and_refusals_live_as_long_as_the_listener(self) -> None:
        """Each is started and stopped once."""
        factory = self.front()
        parts = (self.site, *self.refusals.values())
        factory.doStart()
        self.assertEqual([part.started for part in parts], [1, 1, 1, 1])
        factory.doStop()
        self.assertEqual([part.started for part in parts], [0, 0, 0, 0])

    def test_a_site_that_builds_nothing_means_a_reset(self) -> None:
        """It may have its own reasons."""
        self.site.buildProtocol = lambda _: None  # type: ignore[method-assign, assignment, return-value]
        self.assertEqual(self.outcome(self.front(), STRANGER, REQUEST), "reset")


class _Request:
    """As much of a twisted.web request as autobahn's resource looks at."""

    method, uri = b"GET", b"/ws"

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.transport = channel.transport
        self.requestHeaders = Headers()
        self.content = BytesIO()
