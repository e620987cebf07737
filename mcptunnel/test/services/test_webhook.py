"""Tests for mcptunnel.services.webhook: requests on a connection in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel import __version__
from mcptunnel.core.errors import DeliveryError
from mcptunnel.services.ways import Way
from mcptunnel.services.webhook import SECONDS, Webhook, agent_on
from mcptunnel.test.services.test_presented import Endpoint


class WebhookTests(SynchronousTestCase):
    """The real agent, and an endpoint that connects to nothing."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.endpoint = Endpoint()
        endpoint: Any = self.endpoint
        way = Way(name="hooks.test", secure=True, plain=lambda: endpoint, endpoint=lambda: endpoint)
        self.hook = Webhook(
            "https://hooks.test:8443/a?key=s",
            {"Authorization": "Bearer b", "user-agent": "mine"},
            agent_on(way, self.clock),
            self.clock,
        )

    def sent(self, answer: bytes | None = None) -> Deferred[None]:
        sending = self.hook.send(b'{"a": 1}')
        self.protocol, self.wire = self.endpoint.succeed()
        if answer is not None:
            self.protocol.dataReceived(answer)
        return sending

    def reason(self, sending: Deferred[None]) -> str:
        return str(self.failureResultOf(sending, DeliveryError).value)

    def test_the_request(self) -> None:
        """POST, JSON, its length, the operator's lines in place of ours."""
        self.sent()
        head, _, body = self.wire.value().partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        self.assertEqual((first, body), (b"POST /a?key=s HTTP/1.1", b'{"a": 1}'))
        self.assertEqual(
            sorted(lines, key=bytes.lower),
            [
                b"Authorization: Bearer b",
                b"Connection: close",
                b"Content-Length: 8",
                b"Content-Type: application/json",
                b"Host: hooks.test:8443",
                b"User-Agent: mine",
            ],
        )

    def test_whose_request_it_is(self) -> None:
        """Unless the operator has another name for us."""
        self.hook._headers.removeHeader("user-agent")
        hook = Webhook("http://hooks.test/", {}, self.hook._agent, self.clock)
        hook.send(b"")
        _, wire = self.endpoint.succeed()
        self.assertIn(b"\r\nUser-Agent: mcptunnel/%b\r\n" % __version__.encode(), wire.value())

    def test_every_answer_of_success_is_one(self) -> None:
        """Its body is not waited for, and the connection is closed."""
        for status in (b"200 OK", b"202 Accepted", b"204 No Content"):
            sending = self.sent(b"HTTP/1.1 %b\r\nContent-Length: 999999999\r\n\r\nabc" % status)
            self.assertIsNone(self.successResultOf(sending))
            self.clock.advance(0)
            self.assertTrue(self.wire.disconnecting)
            self.protocol.connectionLost(Failure(ConnectionLost()))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_every_other_one_is_not(self) -> None:
        """A redirect is not followed: who knows where it leads."""
        for status in (b"302 Found\r\nLocation: http://elsewhere.test/", b"404 Not Found", b"500 Oops"):
            sending = self.sent(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
            self.assertEqual(self.reason(sending), f"it answered {status[:3].decode()}")
        self.assertEqual(len(self.endpoint.asked), 3)

    def test_a_target_that_is_not_there(self) -> None:
        """Or goes away."""
        sending = self.hook.send(b"")
        self.endpoint.asked[-1][1].errback(Failure(ConnectionRefusedError()))
        self.assertEqual(self.reason(sending), "no answer (Connection was refused by other side.)")
        sending = self.sent()
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIn("no answer (Connection to the other side was lost", self.reason(sending))

    def test_what_is_no_answer_is_not_quoted_at_length(self) -> None:
        """It may be anything."""
        for sent in (b"x" * 10_000 + b"\r\n\r\n", b"SSH-2.0-x\r\n\r\n"):
            sending = self.sent(sent)
            self.protocol.connectionLost(Failure(ConnectionLost()))
            reason = self.reason(sending)
            self.assertTrue(reason.startswith("no answer ("), reason)
            self.assertLess(len(reason), 250)

    def test_a_target_that_is_silent(self) -> None:
        """Before the connection or after it."""
        sending = self.hook.send(b"")
        self.clock.advance(SECONDS)
        self.assertEqual(self.reason(sending), "no answer within 15 s")
        self.assertEqual(self.endpoint.cancelled, 1)
        sending = self.sent()
        self.clock.advance(SECONDS)
        self.assertEqual((self.reason(sending), self.wire.aborted), ("no answer within 15 s", True))

    def test_it_can_be_broken_off(self) -> None:
        """As at the end of the daemon."""
        sending = self.sent()
        sending.cancel()
        self.failureResultOf(sending)
        self.assertTrue(self.wire.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])
