"""Tests for mcptunnel.core.eras: what is known of servers, and what their answers to a probe say."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.eras import DISCOVER, Eras, speaks_modern
from mcptunnel.core.errors import RpcError, UpstreamError
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.mcp import check_headers, era_of_message
from mcptunnel.core.rules import Rules
from mcptunnel.testing import FakeUpstream, response


class KnowledgeTests(SynchronousTestCase):
    """Learned, doubted, configured."""

    def test_what_was_learned_holds_until_it_is_doubted(self) -> None:
        """Each era of each server for itself."""
        eras = Eras({"a": FakeUpstream("a"), "b": FakeUpstream("b")})
        self.assertEqual(eras.known("a"), {"legacy": None, "modern": None})
        eras.learn("a", "modern", True)
        eras.learn("a", "legacy", False)
        self.assertEqual(eras.known("a"), {"legacy": False, "modern": True})
        self.assertEqual(eras.known("b"), {"legacy": None, "modern": None})
        eras.doubt("a", "modern")
        eras.doubt("b", "modern")
        self.assertEqual(eras.known("a"), {"legacy": False, "modern": None})

    def test_what_is_configured_is_neither_learned_nor_doubted(self) -> None:
        """The operator knows better."""
        eras = Eras(
            {"a": FakeUpstream("a", rules=Rules(era="modern")), "b": FakeUpstream("b", rules=Rules(era="legacy"))}
        )
        for server in "ab":
            eras.learn(server, "modern", server == "b")
            eras.doubt(server, "legacy")
        self.assertEqual(eras.known("a"), {"legacy": False, "modern": True})
        self.assertEqual(eras.known("b"), {"legacy": True, "modern": False})


class ProbeTests(SynchronousTestCase):
    """MCP 2026-07-28, Versioning, "Backward compatibility"."""

    def verdict(self, result: Any = None, **error: Any) -> bool | None:
        return speaks_modern(decode(response(0, result, **error)), None)

    def test_the_question_is_a_modern_request(self) -> None:
        """With all that one needs."""
        check_headers(decode(DISCOVER), None)
        self.assertEqual(era_of_message(decode(DISCOVER)), "modern")

    def test_a_server_that_names_a_modern_revision_is_modern(self) -> None:
        """One that names none, or something else than a list, is not."""
        self.assertIs(self.verdict({"supportedVersions": ["2025-11-25", "2026-07-28"]}), True)
        odd: tuple[Any, ...] = (["2025-11-25"], [], None, "2026-07-28", {"2026-07-28": 1}, [["2026-07-28"]])
        for versions in odd:
            self.assertIs(self.verdict({"supportedVersions": versions}), False, versions)
        nothing: tuple[Any, ...] = ({}, [], "2026-07-28")
        for result in nothing:
            self.assertIs(self.verdict(result), False)

    def test_errors_that_only_this_era_has_say_that_it_is_modern(self) -> None:
        """All others say that it is not; never one alone."""
        for code in (-32020, -32021, -32022):
            self.assertIs(self.verdict(error={"code": code, "message": ""}), True)
        others: tuple[Any, ...] = (-32601, -32600, -32602, -32603, -32000, -32001, -32700, 0, "x", None)
        for code in others:
            self.assertIs(self.verdict(error={"code": code, "message": ""}), False)

    def test_silence_and_a_refusal_say_that_it_is_not(self) -> None:
        """A 4xx of a server that waits for initialize; a timeout."""
        for reason, status, verdict in (
            ("upstream_timeout", None, False),
            ("upstream_status", 400, False),
            ("upstream_status", None, None),
            ("upstream_unavailable", None, None),
            ("upstream_unavailable", 400, None),
        ):
            error: RpcError = UpstreamError(-32010, "", reason=reason, status=status)
            self.assertIs(speaks_modern(None, error), verdict, (reason, status))
        self.assertIsNone(speaks_modern(None, None))
