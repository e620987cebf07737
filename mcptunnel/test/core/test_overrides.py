"""Tests for mcptunnel.core.overrides."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.overrides import NO_OVERRIDES, Override, Overrides


class OverridesTests(SynchronousTestCase):
    """Names there and back, descriptions, what is hidden."""

    def setUp(self) -> None:
        self.overrides = Overrides(
            {
                "a": {
                    "old": Override(name="new"),
                    "secret": Override(hidden=True),
                    "gone": Override(name="elsewhere", hidden=True),
                    "plain": Override(description='say "x"'),
                },
                "b": {},
            }
        )

    def test_names_there_and_back(self) -> None:
        """A renamed tool is known by its new name only, a hidden one by none; others are what they are."""
        for own, shown in (("old", "new"), ("plain", "plain"), ("other", "other")):
            self.assertEqual((self.overrides.shown("a", own), self.overrides.own("a", shown)), (shown, own))
        for own in ("secret", "gone"):
            self.assertIsNone(self.overrides.shown("a", own))
        for shown in ("old", "secret", "gone"):
            self.assertIsNone(self.overrides.own("a", shown), shown)

    def test_a_tool_whose_name_another_has_taken_is_not_shown(self) -> None:
        """Or a call could mean either."""
        self.assertIsNone(self.overrides.shown("a", "new"))

    def test_servers_without_overrides(self) -> None:
        """Everything passes."""
        for server in ("b", "c"):
            self.assertEqual((self.overrides.shown(server, "old"), self.overrides.own(server, "old")), ("old", "old"))
        self.assertEqual((bool(self.overrides), bool(NO_OVERRIDES), bool(Overrides({"b": {}}))), (True, False, False))

    def test_descriptions_are_put_in_and_nothing_else_changes(self) -> None:
        """Where there was one, and where there was none."""
        for item, wanted in (
            (
                b'{ "name" :"plain","description":"d","x":1.0}',
                b'{ "name" :"plain","description":"say \\"x\\"","x":1.0}',
            ),
            (b'{"name":"plain" }', b'{"name":"plain" ,"description":"say \\"x\\""}'),
        ):
            self.assertEqual(self.overrides.described("a", "plain", item), wanted)
        self.assertEqual(self.overrides.described("a", "old", b'{"name":"old"}'), b'{"name":"old"}')
        self.assertEqual(self.overrides.described("c", "plain", b'{"name":"plain"}'), b'{"name":"plain"}')
