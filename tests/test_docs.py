"""The guides in ``docs``: what they show is run, against a daemon that runs the demonstration's own configuration.

A block that is to be run has a comment before it::

    .. tested
    .. code-block:: console

        $ command
        what it prints, where … stands for anything

``console`` blocks must print what they show, ``bash`` and ``python`` blocks must succeed, and ``.. tested NAME`` before
a ``python`` or ``yaml`` block saves it as a file for a later command. Blocks run in the order of the page. Every
``yaml`` block is read by the configuration loader, every ``json`` block by a JSON parser, marked or not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from attrs import frozen

from mcptunnel.config.load import key_paths, load_text
from tests.daemon import DaemonCase, python_env
from tests.processes import ROOT, free_port, require

DOCS: Final = ROOT / "docs"
GUIDES: Final = (
    "tls-modes",
    "certificates",
    "acme",
    "moving-to-https",
    "tls-assessment",
    "reverse-proxies",
    "mcp",
    "security",
    "monitoring",
    "clients",
    "performance",
)
SECONDS: Final = 60.0

_BLOCK: Final = re.compile(
    r"^(?P<indent> *)(?:\.\. tested(?P<name> \S+)?\n(?P=indent))?\.\. code-block:: (?P<kind>\w+)\n\n"
    r"(?P<body>(?:(?P=indent)    .*\n|\n)+)",
    re.MULTILINE,
)
_KEY: Final = re.compile(r"``((?:server|security|auth|logging|mcpServers)\.[A-Za-z_.\[\]]+?)(?::.*?)?``")


@frozen(kw_only=True)
class Block:
    """One code block of a guide.

    Attributes:
        place: Guide and line, for messages.
        kind: Its language.
        body: What stands in it.
        tested: Whether it is to be run.
        name: The file it is to be saved as; empty for none.
    """

    place: str
    kind: str
    body: str
    tested: bool
    name: str


def blocks(guide: str) -> list[Block]:
    """Every code block of a guide, in its order."""
    text = (DOCS / f"{guide}.rst").read_text("utf-8")
    found = [
        Block(
            place=f"docs/{guide}.rst:{text.count(chr(10), 0, match.start()) + 1}",
            kind=match["kind"],
            body=textwrap.dedent(match["body"]).strip("\n") + "\n",
            tested=".. tested" in match[0].partition(".. code-block")[0],
            name=(match["name"] or "").strip(),
        )
        for match in _BLOCK.finditer(text)
    ]
    # What the pattern does not see would never be run.
    assert len(found) == text.count(".. code-block::"), f"{guide}: a code block is not written as the others are"
    assert sum(block.tested for block in found) == len(re.findall(r"^ *\.\. tested", text, re.MULTILINE)), guide
    return found


class ReadTests(DaemonCase):
    """What needs no daemon."""

    def each(self, kind: str) -> list[Block]:
        return [block for guide in GUIDES for block in blocks(guide) if block.kind == kind]

    def test_every_configuration_loads(self) -> None:
        """Without a finding; what is warned about is said in the text."""
        home = self.place / "home"
        for number, path in enumerate((".config/Claude/claude_desktop_config.json", ".cursor/mcp.json")):
            (home / path).parent.mkdir(parents=True)
            (home / path).write_text(json.dumps({"mcpServers": {f"s{number}": {"command": "true"}}}))
        (self.place / "project" / ".vscode").mkdir(parents=True)
        (self.place / "project" / ".vscode" / "mcp.json").write_text('{"servers": {}}')
        shown = self.each("yaml")
        self.assertGreater(len(shown), 10)
        for block in shown:
            names = re.findall(r"\$\{env:(\w+)\}", block.body)
            environ = {name: name.lower().ljust(32, "x") for name in names} | {"HOME": str(home)}
            load_text(block.body, name=block.place, base=self.place, environ=environ)

    def test_every_json_file_can_be_read(self) -> None:
        """By the strictest parser."""
        shown = self.each("json")
        self.assertGreater(len(shown), 2)
        for block in shown:
            self.assertIsInstance(json.loads(block.body), dict, block.place)

    def test_every_key_that_is_named_exists(self) -> None:
        """A key that is renamed is renamed in the guides."""
        known = set(key_paths())
        named = 0
        for guide in GUIDES:
            for key in _KEY.findall((DOCS / f"{guide}.rst").read_text("utf-8")):
                named += 1
                self.assertIn(key, known, guide)
        self.assertGreater(named, 20)

    def test_every_file_that_is_shown_exists(self) -> None:
        """And every sample for a proxy is shown, but those of the specification."""
        shown = set()
        for guide in GUIDES:
            for path in re.findall(r"^\.\. literalinclude:: (.*)$", (DOCS / f"{guide}.rst").read_text("utf-8"), re.M):
                self.assertTrue((DOCS / path).is_file(), path)
                shown.add(Path(path).name)
        samples = {path.name for path in (ROOT / "etc" / "proxies").iterdir() if "-spec." not in path.name}
        samples |= {path.name for path in (ROOT / "etc" / "kubernetes").iterdir()}
        self.assertEqual(samples - shown, set())

    def test_the_manifests_for_kubernetes_fit_together(self) -> None:
        """The configuration loads, and every file that it names is mounted, whole, from a secret that is made."""
        with (ROOT / "etc" / "kubernetes" / "mcptunnel.yaml").open() as file:
            made = {one["kind"]: one for one in yaml.safe_load_all(file)}
        config = load_text(made["ConfigMap"]["data"]["mcptunnel.yaml"], base=self.place)
        pod = made["Deployment"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        self.assertNotIn("subPath", str(container))
        tls = mounted["/run/tls"]["secret"]
        self.assertEqual(tls["secretName"], made["Certificate"]["spec"]["secretName"])
        self.assertEqual(made["Certificate"]["spec"]["issuerRef"]["name"], made["Issuer"]["metadata"]["name"])
        self.assertEqual(
            (config.server.tls.cert_file, config.server.tls.key_file), ("/run/tls/tls.crt", "/run/tls/tls.key")
        )
        self.assertEqual(
            (config.auth.tokens[0].token_file, mounted["/run/tokens"]["secret"]["secretName"]),
            ("/run/tokens/ci", "mcptunnel-tokens"),
        )
        # YAML 1.1, which Kubernetes reads, has octal numbers.
        self.assertEqual(
            [volume["secret"]["defaultMode"] for volume in volumes.values() if "secret" in volume], [0o400] * 2
        )
        self.assertEqual(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsUser"])
        self.assertEqual(mounted["/etc/mcptunnel"]["configMap"]["name"], made["ConfigMap"]["metadata"]["name"])
        self.assertEqual(container["command"][-1], "/etc/mcptunnel/mcptunnel.yaml")
        self.assertEqual(container["ports"][0]["containerPort"], config.server.port)
        self.assertGreater(pod["terminationGracePeriodSeconds"], config.server.limits.drain_timeout)
        self.assertIn(urlsplit(config.server.public_url or "").hostname, made["Certificate"]["spec"]["dnsNames"])

    def test_every_guide_is_in_the_contents(self) -> None:
        """A page that nobody finds might as well not be there."""
        contents = re.findall(r"^   ([a-z-]+)$", (DOCS / "index.rst").read_text(), re.MULTILINE)
        self.assertEqual(sorted(contents), sorted(path.stem for path in DOCS.glob("*.rst") if path.stem != "index"))


class RunTests(DaemonCase):
    """The commands, in a directory that looks like a checkout in which ``make run`` has been called."""

    def setUp(self) -> None:
        super().setUp()
        require("curl")
        self.port, clock = free_port(), free_port()
        self.ports = {"8080": free_port(), "8443": free_port()}
        self.environ = {
            **os.environ,
            **python_env(),
            "PATH": f"{self.place}/bin:{os.environ.get('PATH', os.defpath)}",
            # What belongs to this machine's user must not decide.
            "HOME": str(self.place),
        }
        (self.place / "bin").mkdir()
        self.program("python3", 'exec "$PYTHON" "$@"')
        self.program("twistd", f'exec "$PYTHON" {Path(sys.executable).with_name("twistd")} "$@"')
        self.program(
            "mcptunnel", 'exec "$PYTHON" -c "import sys; from mcptunnel.cli import main; sys.exit(main())" "$@"'
        )
        shutil.copytree(ROOT / "etc", self.place / "etc")
        demo = self.place / "etc" / "demo.yaml"
        text = demo.read_text()
        for old, new in ((":3000", f":{self.port}"), ("port: 3000", f"port: {self.port}"), (":3002", f":{clock}")):
            assert old in text, old
            text = text.replace(old, new)
        demo.write_text(text)
        self.bash("mcptunnel certs dev .dev")
        self.start("clock", [sys.executable, "-m", "mcptunnel.demo", "http", str(clock)], clock, env=python_env())
        self.start(
            "twistd",
            self.twistd(demo),
            self.port,
            env={**python_env(), "MCPTUNNEL_PYTHON": str(self.place / "bin" / "python3")},
        )

    def program(self, name: str, script: str) -> None:
        path = self.place / "bin" / name
        # The child processes of the daemon get no PYTHONPATH from it.
        path.write_text(f"#!/bin/sh\nPYTHON={sys.executable}\nexport PYTHONPATH={ROOT}\n{script}\n")
        path.chmod(0o755)

    def bash(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.place,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def ours(self, body: str) -> str:
        """With the port of this test's daemon, and free ones for those that a guide starts."""
        body = body.replace("localhost:3000", f"localhost:{self.port}")
        return re.sub(r"(?<=localhost:)8\d{3}|(?<=port: )8\d{3}", lambda match: str(self.ports[match[0]]), body)

    def succeed(self, block: Block, script: str) -> str:
        done = self.bash(script)
        self.assertEqual(done.returncode, 0, f"{block.place}:\n{script}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def run_block(self, block: Block) -> None:
        body = self.ours(block.body)
        if block.kind == "console":
            for command, expected in commands(body):
                said = self.succeed(block, command)
                self.assertTrue(shows(expected, said), f"{block.place}: it prints\n{said}\nand not\n{expected}")
        elif block.kind == "python":
            file = self.place / (block.name or "block.py")
            file.write_text(body)
            if not block.name:
                self.succeed(block, f"python3 {file.name}")
        elif block.kind == "yaml":
            (self.place / block.name).write_text(body)
        else:
            self.assertEqual(block.kind, "bash", block.place)
            self.succeed(block, body)

    def run_guide(self, guide: str, least: int) -> None:
        found = [block for block in blocks(guide) if block.tested]
        self.assertGreaterEqual(len(found), least)
        for block in found:
            self.run_block(block)

    def test_tls_modes(self) -> None:
        """The development certificate, and health over https."""
        self.run_guide("tls-modes", 2)

    def test_moving_to_https(self) -> None:
        """Both ports, the report, challenges, and what is left when http is closed."""
        self.addCleanup(self.end, "moving.pid")
        self.run_guide("moving-to-https", 7)

    def end(self, pid_file: str) -> None:
        """The daemon that a guide started, if a failure has kept the guide from ending it."""
        path = self.place / pid_file
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)
        until = time.monotonic() + 10
        while path.exists() and time.monotonic() < until:
            time.sleep(0.05)

    def test_certificates(self) -> None:
        """All three commands."""
        self.run_guide("certificates", 7)

    def test_reverse_proxies(self) -> None:
        """What explain prints."""
        self.run_guide("reverse-proxies", 2)

    def test_mcp(self) -> None:
        """A call of a prefixed name."""
        self.run_guide("mcp", 1)

    def test_security(self) -> None:
        """Making a token; what a foreign page gets."""
        self.run_guide("security", 2)

    def test_monitoring(self) -> None:
        """What health says of certificates."""
        self.run_guide("monitoring", 1)

    def test_clients(self) -> None:
        """curl in both eras and streaming, the official SDK, WebSocket."""
        self.run_guide("clients", 7)


