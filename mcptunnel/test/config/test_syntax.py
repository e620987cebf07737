"""What single values look like: the accepted ones, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config import syntax
from mcptunnel.config.units import FormatError

ACCEPTED: dict[Callable[[str], str], dict[str, str]] = {
    syntax.bind_host: {
        "127.0.0.1": "127.0.0.1",
        "::": "::",
        "[::1]": "::1",
        "fe80::1%eth0": "fe80::1%eth0",
        "LocalHost": "localhost",
        "mcp_1.internal": "mcp_1.internal",
        "unix:/run/s": "unix:/run/s",
        "systemd:12": "systemd:12",
    },
    syntax.network: {
        "10.0.0.0/8": "10.0.0.0/8",
        "192.0.2.7": "192.0.2.7",
        "2001:db8::/32": "2001:db8::/32",
        "::ffff:10.0.0.0/104": "::ffff:10.0.0.0/104",
        "unix": "unix",
    },
    syntax.public_url: {
        "https://mcp.example.com": "https://mcp.example.com",
        "http://[::1]:3000/": "http://[::1]:3000/",
        "https://a/b/c": "https://a/b/c",
    },
    syntax.upstream_url: {"https://x/mcp?key=1": "https://x/mcp?key=1", "ws://a": "ws://a"},
    syntax.proxy_url: {"none": "none", "http://u:p@a:1/": "http://u:p@a:1/", "http://u@b@[::1]": "http://u@b@[::1]"},
    syntax.tool_name: {"a.B-c_1": "a.B-c_1"},
    syntax.allowed_host: {"a.example": "a.example", "[::1]:80": "[::1]:80", "10.0.0.1": "10.0.0.1", "*": "*"},
    syntax.allowed_origin: {
        "https://A.example:443": "https://a.example",
        "vscode-webview://abc": "vscode-webview://abc",
        "null": "null",
    },
    syntax.header_value: {" a\tb ": "a\tb", "": ""},
    syntax.server_name: {"a-b_C9": "a-b_C9", "_a": "_a", "x" * 64: "x" * 64},
    syntax.sha256: {"AB" * 32: "ab" * 32},
    syntax.command: {"/opt/My App/run": "/opt/My App/run", "uvx": "uvx"},
}

REFUSED: dict[Callable[[str], str], list[str]] = {
    syntax.bind_host: ["", "a b", "256.0.0.1", "0177.0.0.1", "1", "a..b", "-a", "[::1", "::1]", "unix",
                       "systemd", "systemd:", "ä"],
    syntax.network: ["", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "010.0.0.0/8", "10.0/8", "unix:", "::1%lo",
                     "10.0.0.0/ 8"],
    syntax.public_url: ["", "//a", "https://", "https://a:0", "https://a:99999", "https://a b", "https://a/../b",
                        "https://a//b", "https://a\\b", "https://ä", "https://@a", "HTTPS:a", "https://1.2.3"],
    syntax.upstream_url: ["ftp://a", "ws:a", "https://u@a", "https://a#b", "unix:/a"],
    syntax.proxy_url: ["", "None", "a:3128", "https://a", "socks5://a", "http://a/x", "http://a?x", "http://u /@a",
                       "http://u/@a", "http://a:0", "http://u@"],
    syntax.tool_name: ["", "a b", "ä", "x" * 129, "a/b"],
    syntax.own_tool: [""],
    syntax.seal_key: ["", "x" * 64, "0123456789abcdef0123456789abcde"],
    syntax.allowed_host: ["", "a:", "a:0", "a:65536", "a/b", "::1", "*.a", "u@a"],
    syntax.allowed_origin: ["", "*", "a", "https://", "https://a/b", "https://a/", "1x://a", "https://u@a"],
    syntax.header_name: ["", "a b", "a:", "ä", "a\n"],
    syntax.header_value: ["a\r\nb", "\x00", "ä", "a\x7f"],
    syntax.server_name: ["", "a__b", "a_", "a b", "a.b", "x" * 65, "ä", "a\n"],
    syntax.sha256: ["", "ab" * 31, "zz" * 32, "ab" * 32 + "\n"],
    syntax.secret: ["", "a b", "ä", "a\n"],
    syntax.env_name: ["", "A=B"],
    syntax.allow_pattern: ["", "a b", "a\n"],
    syntax.cipher: ["", "RC4-SHA", "HIGH", "!aNULL", "AES128-SHA"],
    syntax.command: ["", " ", "uvx a"],
}  # fmt: skip


class SyntaxTests(SynchronousTestCase):
    def test_what_is_accepted_comes_out_in_one_spelling(self) -> None:
        """Every form that the reference promises."""
        for check, cases in ACCEPTED.items():
            self.assertEqual({text: check(text) for text in cases}, cases, check.__name__)

    def test_what_is_refused_says_how_to_write_it(self) -> None:
        """No value gets through that another part of the daemon would read differently."""
        for check, texts in REFUSED.items():
            for text in texts:
                wrong = self.assertRaises(FormatError, check, text)
                self.assertGreater(len(wrong.says), 20, text)

    def test_loopback_is_told_from_everything_else(self) -> None:
        """Names are not resolved: only ``localhost`` is known."""
        for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST", "unix:/s"):
            self.assertTrue(syntax.is_loopback(host), host)
        for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "systemd:0", "::ffff:10.0.0.1"):
            self.assertFalse(syntax.is_loopback(host), host)
