"""What assessment tools say about an address: testssl.sh from the system, sslyze from PyPI in its own environment.

Its own, since sslyze wants an older cryptography than the daemon; pip would quietly go back to a sslyze of 2017.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.processes import Process, require
from tests.venvs import installed

__all__ = ["Finding", "findings", "mozilla", "testssl"]

SSLYZE: Final = "sslyze==6.3.1"
SECONDS: Final = 280.0
# testssl's severities that are no finding.
_FINE: Final = ("OK", "INFO")


@frozen
class Finding:
    """One line of testssl's report that is no praise.

    Attributes:
        name: testssl's identifier, such as ``cert_chain_of_trust``.
        severity: ``LOW`` to ``CRITICAL``, ``WARN``, ``DEBUG``.
        text: What it found.
    """

    name: str
    severity: str
    text: str


def mozilla(port: int, profile: str, ca_file: str, place: Path) -> str:
    """Let sslyze compare ``localhost:port`` with Mozilla's recommendation.

    Returns:
        What it printed.

    Raises:
        AssertionError: The server does not comply; with what sslyze says.
    """
    program = installed(SSLYZE) / "sslyze"
    arguments = [f"--mozilla_config={profile}", f"--certinfo_ca_file={ca_file}", f"localhost:{port}"]
    done = subprocess.run(
        [program, *arguments], cwd=place, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"sslyze ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def testssl(port: int, ca_file: str, place: Path) -> tuple[Process, Path]:
    """Start testssl.sh on ``https://localhost:port/``; the process, and the file for its report."""
    report = place / f"testssl-{port}.json"
    options = ["--quiet", "--color", "0", "--warnings", "off", "--ip", "one", "--add-ca", ca_file]
    command = [require("testssl"), *options, "--jsonfile", str(report), f"https://localhost:{port}/"]
    return Process.start("testssl", command, place=place, log=f"testssl-{port}"), report


def findings(report: Path) -> list[Finding]:
    """What is above INFO in a report of testssl.sh.

    Raises:
        AssertionError: It is not the report of a complete run.
    """
    lines = json.loads(report.read_text("utf-8"))
    assert any(line["id"] == "scanTime" for line in lines), f"testssl did not come to its end: {report}"
    return [Finding(line["id"], line["severity"], line["finding"]) for line in lines if line["severity"] not in _FINE]
