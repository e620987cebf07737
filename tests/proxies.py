"""Real reverse proxies in front of a daemon, each with a file of ``etc/proxies`` in which names and ports are replaced.

What is replaced is listed here and nothing else is: a name that is not found in the file is an error.
"""

from __future__ import annotations

import getpass
import grp
import os
import time
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from mcptunnel.config.schema import CertificatePair
from tests.certificates import NAME, client_context, issue
from tests.clients import HttpClient
from tests.daemon import Daemon, DaemonCase
from tests.processes import ROOT, Process, free_port, require

__all__ = ["ETC", "Proxy", "ProxyCase", "adapt"]

ETC = ROOT / "etc" / "proxies"
CERT = "/etc/ssl/certs/server.crt"
KEY = "/etc/ssl/private/server.key"
PEM = "/etc/ssl/private/server.pem"


def adapt(file: str, names: Mapping[str, str]) -> str:
    """A file of ``etc/proxies`` with every key of ``names`` replaced.

    Raises:
        AssertionError: A name does not occur: the file has changed and the test would no longer test it.
    """
    text = (ETC / file).read_text("utf-8")
    for seen, ours in names.items():
        assert seen in text, f"{file} does not hold {seen!r}"
        text = text.replace(seen, ours)
    return text


@frozen(kw_only=True)
class Proxy:
    """A running proxy.

    Attributes:
        process: It.
        port: Where it listens with TLS, on 127.0.0.1.
    """

    process: Process
    port: int

    def client(self) -> HttpClient:
        """A client of it."""
        return HttpClient(port=self.port)


class ProxyCase(DaemonCase):
    """Tests that run proxies.

    Attributes:
        ready_seconds: How long a proxy may take until the daemon answers through it.
    """

    ready_seconds = 20.0

    def nginx(self, daemon: Daemon, file: str = "nginx.conf") -> Proxy:
        """nginx with a server block of ours inside the smallest possible ``http`` block."""
        program, port, pair = require("nginx"), free_port(), self._pair()
        upstream = "magictunnel:3000" if file == "nginx-spec.conf" else "127.0.0.1:3000"
        name = "magictunnel.example.com" if file == "nginx-spec.conf" else "mcp.example.com"
        names = {
            "listen 443": f"listen 127.0.0.1:{port}",
            f"server_name {name}": f"server_name {NAME}",
            CERT: pair.cert_file,
            KEY: pair.key_file,
            upstream: f"127.0.0.1:{daemon.port}",
        }
        (self.place / "site.conf").write_text(adapt(file, names))
        user = ""
        if os.geteuid() == 0:
            # Started as root nginx changes to another user, who may not see our directory.
            user = f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};"
        temporary = "\n".join(
            f"    {kind}_temp_path {self.place}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.place / "nginx.conf").write_text(
            f"daemon off;\npid {self.place}/nginx.pid;\nworker_processes 1;\n{user}\n"
            f"events {{ worker_connections 256; }}\n"
            f"http {{\n    access_log off;\n{temporary}\n    include {self.place}/site.conf;\n}}\n"
        )
        return self._ready(
            "nginx",
            [program, "-e", "stderr", "-p", str(self.place), "-c", str(self.place / "nginx.conf")],
            port,
        )

    def traefik(self, daemon: Daemon, file: str = "traefik.yaml") -> Proxy:
        """Traefik with our static configuration and ``file`` as the dynamic one."""
        program, port, pair = require("traefik"), free_port(), self._pair()
        dynamic = self.place / "dynamic"
        dynamic.mkdir()
        static = adapt("traefik-static.yaml", {'":443"': f'"127.0.0.1:{port}"', "/etc/traefik/dynamic": str(dynamic)})
        (self.place / "traefik.yaml").write_text(static)
        if file == "traefik-spec.yaml":
            names = {"magictunnel.example.com": NAME, "magictunnel:3000": f"127.0.0.1:{daemon.port}"}
            # The specification leaves the certificate to a resolver, which there is none of on this machine.
            (dynamic / "certificates.yaml").write_text(
                f"tls:\n  certificates:\n    - certFile: {pair.cert_file}\n      keyFile: {pair.key_file}\n"
            )
        else:
            names = {
                "mcp.example.com": NAME,
                "127.0.0.1:3000": f"127.0.0.1:{daemon.port}",
                CERT: pair.cert_file,
                KEY: pair.key_file,
            }
        (dynamic / "mcptunnel.yaml").write_text(adapt(file, names))
        return self._ready("traefik", [program, f"--configFile={self.place / 'traefik.yaml'}"], port)

    def caddy(self, daemon: Daemon) -> Proxy:
        """Caddy with our Caddyfile below the global options that keep it to itself."""
        program, port, pair = require("caddy"), free_port(), self._pair()
        site = adapt(
            "Caddyfile",
            {
                "\nmcp.example.com {": f"\n{NAME}:{port} {{\n\tbind 127.0.0.1",
                CERT: pair.cert_file,
                KEY: pair.key_file,
                "127.0.0.1:3000": f"127.0.0.1:{daemon.port}",
            },
        )
        path = self.place / "Caddyfile"
        path.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + site)
        return self._ready(
            "caddy",
            [program, "run", "--config", str(path), "--adapter", "caddyfile"],
            port,
            env={"XDG_DATA_HOME": str(self.place / "caddy"), "XDG_CONFIG_HOME": str(self.place / "caddy")},
        )

    def haproxy(self, daemon: Daemon, file: str = "haproxy.cfg") -> Proxy:
        """HAProxy, with TLS of its own or passing ours through."""
        program, port = require("haproxy"), free_port()
        names = {"bind :443": f"bind 127.0.0.1:{port}", "127.0.0.1:3000": f"127.0.0.1:{daemon.port}"}
        if file == "haproxy.cfg":
            pair = self._pair()
            pem = self.place / "proxy.pem"
            pem.touch(0o600)
            pem.write_bytes(Path(pair.cert_file).read_bytes() + Path(pair.key_file).read_bytes())
            names[PEM] = str(pem)
        path = self.place / "haproxy.cfg"
        path.write_text(adapt(file, names))
        return self._ready("haproxy", [program, "-db", "-f", str(path)], port)

    def _pair(self) -> CertificatePair:
        return issue(self.place, "proxy")

    def _ready(self, name: str, argv: list[str], port: int, *, env: Mapping[str, str] | None = None) -> Proxy:
        """Start it and wait until the daemon answers through it."""
        process = self.start(name, argv, port, env=env)
        client = HttpClient(port=port, tls=client_context())
        until = time.monotonic() + self.ready_seconds
        seen: object = None
        while time.monotonic() < until:
            try:
                seen = client.get("/health/live").status
            except OSError as e:
                seen = e
            if seen == 200:
                return Proxy(process=process, port=port)
            time.sleep(0.05)
        raise AssertionError(f"nothing answers through {name}: {seen}\n{process.output()}")
