"""The operator's side of a running daemon: metrics as Prometheus reads them, and ``mcptunnel reload``."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import issue
from tests.clients import HttpClient
from tests.daemon import Daemon, DaemonCase, python_env
from tests.processes import ROOT, free_port

TOKEN: Final = "operator-5f1d7c0a-outside"
COMMAND: Final = "import sys; from mcptunnel.cli import main; sys.exit(main())"


class AdminCase(DaemonCase):
    """A daemon with an admin listener."""

    def setUp(self) -> None:
        super().setUp()
        self.pair = issue(self.place, "served")
        self.admin_port = free_port()

    def served(self, mode: str = "application", **admin: Any) -> Daemon:
        tls = {"cert_file": self.pair.cert_file, "key_file": self.pair.key_file} if mode == "application" else {}
        return self.daemon(mode, tls=tls, admin={"port": self.admin_port, **admin})

    def mcptunnel(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=ROOT,
            env={**os.environ, **python_env()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def scrape(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        connection.request("GET", "/metrics")
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        self.assertEqual(
            (reply.status, reply.headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8")
        )
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found


class MetricsTests(AdminCase):
    """``/metrics``."""

    def test_what_a_dashboard_needs(self) -> None:
        """Handshakes, failures with their cause, certificates with their end."""
        daemon = self.served()
        client = HttpClient(port=daemon.port)
        self.assertEqual(client.get("/health/live").status, 200)
        stranger = HttpClient(port=daemon.port, name="unknown.example.com")
        with self.assertRaises(OSError):
            stranger.get("/health/live")

        def seen(name: str, **labels: str) -> float | None:
            for found, value in self.scrape().get(name, {}).items():
                if labels.items() <= dict(found).items():
                    return value
            return None

        self.eventually(
            lambda: seen("mcptunnel_tls_handshakes_total", version="TLSv1.3", resumed="false") is not None,
            "no handshake",
        )
        self.eventually(
            lambda: (
                seen("mcptunnel_tls_handshake_failures_total", cause="server_certificate_refused") is not None
                or seen("mcptunnel_tls_handshake_failures_total", cause="closed") is not None
            ),
            "no failure",
        )
        end = seen("mcptunnel_tls_certificate_not_after_timestamp_seconds", role="leaf", file=self.pair.cert_file)
        assert end is not None
        self.assertEqual(seen("mcptunnel_tls_earliest_cert_expiry"), end)
        days = seen("mcptunnel_tls_certificate_days_left", role="leaf")
        assert days is not None
        self.assertTrue(89 < days <= 90, days)
        self.assertEqual(seen("mcptunnel_tls_certificate_verdict", verdict="ok"), 1.0)
        self.assertEqual(seen("mcptunnel_tls_generation"), 1.0)
        self.assertEqual(seen("mcptunnel_tls_reload_refused"), 0.0)
        self.assertGreater(seen("process_resident_memory_bytes") or 0.0, 1e6)

    def test_it_is_not_on_the_public_port(self) -> None:
        """Not even for those who may use everything else."""
        daemon = self.served()
        for path in ("/metrics", "/admin/reload"):
            self.assertEqual(HttpClient(port=daemon.port).get(path).status, 404)


class ReloadTests(AdminCase):
    """``mcptunnel reload``."""

    def test_over_a_unix_socket(self) -> None:
        """No token: the permissions of the socket decide. Good, bad, and as JSON."""
        path = self.place / "admin.sock"
        daemon = self.served(host=f"unix:{path}")
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)
        done = self.mcptunnel("reload", "--config", str(daemon.config))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^taken: generation 2\n  CN=.*  [0-9a-f]{16}…  .*served.crt\n$")
        good = Path(self.pair.cert_file).read_bytes()
        Path(self.pair.cert_file).write_bytes(issue(self.place, "other").cert_file.encode())
        done = self.mcptunnel("reload", "--config", str(daemon.config))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("refused: the certificates in service stay\n", done.stderr)
        self.assertIn("no PEM certificate in it", done.stderr)
        Path(self.pair.cert_file).write_bytes(good)
        done = self.mcptunnel("reload", "--config", str(daemon.config), "--json")
        document = json.loads(done.stdout)
        self.assertEqual((document["taken"], document["problems"]), (True, []))

    def test_over_tcp_it_needs_the_token(self) -> None:
        """Which the command finds in the configuration; without one in it nothing can be changed."""
        token = self.place / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        daemon = self.served(token_file=str(token))
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        connection.request("POST", "/admin/reload")
        self.assertEqual(connection.getresponse().status, 401)
        connection.close()
        done = self.mcptunnel("reload", "--config", str(daemon.config))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(TOKEN, done.stdout + done.stderr + daemon.process.output())
        self.admin_port = free_port()
        open_ = self.served()
        done = self.mcptunnel("reload", "--config", str(open_.config))
        self.assertEqual(done.returncode, 1)
        self.assertIn("set admin.token_file", done.stderr)

    def test_who_cannot_be_asked(self) -> None:
        """No admin listener, none that answers, no certificates."""
        plain = self.daemon()
        done = self.mcptunnel("reload", "--config", str(plain.config))
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no admin listener to ask; add admin:", done.stderr)
        daemon = self.served("disabled", host=f"unix:{self.place / 'a.sock'}")
        done = self.mcptunnel("reload", "--config", str(daemon.config))
        self.assertEqual((done.returncode, done.stdout), (0, "nothing to read: the daemon serves no certificates\n"))
        daemon.stop()
        done = self.mcptunnel("reload", "--config", str(daemon.config))
        self.assertEqual(done.returncode, 1)
        self.assertIn("does not answer at unix:", done.stderr)
