"""The units in ``etc/systemd``: what they start exists, what they promise stands in them."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from typing import Any

from twisted.application.service import IServiceMaker, ServiceMaker
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.config.schema import LimitsConfig
from mcptunnel.upstream.children import GRACE_SECONDS
from tests.processes import ROOT

_UNITS = ROOT / "etc" / "systemd"


def unit(name: str) -> ConfigParser:
    """A unit file; of a key that is repeated the last line counts."""
    parser = ConfigParser(strict=False, interpolation=None, comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    with (_UNITS / name).open(encoding="utf-8") as file:
        parser.read_file(file)
    return parser


class _Twistd(ServerOptions):
    def _getPlugins(self, interface: Any, package: Any = None) -> list[Any]:
        assert interface is IServiceMaker
        return [ServiceMaker("mcptunnel", "mcptunnel.tap", "…", "mcptunnel")]


class ServiceTests(SynchronousTestCase):
    """``mcptunnel.service``."""

    def setUp(self) -> None:
        self.service = unit("mcptunnel.service")["Service"]

    def test_what_it_starts_takes_these_options(self) -> None:
        """Parsed by twistd's own parser and ours."""
        program, *arguments = shlex.split(self.service["ExecStart"])
        self.assertRegex(program, r"^/.*/bin/twistd$")
        options = _Twistd()
        options.parseOptions(arguments)
        self.assertEqual(
            (options["nodaemon"], options["pidfile"], options.subCommand, options.subOptions["config"]),
            (1, "", "mcptunnel", "/etc/mcptunnel.yaml"),
        )

    def test_it_is_given_time_to_stop(self) -> None:
        """Calls, then streams, then child processes: input closed, SIGTERM, SIGKILL."""
        seconds = re.fullmatch(r"([0-9]+)s", self.service["TimeoutStopSec"])
        assert seconds is not None
        self.assertGreater(int(seconds[1]), LimitsConfig().drain_timeout + 1 + 3 * GRACE_SECONDS)
        self.assertEqual(self.service["KillMode"], "mixed")

    def test_it_is_locked_in(self) -> None:
        """Each of these was asked for."""
        expected = {
            "NoNewPrivileges": "yes",
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "PrivateDevices": "yes",
            "DynamicUser": "yes",
            "CapabilityBoundingSet": "",
            "AmbientCapabilities": "",
        }
        self.assertEqual({key: self.service.get(key) for key in expected}, expected)

    def test_what_it_needs_is_not_locked_out(self) -> None:
        """IP, UNIX sockets, and the interface list that name resolution asks for."""
        families = set(self.service["RestrictAddressFamilies"].split())
        self.assertEqual(families, {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"})
        self.assertNotIn("MemoryDenyWriteExecute", self.service)

    def test_keys_are_spelled_as_systemd_spells_them(self) -> None:
        """It ignores what it does not know, with a line in the journal that nobody reads."""
        known = re.compile(
            r"Type|Exec(Start|Reload)|Restart(Sec|PreventExitStatus)?|KillMode|TimeoutStopSec|LimitNOFILE|DynamicUser"
            r"|(State|Logs|Runtime|Working)Directory|Environment|UMask|(Ambient|CapabilityBounding)(Capabilities|Set)"
            r"|NoNewPrivileges|Private(Tmp|Devices)|LockPersonality|RemoveIPC"
            r"|Protect(System|Home|Clock|ControlGroups|Hostname|Kernel(Logs|Modules|Tunables)|Proc)"
            r"|Restrict(AddressFamilies|Namespaces|Realtime|SUIDSGID)|SystemCall(Architectures|Filter|ErrorNumber)"
        )
        self.assertEqual([key for key in self.service if not known.fullmatch(key)], [])


class SocketTests(SynchronousTestCase):
    """``mcptunnel.socket``."""

    def test_it_passes_one_stream_socket(self) -> None:
        """Under the number that its comment names, which the configuration takes."""
        text = (_UNITS / "mcptunnel.socket").read_text()
        self.assertEqual(len(re.findall(r"^ListenStream=", text, re.MULTILINE)), 1)
        example = re.search(r"^#   server:\n#     host: (.*)$", text, re.MULTILINE)
        assert example is not None
        self.assertEqual(load_text(f"server: {{host: {example[1]}}}").server.host, "systemd:0")

    def test_it_does_not_accept_by_itself(self) -> None:
        """``Accept=yes`` would start a daemon for every connection."""
        self.assertNotIn("Accept", unit("mcptunnel.socket")["Socket"])
        self.assertEqual(unit("mcptunnel.socket")["Install"]["WantedBy"], "sockets.target")
