"""Tests for mcptunnel.cli.certs.dev."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli import main


class DevTests(SynchronousTestCase):
    """``mcptunnel certs dev DIR``."""

    def setUp(self) -> None:
        self.directory = self.mktemp()

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Status, output, errors."""
        out, err = StringIO(), StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        return main(["certs", "dev", self.directory, *arguments]), out.getvalue(), err.getvalue()

    def test_it_makes_then_keeps_and_says_how_to_trust_it(self) -> None:
        """The lines can be pasted; nothing was installed, and it says so."""
        status, said, errors = self.run_command("--name", "mcp.test")
        self.assertEqual((status, errors), (0, ""))
        cert, ca = Path(self.directory, "cert.pem"), Path(self.directory, "ca.pem")
        for words in (
            f"made     {ca} (authority)",
            f"made     {cert} (certificate)",
            f"server.tls.cert_file: {cert}",
            f"curl --cacert {ca} ",
            f"SSL_CERT_FILE={ca} ",
            f"NODE_EXTRA_CA_CERTS={ca} ",
            "update-ca-certificates",
            "certutil",
            "installed nowhere",
            "localhost, 127.0.0.1, ::1, mcp.test",
        ):
            self.assertIn(words, said)
        status, said, errors = self.run_command()
        self.assertEqual((status, errors), (0, ""))
        self.assertIn(f"kept     {ca}", said)
        self.assertIn(f"kept     {cert}", said)

    def test_a_new_authority_is_said_loudly(self) -> None:
        """On standard error, with the reason."""
        self.run_command()
        status, said, errors = self.run_command("--name", "b.test")
        self.assertEqual(status, 0)
        self.assertIn("replaced ", said)
        self.assertIn("NEW authority", errors)
        self.assertIn("may not vouch for b.test", errors)

    def test_a_refusal_names_the_file(self) -> None:
        """Also when it is the system that refuses."""
        Path(self.directory).parent.mkdir(parents=True, exist_ok=True)
        Path(self.directory).write_text("a file where the directory should be")
        status, said, errors = self.run_command()
        self.assertEqual((status, said), (1, ""))
        self.assertIn(self.directory, errors)

    def test_days_have_bounds(self) -> None:
        """Zero and a thousand years are typing errors."""
        for days in ("0", "400000", "x"):
            self.assertEqual(self.run_command("--days", days)[0], 2)
        self.assertEqual(self.run_command("--days", "7", "--name", "a.test")[0], 0)
