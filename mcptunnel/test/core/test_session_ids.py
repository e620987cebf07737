"""Tests for mcptunnel.core.session_ids: an id holds what another life of the daemon needs, for its holder alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.principal import Principal
from mcptunnel.core.routing import Target
from mcptunnel.core.session_ids import LIFE_SECONDS, mint, read
from mcptunnel.testing import FakeSeal, request

ME = Principal(name="me")
ONE = Target(("a",), False)
HELLO = request("initialize", 1, {"clientInfo": {"name": "é"}})


class IdTests(SynchronousTestCase):
    """Minted in life 1 at 100, read in life 2."""

    def setUp(self) -> None:
        self.seal = FakeSeal()

    def read(self, id_: str, principal: Principal = ME, target: Target = ONE, now: float = 200.0) -> bytes | None:
        return read(self.seal, id_, principal, target, now)

    def test_another_life_reads_what_the_client_has_said(self) -> None:
        """Byte for byte, for a day."""
        id_ = mint(self.seal, ME, ONE, HELLO, 100.0)
        self.seal.life = 2
        self.assertEqual(self.read(id_), HELLO)
        self.assertEqual(self.read(id_, now=100.0 + LIFE_SECONDS), HELLO)
        self.assertIsNone(self.read(id_, now=101.0 + LIFE_SECONDS))

    def test_this_life_reads_nothing(self) -> None:
        """It knows its sessions; one that it does not know has ended."""
        self.assertIsNone(self.read(mint(self.seal, ME, ONE, HELLO, 100.0)))

    def test_nobody_else_and_nowhere_else(self) -> None:
        """Another principal, other servers, other names for the same server, or a state."""
        id_ = mint(self.seal, ME, ONE, HELLO, 100.0)
        state = self.seal.close("state", "me", b'[9999999999,"x","y"]')
        self.seal.life = 2
        self.assertIsNone(self.read(id_, Principal(name="you")))
        for target in (Target(("a",), True), Target(("b",), False), Target(("a", "b"), False)):
            self.assertIsNone(self.read(id_, target=target))
        for made_up in (state, "", "session-99"):
            self.assertIsNone(self.read(made_up))

    def test_a_session_that_nobody_goes_on_with_is_not_read(self) -> None:
        """A connection is one, and a client that says too much for a header."""
        for hello in (None, b"x" * 1501):
            id_ = mint(self.seal, ME, ONE, hello, 100.0)
            self.seal.life += 1
            self.assertIsNone(self.read(id_))
            self.assertLess(len(self.seal.kept[id_][3]), 100)

    def test_every_id_is_another(self) -> None:
        """Though all is the same."""
        self.assertEqual(len({mint(self.seal, ME, ONE, HELLO, 100.0) for _ in range(3)}), 3)
