"""`mcptunnel explain`: for people and for programs."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli import explain, main
from mcptunnel.config.schema import Config, ForwardedConfig, SecurityConfig, ServerConfig, TlsConfig, TlsMode
from mcptunnel.test.core.test_forwarded import VECTORS

TRUSTING = Config(server=ServerConfig(tls=TlsConfig(trusted_proxies=("10.0.0.0/8",))))


class Terminal(StringIO):
    """An output that says it is one."""

    def isatty(self) -> bool:
        return True


class ExplainTestCase(SynchronousTestCase):
    def explain(self, *argv: str, config: Config = TRUSTING, out: StringIO | None = None) -> str:
        """What the command prints for ``config``; it must succeed without a complaint."""
        out, err = out or StringIO(), StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        self.patch(explain, "_load", lambda _: config)
        self.assertEqual((main(["explain", *argv]), err.getvalue()), (0, ""))
        return out.getvalue()

    def json(self, *argv: str, config: Config = TRUSTING) -> dict[str, Any]:
        found = json.loads(self.explain("--json", *argv, config=config))
        assert isinstance(found, dict)
        return found


class JsonTests(ExplainTestCase):
    def test_every_vector_comes_out_in_its_own_keys(self):
        """The command asks the resolver that the daemon asks, with the configuration's settings."""
        for vector in VECTORS["vectors"]:
            config = dict(vector.get("config", {}))
            tls = TlsConfig(
                trusted_proxies=tuple(config.pop("trusted", VECTORS["defaults"]["trusted"])),
                forwarded=ForwardedConfig(
                    family=vector.get("family", "xff"), **{k: v for k, v in config.items() if k != "allowed_hosts"}
                ),
            )
            argv = ["--peer", vector["peer"], "-H", "Host: app.test", *(["--tls"] if vector.get("tls") else [])]
            for name, value in vector["headers"]:
                argv += ["-H", f"{name}: {value}"]
            seen = self.json(
                *argv,
                config=Config(
                    server=ServerConfig(tls=tls),
                    security=SecurityConfig(allowed_hosts=tuple(config.get("allowed_hosts") or ())),
                ),
            )
            self.assertEqual({key: seen.get(key) for key in vector["expect"]}, vector["expect"], vector["id"])

    def test_optional_keys_are_left_out(self):
        """client_ip never, though it may be null."""
        self.assertEqual(
            self.json("--peer", "8.8.8.8", "-H", "Host: a.test"),
            {"client_ip": "8.8.8.8", "scheme": "http", "host": "a.test", "prefix": "", "verdict": "direct"},
        )
        seen = self.json("--peer", "10.0.0.5", "-H", "X-Forwarded-For: unknown")
        self.assertEqual((seen["client_ip"], seen["opaque"]), (None, "unknown"))

    def test_a_refusal_is_two_keys(self):
        """And no failure of the command."""
        seen = self.json("--peer", "10.0.0.5", "-H", "X-Forwarded-For: garbage")
        self.assertEqual(seen, {"reject": 400, "reason": "malformed_node"})

    def test_the_host_defaults_to_what_a_client_would_send(self):
        """public_url, else the bound address and port."""
        for server, tls, host in (
            (ServerConfig(), False, "127.0.0.1:3000"),
            (ServerConfig(port=443), True, "127.0.0.1"),
            (ServerConfig(host="::", port=8080), False, "localhost:8080"),
            (ServerConfig(host="fe80::1%eth0"), False, "[fe80::1]:3000"),
            (ServerConfig(host="unix:/run/x"), False, "localhost"),
            (ServerConfig(host="systemd:0"), False, "localhost"),
            (ServerConfig(host="box.lan", port=0), False, "box.lan"),
            (ServerConfig(public_url="https://mcp.example.com:8443/base"), True, "mcp.example.com:8443"),
        ):
            argv = ("--peer", "unix:", *(["--tls"] if tls else []))
            self.assertEqual(self.json(*argv, config=Config(server=server))["host"], host)


