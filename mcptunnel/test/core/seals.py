"""What every seal must do: :class:`SealContract` runs against the fake and against the real one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.seal import Open, Purpose, Seal


class SealContract(SynchronousTestCase, ABC):
    """Sealed for one purpose and one holder."""

    @abstractmethod
    def lives(self) -> tuple[Seal, Seal]:
        """Two seals under the same keys: this life of the daemon, and the next."""

    @abstractmethod
    def stranger(self) -> Seal:
        """A seal under other keys."""

    def test_what_was_sealed_opens(self) -> None:
        """Any bytes, again and again."""
        seal, _ = self.lives()
        for text in (b"", b"x", bytes(range(256)) * 20):
            sealed = seal.close("state", "me", text)
            for _ in range(2):
                self.assertEqual(seal.open("state", "me", sealed), Open(text, ours=True))

    def test_it_is_visible_ascii(self) -> None:
        """It travels in headers and in JSON."""
        seal, _ = self.lives()
        for purpose in get_args(Purpose):
            self.assertTrue(re.fullmatch(r"[A-Za-z0-9._~-]+", seal.close(purpose, "mé", b'"\n')))

    def test_twice_the_same_is_sealed_differently(self) -> None:
        """An id of a session can name one session only."""
        seal, _ = self.lives()
        self.assertNotEqual(seal.close("session", "me", b"x"), seal.close("session", "me", b"x"))

    def test_it_is_bound_to_its_purpose_and_holder(self) -> None:
        """Neither can be lent."""
        seal, _ = self.lives()
        sealed = seal.close("state", "me", b"x")
        for purpose, holder in (("session", "me"), ("state", "you"), ("state", ""), ("state", "m")):
            self.assertIsNone(seal.open(purpose, holder, sealed))  # type: ignore[arg-type]

    def test_the_next_life_opens_it_and_knows_that_it_is_not_its_own(self) -> None:
        """And the other way round."""
        before, after = self.lives()
        sealed = before.close("session", "me", b"x")
        self.assertEqual(after.open("session", "me", sealed), Open(b"x", ours=False))
        self.assertIsNone(after.open("session", "you", sealed))
        self.assertEqual(after.open("session", "me", after.close("session", "me", b"y")), Open(b"y", ours=True))

    def test_what_was_not_sealed_here_does_not_open(self) -> None:
        """Made up, cut off, lengthened, altered, or somebody else's; never an exception."""
        seal, _ = self.lives()
        sealed = seal.close("state", "me", b"text")
        other = ("A" if sealed[-3] != "A" else "B").join((sealed[:-3], sealed[-2:]))
        made_up = ("", "x", "=", "é", "\ud800", "a b", "A" * 100, "A" * 5000, "state-99")
        for text in (*made_up, sealed[:-1], sealed + "A", sealed + "=", sealed + "\n", " " + sealed, other):
            self.assertIsNone(seal.open("state", "me", text), text)
        self.assertIsNone(self.stranger().open("state", "me", sealed))
