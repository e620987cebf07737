"""Tests for mcptunnel.services.sealing: a real cipher, and the fake that stands for it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.seal import Open, Seal
from mcptunnel.services.sealing import KeySeal
from mcptunnel.test.core import seals
from mcptunnel.testing import FakeSeal


class FakeSealTests(seals.SealContract):
    """The fake keeps the promises of the real one."""

    def lives(self) -> tuple[Seal, Seal]:
        before = FakeSeal()
        return before, FakeSeal(life=2, kept=before.kept)

    def stranger(self) -> Seal:
        return FakeSeal()


class KeySealTests(seals.SealContract):
    """The real one."""

    def lives(self) -> tuple[Seal, Seal]:
        return KeySeal(["key"]), KeySeal(["key"])

    def stranger(self) -> Seal:
        return KeySeal(["other"])

    def test_any_altered_bit_spoils_it(self) -> None:
        """Also one of the life or of the nonce."""
        seal = KeySeal(["key"])
        sealed = seal.close("session", "me", b"text")
        for at, letter in enumerate(sealed):
            altered = sealed[:at] + ("B" if letter != "B" else "Q") + sealed[at + 1 :]
            self.assertIsNone(seal.open("session", "me", altered), at)

    def test_there_is_one_spelling_only(self) -> None:
        """A session that has ended must not come back under another name: base64 leaves some bits unused."""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        seal = KeySeal(["key"])
        for length in range(3):
            sealed = seal.close("session", "me", b"x" * length)
            opening = [end for end in letters if seal.open("session", "me", sealed[:-1] + end) is not None]
            self.assertEqual(opening, [sealed[-1]])

    def test_nothing_of_the_text_shows(self) -> None:
        """The same text twice has nothing in common but the life."""
        seal = KeySeal(["key"])
        one, two = (seal.close("state", "me", b"A" * 64) for _ in range(2))
        self.assertNotEqual(one[24:], two[24:])
        self.assertEqual(len({one[at : at + 8] for at in range(40, len(one) - 8, 8)}), len(range(40, len(one) - 8, 8)))


class KeysTests(SynchronousTestCase):
    """Keys come and go."""

    def test_the_first_key_seals_and_all_open(self) -> None:
        """So a key is changed by putting the new one in front, and taking the old one away later."""
        old, both, new = KeySeal(["old"]), KeySeal(["new", "old"]), KeySeal(["new"])
        before, during = old.close("session", "me", b"x"), both.close("session", "me", b"y")
        self.assertEqual(both.open("session", "me", before), Open(b"x", ours=False))
        self.assertEqual(new.open("session", "me", during), Open(b"y", ours=False))
        self.assertIsNone(old.open("session", "me", during))
        self.assertIsNone(new.open("session", "me", before))

    def test_without_keys_nothing_outlives_the_daemon(self) -> None:
        """But in this life it opens."""
        one, two = KeySeal([]), KeySeal([])
        sealed = one.close("session", "me", b"x")
        self.assertEqual(one.open("session", "me", sealed), Open(b"x", ours=True))
        self.assertIsNone(two.open("session", "me", sealed))

    def test_a_repr_holds_no_key(self) -> None:
        """They are secret."""
        self.assertEqual(repr(KeySeal(["hush", "secret"])), "<KeySeal 2 keys>")