class TextTests(ExplainTestCase):
    def test_each_hop_is_shown_with_the_rule_that_trusts_it(self):
        """Then the result, and what was deleted."""
        text = self.explain(
            *(
                "--peer",
                "10.0.0.5",
                "-H",
                "X-Forwarded-For: 1.1.1.1, 203.0.113.7:99, 10.0.0.8",
                "-H",
                "X-Real-IP: 1.1.1.1",
            ),
            *(
                "-H",
                "x-forwarded-proto: https",
                "-H",
                "Host: app.test",
                "-H",
                "X_Bad: 1",
                "-H",
                "X-Forwarded-Prefix: /a",
            ),
        )
        self.assertEqual(
            text,
            "connection  served as plaintext (mode disabled)\n"
            "peer        10.0.0.5     socket           trusted by 10.0.0.0/8\n"
            "hop 1       10.0.0.8     X-Forwarded-For  trusted by 10.0.0.0/8\n"
            "hop 2       203.0.113.7  X-Forwarded-For  not in trusted_proxies\n"
            "not read    1 further left in the chain: nobody vouches for what stands there\n"
            "client      203.0.113.7 port 99\n"
            "scheme      https\n"
            "host        app.test\n"
            "verdict     forwarded: the peer is trusted and its headers are believed\n"
            "deleted     X-Real-IP, X_Bad, X-Forwarded-Prefix\n",
        )

    def test_a_refusal_names_status_reason_and_setting(self):
        """So that the operator knows where to look."""
        text = self.explain("--peer", "10.0.0.5", "-H", "X-Forwarded-For: " + "1.1.1.1," * 33)
        self.assertIn("peer        10.0.0.5: trusted by 10.0.0.0/8\n", text)
        self.assertIn("refused     400 too_many_hops\n", text)
        self.assertIn("server.tls.forwarded.max_entries", text)

    def test_unknown_clients_are_called_so(self):
        """Opaque, or on a UNIX socket."""
        text = self.explain("--peer", "10.0.0.5", "-H", "X-Forwarded-For: _x")
        self.assertIn("client      unknown, called _x by the proxy\n", text)
        self.assertIn("client      unknown: a UNIX socket\n", self.explain("--peer", "unix"))

    def test_a_connection_that_never_becomes_a_request_is_said_to_be_refused(self):
        """By the mode's table, for this peer."""
        table: tuple[tuple[TlsMode, str, bool, str], ...] = (
            ("behind_proxy", "8.8.8.8", False, "refused with 403"),
            ("behind_proxy", "10.0.0.5", True, "closed"),
            ("auto", "8.8.8.8", False, "refused with a redirect"),
            ("auto", "8.8.8.8", True, "served as TLS"),
            ("application", "10.0.0.5", False, "refused with 400"),
        )
        for mode, peer, tls, words in table:
            server = evolve(TRUSTING.server, tls=evolve(TRUSTING.server.tls, mode=mode))
            text = self.explain("--peer", peer, *(["--tls"] if tls else []), config=evolve(TRUSTING, server=server))
            self.assertTrue(text.startswith(f"connection  {words}"), text)

    def test_colour_is_for_terminals_without_no_color(self):
        """https://no-color.org"""
        argv = ("--peer", "10.0.0.5")
        for variable in ("NO_COLOR", "TERM"):
            self.patch(os, "environ", {variable: ""})
            self.assertIn("\x1b[32m", self.explain(*argv, out=Terminal()))
        self.patch(os, "environ", {"NO_COLOR": "1"})
        self.assertNotIn("\x1b", self.explain(*argv, out=Terminal()))
        self.patch(os, "environ", {})
        self.assertNotIn("\x1b", self.explain(*argv))


class UsageTests(SynchronousTestCase):
    def test_arguments_that_cannot_be_meant_are_refused(self):
        """With the argument and what is expected; status 2."""
        for argv, words in (
            (["--peer", "10.0.0.5:80"], "without a port"),
            (["--peer", "localhost"], "neither an IP address"),
            (["--peer", "::1", "-H", "no colon"], "Name: value"),
            (["--peer", "::1", "-H", "bad name: x"], "Name: value"),
            (["--peer", "::1", "-H", "A: b\r\nC: d"], "control character"),
        ):
            err = StringIO()
            self.patch(sys, "stderr", err)
            self.assertEqual(main(["explain", *argv]), 2)
            self.assertIn(words, err.getvalue())

    def test_a_header_may_be_empty_and_not_ascii(self):
        """As it may be on the wire."""
        self.assertEqual(explain._header("X-Forwarded-For:"), (b"X-Forwarded-For", b""))
        self.assertEqual(explain._header("A: \tb\xe9 "), (b"A", b"b\xc3\xa9"))
