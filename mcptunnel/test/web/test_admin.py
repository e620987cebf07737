"""Tests for mcptunnel.web.admin: who may look, and who may change something."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.hosts import HostPolicy
from mcptunnel.test.web.sites import Served, serve
from mcptunnel.web.admin import AdminGate, MetricsResource, ReloadResource

LOCAL = IPv4Address("TCP", "127.0.0.1", 4000)
DIGEST = sha256(b"sesame").digest()


class AdminTests(SynchronousTestCase):
    """The operator's listener."""

    taken = True

    def served(self, digest: bytes | None = DIGEST, *, local: bool = True) -> Served:
        def reload() -> Deferred[dict[str, Any]]:
            return succeed({"taken": self.taken, "problems": []})

        return serve(
            admit=AdminGate(HostPolicy.build(bound_host="127.0.0.1"), digest, local=local),
            routes={
                b"/metrics": MetricsResource(lambda: b"a 1\n", b"text/plain"),
                b"/admin/reload": ReloadResource(reload),
            },
        )

    def ask(self, served: Served, line: str, *lines: str, peer: Any = LOCAL) -> tuple[int, bytes]:
        head = "".join(f"{each}\r\n" for each in (line + " HTTP/1.1", "Host: localhost", *lines))
        data = served.connect(peer).send(f"{head}\r\n".encode())
        return int(data[9:12]), data.partition(b"\r\n\r\n")[2]

    def reason(self, *asked: Any, **how: Any) -> tuple[int, str]:
        status, body = self.ask(*asked, **how)
        return status, json.loads(body)["reason"]

    def test_this_machine_may_look(self) -> None:
        """By GET and HEAD."""
        self.assertEqual(self.ask(self.served(), "GET /metrics"), (200, b"a 1\n"))
        self.assertEqual(self.ask(self.served(), "HEAD /metrics"), (200, b""))
        self.assertEqual(self.reason(self.served(), "POST /metrics"), (405, "method_not_allowed"))

    def test_others_may_not_even_look_without_the_token(self) -> None:
        """Where the listener can be reached from elsewhere."""
        served = self.served(local=False)
        self.assertEqual(self.reason(served, "GET /metrics"), (401, "unauthenticated"))
        self.assertEqual(self.ask(served, "GET /metrics", "Authorization: Bearer sesame")[0], 200)

    def test_changing_something_needs_the_token(self) -> None:
        """The right one; and without one in the configuration nothing can be changed."""
        served = self.served()
        for lines in ((), ("Authorization: Bearer open",), ("Authorization: Basic sesame",), ("Authorization: ",)):
            self.assertEqual(self.reason(served, "POST /admin/reload", *lines), (401, "unauthenticated"))
        self.assertEqual(self.ask(served, "POST /admin/reload", "Authorization: Bearer sesame")[0], 200)
        self.assertEqual(self.reason(self.served(None), "POST /admin/reload"), (403, "admin_token_needed"))

    def test_on_a_unix_socket_its_permissions_have_decided(self) -> None:
        """No token, whatever Host says."""
        served = self.served(None)
        self.assertEqual(self.ask(served, "POST /admin/reload", peer=UNIXAddress(None))[0], 200)

    def test_pages_in_a_browser_may_nothing(self) -> None:
        """Neither under a name of their own nor from another origin."""
        served = self.served()
        self.assertEqual(self.reason(served, "GET /metrics", "Origin: http://localhost"), (403, "origin_not_allowed"))
        data = served.connect(LOCAL).send(b"GET /metrics HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        self.assertEqual(data[9:12], b"421")

    def test_what_came_of_reading_again(self) -> None:
        """The status tells scripts, the body people."""
        served = self.served()
        token = "Authorization: Bearer sesame"
        self.assertEqual(self.ask(served, "POST /admin/reload", token), (200, b'{"taken":true,"problems":[]}'))
        self.taken = False
        self.assertEqual(self.ask(served, "POST /admin/reload", token), (422, b'{"taken":false,"problems":[]}'))
        self.assertEqual(self.reason(served, "GET /admin/reload", token), (405, "method_not_allowed"))
