"""Tests for mcptunnel.core.opening and what commons find out: servers whose era nobody has said."""

from __future__ import annotations

from typing import Any

from mcptunnel.core.eras import PROBE_SECONDS
from mcptunnel.core.rules import Rules
from mcptunnel.test.core.bridges import BridgeCase
from mcptunnel.testing import request

MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {}}


class LegacyClientTests(BridgeCase):
    """A client that says ``initialize``."""

    def known(self) -> dict[str, bool | None]:
        return self.relay.eras.known("a")

    def test_a_server_that_answers_is_spoken_to_in_that_era(self) -> None:
        """Nothing else is asked."""
        session = self.session()
        _, sink = self.legacy(session, self.hello)
        self.wire.answer(LEGACY)
        self.assertEqual((sink.answer["result"], self.known()["legacy"]), (LEGACY, True))
        self.legacy(session, request("tools/list", 1))
        self.assertEqual(self.methods(), ["initialize", "tools/list"])

    def test_a_server_that_knows_no_initialize_is_asked_for_the_other_era(self) -> None:
        """And bridged to; the next session does not have to find out again."""
        for error in ({"code": -32022, "message": "no"}, {"code": -32601, "message": "no"}):
            self.setUp()
            session = self.session()
            _, sink = self.legacy(session, self.hello)
            first = self.wire
            first.answer(error=error)
            self.assertEqual(self.methods(), ["server/discover"])
            self.wire.answer(MODERN)
            self.wire.answer(MODERN)
            self.assertEqual(sink.answer["result"]["protocolVersion"], "2025-06-18")
            self.assertEqual((first.closed, self.known()), (True, {"legacy": False, "modern": True}))
            again = self.session()
            self.legacy(again, self.hello)
            self.assertEqual(self.methods()[-1], "server/discover")

    def test_an_error_that_is_about_this_client_stays_its_own(self) -> None:
        """A server of neither era, or of this one, answers for itself."""
        session = self.session()
        _, sink = self.legacy(session, self.hello)
        self.wire.answer(error={"code": -32602, "message": "bad client"})
        self.wire.answer(error={"code": -32601, "message": "what?"})
        self.assertEqual(sink.answer["error"]["message"], "bad client")
        self.assertIsNone(self.known()["legacy"])

    def test_a_server_that_is_down_is_not_asked_twice(self) -> None:
        """The client hears why."""
        session = self.session()
        _, sink = self.legacy(session, self.hello)
        self.wire.lose("it exited")
        self.assertEqual(sink.answer["error"]["message"], "server a is unavailable: it exited")
        self.assertEqual(len(self.upstream.wires), 1)

    def test_a_client_that_leaves_meanwhile_is_not_waited_for(self) -> None:
        """What is learned stays."""
        session = self.session()
        exchange, sink = self.legacy(session, self.hello)
        self.wire.answer(error={"code": -32022, "message": "no"})
        exchange.abandon()
        self.wire.answer(MODERN)
        self.assertEqual((sink.answered, self.known()["modern"]), (False, True))


class SharedTests(LegacyClientTests):
    """The same where all sessions share one connection."""

    rules = Rules(sharing="shared")

    def test_a_server_that_answers_is_spoken_to_in_that_era(self) -> None:
        """It is introduced by us."""
        session = self.session()
        _, sink = self.legacy(session, self.hello)
        self.wire.answer(LEGACY)
        self.assertEqual(sink.answer["result"]["protocolVersion"], "2025-06-18")
        self.assertEqual(self.methods(), ["initialize", "notifications/initialized"])

    def test_a_client_that_leaves_meanwhile_is_not_waited_for(self) -> None:
        """The session with the server is everybody's."""
        session = self.session()
        exchange, sink = self.legacy(session, self.hello)
        exchange.abandon()
        self.wire.answer(LEGACY)
        self.assertEqual((sink.answered, self.wire.closed), (False, False))


class ModernClientTests(BridgeCase):
    """A client of 2026-07-28."""

    def test_a_server_is_asked_once_and_then_spoken_to_in_its_era(self) -> None:
        """What comes meanwhile waits."""
        sinks = [self.modern("tools/list", id_=n)[1] for n in (1, 2)]
        self.assertEqual(self.methods(), ["server/discover"])
        self.wire.answer(MODERN)
        self.assertEqual(self.methods(), ["server/discover", "tools/list", "tools/list"])
        for number in (2, 3):
            self.wire.answer({"tools": []}, number=number)
        self.assertEqual([sink.answer["id"] for sink in sinks], [1, 2])

    def test_answers_that_mean_the_older_era(self) -> None:
        """A method that is unknown, a list without this revision, nothing at all, an end: then `initialize` is said."""
        answers: list[Any] = [
            lambda: self.wire.answer(error={"code": -32601, "message": "no"}),
            lambda: self.wire.answer(error={"code": -32602, "message": "no"}),
            lambda: self.wire.answer({"supportedVersions": ["2025-11-25"]}),
            lambda: self.wire.answer({}),
            lambda: self.wire.answer([1]),
            self.silence,
            lambda: self.wire.lose("it exited"),
        ]
        for answer in answers:
            self.setUp()
            _, sink = self.modern("tools/list")
            answer()
            self.assertEqual(self.methods(), ["initialize"])
            self.wire.answer(LEGACY)
            self.wire.answer({"tools": []})
            self.assertEqual(sink.answer["result"]["resultType"], "complete")

    def silence(self) -> None:
        self.now += PROBE_SECONDS + 0.1
        self.relay.sweep()

    def test_errors_that_only_the_newer_era_has(self) -> None:
        """The server knows it, whatever it has against the question."""
        for code in (-32020, -32021, -32022):
            self.setUp()
            self.modern("tools/list")
            self.wire.answer(error={"code": code, "message": "no"})
            self.assertEqual(self.methods()[-1], "tools/list")

    def test_a_server_that_fails_in_both_eras_is_asked_anew(self) -> None:
        """The next time it may be another program."""
        _, sink = self.modern("tools/list")
        self.wire.answer(error={"code": -32601, "message": "no"})
        self.wire.answer(error={"code": -32601, "message": "no"})
        self.assertIn("could not be initialized", sink.answer["error"]["message"])
        self.relay.sweep()
        self.modern("tools/list")
        self.assertEqual(self.methods(), ["server/discover"])


class ModernClientOverHttpTests(BridgeCase):
    """The same, where a loss says nothing of eras."""

    rules = Rules(mirrored=True)
    streams = True

    def test_a_server_that_cannot_be_reached_is_of_no_era(self) -> None:
        """The client hears why, and the next one asks again."""
        sinks = [self.modern("tools/list", id_=n)[1] for n in (1, 2)]
        self.wire.lose("connection refused")
        for sink in sinks:
            self.assertIn("connection refused", sink.answer["error"]["message"])
        self.modern("tools/list")
        self.assertEqual((self.methods(), self.relay.eras.known("a")["modern"]), (["server/discover"], None))
