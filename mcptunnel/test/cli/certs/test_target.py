"""Tests for mcptunnel.cli.certs.target."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli.certs.target import parse


class ParseTests(SynchronousTestCase):
    """What people type, and copy."""

    def test_what_can_be_meant(self) -> None:
        """Names, addresses of both kinds, URLs; 443 where nothing is said."""
        for text, host, port in (
            ("mcp.example.com", "mcp.example.com", 443),
            ("MCP.example.com.:8443", "mcp.example.com", 8443),
            ("192.0.2.1", "192.0.2.1", 443),
            ("192.0.2.1:3000", "192.0.2.1", 3000),
            ("::1", "::1", 443),
            ("[::1]", "::1", 443),
            ("[0:0::1]:3000", "::1", 3000),
            ("https://mcp.example.com", "mcp.example.com", 443),
            ("https://mcp.example.com:8443/mcp?x=1", "mcp.example.com", 8443),
            ("wss://[::1]:3000/mcp/ws", "::1", 3000),
            ("bücher.example", "xn--bcher-kva.example", 443),
            ("straße.example:1", "xn--strae-oqa.example", 1),
            ("https://Bücher.example/", "xn--bcher-kva.example", 443),
        ):
            target = parse(text)
            self.assertEqual((target.host, target.port), (host, port), text)

    def test_what_cannot(self) -> None:
        """It is said why."""
        for text, words in (
            ("http://mcp.example.com", "no TLS"),
            ("https://user:secret@mcp.example.com", "user name"),
            ("", "host"),
            ("a b", "host"),
            ("mcp.example.com:99999", "not a port"),
            ("mcp.example.com:0", "host"),
            ("1.2.3", "Expected 4 octets"),
            ("bü cher.example", "not a host name"),
        ):
            self.assertIn(words, str(self.assertRaises(ValueError, parse, text)), text)

    def test_how_it_is_written(self) -> None:
        """IPv6 in brackets; only a name is asked for in SNI."""
        for text, written, is_address in (("::1", "[::1]:443", True), ("192.0.2.1:1", "192.0.2.1:1", True)):
            self.assertEqual((str(parse(text)), parse(text).is_address), (written, is_address))
        self.assertEqual((str(parse("a.test")), parse("a.test").is_address), ("a.test:443", False))
