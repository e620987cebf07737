"""Tests for mcptunnel.observe.access: a line is a line, whatever clients send."""

from __future__ import annotations

import json

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.record import Record
from mcptunnel.observe.access import AccessLog, as_json, as_text

CALL = Record(
    started=1_795_384_000.1234,
    peer="10.0.0.1",
    client="192.0.2.9",
    scheme="https",
    host="mcp.example.com",
    verdict="trusted",
    principal="ci",
    verb="POST",
    path="/mcp",
    era="modern",
    method="tools/call",
    target="time__now",
    upstream="time",
    status=200,
    received=120,
    sent=300,
    duration=0.0123456789,
)
HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["a\nb", "a\r\nb", "\x1b[31m", "\u2028", "\x00", 'x" 200 0/0B', "\x85", "\x7f", "\\n", "a b rpc=0 error=none"]
)


class TextTests(SynchronousTestCase):
    """For people."""

    def test_a_call(self) -> None:
        """Who, what, how it went."""
        self.assertEqual(
            as_text(CALL),
            '192.0.2.9 ci "POST https://mcp.example.com/mcp" 200 120/300B 12.3ms tools/call time__now via time',
        )

    def test_what_is_not_known_is_left_out(self) -> None:
        """Or a hyphen, where a column would be missing."""
        record = Record(peer="unix:", scheme="http", verb="GET", path="/health")
        self.assertEqual(as_text(record), 'unix: - "GET http:///health" - 0/0B 0.0ms')

    def test_failures_and_sockets_say_so(self) -> None:
        """The JSON-RPC code, our reason, the protocol."""
        record = evolve(CALL, code=-32010, error="upstream_unavailable", protocol="ws", target=None, status=101)
        self.assertTrue(as_text(record).endswith("ws tools/call via time rpc=-32010 error=upstream_unavailable"))

    @settings(deadline=None, max_examples=150)
    @given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    def test_no_client_can_break_the_line_or_its_quotes(self, host: str, path: str, method: str, target: str) -> None:
        """Not start a new line, not steer a terminal, not end the quotes, not pretend to be other fields."""
        line = as_text(evolve(CALL, host=host, path=path, method=method, target=target))
        self.assertTrue(line.isprintable())
        self.assertEqual(len(line.splitlines()), 1)
        self.assertEqual(line.count('"'), 2)
        self.assertEqual(len(line.rpartition('" ')[2].split(" ")), 7)

    @settings(deadline=None, max_examples=100)
    @given(HOSTILE, HOSTILE)
    def test_two_targets_never_read_the_same(self, one: str, two: str) -> None:
        """Escapes can be told from what looks like them."""
        lines = [as_text(evolve(CALL, target=target)) for target in (one, two)]
        self.assertEqual(lines[0] == lines[1], one == two)


class JsonTests(SynchronousTestCase):
    """For machines."""

    def test_a_call(self) -> None:
        """All that is known, the time as RFC 3339 in UTC."""
        self.assertEqual(
            json.loads(as_json(CALL)),
            {
                "time": "2026-11-22T21:46:40.123Z",
                "protocol": "http",
                "peer": "10.0.0.1",
                "client": "192.0.2.9",
                "scheme": "https",
                "host": "mcp.example.com",
                "verdict": "trusted",
                "principal": "ci",
                "verb": "POST",
                "path": "/mcp",
                "era": "modern",
                "method": "tools/call",
                "target": "time__now",
                "upstream": "time",
                "status": 200,
                "received": 120,
                "sent": 300,
                "duration": 0.012346,
            },
        )

    @settings(deadline=None, max_examples=100)
    @given(HOSTILE, HOSTILE)
    def test_any_text_comes_back(self, path: str, target: str) -> None:
        """On one line."""
        line = as_json(evolve(CALL, path=path, target=target))
        self.assertNotIn("\n", line)
        found = json.loads(line)
        self.assertEqual((found["path"], found["target"]), (path, target))


class LogTests(SynchronousTestCase):
    """Writing."""

    def test_the_form_is_chosen_once(self) -> None:
        """text or json."""
        for form, expected in (("text", as_text(CALL)), ("json", as_json(CALL))):
            lines: list[str] = []
            AccessLog(form, lines.append)(CALL)
            self.assertEqual(lines, [expected])