def commands(body: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it is said to print."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None, part
        found.append((command[0].strip(), part[command.end() :]))
    return found


def shows(expected: str, said: str) -> bool:
    """Whether ``said`` is what was expected; … stands for anything, and the number of blanks does not count."""
    pattern = ".*".join(re.escape(part) for part in _blanks(expected).split("…"))
    return re.fullmatch(pattern.replace(r"\ ", " ").replace(" .* ", ".* "), _blanks(said), re.DOTALL) is not None


def _blanks(text: str) -> str:
    return re.sub(r" +", " ", text).strip()


class ConventionTests(DaemonCase):
    """The reading of the guides is itself no matter of luck."""

    def test_what_a_command_prints_is_compared(self) -> None:
        """Whole, but for what … leaves open."""
        cases: list[tuple[str, str, Any]] = [
            ("a\nb", "a\nb\n", True),
            ("a\n…\nc", "a\nb\nb\nc\n", True),
            ("a  b", "a b", True),
            ("a … c", "a b c", True),
            ("a", "a\nb", False),
            ("a\n…\nc", "a\nc d", False),
            ("", "a", False),
        ]
        for expected, said, same in cases:
            self.assertEqual(shows(expected, said), same, (expected, said))

    def test_commands_may_have_several_lines(self) -> None:
        """As they are copied."""
        self.assertEqual(
            commands("$ a \\\n  b\nx\n$ c\n"),
            [("a \\\n  b", "x\n"), ("c", "")],
        )
