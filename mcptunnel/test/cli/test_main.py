"""The command's frame: statuses, errors, help."""

from __future__ import annotations

import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel import __version__
from mcptunnel.cli import explain, main
from mcptunnel.core.errors import ConfigError, Finding


class MainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def test_the_version_is_told(self):
        """Status 0, nothing on standard error."""
        self.assertEqual(main(["--version"]), 0)
        self.assertEqual(self.out.getvalue(), f"mcptunnel {__version__}\n")
        self.assertEqual(self.err.getvalue(), "")

    def test_wrong_usage_is_status_2(self):
        """With the usage on standard error."""
        for argv in ([], ["nonsense"], ["explain"], ["explain", "--pee", "::1"], ["--vers"]):
            self.assertEqual(main(argv), 2, argv)
        self.assertIn("usage: mcptunnel", self.err.getvalue())
        self.assertEqual(self.out.getvalue(), "")

    def test_help_lists_the_commands(self):
        """Status 0."""
        self.assertEqual(main(["--help"]), 0)
        self.assertIn("explain", self.out.getvalue())

    def test_a_refused_configuration_is_status_1_with_every_finding(self):
        """One line each, in one voice."""

        def refuse(path: str | None) -> None:
            raise ConfigError(
                [Finding(file="a", line=1, key="b", message="c"), Finding(file="a", line=2, key="", message="d")]
            )

        self.patch(explain, "_load", refuse)
        self.assertEqual(main(["explain", "--config", "a", "--peer", "::1"]), 1)
        self.assertEqual(self.err.getvalue(), "mcptunnel: a:1: b: c\nmcptunnel: a:2: d\n")
        self.assertEqual(self.out.getvalue(), "")
