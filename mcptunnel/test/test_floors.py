"""The house's floors: what may import what. And that the fast paths that we count on are really there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mcptunnel

ROOT = Path(mcptunnel.__file__).parent
# Floor of each package or module directly below mcptunnel; tests may import everything.
FLOORS = {
    "core": 0,
    "config": 1,
    "liveness": 1,
    "tls": 2,
    "web": 2,
    "ws": 2,
    "pipe": 2,
    "upstream": 2,
    "agents": 2,
    "observe": 2,
    "services": 3,
    "tap": 4,
    "cli": 4,
    "testing": 4,
}
# A program of its own, without any import of ours.
ALONE = {"demo"}
# What core may use besides the standard library.
PURE = {"attrs", "msgspec", "mcptunnel"}
# The parts of the standard library that read clocks, files, sockets, the environment or chance.
IMPURE = {
    *("asyncio", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets"),
    *("select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time", "uuid"),
}
STANDARD = {
    *("__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "dataclasses", "enum"),
    *("fnmatch", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "operator", "re"),
    *("string", "struct", "types", "typing", "unicodedata", "urllib"),
}


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that ``source`` imports, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "relative"
            elif node.module == "mcptunnel":
                # `from mcptunnel import tls` is an import of mcptunnel.tls.
                for alias in node.names:
                    yield node.lineno, f"mcptunnel.{alias.name}"
            else:
                yield node.lineno, node.module or ""


def offences(where: str, source: str) -> list[str]:
    """What is wrong with the imports of ``source``, which stands at ``where`` (``core/mcp.py``, ``tap.py``)."""
    package = where.partition("/")[0].removesuffix(".py")
    found = []
    for line, name in imported(source):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if name == "relative":
            found.append(f"{where}:{line}: relative import")
        elif top == "mcptunnel" and other not in ("", "__version__"):
            if package in ALONE or other not in FLOORS:
                found.append(f"{where}:{line}: {package} imports {name}")
            elif FLOORS[other] >= FLOORS[package] and other != package and package != "__init__":
                found.append(f"{where}:{line}: {package} (floor {FLOORS[package]}) imports {name}")
        elif package == "core" and top != "mcptunnel":
            allowed = top in PURE or (top in STANDARD and top not in IMPURE)
            if not allowed:
                found.append(f"{where}:{line}: core is pure, and imports {name}")
    return found


def modules() -> Iterator[tuple[str, str]]:
    """Every module of the product: where it stands, and its source."""
    for path in sorted(ROOT.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        if not where.startswith("test/"):
            yield where, path.read_text("utf-8")


class FloorTests(SynchronousTestCase):
    """A module imports its own floor's package and those below."""

    def test_every_module_keeps_to_its_floor(self) -> None:
        """All offences at once."""
        found = [offence for where, source in modules() for offence in offences(where, source)]
        self.assertEqual(found, [])

    def test_every_package_has_a_floor(self) -> None:
        """A new one must be given its place here."""
        tops = {where.partition("/")[0].removesuffix(".py") for where, _ in modules()}
        self.assertEqual(tops - FLOORS.keys() - ALONE, {"__init__"})
        self.assertTrue(
            {"core", "config", "tls", "web", "ws", "pipe", "upstream", "observe", "services", "tap"} <= tops
        )

    def test_offences_are_found(self) -> None:
        """In every spelling and at every depth; what is allowed is not one."""
        for where, source, count in (
            ("core/mcp.py", "from twisted.internet import defer", 1),
            ("core/mcp.py", "import twisted.python.failure as f", 1),
            ("core/mcp.py", "def f():\n    from OpenSSL import SSL", 1),
            ("core/mcp.py", "if x:\n    import autobahn.websocket", 1),
            ("core/mcp.py", "import os, time, socket", 3),
            ("core/mcp.py", "from datetime import datetime", 1),
            ("core/mcp.py", "from mcptunnel.config.schema import Config", 1),
            ("core/mcp.py", "from mcptunnel import tls", 1),
            ("core/mcp.py", "from . import jsonrpc", 1),
            (
                "core/mcp.py",
                "import re\nfrom collections.abc import Callable\nfrom attrs import frozen\nimport msgspec",
                0,
            ),
            ("core/mcp.py", "from mcptunnel.core.jsonrpc import decode", 0),
            ("config/load.py", "import os\nfrom mcptunnel.core.errors import ConfigError", 0),
            ("config/load.py", "from mcptunnel.tls.store import CertificateStore", 1),
            ("web/mcp.py", "from mcptunnel.ws.protocol import McpSocket", 1),
            ("web/mcp.py", "from mcptunnel.upstream import client", 1),
            ("pipe/protocol.py", "from mcptunnel.web.site import Site", 1),
            ("web/mcp.py", "from mcptunnel.services.root import build", 1),
            ("web/mcp.py", "from mcptunnel.web.site import Site\nfrom twisted.web import server", 0),
            ("services/root.py", "from mcptunnel.web.site import Site\nfrom mcptunnel.tls.store import X", 0),
            ("services/root.py", "from mcptunnel.tap import Options", 1),
            ("tap.py", "from mcptunnel.services.root import build", 0),
            ("tap.py", "from mcptunnel.testing import FakeUpstream", 1),
            ("web/mcp.py", "from mcptunnel.test.web.sites import serve", 1),
            ("demo.py", "from mcptunnel.core import mcp", 1),
            ("demo.py", "import json", 0),
        ):
            self.assertEqual(len(offences(where, source)), count, (where, source))


class FastPathTests(SynchronousTestCase):
    """What makes the daemon fast is compiled; its pure substitutes would be found out by nobody else."""

    def test_autobahn_uses_its_compiled_parts(self) -> None:
        """Masking and UTF-8 validation of WebSocket frames (NVX)."""
        compiled = [import_module("_nvx_utf8validator"), import_module("_nvx_xormasker")]
        websocket = import_module("autobahn.websocket")
        validator = import_module("autobahn.nvx._utf8validator").Utf8Validator
        masker = import_module("autobahn.nvx._xormasker").create_xor_masker
        protocol = import_module("autobahn.websocket.protocol")
        self.assertTrue(websocket.HAS_NVX)
        self.assertTrue(websocket.USES_NVX)
        for module in compiled:
            self.assertFalse((module.__file__ or ".py").endswith(".py"))
        # What the protocol itself calls.
        self.assertIs(protocol.Utf8Validator, validator)
        self.assertIs(protocol.create_xor_masker, masker)

    def test_the_compiled_parts_work(self) -> None:
        """On a few bytes."""
        protocol = import_module("autobahn.websocket.protocol")
        masker = protocol.create_xor_masker(b"\x01\x02\x03\x04", 5)
        self.assertEqual(masker.process(b"\x01\x02\x03\x04\x05"), b"\0\0\0\0\x04")
        self.assertTrue(protocol.Utf8Validator().validate("é".encode())[0])
        self.assertFalse(protocol.Utf8Validator().validate(b"\xff")[0])

    def test_parsers_are_compiled(self) -> None:
        """HTTP heads and JSON."""
        for name in ("httptools.parser.parser", "msgspec._core"):
            module = import_module(name)
            self.assertFalse((module.__file__ or ".py").endswith(".py"))
