"""certbot and lego get certificates by HTTP-01 through the daemon from a real ACME server, and renew them.

The authority is pebble, which Let's Encrypt tests its clients with; its DNS server knows every name as 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from tests.certificates import NAME, authority, issue
from tests.clients import dial
from tests.daemon import Daemon, DaemonCase
from tests.processes import free_port, require

SECONDS: Final = 90
# From the end of the client's work until new connections get the new certificate.
FOLLOWS: Final = 1.0


class AcmeTests(DaemonCase):
    """One ACME server, one webroot."""

    timeout = 240

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = self.place / "api-ca.pem"
        self.ca_file.write_bytes(authority().pem)
        self.webroot = self.place / "webroot"
        self.webroot.mkdir()
        self.http_port = free_port()
        dns, control, api, management = (free_port() for _ in range(4))
        self.server = f"https://localhost:{api}/dir"
        names = ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}"]
        silent = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{control}"]
        self.start("dns", [require("pebble-challtestsrv"), *names, *silent], control)
        pair = issue(self.place, "api")
        config = self.place / "pebble.json"
        config.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{api}",
                        "managementListenAddress": f"127.0.0.1:{management}",
                        "certificate": pair.cert_file,
                        "privateKey": pair.key_file,
                        "httpPort": self.http_port,
                        "tlsPort": free_port(),
                    }
                }
            )
        )
        # Neither waits nor refuses at random, as it otherwise does to toughen clients.
        env = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        argv = [require("pebble"), "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"]
        self.start("pebble", argv, api, env=env)

    def run_client(self, *argv: str, **env: str) -> str:
        """An ACME client, to its end; what it said."""
        done = subprocess.run(
            argv,
            cwd=self.place,
            env={**os.environ, "HOME": str(self.place), **env},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, f"{' '.join(argv)}:\n{said}")
        return said

    def served(self, daemon: Daemon) -> str:
        """The fingerprint that a client sees, whoever has signed it."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(dial(daemon.port), server_hostname=NAME) as tls:
            der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).fingerprint(SHA256()).hex()

    def daemon_with(self, cert: Path | str, key: Path | str) -> Daemon:
        """One that serves this pair, and challenges on the port for http."""
        tls: dict[str, Any] = {
            "cert_file": str(cert),
            "key_file": str(key),
            "redirect_http": {"port": self.http_port},
            "acme_webroot": str(self.webroot),
        }
        return self.daemon("application", tls=tls)

    def in_file(self, cert: Path) -> str:
        return x509.load_pem_x509_certificates(cert.read_bytes())[0].fingerprint(SHA256()).hex()

    def follow(self, daemon: Daemon, cert: Path, renew: Any) -> None:
        """Renew; new connections get what is in the file then."""
        before = self.in_file(cert)
        self.assertEqual(self.served(daemon), before)
        renew()
        after = self.in_file(cert)
        self.assertNotEqual(after, before)
        self.eventually(lambda: self.served(daemon) == after, "the renewed certificate is not served", FOLLOWS)

    def test_certbot(self) -> None:
        """With its symbolic links; ``renew`` needs no hook."""
        certbot = require("certbot")
        places = [f"--{kind}-dir={self.place / kind}" for kind in ("config", "work", "logs")]
        env = {"REQUESTS_CA_BUNDLE": str(self.ca_file)}
        first = issue(self.place, "first")
        daemon = self.daemon_with(first.cert_file, first.key_file)
        common = [*places, "--server", self.server, "--non-interactive"]
        self.run_client(
            *(certbot, "certonly", "--webroot", "-w", str(self.webroot), "-d", NAME),
            *("--agree-tos", "--register-unsafely-without-email", *common),
            **env,
        )
        daemon.stop()
        live = self.place / "config" / "live" / NAME
        daemon = self.daemon_with(live / "fullchain.pem", live / "privkey.pem")
        self.follow(
            daemon,
            live / "fullchain.pem",
            lambda: self.run_client(certbot, "renew", "--force-renewal", "--no-random-sleep-on-renew", *common, **env),
        )

    def test_lego(self) -> None:
        """Which writes into the files themselves."""
        lego, store = require("lego"), self.place / "lego"
        common = [lego, "--server", self.server, "--accept-tos", "--email", "ops@example.com", "--path", str(store)]
        common += ["--domains", NAME, "--http", "--http.webroot", str(self.webroot)]
        env = {"LEGO_CA_CERTIFICATES": str(self.ca_file)}
        first = issue(self.place, "first")
        daemon = self.daemon_with(first.cert_file, first.key_file)
        self.run_client(*common, "run", **env)
        daemon.stop()
        cert = store / "certificates" / f"{NAME}.crt"
        daemon = self.daemon_with(cert, cert.with_suffix(".key"))
        # Longer than its life: it is always due.
        renew = ["renew", "--days", "100000", "--no-random-sleep"]
        self.follow(daemon, cert, lambda: self.run_client(*common, *renew, **env))
