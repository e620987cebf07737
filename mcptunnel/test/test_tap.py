"""What twistd sees of us."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceMaker, ServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions, UnixAppLogger
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel import tap
from mcptunnel.config import load as config_load
from mcptunnel.config.schema import Config
from mcptunnel.core.errors import ConfigError


class Twistd(ServerOptions):
    """Knows our plugin alone, wherever it is installed."""

    def _getPlugins(self, interface: Any, package: Any = None) -> list[Any]:
        assert interface is IServiceMaker
        return [ServiceMaker("mcptunnel", "mcptunnel.tap", "…", "mcptunnel")]


class TapCase(SynchronousTestCase):
    def setUp(self) -> None:
        for name, value in (("twistd", {}), ("level", "info"), ("reactor", None), ("stdout", None)):
            self.patch(tap.daemon_log, name, value)

    def parse(self, *arguments: str) -> Twistd:
        twistd = Twistd()
        twistd.parseOptions([*arguments])
        return twistd

    def file(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text)
        return str(path)


class LoggerTests(TapCase):
    """Who writes the log."""

    def test_our_log_is_the_default(self) -> None:
        """It is asked where twistd asks its loggers, and knows twistd's options."""
        twistd = self.parse("-n", "--logfile", "x.log", "mcptunnel")
        self.assertIs(twistd["logger"], tap.daemon_log)
        self.assertIs(UnixAppLogger(twistd)._observerFactory, tap.daemon_log)
        self.assertEqual((tap.daemon_log.twistd["nodaemon"], tap.daemon_log.twistd["logfile"]), (1, "x.log"))

    def test_whoever_names_a_logger_gets_that_one(self) -> None:
        """``--logger`` and ``--syslog`` stay the user's."""
        self.assertIs(self.parse("--logger", "io.StringIO", "mcptunnel")["logger"], io.StringIO)
        self.assertIsNone(self.parse("--syslog", "mcptunnel")["logger"])

    def test_options_stand_alone_too(self) -> None:
        """Without twistd around them."""
        options = tap.Options()
        options.parseOptions(["--config", "f"])
        self.assertEqual(options["config"], "f")


class MakeTests(TapCase):
    """From the file to the service."""

    def make(self, path: str) -> IService:
        return tap._service(path, MemoryReactorClock())

    def test_the_configured_level_reaches_the_log(self) -> None:
        """Before twistd asks for it."""
        self.make(self.file("logging: {level: warn}"))
        self.assertEqual(tap.daemon_log.level, "warn")
        self.assertIsInstance(tap.daemon_log.reactor, MemoryReactorClock)

    def test_a_refused_file_changes_nothing(self) -> None:
        """It is reported with line and key."""
        path = self.file("logging: {level: loud}")
        refused = self.assertRaises(ConfigError, self.make, path)
        self.assertIn(f"{path}:1: logging.level: 'loud' is not known here; write debug, info", str(refused))
        self.assertEqual(tap.daemon_log.level, "info")

    def test_an_argument_without_an_option_is_refused(self) -> None:
        """It is most often the configuration's path."""
        options = tap.Options()
        refused = self.assertRaises(UsageError, options.parseOptions, ["mcptunnel.yaml"])
        self.assertIn("--config FILE", str(refused))


class RefusalTests(TapCase):
    """What ends the process, and what is served when nothing is said."""

    def test_every_mistake_is_one_line_and_the_process_ends(self) -> None:
        """File, line and key of each, status 1; nothing has been bound or connected."""
        path = self.file("server:\n  prot: 3000\n  port: 70000\nauth:\n  anonymous: perhaps\n")
        options = tap.Options()
        options["config"] = path
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        self.assertEqual(self.assertRaises(SystemExit, tap.makeService, options).code, 1)
        lines = err.getvalue().splitlines()
        self.assertEqual(len(lines), 3)
        for line, (number, key) in zip(
            lines, ((2, "server.prot"), (3, "server.port"), (5, "auth.anonymous")), strict=True
        ):
            self.assertTrue(line.startswith(f"mcptunnel: {path}:{number}: {key}: "), line)

    def test_a_missing_file_is_named(self) -> None:
        """A name that was given is never replaced by the defaults."""
        error = self.assertRaises(ConfigError, tap._service, "/no/such/file.yaml", MemoryReactorClock())
        self.assertIn("/no/such/file.yaml", str(error))

    def test_without_a_file_the_built_in_defaults_hold(self) -> None:
        """Plain HTTP on 127.0.0.1:3000."""
        self.patch(config_load, "default_path", lambda: None)
        reactor = MemoryReactorClock()
        daemon: Any = tap._service(None, reactor)
        self.assertEqual(daemon.config, Config())
        daemon.privilegedStartService()
        ((port, _, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (3000, "127.0.0.1"))

    def test_without_a_name_the_usual_place_is_read(self) -> None:
        """If there is such a file."""
        path = self.file("server: {port: 3456}")
        self.patch(config_load, "default_path", lambda: path)
        daemon: Any = tap._service(None, MemoryReactorClock())
        self.assertEqual(daemon.config.server.port, 3456)
