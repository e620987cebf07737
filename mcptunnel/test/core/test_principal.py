"""Tests for mcptunnel.core.principal: who a token is, and the one decision about a name."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.principal import ANONYMOUS, Keyring, Principal, permits, reaches

CI = Principal(name="ci", allow=("weather__*",))
PATTERNS = st.lists(st.text("ab_*?[]!", max_size=6), max_size=3).map(tuple)


class KeyringTests(SynchronousTestCase):
    """Tokens."""

    def test_a_token_is_found_by_its_digest_only(self) -> None:
        """Nothing near it, and not the digest itself."""
        keyring = Keyring([(sha256(b"secret").digest(), CI)])
        self.assertIs(keyring.find(b"secret"), CI)
        for token in (
            b"",
            b"Secret",
            b"secret ",
            b"secre",
            sha256(b"secret").digest(),
            sha256(b"secret").hexdigest().encode(),
        ):
            self.assertIsNone(keyring.find(token))

    def test_an_empty_keyring_knows_nobody(self) -> None:
        """Not even the empty token."""
        self.assertFalse(Keyring([]))
        self.assertIsNone(Keyring([]).find(b""))
        self.assertTrue(Keyring([(b"x" * 32, CI)]))

    def test_it_shows_no_digest(self) -> None:
        """A digest of a weak token is as good as the token."""
        self.assertEqual(repr(Keyring([(b"x" * 32, CI)])), "<Keyring 1 tokens>")


class PermitsTests(SynchronousTestCase):
    """Patterns over ``server__name``."""

    def test_without_patterns_everything_is_allowed(self) -> None:
        """None is not the empty list."""
        self.assertTrue(permits(ANONYMOUS, "any", "thing"))
        self.assertTrue(reaches(ANONYMOUS, "any"))
        nobody = Principal(name="nobody", allow=())
        self.assertFalse(permits(nobody, "any", "thing"))
        self.assertFalse(reaches(nobody, "any"))

    def test_patterns(self) -> None:
        """Whole names, case as written."""
        for pattern, server, name, allowed in (
            ("weather__*", "weather", "now", True),
            ("weather__*", "weather2", "now", False),
            ("weather__*", "Weather", "now", False),
            ("weather__now", "weather", "now", True),
            ("weather__now", "weather", "nowadays", False),
            ("weather__now", "weather", "Now", False),
            ("weather__n?w", "weather", "now", True),
            ("weather__[a-n]ow", "weather", "now", True),
            ("*__now", "weather", "now", True),
            ("*", "weather", "file:///etc/passwd", True),
            ("docs__file:///pub/*", "docs", "file:///pub/a/b", True),
            ("docs__file:///pub/*", "docs", "file:///priv", False),
            ("weather__*", "weather", "now\nelse", True),
        ):
            self.assertEqual(permits(Principal(name="p", allow=(pattern,)), server, name), allowed, pattern)

    @settings(deadline=None, max_examples=150)
    @given(PATTERNS, st.text("ab", min_size=1, max_size=3), st.text("ab_", max_size=4))
    def test_what_is_permitted_is_on_a_server_that_is_reached(
        self, allow: tuple[str, ...], server: str, name: str
    ) -> None:
        """So nothing is hidden by leaving servers out that are not reached."""
        principal = Principal(name="p", allow=allow)
        if permits(principal, server, name):
            self.assertTrue(reaches(principal, server))

    def test_servers_out_of_reach(self) -> None:
        """By the part of the pattern before its first wildcard."""
        for pattern, server, reached in (
            ("weather__*", "weather", True),
            ("weather__now", "weather", True),
            ("weather__*", "time", False),
            ("wea*", "weather", True),
            ("weatherman__x", "weather", False),
            ("weather", "weather", False),
            ("[wt]*", "weather", True),
        ):
            found = reaches(Principal(name="p", allow=(pattern,)), server)
            self.assertEqual(found, reached, pattern)
