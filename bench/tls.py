"""TLS: handshakes and bytes per CPU-second of the server, and memory of an idle connection, beside nginx and asyncio.

One certificate (P-256), TLS 1.3 and X25519 for all, since the OpenSSL of a distribution may know nothing newer; our
own default, X25519MLKEM768, has a line of its own. A handshake is a connection that says nothing after it. Bulk is a
large response, again and again, over one connection. An idle connection has had one small request.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attrs import field, frozen

from bench.measure import HERE, ROOT, Server
from mcptunnel.test.tls.certs import Authority

LARGE = 8 * 1024 * 1024
BASELINE = "asyncio ssl"
NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log stderr crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 12000; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 900s; client_body_temp_path {directory};
    proxy_temp_path {directory}; fastcgi_temp_path {directory}; uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024; root {directory};
        ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets on; ssl_ecdh_curve X25519:prime256v1:secp384r1;
        location = /large {{ }}
        location / {{ default_type text/plain; return 200 'ok'; }}
    }}
}}
"""


@frozen(kw_only=True)
class Line:
    """One program, measured in one way."""

    name: str
    server: Server
    groups: str = "X25519"
    resumes: bool = True
    samples: dict[str, list[float]] = field(factory=dict)


def run(arguments: argparse.Namespace) -> None:
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    shakes, large, idle = (100, 8, 200) if arguments.quick else (1_000, 128, 5_000)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="bench-tls-") as directory:
        lines = _lines(Path(directory))
        if arguments.only:
            lines = [line for line in lines if any(word in line.name for word in arguments.only)]
        try:
            for line in lines:
                line.server.start()
            for _ in range(rounds):
                for line in lines:
                    _measure(line, shakes, large)
            for line in lines:
                # A fresh process: what a busy one has kept of its earlier work is no part of an idle connection.
                line.server.restart()
                line.samples["idle"] = [_idle(line, idle)]
        finally:
            for line in lines:
                line.server.stop()
    _report(lines, rounds, shakes, large, idle)


def _lines(directory: Path) -> list[Line]:
    pair = Authority.root().issue("localhost", now=time.time()).write(directory)
    files = (pair.cert_file, pair.key_file)

    def python(module: str, *more: str) -> Server:
        server = Server.python(module)
        server.command += [*files, str(LARGE), *more]
        return server

    # Every line has a process of its own, and no line without resumption hands out tickets: they cost a handshake time.
    lines = [
        Line(name="mcptunnel, as configured by default", server=python("mcptunnel_tls"), resumes=False),
        Line(
            name="mcptunnel, X25519MLKEM768",
            server=python("mcptunnel_tls"),
            groups="X25519MLKEM768",
            resumes=False,
        ),
        Line(name="mcptunnel, session_resumption", server=python("mcptunnel_tls", "resume")),
        Line(name=BASELINE, server=python("asyncio_tls")),
    ]
    if shutil.which("nginx"):
        server = Server.nginx(NGINX, cert=files[0], key=files[1])
        assert server.directory is not None
        Path(server.directory, "large").write_bytes(b"x" * LARGE)
        lines.append(Line(name="nginx", server=server))
    else:
        print("nginx: not installed, left out")
    return lines


def _measure(line: Line, shakes: int, large: int) -> None:
    for what, count in (("full", shakes), ("resumed", shakes if line.resumes else 0), ("bulk", large)):
        if not count:
            continue
        before = line.server.cpu()
        result = json.loads(_client(line, what, count).stdout)
        # The last connection's end may still be on its way.
        time.sleep(0.1)
        used = line.server.cpu() - before
        wanted = count * LARGE if what == "bulk" else count
        if result["done"] != wanted:
            raise SystemExit(f"{line.name}: {result['done']} of {wanted} were {what}")
        unit = 1e6 if what == "bulk" else 1
        line.samples.setdefault(what, []).append(result["done"] / used / unit)
        if what == "bulk":
            line.samples.setdefault("MB/s", []).append(result["done"] / result["seconds"] / unit)


def _command(line: Line, what: str, count: int) -> list[str]:
    return [sys.executable, "-m", "bench.tls_load", str(line.server.port), what, str(count), line.groups]


def _client(line: Line, what: str, count: int) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(_command(line, what, count), capture_output=True, cwd=ROOT, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{line.name}: {what}: {done.stderr.decode()}")
    return done


def _idle(line: Line, count: int) -> float:
    """KiB of resident memory for each of ``count`` idle connections."""
    # The first ones make what all the others share.
    _client(line, "full", 20)
    before = line.server.memory()
    client = subprocess.Popen(
        _command(line, "idle", count), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        if json.loads(client.stdout.readline())["done"] != count:
            raise SystemExit(f"{line.name}: not all connections were opened")
        time.sleep(1.0)
        return (line.server.memory() - before) * 1024 / count
    finally:
        client.stdin.close()
        client.wait(60)


_COLUMNS = {
    "full": "full/CPU-s",
    "resumed": "resumed/CPU-s",
    "bulk": "MB/CPU-s",
    "MB/s": "MB/s",
    "idle": "KiB/conn",
}


def _report(lines: list[Line], rounds: int, shakes: int, large: int, idle: int) -> None:
    medians = {line.name: {key: statistics.median(values) for key, values in line.samples.items()} for line in lines}
    base = medians.get(BASELINE, {})
    print(
        f"\nmedian of {rounds} rounds in turns: {shakes} handshakes, {large} responses of {LARGE >> 20} MiB; then "
        f"{idle} idle connections\nin parentheses: times {BASELINE}\n"
    )
    print(f"{'':36}" + "".join(f"{title:>20}" for title in _COLUMNS.values()))
    for name, row in medians.items():
        cells = []
        for key in _COLUMNS:
            ratio = f" ({row[key] / base[key]:.2f})" if key in row and key in base else ""
            cells.append(f"{row[key]:.1f}{ratio}" if key in row else "-")
        print(f"{name:36}" + "".join(f"{cell:>20}" for cell in cells))
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    path = out / f"tls-{time.strftime('%Y%m%d-%H%M%S')}.json"
    written: dict[str, Any] = {
        "scenario": "tls",
        "rounds": rounds,
        "handshakes": shakes,
        "bytes": large * LARGE,
        "idle": idle,
        "samples": {line.name: line.samples for line in lines},
    }
    path.write_text(json.dumps(written, indent=1))
    print(f"\nwritten to {path.relative_to(ROOT)}")
