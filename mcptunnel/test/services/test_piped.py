"""Tests for mcptunnel.services.piped: what is served on two pipes, and in what order it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.core.errors import TunnelError
from mcptunnel.services.piped import Piped, piped_from
from mcptunnel.testing import FakeUpstream, know_both_eras, request

LIMITS = "{drain_timeout: 5s, write_timeout: 4s, request_timeout: 20s}"
TEXT = f"mcpServers: {{srv: {{command: cat}}}}\nserver: {{limits: {LIMITS}}}\n"


class Pipes(StringTransport):
    """StandardIO: it is gone once it is told to go, unless the client does not read."""

    protocol: Any = None
    unread = False

    def loseConnection(self) -> None:
        super().loseConnection()
        if not self.unread:
            self.protocol.connectionLost()


class Case(SynchronousTestCase):
    """A server in memory in place of the configured one."""

    def start(self, text: str = TEXT, server: str | None = None) -> Piped:
        self.clock: Any = Clock()
        self.fake = FakeUpstream("srv")
        piped = piped_from(load_text(text, name="f", environ={}), self.clock, server)
        assert isinstance(piped.relay.upstreams, dict)
        piped.relay.upstreams["srv"] = self.fake
        know_both_eras(piped.relay.eras, ["srv"])
        self.transport = Pipes()
        self.transport.protocol = piped.pipe
        piped.startService()
        piped.pipe.makeConnection(self.transport)
        return piped

    def say(self, piped: Piped, raw: bytes) -> list[Any]:
        piped.pipe.dataReceived(raw + b"\n")
        return self.heard()

    def heard(self) -> list[Any]:
        data = self.transport.value()
        self.transport.clear()
        return [json.loads(line) for line in data.splitlines()]

    def call(self, piped: Piped) -> None:
        self.assertEqual(self.say(piped, request("tools/call", 1, {"name": "x"}, modern=True)), [])

    def assertOver(self, piped: Piped) -> None:
        """Everything has ended: no timer is left."""
        self.successResultOf(piped.over)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(piped.running)


class ServedTests(Case):
    """What the client sees."""

    def test_one_server_has_its_own_names_and_several_are_prefixed(self) -> None:
        """As at the addresses of the daemon."""
        two = TEXT.replace("{srv:", "{other: {command: cat}, srv:")
        for text, server, path in ((TEXT, None, "/mcp"), (TEXT, "srv", "/servers/srv"), (two, "srv", "/servers/srv")):
            piped = self.start(text, server)
            self.call(piped)
            self.assertEqual(self.fake.wire.sent[-1].body["params"]["name"], "x", path)
        piped = self.start(two)
        (answer,) = self.say(piped, request("tools/call", 1, {"name": "x"}, modern=True))
        self.assertIn("error", answer)
        self.assertEqual(self.say(piped, request("tools/call", 2, {"name": "srv__x"}, modern=True)), [])
        self.assertEqual(self.fake.wire.sent[-1].body["params"]["name"], "x")

    def test_nothing_is_started_before_the_client_speaks(self) -> None:
        """Neither child nor connection."""
        self.start()
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.fake.wires, [])

    def test_a_server_that_is_not_there(self) -> None:
        """Named, with those that are; disabled ones are not; without any there is nothing to serve."""
        more = TEXT.replace("{srv:", "{off: {command: cat, enabled: false}, srv:")
        for name in ("nope", "off"):
            error = self.assertRaises(TunnelError, self.start, more, name)
            self.assertIn(f"--server {name}: ", str(error))
            self.assertTrue(str(error).endswith("it has: srv"), error)
        self.assertIn("mcpServers", str(self.assertRaises(TunnelError, self.start, "{}")))

    def test_calls_take_no_longer_than_configured(self) -> None:
        """The heartbeat runs."""
        piped = self.start()
        self.call(piped)
        self.clock.pump([1.0] * 25)
        (answer,) = self.heard()
        self.assertIn("error", answer)

    def test_access_records(self) -> None:
        """To the file, when the configuration names one."""
        path = Path(self.mktemp())
        piped = self.start(f"{TEXT}logging: {{access: json, access_file: {path.absolute()}}}\n")
        self.call(piped)
        self.fake.wire.answer({})
        piped.leave()
        self.assertOver(piped)
        record = json.loads(path.read_text())
        self.assertEqual((record["protocol"], record["principal"], record["method"]), ("stdio", "stdio", "tools/call"))

    def test_warnings_of_the_configuration_are_logged(self) -> None:
        """As the daemon does."""
        with capturedLogs() as events:
            self.start(TEXT + "registry: {paths: [x]}\n")
        self.assertTrue(any("registry" in (formatEvent(event) or "") for event in events))


class EndTests(Case):
    """In order."""

    def test_the_client_closes_its_end(self) -> None:
        """What it has asked is answered first; the status is a good one."""
        piped = self.start()
        self.call(piped)
        piped.pipe.readConnectionLost()
        self.clock.pump([0.05] * 40)
        self.assertNoResult(piped.over)
        self.fake.wire.answer({"ok": 1})
        self.clock.advance(0.05)
        self.assertEqual(self.heard()[0]["result"], {"ok": 1})
        self.assertOver(piped)
        self.assertFalse(piped.failed)

    def test_a_call_that_does_not_end_is_ended(self) -> None:
        """After drain_timeout, with an answer that says why."""
        piped = self.start()
        self.call(piped)
        piped.leave()
        self.clock.pump([0.05] * 99)
        self.assertEqual(self.heard(), [])
        self.clock.pump([0.05] * 3)
        self.assertIn("stopping", self.heard()[0]["error"]["message"])
        self.assertOver(piped)
        self.assertFalse(piped.failed)

    def test_the_second_word_about_stopping_is_the_last(self) -> None:
        """A client that has closed our input and gets impatient; two signals."""
        for first in ("readConnectionLost", "leave"):
            piped = self.start()
            self.call(piped)
            getattr(piped.pipe if first == "readConnectionLost" else piped, first)()
            self.clock.advance(0.05)
            self.assertNoResult(piped.over)
            piped.leave()
            self.clock.advance(0.05)
            self.assertIn("stopping", self.heard()[0]["error"]["message"])
            self.assertOver(piped)
            piped.leave()

    def test_the_client_is_gone(self) -> None:
        """Nobody is waited for."""
        piped = self.start()
        self.call(piped)
        piped.pipe.writeConnectionLost()
        self.assertOver(piped)

    def test_a_client_that_does_not_read_does_not_hold_us_up(self) -> None:
        """One second for the rest of what there is to say."""
        piped = self.start()
        self.transport.unread = True
        piped.leave()
        self.clock.pump([0.05] * 15)
        self.assertNoResult(piped.over)
        self.clock.pump([0.05] * 10)
        self.assertOver(piped)

    def test_a_client_that_does_not_read_and_has_closed_its_end(self) -> None:
        """Is noticed after write_timeout, although nothing is read from it."""
        piped = self.start()
        asked: list[int] = []

        def hung_up() -> bool:
            asked.append(1)
            return len(asked) == 2

        piped.hung_up = hung_up
        self.clock.pump([1.0] * 3)
        self.assertEqual(asked, [])
        piped.pipe.pauseProducing()
        self.clock.pump([1.0] * 3)
        self.assertEqual(asked, [])
        self.clock.advance(1.0)
        self.assertEqual(asked, [1])
        self.assertNoResult(piped.over)
        self.clock.advance(1.0)
        self.assertOver(piped)
        self.assertFalse(piped.failed)

    def test_a_session_that_ends_is_a_failure(self) -> None:
        """Clients start a command again that has failed."""
        piped = self.start()
        self.say(piped, request("initialize", 0, {"protocolVersion": "2025-11-25"}))
        self.fake.wire.answer({"protocolVersion": "2025-11-25"})
        (session,) = piped.relay.sessions.values()
        with capturedLogs() as events:
            session.close()
        self.assertOver(piped)
        self.assertTrue(piped.failed)
        self.assertTrue(any("session has ended" in (formatEvent(event) or "") for event in events))

    def test_an_end_that_goes_wrong_is_logged_and_an_end(self) -> None:
        """Children are ended nevertheless."""
        piped = self.start()
        closed: list[bool] = []
        self.patch(piped.relay, "close", lambda: 1 / 0)
        self.patch(piped.upstreams.children.__class__, "close", self.closing(closed))
        piped.leave()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(closed, [True])
        self.assertOver(piped)

    def closing(self, closed: list[bool]) -> Any:
        async def close(_: Any) -> None:
            closed.append(True)

        return close
