"""Tests for mcptunnel.core.uri_templates."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.uri_templates import pattern


class PatternTests(SynchronousTestCase):
    """Which URIs a template could have made."""

    def test_matches(self) -> None:
        """Expressions stand for anything, what is between them has to be there in order."""
        for template, uri, wanted in (
            ("file:///{path}", "file:///a/b", True),
            ("file:///{path}", "file:///", True),
            ("file:///{path}", "http:///a", False),
            ("x://{a}/y/{b}", "x://1/y/2", True),
            ("x://{a}/y/{b}", "x://1/z/2", False),
            ("x://{a}/end", "x://1/2/end", True),
            ("x://{a}/end", "x://1/end/2", False),
            ("x://plain", "x://plain", True),
            ("x://plain", "x://plain/", False),
            ("{+any}", "anything at all", True),
            ("ab{x}ba", "aba", False),
            ("a{x}b{y}b", "ab", False),
            ("q://s{?a,b}", "q://s?a=1&b=2", True),
            ("{a}m{b}m{c}", "xmym", True),
            ("{a}m{b}m{c}", "xm", False),
        ):
            self.assertEqual(pattern(template).matches(uri), wanted, (template, uri))

    def test_the_one_that_says_most_weighs_most(self) -> None:
        """By what it fixes, not by its length."""
        self.assertGreater(pattern("x://a/{b}").weight, pattern("x://{a_very_long_name}").weight)

    def test_a_hostile_template_costs_no_more_than_its_length(self) -> None:
        """Thousands of expressions against a long URI: linear, so this ends at once."""
        shape = pattern("{a}x" * 5000 + "!")
        self.assertFalse(shape.matches("x" * 50_000 + "?"))
        self.assertTrue(shape.matches("x" * 50_000 + "!"))
