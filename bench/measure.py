"""Servers in turns under the same load, and what the kernel says they cost."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

HERE = Path(__file__).parent
ROOT = HERE.parent


@define(eq=False)
class Server:
    """A program that listens on a port of 127.0.0.1. Started once, measured many times."""

    command: list[str]
    port: int
    directory: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @classmethod
    def python(cls, module: str, interpreter: str = sys.executable) -> Server:
        """``bench/servers/MODULE.py PORT``."""
        port = free_port()
        return cls([interpreter, str(HERE / "servers" / f"{module}.py"), str(port)], port)

    @classmethod
    def nginx(cls, template: str, **values: str) -> Server:
        port = free_port()
        directory = tempfile.mkdtemp(prefix="bench-nginx-")
        config = Path(directory, "nginx.conf")
        config.write_text(template.format(port=port, directory=directory, **values))
        return cls(["nginx", "-p", directory, "-c", str(config)], port, directory)

    def start(self) -> None:
        if self.process is not None:
            return
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(self.command, env=environment, cwd=ROOT)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"{self.command[0]} does not listen on port {self.port}")

    def restart(self) -> None:
        self._end()
        self.start()

    def _end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def stop(self) -> None:
        self._end()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def cpu(self) -> float:
        """Seconds of CPU that the process and all its threads have used, from the scheduler's nanosecond account."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> float:
        """Resident MiB."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


@frozen
class Program:
    """One line of the table."""

    name: str
    server: Server
    vary: bool = False


def compare(
    scenario: str,
    programs: list[Program],
    *,
    baseline: str,
    body: bytes,
    rounds: int,
    seconds: float,
    connections: int,
) -> None:
    """Measure all ``programs`` in turns; print the medians and write everything to ``bench/out``."""
    samples: dict[str, list[tuple[float, float]]] = {program.name: [] for program in programs}
    try:
        for program in programs:
            program.server.start()
            _round(program, body, min(seconds, 1.0), connections)
        for _ in range(rounds):
            for program in programs:
                samples[program.name].append(_round(program, body, seconds, connections))
        rows = [_row(program, samples, baseline) for program in programs]
    finally:
        for program in programs:
            program.server.stop()
    _print(rows, baseline, rounds, seconds, connections)
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    path = out / f"{scenario}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(
        json.dumps(
            {
                "scenario": scenario,
                "rounds": rounds,
                "seconds": seconds,
                "connections": connections,
                "body_bytes": len(body),
                "python": platform.python_version(),
                "cpus": os.cpu_count(),
                "rows": rows,
                "samples": samples,
            },
            indent=1,
        )
    )
    print(f"written to {path.relative_to(ROOT)}")


def _round(program: Program, body: bytes, seconds: float, connections: int) -> tuple[float, float]:
    """Requests per second, and CPU microseconds of the server per request."""
    server = program.server
    used = server.cpu()
    command = [sys.executable, "-m", "bench.load", f"127.0.0.1:{server.port}", str(connections), str(seconds)]
    done = subprocess.run([*command, str(int(program.vary))], input=body, capture_output=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{program.name}: {done.stderr.decode()}")
    result = json.loads(done.stdout)
    return result["requests"] / result["seconds"], (server.cpu() - used) / result["requests"] * 1e6


def _row(program: Program, samples: dict[str, list[tuple[float, float]]], baseline: str) -> dict[str, Any]:
    def median(name: str, column: int) -> float:
        return statistics.median(sample[column] for sample in samples[name])

    row: dict[str, Any] = {
        "program": program.name,
        "requests_per_second": round(median(program.name, 0)),
        "cpu_microseconds": round(median(program.name, 1), 1),
        "memory_mib": round(program.server.memory(), 1),
    }
    if baseline in samples:
        row["rate_ratio"] = round(median(program.name, 0) / median(baseline, 0), 2)
        row["cpu_ratio"] = round(median(baseline, 1) / median(program.name, 1), 2)
    return row


def _print(rows: list[dict[str, Any]], baseline: str, rounds: int, seconds: float, connections: int) -> None:
    print(f"\nmedian of {rounds} rounds of {seconds:g} s in turns, {connections} connections")
    print(f"ratios against: {baseline}\n")
    print(f"{'':40} {'req/s':>8} {'ratio':>6} {'CPU µs':>8} {'ratio':>6} {'MiB':>6}")
    for row in rows:
        print(
            f"{row['program']:40} {row['requests_per_second']:8} {row.get('rate_ratio', ''):>6}"
            f" {row['cpu_microseconds']:8} {row.get('cpu_ratio', ''):>6} {row['memory_mib']:6}"
        )
    print()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_with(*packages: str) -> str | None:
    """An interpreter that can import ``packages``: this one, or one in ``bench/.peers`` that is made for it."""
    if _imports(sys.executable, packages):
        return sys.executable
    peer = HERE / ".peers" / "bin" / "python"
    if not peer.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HERE / ".peers")], check=True)
    if not _imports(str(peer), packages):
        # -I: our own tree is no business of theirs, also where PYTHONPATH shows it.
        subprocess.run([str(peer), "-I", "-m", "pip", "install", "--quiet", *packages], check=False)
    return str(peer) if _imports(str(peer), packages) else None


def _imports(interpreter: str, packages: tuple[str, ...]) -> bool:
    command = [interpreter, "-c", f"import {', '.join(packages)}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
