"""Tests for mcptunnel.web.health and mcptunnel.web.tree: what lies where, and what probes are told."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.principal import ANONYMOUS
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target, targets
from mcptunnel.test.web.sites import Calling, get, serve, split
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
)
from mcptunnel.web.health import Health
from mcptunnel.web.mcp import McpResource
from mcptunnel.web.replies import Streams
from mcptunnel.web.tree import Nothing, routes


class HealthTests(SynchronousTestCase):
    """One word, one status."""

    def ask(self, resource: Health, *, known: bool = False, method: bytes = b"GET") -> tuple[bytes, Any]:
        def admit(request: Any) -> None:
            if known:
                request.principal = ANONYMOUS
                request.record.principal = "anonymous"

        first, headers, body = split(serve(resource, admit=admit).connect().send(get(method=method)))
        if body:
            self.assertEqual(headers[b"content-type"], b"application/json")
            self.assertEqual(headers[b"cache-control"], b"no-store")
        return first, json.loads(body) if body else headers

    def test_all_is_well(self) -> None:
        """200."""
        self.assertEqual(self.ask(Health(list)), (b"HTTP/1.1 200 OK", {"status": "ok"}))

    def test_something_is_wrong(self) -> None:
        """503, with reasons that tell no secret; asked anew each time."""
        reasons: list[str] = []
        health = Health(lambda: reasons)
        self.ask(health)
        reasons.append("certificate_expired")
        first, body = self.ask(health)
        self.assertEqual(first, b"HTTP/1.1 503 Service Unavailable")
        self.assertEqual(body, {"status": "unavailable", "reasons": ["certificate_expired"]})

    def test_details_are_for_those_who_may_use_the_daemon(self) -> None:
        """Nobody else sees a name or a number."""
        health = Health(list, lambda: {"servers": {"a": 1}})
        self.assertEqual(self.ask(health, known=True)[1], {"status": "ok", "servers": {"a": 1}})
        self.assertEqual(self.ask(health, known=False)[1], {"status": "ok"})

    def test_head_has_the_same_head(self) -> None:
        """And no body."""
        first, headers = self.ask(Health(list), method=b"HEAD")
        self.assertEqual((first, headers[b"content-length"]), (b"HTTP/1.1 200 OK", b"15"))

    def test_other_verbs_are_told_what_is_allowed(self) -> None:
        """405."""
        first, headers, _ = split(serve(Health(list)).connect().send(get(method=b"DELETE")))
        self.assertEqual((first[9:12], headers[b"allow"]), (b"405", b"GET, HEAD"))


class TreeTests(SynchronousTestCase):
    """Addresses."""

    def setUp(self) -> None:
        upstreams = {name: FakeUpstream(name) for name in ("a", "b-2")}
        relay = Relay(upstreams, Bounds(), lambda: 0.0, FakeSeal(), {"name": "us", "version": "0"})
        self.sockets: dict[Target, Calling] = {}
        self.found = routes(
            relay,
            targets(list(upstreams)),
            Streams(lambda: 0.0, Clock().callLater),
            self.socket,
            lambda: ["stopping"],
            lambda: {"n": 1},
        )

    def socket(self, target: Target) -> Calling:
        self.sockets[target] = Calling(lambda _: b"socket")
        return self.sockets[target]

    def test_every_address_is_there_with_and_without_a_slash(self) -> None:
        """And no other."""
        plain = {
            *("/health", "/health/live", "/health/ready", "/mcp", "/mcp/ws"),
            *("/mcp/sse", "/mcp/messages"),
            *(f"/servers/{name}/{last}" for name in ("a", "b-2") for last in ("mcp", "ws", "sse", "messages")),
        }
        self.assertEqual({path.decode() for path in self.found}, plain | {f"{path}/" for path in plain})
        for path, resource in self.found.items():
            self.assertIs(self.found[path.rstrip(b"/")], resource)

    def test_each_address_shows_what_it_says(self) -> None:
        """MCP and WebSocket of one target."""
        for path, target in ((b"/mcp", Target(("a", "b-2"), True)), (b"/servers/a/mcp", Target(("a",), False))):
            resource = self.found[path]
            assert isinstance(resource, McpResource)
            self.assertEqual(resource._target, target)
        self.assertIs(self.found[b"/servers/a/ws"], self.sockets[Target(("a",), False)])

    def test_liveness_does_not_depend_on_readiness(self) -> None:
        """A daemon that drains is alive, and not ready."""
        served = serve(Nothing(), routes=self.found)
        for path, status in ((b"/health/live", b"200"), (b"/health/ready", b"503"), (b"/health", b"503")):
            self.assertEqual(served.connect().send(get(path=path))[9:12], status)

    def test_everywhere_else_is_nothing(self) -> None:
        """404 in words; nothing redirects."""
        served = serve(Nothing(), routes=self.found)
        for path in (
            b"/",
            b"/mcp/x",
            b"/servers",
            b"/servers/c/mcp",
            b"/servers/a",
            b"/MCP",
            b"/mcp//",
            b"/%6dcp",
            b"/mcp;x",
        ):
            first, _, body = split(served.connect().send(get(path=path)))
            self.assertEqual((first[9:12], json.loads(body)["reason"]), (b"404", "not_found"), path)
