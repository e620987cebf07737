"""Tests for mcptunnel.core.seal: a requestState is good for one principal, one request and some time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import RpcError
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.principal import Principal
from mcptunnel.core.seal import State, open_state, seal_state
from mcptunnel.testing import FakeSeal, request

ME = Principal(name="me")
FIRST: dict[str, Any] = {"name": "t", "arguments": {"a": 1, "b": [True, None]}}


class StateTests(SynchronousTestCase):
    """Sealed at 100 for 60 seconds."""

    def setUp(self) -> None:
        self.seal = FakeSeal()

    def sealed(self, state: State, params: Any = None, method: str = "tools/call") -> str:
        return seal_state(self.seal, decode(request(method, 1, params or FIRST, modern=True)), ME, state, 160.0)

    def open(
        self,
        sealed: Any,
        params: Any = None,
        *,
        method: str = "tools/call",
        principal: Principal = ME,
        now: float = 110.0,
    ) -> State:
        whole = {**(params or FIRST), "requestState": sealed, "inputResponses": {"k": 1}}
        return open_state(self.seal, decode(request(method, 2, whole, modern=True)), principal, now)

    def test_it_opens_for_the_same_request_written_anew(self) -> None:
        """Under another id, with another envelope, in another order of members."""
        for state in (State("parked", "7"), State("again", ""), State("theirs", '{"é":1}')):
            sealed = self.sealed(state)
            self.assertEqual(self.open(sealed), state)
            raw = (
                b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"_meta":{"other":1},"requestState":"%b",'
                b'"arguments":{ "b":[true,null],"\\u0061":1},"name":"\\u0074"}}' % sealed.encode()
            )
            self.assertEqual(open_state(self.seal, decode(raw), ME, 110.0), state)

    def test_everything_else_is_refused_in_the_same_words(self) -> None:
        """Somebody else's, altered, expired, for another request, or no state at all."""
        sealed = self.sealed(State("parked", "7"))
        session = self.seal.close("session", "me", b"x")
        messages = set()
        cases: tuple[tuple[Any, Any, dict[str, Any]], ...] = (
            (sealed, None, {"principal": Principal(name="you")}),
            (sealed + "x", None, {}),
            (sealed, None, {"now": 160.5}),
            (sealed, {**FIRST, "arguments": {"a": 2, "b": [True, None]}}, {}),
            (sealed, {**FIRST, "arguments": {"a": 1}}, {}),
            (sealed, {**FIRST, "name": "u"}, {}),
            (sealed, {**FIRST, "more": 1}, {}),
            (sealed, None, {"method": "prompts/get"}),
            (session, None, {}),
            (None, None, {}),
            (7, None, {}),
            ([sealed], None, {}),
        )
        for state, params, more in cases:
            error = self.assertRaises(RpcError, self.open, state, params, **more)
            self.assertEqual((error.code, error.reason), (-32602, "invalid_state"))
            messages.add(error.message)
        self.assertEqual(len(messages), 1)
        self.assertEqual(self.open(sealed, now=160.0), State("parked", "7"))

    def test_a_call_that_was_parked_in_another_life_is_gone(self) -> None:
        """What needs nothing here goes on."""
        parked, again, theirs = (self.sealed(State(kind, "1")) for kind in ("parked", "again", "theirs"))
        self.seal.life = 2
        self.assertRaises(RpcError, self.open, parked)
        self.assertEqual((self.open(again).kind, self.open(theirs).kind), ("again", "theirs"))

    def test_a_value_that_cannot_be_read_counts_as_it_is_written(self) -> None:
        """Sealing must not fail in the middle of a call because of it."""
        raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"n":%b}%b}}'
        sealed = seal_state(self.seal, decode(raw % (b"1e999", b"")), ME, State("again", ""), 160.0)
        back = b',"requestState":"%b"' % sealed.encode()
        self.assertEqual(open_state(self.seal, decode(raw % (b"1e999", back)), ME, 110.0).kind, "again")
        self.assertRaises(RpcError, open_state, self.seal, decode(raw % (b"1e998", back)), ME, 110.0)
