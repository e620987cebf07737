"""Tests for mcptunnel.services.daemon: what would listen, and in what order everything stops."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.core.rules import Rules
from mcptunnel.services.alerts import Alerts
from mcptunnel.services.certwatch import CertificateWatch
from mcptunnel.services.daemon import Daemon
from mcptunnel.services.following import Following
from mcptunnel.services.heartbeat import Heartbeat
from mcptunnel.services.listener import Listener
from mcptunnel.services.root import build
from mcptunnel.test.tls.certs import LONG, NOW, mint
from mcptunnel.testing import FakeUpstream, know_both_eras, request
from mcptunnel.tls.front import FrontFactory
from mcptunnel.web.gate import Gate


class Wire(StringTransport):
    """A TCP transport."""

    protocol: Any = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Not looked at."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Not looked at."""

    def abortConnection(self) -> None:
        self.disconnected = True

    def loseWriteConnection(self) -> None:
        """Not looked at."""


class AtOnce:
    """A pool of threads that does its work before it returns."""

    def callInThreadWithCallback(self, told: Any, work: Any, *args: Any, **kwargs: Any) -> None:
        try:
            result, good = work(*args, **kwargs), True
        except Exception:
            result, good = Failure(), False
        told(good, result)


class Reactor(MemoryReactorClock):
    """A reactor whose ports can be counted."""

    stopped = 0

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listening: Any = super().listenTCP(port, factory, backlog, interface)

        def stop() -> None:
            self.stopped += 1

        listening.stopListening = stop
        return listening

    def getThreadPool(self) -> AtOnce:
        return AtOnce()

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)


