"""Tests for mcptunnel.services.presented: handshakes with servers in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.certificates import Facts
from mcptunnel.core.errors import UnseenError
from mcptunnel.services.presented import AT_A_TIME, SECONDS, sources_of
from mcptunnel.services.ways import Terms, Way
from mcptunnel.test.tls.certs import LONG, LONG_AGO, Authority, Issued
from mcptunnel.test.tls.test_probe import Server


class Wire(StringTransport):
    """A transport that can be cut."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Endpoint:
    """Connects when it is told to."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.asked: list[tuple[Any, Deferred[Any]]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred(self._cancel)
        self.asked.append((factory, result))
        return result

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1

    def succeed(self) -> tuple[Any, Wire]:
        factory, result = self.asked[-1]
        protocol, wire = factory.buildProtocol(None), Wire()
        protocol.makeConnection(wire)
        result.callback(protocol)
        return protocol, wire


class PresentedTests(SynchronousTestCase):
    """One look at one server, and many at once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.root = Authority.root()
        self.endpoint = Endpoint()

    def way(self, name: str = "a.test", secure: bool = True) -> Way:
        endpoint: Any = self.endpoint
        return Way(
            name=name,
            secure=secure,
            plain=lambda: endpoint,
            endpoint=lambda: endpoint,
            terms=Terms(anchors=[self.root.issued.certificate]),
        )

    def ask(self, name: str = "a.test") -> Deferred[Sequence[Facts]]:
        (source,) = sources_of({"docs": self.way(name)}, self.clock)
        asked = source.facts()
        assert isinstance(asked, Deferred)
        return asked

    def look(self, issued: Issued, name: str = "a.test") -> Sequence[Facts]:
        asked = self.ask(name)
        protocol, self.wire = self.endpoint.succeed()
        server = Server(issued)
        for _ in range(8):
            said = self.wire.value()
            self.wire.clear()
            if not said:
                break
            protocol.dataReceived(server.answer(said))
        facts: Sequence[Facts] = self.successResultOf(asked)
        return facts

    def reason(self, asked: Deferred[Sequence[Facts]]) -> str:
        return str(self.failureResultOf(asked, UnseenError).value)

    def test_each_certificate_that_is_presented(self) -> None:
        """Leaf first, named by the server's entry; the connection is closed and no timer left."""
        issued = self.root.intermediate("Middle").issue("a.test", **LONG)
        facts = self.look(issued)
        self.assertEqual(
            [(f.subject, f.role, f.file, f.flaw) for f in facts],
            [("CN=a.test", "upstream", "mcpServers.docs", None), ("CN=Middle", "upstream", "mcpServers.docs", None)],
        )
        self.assertEqual((self.wire.disconnecting, self.clock.getDelayedCalls()), (True, []))

    def test_a_flaw_is_said_of_the_leaf(self) -> None:
        """Whichever certificate has it."""
        old = self.root.intermediate("Old", **LONG_AGO).issue("a.test", **LONG)
        self.assertEqual([f.flaw for f in self.look(old)], ["certificate has expired (CN=Old)", None])
        stranger = Authority.root("Stranger").issue("a.test", **LONG)
        (facts,) = self.look(stranger)
        self.assertEqual(facts.flaw, "unable to get local issuer certificate")

    def test_the_name_counts(self) -> None:
        """By name, by wildcard, by address."""
        for names, called, flaw in (
            (("*.test",), "a.test", "it does not name a.test, but *.test"),
            (("*.b.test",), "a.b.test", None),
            (("192.0.2.1",), "192.0.2.1", None),
            (("2001:db8::1",), "2001:db8::1", None),
            (("b.test", "c.test"), "a.test", "it does not name a.test, but b.test, c.test"),
        ):
            (facts,) = self.look(self.root.issue(*names, **LONG), called)
            self.assertEqual(facts.flaw, flaw, called)

    def test_a_server_that_is_not_there(self) -> None:
        """No verdict, but a reason."""
        asked = self.ask()
        self.endpoint.asked[-1][1].errback(Failure(ConnectionRefusedError()))
        self.assertEqual(self.reason(asked), "cannot connect (Connection was refused by other side.)")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_speaks_no_tls(self) -> None:
        """The reason is the handshake's; the connection is cut."""
        asked = self.ask()
        protocol, wire = self.endpoint.succeed()
        protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertNotIn("cannot connect", self.reason(asked))
        self.assertTrue(wire.aborted)

    def test_a_server_that_hangs_up(self) -> None:
        """In the middle of it."""
        asked = self.ask()
        protocol, _ = self.endpoint.succeed()
        protocol.connectionLost(Failure(ConnectionRefusedError()))
        self.assertEqual(self.reason(asked), "the connection was closed during the handshake")

    def test_a_server_that_is_silent(self) -> None:
        """Before or after the connection: ten seconds in all."""
        asked = self.ask()
        self.clock.advance(SECONDS)
        self.assertEqual((self.reason(asked), self.endpoint.cancelled), ("no answer within 10 s", 1))
        asked = self.ask()
        self.clock.advance(SECONDS - 1)
        _, wire = self.endpoint.succeed()
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.assertEqual((self.reason(asked), wire.aborted), ("no answer within 10 s", True))

    def test_a_look_can_be_broken_off(self) -> None:
        """As at the end of the daemon; the next one gets its turn."""
        for connected in (False, True):
            asked = self.ask()
            wire = self.endpoint.succeed()[1] if connected else None
            asked.cancel()
            self.failureResultOf(asked)
            self.assertEqual((self.endpoint.cancelled, self.clock.getDelayedCalls()), (1, []))
            self.assertTrue(wire is None or wire.aborted)

    def test_only_what_is_spoken_to_over_tls_is_looked_at(self) -> None:
        """And never while something else is going on."""
        sources = sources_of({"plain": self.way(secure=False), "docs": self.way()}, self.clock)
        self.assertEqual([(source.name, source.cheap) for source in sources], [("mcpServers.docs", False)])

    def test_a_few_at_a_time(self) -> None:
        """The others wait for their turn, and have the same time then."""
        count = 2 * AT_A_TIME + 1
        sources = sources_of({f"s{n}": self.way() for n in range(count)}, self.clock)
        asked: list[Any] = [source.facts() for source in sources]
        for round_ in range(1, 4):
            self.assertEqual(len(self.endpoint.asked), min(round_ * AT_A_TIME, count))
            self.clock.advance(SECONDS)
        for one in asked:
            self.reason(one)
        self.assertGreater(sources[0].patience, 3 * SECONDS)
