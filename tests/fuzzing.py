"""The selection of tlsfuzzer's scripts in ``fuzzing.txt``, against real daemons. Not part of ``trial tests``.

tlsfuzzer is on no package index; the guide ``tls-assessment`` says how to prepare a checkout. Then::

    TLSFUZZER=/path/to/tlsfuzzer .venv/bin/trial tests.fuzzing

Writes ``table.txt`` into the test's directory: script, daemon, probes that passed (or failed as tlsfuzzer expects), and
probes that the list leaves out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from mcptunnel.test.tls.certs import Authority, mint
from tests.daemon import DaemonCase
from tests.processes import ROOT
from tests.venvs import installed

PACKAGES: Final = ("tlslite-ng==0.9.0b2", "ecdsa==0.19.2", "kyber-py==1.2.0")
LIST: Final = ROOT / "tests" / "fuzzing.txt"
SECONDS: Final = 240.0
# What the one letter at the beginning of a line means: settings of ``server.tls``.
DAEMONS: Final[dict[str, dict[str, Any]]] = {
    "d": {},
    "r": {"session_resumption": True},
    "o": {"client_auth": "optional"},
    "c": {"client_auth": "required"},
}
_COUNT: Final = re.compile(r"^(TOTAL|SKIP|PASS|XFAIL|FAIL|XPASS): (\d+)", re.MULTILINE)
_LEFT_OUT: Final = re.compile(r"(?<!\S)-e ")


@frozen(kw_only=True)
class Script:
    """One line of the list.

    Attributes:
        daemon: Key of :data:`DAEMONS`.
        name: Of the script, without ``test-`` and ``.py``.
        arguments: With ``{certificate}`` and the like for what is made at run time.
    """

    daemon: str
    name: str
    arguments: str


def scripts() -> list[Script]:
    """The selection."""
    lines = [line.split(" ", 2) for line in LIST.read_text("utf-8").splitlines() if line and line[0] != "#"]
    return [Script(daemon=daemon, name=name, arguments="".join(rest)) for daemon, name, *rest in lines]


class TlsfuzzerTests(DaemonCase):
    """All of the list."""

    def test_the_selection_passes(self) -> None:
        """Each script by its exit status, with the probes that the list takes out."""
        checkout = Path(os.environ["TLSFUZZER"])
        python = str(installed(*PACKAGES) / "python")
        ports, files = self.daemons()
        table: list[str] = []
        failed: list[str] = []
        for script in scripts():
            argv = ["scripts/test-" + script.name + ".py", "-h", "localhost", "-p", str(ports[script.daemon])]
            argv += shlex.split(script.arguments.format_map(files))
            if script.daemon == "r":
                argv.insert(0, str(ROOT / "tests" / "with_sni.py"))
            done = subprocess.run(
                [python, *argv],
                cwd=checkout,
                env={"PYTHONPATH": "."},
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            counts = {key: int(number) for key, number in _COUNT.findall(done.stdout)}
            passed = counts.get("PASS", 0) + counts.get("XFAIL", 0)
            table.append(
                f"{script.name:45} {script.daemon:6} {passed:6} {len(_LEFT_OUT.findall(script.arguments)):8}".rstrip()
            )
            if done.returncode != 0:
                failed.append(f"{script.name}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        (self.place / "table.txt").write_text("\n".join(table) + "\n")
        self.assertEqual(failed, [])

    def daemons(self) -> tuple[dict[str, int], dict[str, str]]:
        """Their ports, and the files of the client's certificates."""
        now = time.time()
        server = mint("localhost", names=["localhost"], kind="rsa2048", now=now).write(self.place, "rsa")
        clients = Authority.root("clients")
        ca_file = self.place / "clients.pem"
        ca_file.write_bytes(clients.pem)
        tls = {"cert_file": server.cert_file, "key_file": server.key_file}
        ports = {}
        for letter, more in DAEMONS.items():
            ca = {"ca_file": str(ca_file)} if "client_auth" in more else {}
            ports[letter] = self.daemon("application", tls={**tls, **more, **ca}).port
        rsa = clients.issue(kind="rsa2048", client=True, now=now).write(self.place, "client-rsa")
        ec = clients.issue(kind="p256", client=True, now=now).write(self.place, "client-ec")
        return ports, {
            "rsa": f"-k {rsa.key_file} -c {rsa.cert_file}",
            "ec": f"-k {ec.key_file} -c {ec.cert_file}",
            "suite": "-d -C TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        }
