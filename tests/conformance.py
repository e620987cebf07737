"""The official conformance suite: the harness from npm, and what stands at its other end, from the SDK's source.

The harness's own verdict is not enough for a gateway: one that no longer advertises a capability turns checks into
skipped ones, and passes. So every run is compared, check by check, with a run against the same server without a
gateway.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from tests.node import CACHE, Node, installed
from tests.processes import missing

__all__ = ["CLIENT", "EVERYTHING", "Checks", "Suite", "client_suites", "differences", "server_suites", "source"]

HARNESS: Final = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
OLD_HARNESS: Final = "@modelcontextprotocol/conformance@0.1.16"
# The source distribution has the examples, which the wheel leaves out.
SOURCE: Final = "mcp==2.3.0"
EVERYTHING: Final = "examples/servers/everything-server"
CLIENT: Final = ".github/actions/conformance/client.py"
DOWNLOAD_SECONDS: Final = 300
# A run takes three seconds when nothing else does.
RUN_SECONDS: Final = 120
# Scenarios of the tasks extension, which no server that is known today passes.
_EXTENSION: Final = "tasks-"

# One check: its scenario, its id and its description, since some ids are used for several checks.
Key = tuple[str, str, str]


@frozen(kw_only=True)
class Checks:
    """What the harness found.

    Attributes:
        found: Of every check each status it had, in alphabetical order, and what the harness said about it.
        status: The exit status of the harness.
        printed: What the harness printed.
    """

    found: Mapping[Key, tuple[tuple[str, ...], str]]
    status: int
    printed: str = field(repr=False)

    @classmethod
    def read(cls, place: Path, done: subprocess.CompletedProcess[str]) -> Checks:
        """The results that the harness left in ``place``."""
        every: dict[Key, list[tuple[str, str]]] = {}
        for path in sorted(place.glob("*/checks.json")):
            # server-SCENARIO-TIME, or SCENARIO-TIME of a client's.
            scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", path.parent.name).removeprefix("server-")
            if scenario.startswith(_EXTENSION):
                continue
            for check in json.loads(path.read_text()):
                # INFO is a line of a log, no check.
                if check["status"] != "INFO":
                    key = (scenario, check["id"], check["description"])
                    every.setdefault(key, []).append((check["status"], check.get("errorMessage") or ""))
        found = {
            key: (tuple(sorted(status for status, _ in seen)), " ".join(filter(None, (said for _, said in seen))))
            for key, seen in every.items()
        }
        return cls(found=found, status=done.returncode, printed=done.stdout + done.stderr)

    @property
    def scenarios(self) -> int:
        """How many scenarios had a check."""
        return len({scenario for scenario, _, _ in self.found})

    @property
    def statuses(self) -> list[str]:
        """The status of every check."""
        return [status for statuses, _ in self.found.values() for status in statuses]


def differences(direct: Checks, through: Checks) -> list[str]:
    """A line about every check that the gateway has changed, in any direction."""
    lines = []
    nothing: tuple[tuple[str, ...], str] = (("MISSING",), "")
    for key in sorted({*direct.found, *through.found}):
        before, _ = direct.found.get(key, nothing)
        after, said = through.found.get(key, nothing)
        if before != after:
            scenario, check, description = key
            lines.append(f"{scenario}: {check} ({description}): {'/'.join(before)} -> {'/'.join(after)} {said}")
    return lines


@frozen(kw_only=True)
class Suite:
    """A selection of scenarios, and how large it is known to be.

    Attributes:
        harness: The npm package.
        selection: What selects the scenarios.
        scenarios: How many there are, without those of the tasks extension.
        checks: How many checks they make of the SDK's server.
    """

    harness: str = HARNESS
    selection: tuple[str, ...]
    scenarios: int
    checks: int

    def node(self) -> Node:
        """Node with the harness.

        Raises:
            SkipTest: It cannot be installed on this machine.
            AssertionError: The same, in CI.
        """
        return installed(self.harness)

    def server(self, node: Node, url: str) -> Checks:
        """Run against the server at ``url``."""
        return self._run(node, "server", "--url", url)

    def client(self, node: Node, command: str, **env: str) -> Checks:
        """Run with the client that ``command`` starts."""
        return self._run(node, "client", "--command", command, **env)

    def _run(self, node: Node, *argv: str, **env: str) -> Checks:
        with tempfile.TemporaryDirectory() as out:
            done = node.run("conformance", *argv, *self.selection, "--output-dir", out, seconds=RUN_SECONDS, **env)
            return Checks.read(Path(out), done)


def server_suites() -> Mapping[str, Suite]:
    """Every suite for servers, by a name.

    With the scenarios that the harness runs without scoring them, and 2025-06-18, for which it has no scores.
    """
    return {
        "2025-06-18": Suite(selection=("--suite", "all", "--spec-version", "2025-06-18"), scenarios=27, checks=56),
        "2025-11-25": Suite(selection=("--requirements", "2025-11-25"), scenarios=33, checks=84),
        "2026-07-28": Suite(selection=("--requirements", "2026-07-28"), scenarios=40, checks=152),
        "0.1.16": Suite(harness=OLD_HARNESS, selection=(), scenarios=30, checks=40),
    }


def client_suites() -> Mapping[str, Suite]:
    """Every scenario for clients that can pass through a gateway, by a name; the others are about authorization."""
    counts = {
        "2025-11-25": {
            "initialize": 1,
            "tools_call": 2,
            "elicitation-sep1034-client-defaults": 5,
            "sse-retry": 3,
            "json-schema-2020-12-preservation": 9,
        },
        "2026-07-28": {
            "tools_call": 2,
            "request-metadata": 8,
            "sep-2322-client-request-state": 5,
            "http-standard-headers": 11,
            "http-custom-headers": 18,
            "http-invalid-tool-headers": 12,
            "json-schema-ref-no-deref": 1,
            "json-schema-2020-12-preservation": 9,
        },
    }
    return {
        f"{scenario} {version}": Suite(
            selection=("--scenario", scenario, "--spec-version", version), scenarios=1, checks=checks
        )
        for version, scenarios in counts.items()
        for scenario, checks in scenarios.items()
    }


def source() -> Path:
    """The unpacked source of the SDK; downloaded at the first use, kept for the next run.

    Raises:
        SkipTest: It cannot be downloaded on this machine.
        AssertionError: The same, in CI.
    """
    place = CACHE / SOURCE
    if place.is_dir():
        return place
    CACHE.mkdir(parents=True, exist_ok=True)
    # As in tests.node: made beside its place, and moved there when it is whole.
    with tempfile.TemporaryDirectory(dir=CACHE) as making:
        package = SOURCE.partition("==")[0]
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                    *("--no-deps", "--no-binary", package, "--dest", making, SOURCE),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            missing(SOURCE, f"pip needed more than {DOWNLOAD_SECONDS} s")
        if done.returncode != 0:
            missing(SOURCE, f"pip must reach its registry; it said: {done.stderr.strip()[-500:]}")
        (archive,) = Path(making).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(making, filter="data")
        (unpacked,) = (path for path in Path(making).iterdir() if path.is_dir())
        unpacked.rename(place)
    return place
