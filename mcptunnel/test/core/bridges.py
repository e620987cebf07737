"""A relay with one server of one era, a clock, and clients of both eras, for the tests of the bridges."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.rules import Rules
from mcptunnel.core.session import Session
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
    FakeWire,
    RecordingSink,
    make_exchange,
    notification,
    request,
    response,
)

__all__ = ["BridgeCase"]

ONE = Target(("a",), False)


class BridgeCase(SynchronousTestCase):
    """One server, ``a``.

    Attributes:
        rules: How it is to be spoken to.
        streams: Whether its calls have streams of their own.
    """

    rules = Rules()
    streams = False

    def setUp(self) -> None:
        self.now = 1000.0
        self.seal = FakeSeal()
        self.upstream = FakeUpstream("a", streams=self.streams, rules=self.rules)
        self.relay = self.start()

    def start(self) -> Relay:
        """A life of the daemon."""
        bounds = Bounds(input_patience=60.0, parked=2, session_idle=600.0)
        return Relay({"a": self.upstream}, bounds, lambda: self.now, self.seal, {"name": "us", "version": "0"})

    @property
    def wire(self) -> FakeWire:
        """The latest connection to the server."""
        return self.upstream.wire

    def sent(self, method: str) -> list[Any]:
        """What has been sent on the latest connection of ``method``."""
        return [body for body in self.wire.bodies if body.get("method") == method]

    def methods(self) -> list[str | None]:
        """The methods of everything that has been sent there; None for responses."""
        return [body.get("method") for body in self.wire.bodies]

    def number(self, method: str) -> int:
        """Our number of the latest request of ``method``."""
        number = next(sent.number for sent in reversed(self.wire.sent) if sent.body.get("method") == method)
        assert number is not None
        return number

    # --- a modern client

    def modern(
        self, method: str, params: Any = None, id_: int | str = 1, principal: Principal = ANONYMOUS
    ) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(request(method, id_, params, modern=True), era="modern", principal=principal)
        self.relay.stateless(exchange, ONE)
        return exchange, sink

    # --- a legacy client

    def session(self, capabilities: Any = None, principal: Principal = ANONYMOUS) -> Session:
        """A session that is not open yet."""
        self.hello = request(
            "initialize",
            0,
            {
                "protocolVersion": "2025-06-18",
                "capabilities": capabilities or {},
                "clientInfo": {"name": "c", "version": "1"},
            },
        )
        return self.relay.open(principal, ONE, self.hello)

    def legacy(self, session: Session, raw: bytes) -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(raw)
        session.request(exchange)
        return exchange, sink

    def tell(self, session: Session, method: str, params: Any = None) -> None:
        session.notification(decode(notification(method, params)))

    def respond(self, session: Session, id_: int, result: Any = None, error: Any = None) -> None:
        session.response(decode(response(id_, result, error=error)))