class Case(SynchronousTestCase):
    """A daemon on a reactor in memory, with a server in memory in place of its configured one."""

    def build(self, text: str = "") -> Daemon:
        self.reactor: Any = Reactor()
        self.reactor.advance(NOW)
        return build(load_text(text or "{}", name="f", environ={}), self.reactor)

    def start(self, text: str = "") -> Daemon:
        text = text or "mcpServers: {srv: {command: cat}}\nserver: {limits: {drain_timeout: 5s}}"
        daemon = self.build(text)
        self.fake = FakeUpstream("srv", rules=Rules(mirrored=True))
        assert isinstance(daemon.relay.upstreams, dict)
        daemon.relay.upstreams["srv"] = self.fake
        know_both_eras(daemon.relay.eras, ["srv"])
        daemon.privilegedStartService()
        daemon.startService()
        return daemon

    def connect(self, daemon: Daemon) -> Any:
        transport = Wire(peerAddress=IPv4Address("TCP", "127.0.0.1", 4000))
        protocol: Any = daemon.front.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def post(self, transport: Any, body: bytes, *lines: str) -> None:
        head = "".join(
            f"{line}\r\n" for line in ("Host: localhost", "Accept: */*", "Content-Type: application/json", *lines)
        )
        transport.protocol.dataReceived(
            f"POST /mcp HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )

    def call(self, transport: Any) -> None:
        body = request("tools/call", "c", {"name": "t"}, modern=True)
        self.post(transport, body, "MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: t")


class ListeningTests(Case):
    """What would listen."""

    def test_the_defaults_listen_on_loopback(self) -> None:
        """Plain HTTP on 127.0.0.1:3000, and nothing else."""
        daemon = self.build()
        self.assertEqual(self.reactor.tcpServers, [])
        daemon.privilegedStartService()
        ((port, factory, _, interface),) = self.reactor.tcpServers
        self.assertEqual((port, interface), (3000, "127.0.0.1"))
        self.assertIs(getattr(factory, "wrappedFactory", factory), daemon.front)
        self.assertEqual((self.reactor.sslServers, self.reactor.unixServers, self.reactor.tcpClients), ([], [], []))

    def test_what_runs_and_in_which_order(self) -> None:
        """The listener starts last, so that what it leads to is there; certificates are watched in every mode."""
        self.assertEqual(
            [type(service) for service in self.build()], [Heartbeat, Alerts, CertificateWatch, Following, Listener]
        )
        pair = mint("localhost", names=("localhost",), **LONG).write(self.mktemp())
        daemon = self.build(
            f'server: {{tls: {{mode: auto, cert_file: "{pair.cert_file}", key_file: "{pair.key_file}"}}}}'
        )
        self.assertEqual(
            [type(service).__name__ for service in daemon],
            ["Heartbeat", "Alerts", "CertificateWatch", "Following", "Listener"],
        )

    def test_a_connection_passes_the_front_then_the_site_then_the_gate(self) -> None:
        """And only then a resource is asked."""
        daemon = self.build()
        self.assertIsInstance(daemon.listener.factory, FrontFactory)
        self.assertIs(daemon.front, daemon.listener.factory)
        self.assertIs(daemon.front.site, daemon.site)
        self.assertIsInstance(daemon.site.admit, Gate)
        self.assertIn(b"/mcp", daemon.site.routes)

    def test_warnings_of_the_configuration_are_said_at_every_start(self) -> None:
        """Each once."""
        with capturedLogs() as events:
            daemon = self.build("server: {workers: 4}")
        said = [event["text"] for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual((said, len(said) > 0), (list(daemon.config.warnings), True))

    def test_a_port_that_is_taken_ends_the_process_with_one_line(self) -> None:
        """And status 1."""
        daemon = self.build()

        def taken(port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))

        self.reactor.listenTCP = taken
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        self.assertEqual(self.assertRaises(SystemExit, daemon.privilegedStartService).code, 1)
        self.assertEqual(err.getvalue().count("\n"), 1)
        self.assertIn("127.0.0.1", err.getvalue())
        self.assertIn("3000", err.getvalue())


class AuthTests(Case):
    """Who may come in when nothing is said."""

    def status(self, daemon: Daemon, *lines: str) -> int:
        transport = self.connect(daemon)
        self.post(transport, b"{}", *lines)
        return int(transport.value()[9:12])

    def test_without_credentials_this_machine_may(self) -> None:
        """400 is past the gate."""
        self.assertEqual(self.status(self.start("mcpServers: {srv: {command: cat}}")), 400)

    def test_with_a_token_nobody_may_without_it(self) -> None:
        """Unless anonymous callers are let in by name."""
        tokens = "mcpServers: {srv: {command: cat}}\nauth: {tokens: [{name: ci, token: sesame-sesame-sesame}]"
        daemon = self.start(tokens + "}")
        self.assertEqual(self.status(daemon), 401)
        self.assertEqual(self.status(daemon, "Authorization: Bearer sesame-sesame-sesame"), 400)
        self.assertEqual(self.status(self.start(tokens + ", anonymous: true}")), 400)

    def test_a_page_of_another_host_may_not(self) -> None:
        """DNS rebinding ends at the gate of the whole daemon."""
        transport = self.connect(self.start())
        self.post(transport, b"{}", "Origin: http://evil.test")
        self.assertEqual(transport.value()[9:12], b"403")


class StopTests(Case):
    """SIGTERM."""

    def steps(self, seconds: float) -> None:
        self.reactor.pump([0.05] * round(seconds / 0.05))

    def test_an_idle_daemon_stops_at_once(self) -> None:
        """Its port first; idle connections are closed; no timer is left."""
        daemon = self.start()
        idle = self.connect(daemon)
        stopped = daemon.stopService()
        self.assertEqual(self.reactor.stopped, 1)
        idle.protocol.connectionLost(None)
        self.steps(1.2)
        self.successResultOf(stopped)
        self.assertEqual(daemon.reasons(), ["stopping"])
        # The tick of the first bytes' deadlines ends by itself.
        self.steps(6.0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_call_in_flight_finishes_before_anything_is_ended(self) -> None:
        """The port is closed meanwhile; readiness says so."""
        daemon = self.start()
        client = self.connect(daemon)
        self.call(client)
        stopped = daemon.stopService()
        self.assertEqual((self.reactor.stopped, daemon.reasons(), daemon.relay.in_flight), (1, ["stopping"], 1))
        self.steps(4.0)
        self.assertNoResult(stopped)
        self.fake.wire.answer({"ok": 1})
        self.assertIn(b'"result":{"ok":1}', client.value())
        self.assertIn(b"\r\nConnection: close\r\n", client.value())
        self.assertTrue(client.disconnecting)
        client.protocol.connectionLost(None)
        self.steps(0.2)
        self.successResultOf(stopped)
        self.assertTrue(self.fake.wire.closed)

    def test_a_call_that_does_not_end_is_ended_after_the_drain_timeout(self) -> None:
        """With an answer that says why; the log says how many."""
        daemon = self.start()
        client = self.connect(daemon)
        self.call(client)
        with capturedLogs() as events:
            stopped = daemon.stopService()
            self.steps(4.9)
            self.assertEqual(client.value(), b"")
            self.steps(0.2)
        body = json.loads(client.value().partition(b"\r\n\r\n")[2])
        self.assertEqual((body["id"], body["error"]["message"]), ("c", "the daemon is stopping"))
        self.assertEqual([e["left"] for e in events if "drain_timeout" in e.get("log_format", "")], [1])
        client.protocol.connectionLost(None)
        self.steps(1.2)
        self.successResultOf(stopped)

    def test_a_connection_that_does_not_close_is_cut(self) -> None:
        """A second after it was asked to."""
        daemon = self.start()
        client = self.connect(daemon)
        self.call(client)
        stopped = daemon.stopService()
        self.fake.wire.answer({})
        self.steps(0.5)
        self.assertFalse(client.disconnected)
        self.assertNoResult(stopped)
        self.steps(0.7)
        self.assertTrue(client.disconnected)
        self.successResultOf(stopped)

    def test_what_fails_while_it_stops_is_said_and_leaves_nothing_behind(self) -> None:
        """The upstreams are closed all the same."""
        daemon = self.start()
        closed: list[int] = []

        def fail() -> None:
            raise ZeroDivisionError

        class Closing:
            async def close(self) -> None:
                closed.append(1)

        self.patch(daemon.relay, "close", fail)
        self.patch(daemon, "upstreams", Closing())
        stopped = daemon.stopService()
        self.steps(1.2)
        self.successResultOf(stopped)
        self.assertEqual((closed, len(self.flushLoggedErrors(ZeroDivisionError))), ([1], 1))


class ReloadTests(Case):
    """Certificates are read again, nothing else."""

    def auto(self) -> tuple[Daemon, str]:
        place = self.mktemp()
        Path(place).mkdir()
        pair = mint("localhost", names=["localhost"], **LONG).write(place)
        text = f"server: {{tls: {{mode: application, cert_file: '{pair.cert_file}', key_file: '{pair.key_file}'}}}}"
        daemon = self.build(text)
        daemon.privilegedStartService()
        daemon.startService()
        return daemon, place

    def test_a_renewed_pair_is_put_in_service(self) -> None:
        """And looked at, so that health tells of it at once."""
        daemon, place = self.auto()
        assert daemon.store is not None
        assert daemon.watch is not None
        before = daemon.store.facts()
        mint("localhost", names=["localhost"], **LONG).write(place)
        daemon.reload()
        self.assertEqual(daemon.store.generation, 2)
        self.assertNotEqual(daemon.store.facts(), before)
        self.assertEqual([finding.facts for finding in daemon.watch.findings], list(daemon.store.facts()))

    def test_a_bad_pair_changes_nothing(self) -> None:
        """The last good one serves on; the log says which file and why."""
        daemon, place = self.auto()
        assert daemon.store is not None
        before = daemon.store.facts()
        other = mint("localhost", names=["localhost"], **LONG)
        for path in Path(place).iterdir():
            if b"PRIVATE" in path.read_bytes():
                path.write_bytes(other.key_pem())
        with capturedLogs() as events:
            daemon.reload()
        self.assertEqual((daemon.store.generation, daemon.store.facts()), (1, before))
        (event,) = [event for event in events if event["log_level"] == LogLevel.error]
        self.assertIn(place, event["reason"])
        self.assertEqual(daemon.details()["refused"], event["reason"].splitlines())

    def test_what_is_written_is_seen_without_being_told(self) -> None:
        """Within a second; and a key without its certificate is waited for."""
        daemon, place = self.auto()
        assert daemon.store is not None
        other = mint("localhost", names=["localhost"], **LONG)
        files = {b"PRIVATE" in path.read_bytes(): path for path in Path(place).iterdir()}
        files[True].write_bytes(other.key_pem())
        self.reactor.pump([0.25] * 4)
        self.assertEqual((daemon.store.generation, daemon.details()["refused"]), (1, []))
        files[False].write_bytes(other.chain_pem)
        self.reactor.pump([0.25] * 4)
        self.assertEqual((daemon.store.generation, daemon.details()["refused"]), (2, []))

    def test_without_tls_there_is_nothing_to_read(self) -> None:
        """Nothing is refused either."""
        daemon = self.build()
        self.assertTrue(self.successResultOf(daemon.reload()).taken)
        self.assertIsNone(self.successResultOf(daemon.reload_report())["generation"])
