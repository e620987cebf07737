"""The wheel, installed by itself into a fresh virtual environment, as a user would have it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from mcptunnel import __version__
from tests.processes import ROOT, OutsideCase, free_port, missing

# Building and installing take half a minute where nothing is cached, and a slow mirror some more.
PIP_SECONDS: Final = 300.0
COMMAND_SECONDS: Final = 60.0

_SOURCES: Final = ("mcptunnel", "twisted", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE")
# What pip says when it has no network.
_OFFLINE: Final = ("NewConnectionError", "NameResolutionError", "Failed to establish", "No matching distribution found")


def _run(*command: str, cwd: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    # Nothing of this checkout may help: neither its path nor the variables that `make` sets.
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MCPTUNNEL_PYTHON")}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=seconds, check=False)


def _pip(python: str, *arguments: str, cwd: Path) -> None:
    done = _run(python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", cwd=cwd, seconds=PIP_SECONDS)
    if done.returncode:
        said = f"pip {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        if any(word in said for word in _OFFLINE):
            missing("a network for pip", f"connect to a package index; it said:\n{said}")
        raise AssertionError(said)


@cache
def _place() -> Path:
    place = Path(mkdtemp(prefix="mcptunnel-wheel-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@cache
def wheel() -> Path:
    """The wheel of this checkout, built from a copy: neither old build directories get in, nor new ones into it."""
    source = _place() / "source"
    source.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            shutil.copy(ROOT / name, source / name)
    _pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(_place()), str(source), cwd=_place())
    (built,) = _place().glob("*.whl")
    return built


@cache
def scripts() -> Path:
    """Where the programs of the fresh environment are."""
    built = wheel()
    fresh = _place() / "venv"
    venv.create(fresh, with_pip=True)
    _pip(str(fresh / "bin" / "python"), "install", "--prefer-binary", str(built), cwd=_place())
    return fresh / "bin"


class WheelTests(OutsideCase):
    """One wheel and one environment for all of them."""

    timeout = 2 * PIP_SECONDS

    def run_installed(self, program: str, *arguments: str) -> str:
        """What a program of the fresh environment prints; it has to succeed."""
        done = _run(str(scripts() / program), *arguments, cwd=self.place, seconds=COMMAND_SECONDS)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def test_the_wheel_has_the_plugin_and_nothing_of_twisted_itself(self) -> None:
        """An ``__init__.py`` of ours there would hide Twisted, or all other plugins."""
        names = set(zipfile.ZipFile(wheel()).namelist())
        self.assertLessEqual({"mcptunnel/py.typed", "twisted/plugins/mcptunnel_plugin.py"}, names)
        self.assertEqual(
            {name for name in names if name.startswith("twisted/")}, {"twisted/plugins/mcptunnel_plugin.py"}
        )
        foreign = {name.partition("/")[0] for name in names} - {"mcptunnel", "twisted"}
        self.assertEqual({name.rpartition(".")[2] for name in foreign}, {"dist-info"})

    def test_every_module_of_the_package_is_in_the_wheel(self) -> None:
        """Whatever floor it is on."""
        names = set(zipfile.ZipFile(wheel()).namelist())
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mcptunnel").rglob("*.py")}
        self.assertEqual(modules - names, set())

    def test_twistd_lists_the_plugin(self) -> None:
        """And knows its options."""
        self.assertRegex(self.run_installed("twistd", "--help"), r"\n    mcptunnel +Put MCP servers")
        self.assertIn("--config=", self.run_installed("twistd", "mcptunnel", "--help"))

    def test_the_operators_command_works(self) -> None:
        """Without a configuration: the defaults."""
        self.assertEqual(self.run_installed("mcptunnel", "--version"), f"mcptunnel {__version__}\n")
        decision = json.loads(self.run_installed("mcptunnel", "explain", "--peer", "127.0.0.1", "--json"))
        self.assertEqual(
            (decision["client_ip"], decision["scheme"], decision["verdict"]), ("127.0.0.1", "http", "direct")
        )

    def test_the_daemon_starts_answers_and_stops(self) -> None:
        """With the defaults, but for a port that is free."""
        port = free_port()
        config = self.place / "mcptunnel.yaml"
        config.write_text(f"server: {{port: {port}}}\n")
        process = self.start(
            "twistd",
            [str(scripts() / "twistd"), "--pidfile=", "-n", "mcptunnel", "--config", str(config)],
            port,
            env={"PYTHONPATH": ""},
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=10) as response:
            self.assertEqual((response.status, json.load(response)), (200, {"status": "ok"}))
        process.stop()
        log = process.output()
        self.assertIn("[mcptunnel.services.listener.Listener] listening on 127.0.0.1", log)
        self.assertIn("Server Shut Down.", log)
        self.assertNotIn("Traceback", log)
