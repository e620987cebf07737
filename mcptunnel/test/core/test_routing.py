"""Tests for mcptunnel.core.routing: addresses and prefixes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.overrides import NO_OVERRIDES, Override, Overrides
from mcptunnel.core.routing import LONGEST_NAME, Target, candidates, join, maybe_shortened, split, targets


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

    def test_how_servers_are_shown_together_can_be_said(self) -> None:
        """A lone server is shown as it is unless something about it is to be changed."""
        overrides = Overrides({"a": {"x": Override(hidden=True)}})
        for servers, prefix, changed, wanted in (
            (["a"], "always", NO_OVERRIDES, (True, "always")),
            (["a"], "never", NO_OVERRIDES, (False, "always")),
            (["a"], None, overrides, (True, "never")),
            (["a", "b"], "never", NO_OVERRIDES, (True, "never")),
            (["a", "b"], "on-collision", NO_OVERRIDES, (True, "on-collision")),
            ([], "always", overrides, (False, "always")),
        ):
            mode: Any = prefix
            found = targets(servers, mode, 3.0, changed)["/mcp"]
            self.assertEqual((found.merged, found.prefix), wanted, (servers, prefix))
            self.assertEqual(found.patience, 3.0 if found.merged else 10.0)

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

    def test_a_long_name_is_shortened_in_the_same_way_for_ever(self) -> None:
        """Clients remember names: this one must never change."""
        self.assertEqual(join("a", "x" * 61), "a__" + "x" * 61)
        self.assertEqual(join("a", "x" * 62), "a__" + "x" * 52 + "_963534d8")
        self.assertNotEqual(join("a", "x" * 62), join("a", "x" * 63))

    @settings(deadline=None, max_examples=100)
    @given(st.text("ab_-", min_size=1, max_size=70), st.text(min_size=1, max_size=90))
    def test_no_name_is_too_long_and_its_server_is_a_candidate(self, server: str, name: str) -> None:
        """Whatever is cut off: a short prefix, or part of a long one."""
        target = Target(("a", server, "b" * 60), True)
        shown = join(server, name)
        self.assertLessEqual(len(shown), LONGEST_NAME)
        if len(f"{server}__{name}") > LONGEST_NAME:
            self.assertTrue(maybe_shortened(shown))
            self.assertIn(server, candidates(target, shown))

    def test_few_servers_are_candidates(self) -> None:
        """Those whose prefix the name shows, as far as it shows it."""
        target = Target(("a", "ab", "c" * 60, "c" * 54), True)
        self.assertEqual(candidates(target, join("a", "x" * 80)), ["a"])
        self.assertEqual(candidates(target, join("c" * 60, "x")), ["c" * 60])
        self.assertEqual(candidates(target, join("c" * 54, "x" * 10)), ["c" * 54])
        self.assertFalse(maybe_shortened("a__x"))
