"""The samples in ``etc/`` and the reference in ``docs/`` say what the loader does."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mcptunnel.config.load import key_paths, load_file, load_text
from mcptunnel.config.schema import Config

ROOT = Path(__file__).parents[3]


class SampleTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not (ROOT / "etc").is_dir():
            raise SkipTest("the samples are in the source tree, not in an installed package")

    def load(self, name: str) -> Config:
        return load_file(str(ROOT / "etc" / name), {})

    def test_every_sample_loads(self) -> None:
        """None is forgotten, and only those of the specification have anything to warn about."""
        names = sorted(path.name for path in (ROOT / "etc").glob("*.yaml"))
        self.assertLessEqual({"demo.yaml", "mcptunnel.yaml", "spec-application.yaml"}, set(names))
        for name in names:
            warnings = self.load(name).warnings
            self.assertTrue(name.startswith("spec-") or warnings == (), (name, warnings))

    def test_the_reference_sample_is_the_defaults(self) -> None:
        """Whoever copies it whole changes nothing."""
        self.assertEqual(self.load("mcptunnel.yaml"), Config())

    def test_the_reference_sample_names_every_key(self) -> None:
        """Switched on or off."""
        text = (ROOT / "etc" / "mcptunnel.yaml").read_text()
        for path in key_paths():
            name = path.rpartition(".")[2]
            self.assertTrue(re.search(rf"(^[ #-]*|[{{,] ?){re.escape(name)}:", text, re.MULTILINE), path)

    def test_what_the_reference_sample_has_switched_off_loads_too(self) -> None:
        """Its examples are not only comments."""
        text = (ROOT / "etc" / "mcptunnel.yaml").read_text()
        keys = {path.rpartition(".")[2] for path in key_paths()} | {"time", "docs", "old"}
        off = re.compile(rf"^( *)# ((?: *(?:- )?)(?:{'|'.join(keys)}): ?(?: .*|\S.*)?)$")
        lines: list[str] = []
        for line in text.split("\n"):
            match = off.match(line)
            # An example replaces the default of the same key that stands before it.
            same = match and re.compile(rf"{match[1]}{re.escape(match[2].split(':')[0])}: (\[\]|\{{\}})")
            if same and any(map(same.match, lines)):
                lines = [earlier for earlier in lines if not same.match(earlier)]
            lines.append(match[1] + match[2] if match else line)
        switched = (
            "\n".join(lines)
            .replace("mode: disabled", "mode: auto")
            .replace("behind_proxy: true", "behind_proxy: false")
            .replace("trusted_proxies: []", "trusted_proxies: [10.0.0.5]")
        )
        config = load_text(
            switched,
            base=Path("/etc"),
            environ={"LAPTOP_TOKEN": "x" * 32, "DOCS_TOKEN": "y", "SEAL_KEY": "0123456789abcdef" * 2},
        )
        self.assertEqual(list(config.servers), ["time", "docs", "old"])
        self.assertEqual([token.name for token in config.auth.tokens], ["ci", "laptop", "partner"])
        for part in (config.auth.jwt, config.admin, config.security.rate_limit):
            self.assertIsNotNone(part)
        self.assertEqual(len(config.server.tls.certificates), 1)

    def test_the_demonstration_has_both_kinds_of_server(self) -> None:
        """On loopback, TLS with certificates beside the checkout."""
        config = self.load("demo.yaml")
        self.assertEqual(config.servers["demo"].command, "python3")
        self.assertEqual(config.servers["demo"].args, ("-m", "mcptunnel.demo", "stdio"))
        self.assertEqual(config.servers["clock"].url, "http://127.0.0.1:3002/mcp")
        self.assertEqual(config.server.tls.mode, "auto")
        assert config.server.tls.cert_file is not None
        self.assertEqual(Path(config.server.tls.cert_file).resolve(), (ROOT / ".dev" / "cert.pem").resolve())
        python = load_file(str(ROOT / "etc" / "demo.yaml"), {"MCPTUNNEL_PYTHON": "/opt/python"})
        self.assertEqual(python.servers["demo"].command, "/opt/python")

    def test_the_examples_of_the_specification_mean_what_they_say(self) -> None:
        """Unchanged, field by field."""
        application = self.load("spec-application.yaml").server
        self.assertEqual((application.host, application.port, application.tls.mode), ("0.0.0.0", 3000, "application"))
        self.assertEqual(application.tls.cert_file, "/etc/ssl/certs/server.crt")
        self.assertEqual(application.tls.hsts_max_age, 31536000)
        proxied = self.load("spec-behind-proxy.yaml").server
        self.assertEqual(
            (proxied.host, proxied.tls.mode, proxied.tls.behind_proxy), ("127.0.0.1", "behind_proxy", True)
        )
        self.assertEqual(proxied.tls.trusted_proxies, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
        auto = self.load("spec-auto.yaml").server
        self.assertEqual((auto.tls.mode, auto.tls.key_file), ("auto", "/etc/ssl/private/server.key"))

    def test_the_reference_describes_every_key(self) -> None:
        """A key without a line in ``docs/configuration.rst`` does not exist for its users."""
        text = (ROOT / "docs" / "configuration.rst").read_text()
        for path in key_paths():
            heading = re.search(rf"^{re.escape(path)}\n=+$", text, re.MULTILINE)
            self.assertTrue(f"``{path}``" in text or heading, path)
        described = set(re.findall(r"^   \* - ``([A-Za-z_.\[\]]+)``$", text, re.MULTILINE))
        self.assertEqual(described - set(key_paths()), set())

    def test_the_limits_in_the_reference_are_the_defaults(self) -> None:
        """A default that changes in the code changes in the text."""
        text = (ROOT / "docs" / "configuration.rst").read_text()
        rows = re.findall(r"^   \* - ``(server\.(?:tls\.)?[a-z_.]+)``\n     - .*\n     - ``(.+)``$", text, re.MULTILINE)
        self.assertGreater(len(rows), 30)
        for path, default in rows:
            inner = default
            for key in reversed(path.split(".")):
                inner = f"{{{key}: {inner}}}"
            self.assertEqual(evolve(load_text(inner), warnings=()), Config(), path)
