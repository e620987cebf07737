"""Node.js and the programs for it that the outside tests drive, from npm, in a cache outside this tree.

The MCP inspector needs Node 22; under an older one npm installs an outdated inspector without a word. So Node itself
comes from npm first, and installs the rest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.processes import missing, require

__all__ = ["CACHE", "INSPECTOR", "TS_SDK", "Node", "installed"]

# Kept from run to run, and outside this tree.
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcptunnel-tests"

NODE: Final = "node@22"
INSPECTOR: Final = "@modelcontextprotocol/inspector@2.12.0"
# The last line that has a WebSocket transport.
TS_SDK: Final = "@modelcontextprotocol/sdk@1.32.2"
INSTALL_SECONDS: Final = 300


@frozen(kw_only=True)
class Node:
    """An installation.

    Attributes:
        place: Its directory.
    """

    place: Path

    @property
    def path(self) -> str:
        """PATH with this Node and its programs first."""
        modules = self.place / "node_modules"
        return os.pathsep.join([str(modules / "node" / "bin"), str(modules / ".bin"), os.environ.get("PATH", "")])

    def run(self, *argv: str, seconds: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of it to its end, in an empty working directory."""
        with tempfile.TemporaryDirectory() as here:
            return subprocess.run(
                argv,
                cwd=here,
                env={**os.environ, "PATH": self.path, **env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )


def installed(*packages: str) -> Node:
    """Node 22 with ``packages``; installed at the first use, kept for the next run.

    Raises:
        SkipTest: It cannot be installed on this machine.
        AssertionError: The same, in CI.
    """
    npm = require("npm")
    name = "+".join(package.replace("/", "_") for package in (NODE, *packages))
    node = Node(place=CACHE / name)
    if node.place.is_dir():
        return node
    CACHE.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there when it is whole, so that a broken installation is never found again.
    making = Node(place=Path(tempfile.mkdtemp(dir=CACHE)))
    try:
        for wanted in ((NODE,), packages):
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *wanted],
                cwd=making.place,
                env={**os.environ, "PATH": making.path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                missing(" ".join(wanted), f"npm must reach its registry; it said: {done.stderr.strip()[-500:]}")
        making.place.rename(node.place)
    except subprocess.TimeoutExpired:
        missing(name, f"npm needed more than {INSTALL_SECONDS} s")
    finally:
        shutil.rmtree(making.place, ignore_errors=True)
    return node
