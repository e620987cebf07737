"""Tests for mcptunnel.core.routing: addresses and prefixes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.routing import Target, join, split, targets


class RoutingTests(SynchronousTestCase):
    """Which servers an address shows, under which names."""

    def test_one_server_is_shown_without_prefix_at_both_addresses(self) -> None:
        """What a client calls its tools does not depend on the address."""
        self.assertEqual(
            targets(["time"]), {"/mcp": Target(("time",), False), "/servers/time": Target(("time",), False)}
        )

    def test_two_servers_get_prefixes_where_they_are_shown_together(self) -> None:
        """In the order of the configuration."""
        found = targets(["b", "a"])
        self.assertEqual(found["/mcp"], Target(("b", "a"), True))
        self.assertEqual(found["/servers/a"], Target(("a",), False))

    def test_no_server_is_an_address_with_nothing_behind_it(self) -> None:
        """It exists, so that a client hears why."""
        self.assertEqual(targets([]), {"/mcp": Target((), False)})

    @settings(deadline=None, max_examples=100)
    @given(st.sampled_from(["a", "ab", "a-b", "a_b"]), st.text("a_b/:", min_size=1, max_size=8))
    def test_a_joined_name_is_split_again(self, server: str, name: str) -> None:
        """Also where the name itself holds the separator or begins with part of it."""
        target = Target(("a", "ab", "a-b", "a_b"), True)
        self.assertEqual(split(target, join(server, name)), (server, name))

    def test_names_of_no_server_are_not_split(self) -> None:
        """Unknown server, no separator, no name."""
        target = Target(("a", "b"), True)
        for name in ("c__x", "x", "a", "a_x", "a__", "__x", "", "A__x"):
            self.assertIsNone(split(target, name))
