"""Tests for mcptunnel.cli.devcert."""

from __future__ import annotations

import argparse
import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli import devcert
from mcptunnel.core.errors import CertificateError


class DevcertTests(SynchronousTestCase):
    """``mcptunnel devcert DIR``."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.output = StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", StringIO())
        self.parser = argparse.ArgumentParser()
        devcert.add(self.parser.add_subparsers())

    def run_command(self, *arguments: str) -> int:
        args = self.parser.parse_args(["devcert", self.directory, *arguments])
        status: int = args.run(args)
        return status

    def test_it_makes_then_keeps_and_says_how_to_trust_it(self) -> None:
        """The lines can be pasted."""
        self.assertEqual(self.run_command(), 0)
        cert = str(Path(self.directory, "cert.pem"))
        for words in (f"made {cert}", f"curl --cacert {cert}", "NODE_EXTRA_CA_CERTS", "server.tls.cert_file"):
            self.assertIn(words, self.output.getvalue())
        self.assertEqual(self.run_command(), 0)
        self.assertIn(f"kept {cert}", self.output.getvalue())

    def test_a_refusal_names_the_file(self) -> None:
        """Also when it is the system that refuses."""
        Path(self.directory).parent.mkdir(parents=True, exist_ok=True)
        Path(self.directory).write_text("a file where the directory should be")
        error = self.assertRaises(CertificateError, self.run_command)
        self.assertIn(self.directory, str(error))

    def test_days_have_bounds(self) -> None:
        """Zero and a thousand years are typing errors."""
        for days in ("0", "400000", "x"):
            self.assertRaises(SystemExit, self.run_command, "--days", days)
        self.assertEqual(self.run_command("--days", "7", "--name", "a.test"), 0)
