"""Chromium comes to the daemon over https: where it trusts as ``mcptunnel certs dev`` says, and not otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.daemon import DaemonCase, python_env
from tests.processes import ROOT, free_port, require

COMMAND: Final = "import sys; from mcptunnel.cli import main; sys.exit(main())"
SECONDS: Final = 60
# A new profile, nobody's extensions, and nothing that calls home.
QUIET: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--no-proxy-server"),
)


class BrowserTests(DaemonCase):
    """What it shows of a page, and what the daemon says of its handshakes."""

    timeout = 240

    def setUp(self) -> None:
        super().setUp()
        self.chromium, self.certutil = require("chromium"), require("certutil")
        self.home = self.place / "home"
        self.run_in_home(sys.executable, "-c", COMMAND, "certs", "dev", str(self.place / "dev"))
        self.http = free_port()
        dev = self.place / "dev"
        self.port = free_port()
        self.server = self.daemon(
            "application",
            port=self.port,
            tls={
                "cert_file": str(dev / "cert.pem"),
                "key_file": str(dev / "key.pem"),
                "redirect_http": {"port": self.http},
            },
            server={"public_url": f"https://localhost:{self.port}"},
        )

    def run_in_home(self, *argv: str) -> str:
        """A program whose settings are those of a fresh home; what it printed."""
        self.home.mkdir(exist_ok=True)
        env = {**os.environ, **python_env(), "HOME": str(self.home)}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
        self.assertEqual(done.returncode, 0, f"{argv[0]}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def page(self, url: str) -> str:
        """What Chromium makes of it."""
        profile = f"--user-data-dir={self.place / os.urandom(4).hex()}"
        return self.run_in_home(self.chromium, *QUIET, profile, "--dump-dom", url)

    def trust(self) -> None:
        """As ``mcptunnel certs dev`` says for Chrome on Linux."""
        store = Path(self.home) / ".pki" / "nssdb"
        store.mkdir(parents=True)
        database = f"sql:{store}"
        self.run_in_home(self.certutil, "-d", database, "-N", "--empty-password")
        ca = str(self.place / "dev" / "ca.pem")
        self.run_in_home(self.certutil, "-d", database, "-A", "-t", "C,,", "-n", "mcptunnel-dev", "-i", ca)

    def test_without_trust_it_shows_nothing_of_ours(self) -> None:
        """And the daemon says why."""
        self.assertNotIn('"status"', self.page(f"https://localhost:{self.port}/health/live"))
        self.eventually(
            lambda: (
                "failed (unknown_ca)" in self.server.process.output()
                or "failed (server_certificate_refused)" in self.server.process.output()
            ),
            "the log does not say that the certificate was refused",
        )

    def test_with_it_pages_come_over_tls_and_from_http_by_redirect(self) -> None:
        """The authority's name constraints are no obstacle, and the key exchange is post-quantum."""
        self.trust()
        self.assertIn('{"status":"ok"}', self.page(f"https://localhost:{self.port}/health/live"))
        self.assertIn('{"status":"ok"}', self.page(f"https://127.0.0.1:{self.port}/health/live"))
        self.assertIn('{"status":"ok"}', self.page(f"http://localhost:{self.http}/health/live"))
        shown = self.page(f"https://localhost:{self.port}/health")
        self.assertIn('"group":"X25519MLKEM768"', shown)
        self.assertIn('"version":"TLSv1.3"', shown)
