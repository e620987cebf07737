"""``mcptunnel stdio`` and ``mcptunnel connect`` up to the point where something runs; the rest is in ``tests/``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli import main, serving
from mcptunnel.cli.connect import option
from mcptunnel.config.load import load_file
from mcptunnel.config.schema import Config
from mcptunnel.core.errors import CertificateError


class Case(SynchronousTestCase):
    """Instead of running it, what would be served is remembered."""

    def setUp(self) -> None:
        self.served: list[tuple[Config, str | None, bool]] = []
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.patch(serving, "serve", self.serve)

    def serve(self, config: Config, server: str | None = None, *, quiet: bool = False) -> int:
        self.served.append((config, server, quiet))
        return 0

    def main(self, *argv: str, status: int = 0) -> None:
        self.assertEqual(main(argv), status, self.err.getvalue())
        self.assertEqual(self.out.getvalue(), "")

    def refused(self, *argv: str, status: int = 1) -> Sequence[str]:
        """The lines on standard error; nothing is served."""
        self.err.seek(0)
        self.err.truncate()
        self.main(*argv, status=status)
        self.assertEqual(self.served, [])
        lines = self.err.getvalue().splitlines()
        if status == 1:
            self.assertTrue(all(line.startswith("mcptunnel: ") for line in lines), lines)
        return lines


class StdioTests(Case):
    """mcptunnel stdio."""

    def write(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text)
        return str(path)

    def test_a_configuration_is_served(self) -> None:
        """All of it, or one server; the certificates of a listener need not be there."""
        path = self.write(
            "server: {tls: {mode: application, cert_file: /nonexistent, key_file: /nonexistent}}\n"
            "mcpServers: {a: {command: cat}}\n"
        )
        self.main("stdio", "--config", path)
        self.main("stdio", "--config", path, "--server", "a", "--quiet")
        self.assertEqual(self.served, [(load_file(path), None, False), (load_file(path), "a", True)])

    def test_a_configuration_is_refused(self) -> None:
        """With every finding, as the daemon does; so is none at all."""
        path = self.write("mcpServer: {a: {command: cat}}\nserver: {prot: 1}\n")
        lines = self.refused("stdio", "--config", path)
        self.assertEqual(len(lines), 2)
        self.assertIn(":1: mcpServer: ", lines[0])
        self.assertIn("does not exist", self.refused("stdio", "--config", "/nonexistent")[0])
        self.patch(sys.modules["mcptunnel.config.load"], "default_path", lambda: None)
        self.assertIn("--config", self.refused("stdio")[0])


class ConnectTests(Case):
    """mcptunnel connect."""

    URL = "https://mcp.example.com/mcp"

    def connect(self, *argv: str) -> Config:
        self.main("connect", *argv)
        config, server, _ = self.served.pop()
        self.assertEqual((list(config.servers), server), (["remote"], "remote"))
        return config

    def test_the_arguments_become_one_server(self) -> None:
        """With headers, files and time."""
        ca = Path(self.mktemp())
        ca.write_text("")
        server = self.connect(self.URL).servers["remote"]
        self.assertEqual((server.url, server.headers, server.ca_file), (self.URL, {}, None))
        headers = ("--header", "Authorization: Bearer a:b", "-H", "X-Other:1")
        config = self.connect(self.URL, *headers, "--ca-file", str(ca), "--timeout", "1m30s")
        server = config.servers["remote"]
        self.assertEqual(dict(server.headers), {"Authorization": "Bearer a:b", "X-Other": "1"})
        self.assertEqual(server.ca_file, str(ca))
        self.assertEqual(config.server.limits.request_timeout, 90.0)
        self.assertEqual(config.logging.access, "off")

    def test_how_the_server_is_spoken_to(self) -> None:
        """Found out, unless it is said; our own certificate where one is asked for."""
        server = self.connect(self.URL).servers["remote"]
        self.assertEqual((server.era, server.type, server.cert_file), ("auto", None, None))
        files = [Path(self.mktemp()), Path(self.mktemp())]
        for file in files:
            file.write_text("")
        cert, key = map(str, files)
        more = ("--era", "legacy", "--type", "sse", "--cert-file", cert, "--key-file", key)
        server = self.connect(self.URL, *more).servers["remote"]
        self.assertEqual((server.era, server.type), ("legacy", "sse"))
        self.assertEqual((server.cert_file, server.key_file), (cert, key))
        self.assertEqual(self.connect("wss://mcp.example.com/ws").servers["remote"].type, "ws")
        for argv, words in (
            (("--cert-file", cert), "--cert-file is given without --key-file"),
            (("--key-file", key), "--key-file is given without --cert-file"),
            (("--type", "ws"), "--type: "),
        ):
            (line,) = self.refused("connect", self.URL, *argv)
            self.assertIn(words, line)

    def test_secrets_may_stand_elsewhere(self) -> None:
        """In a variable or a file; what looks like a reference and is none has a spelling, too."""
        secret = Path(self.mktemp())
        secret.write_text("from a file\n")
        self.patch(sys.modules["os"], "environ", {"TOKEN": "from a variable"})
        for value, expected in (
            ("${env:TOKEN}", "from a variable"),
            (f"${{file:{secret.absolute()}}}", "from a file"),
            ("$${env:TOKEN}", "${env:TOKEN}"),
            ("literal", "literal"),
        ):
            server = self.connect(self.URL, "--header", f"Authorization: Bearer {value}").servers["remote"]
            self.assertEqual(server.headers["Authorization"], f"Bearer {expected}")
            self.assertNotIn(expected, repr(server))

    def test_what_is_wrong_is_said_in_options(self) -> None:
        """One line each, all at once, and no secret among them."""
        self.patch(sys.modules["os"], "environ", {})
        for argv, expected in (
            (["ftp://x"], "URL: "),
            (["localhost"], "URL: "),
            ([self.URL, "--header", "Authorization: ${env:TOKEN}"], "--header Authorization: "),
            ([self.URL, "--header", "Host: s3cret"], "--header Host: "),
            ([self.URL, "--header", "A b: s3cret"], "--header 'A b': "),
            ([self.URL, "--header", "A: s3cret\nB: s3cret"], "--header A: "),
            ([self.URL, "--header", "A: s3cret", "--header", "a: s3cret"], "--header a: "),
            ([self.URL, "--timeout", "soon"], "--timeout: "),
            ([self.URL, "--ca-file", "/nonexistent"], "--ca-file: "),
        ):
            lines = self.refused("connect", *argv)
            self.assertEqual(len(lines), 1, lines)
            self.assertTrue(lines[0].startswith(f"mcptunnel: connect: {expected}"), lines)
            self.assertNotIn("mcpServers", lines[0])
            self.assertNotIn("the daemon", lines[0])
            self.assertNotIn("s3cret", lines[0])
        self.assertEqual(len(self.refused("connect", "ftp://x", "--timeout", "soon", "--ca-file", "/nonexistent")), 3)

    def test_wrong_usage_is_status_2(self) -> None:
        """A header without a colon is not shown: it may be a secret."""
        for argv in ([], [self.URL, "--header", "s3cret"], [self.URL, "--era", "new"], [self.URL, "--type", "smtp"]):
            text = "\n".join(self.refused("connect", *argv, status=2))
            self.assertIn("usage: mcptunnel connect", text)
            self.assertNotIn("s3cret", text)

    def test_what_is_found_later_is_said_in_options_too(self) -> None:
        """A CA file without a certificate."""

        def refuse(*_: Any, **__: Any) -> int:
            raise CertificateError("x.pem: mcpServers.remote.ca_file: no certificate")

        self.patch(serving, "serve", refuse)
        self.assertEqual(self.refused("connect", self.URL), ["mcptunnel: x.pem: --ca-file: no certificate"])

    def test_warnings_are_said_in_options(self) -> None:
        """They go to the log."""
        (warning,) = self.connect("http://mcp.example.com/mcp", "--header", "Authorization: x").warnings
        self.assertTrue(warning.startswith("URL: the headers travel unencrypted"), warning)

    def test_keys_without_an_option_stay(self) -> None:
        """Whatever the loader may find."""
        self.assertEqual(option("mcpServers.remote.unknown"), "mcpServers.remote.unknown")
        self.assertEqual(option("auth"), "auth")


class HelpTests(Case):
    """For somebody who has never seen it."""

    def test_every_option_is_described(self) -> None:
        """With an example."""
        for command, words in (
            ("stdio", ("--config", "--server", "--quiet", "claude_desktop_config.json", "/mcp")),
            ("connect", ("--header", "--ca-file", "--timeout", "${env:", "example:")),
        ):
            self.assertEqual(main([command, "--help"]), 0)
            for word in words:
                self.assertIn(word, self.out.getvalue())
