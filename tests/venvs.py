"""Python programs that the outside tests drive, from PyPI, in environments of their own outside this tree.

Their dependencies must not decide which MCP SDK the tests themselves have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

from tests.processes import missing

__all__ = ["GIT", "TIME", "installed"]

TIME: Final = "mcp-server-time==2026.10.19"
GIT: Final = "mcp-server-git==2026.10.19"
INSTALL_SECONDS: Final = 300


def installed(*packages: str) -> Path:
    """The directory of the programs of ``packages``; installed at the first use, kept for the next run.

    Raises:
        SkipTest: They cannot be installed on this machine.
        AssertionError: The same, in CI.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcptunnel-tests"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    place = cache / "+".join((version, *packages))
    programs = place / "bin"
    # Scripts name their interpreter by its path, so an environment cannot be made elsewhere and moved to its place.
    whole = place / ".whole"
    if whole.exists():
        return programs
    shutil.rmtree(place, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    venv.create(place, with_pip=True)
    try:
        done = subprocess.run(
            [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            cwd=tempfile.gettempdir(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        missing(" ".join(packages), f"pip needed more than {INSTALL_SECONDS} s")
    if done.returncode != 0:
        missing(" ".join(packages), f"pip must reach its index; it said: {done.stderr.strip()[-500:]}")
    whole.touch()
    return programs
