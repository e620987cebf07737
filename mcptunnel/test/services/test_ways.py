"""Tests for mcptunnel.services.ways: what is known of the way to a server before anything is connected."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import UpstreamConfig
from mcptunnel.core.errors import ConfigError
from mcptunnel.services.ways import Terms, Way, way_of, way_to
from mcptunnel.test.tls.certs import Authority
from mcptunnel.upstream.endpoints import Kept, Tunnel


class WaysTests(SynchronousTestCase):
    """To an entry of ``mcpServers`` and to any other URL."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def way(self, url: str, **others: Any) -> Way:
        return way_of(UpstreamConfig(name="x", url=url, **others), self.reactor, {})

    def test_the_name_and_whether_tls_is_spoken(self) -> None:
        """As the URL says; a port is no part of the name."""
        for url, name, secure in (
            ("https://a.test:8443/mcp", "a.test", True),
            ("wss://[2001:db8::1]/", "2001:db8::1", True),
            ("http://a.test/", "a.test", False),
            ("ws://a.test/", "a.test", False),
        ):
            way = self.way(url)
            self.assertEqual((way.name, way.secure), (name, secure))

    def test_the_way_without_tls_is_there_as_well(self) -> None:
        """For whoever wants to look at the handshake; a proxy on the way stays."""
        self.assertIsInstance(self.way("https://a.test/").plain(), Kept)
        self.assertNotIsInstance(self.way("https://a.test/").endpoint(), Kept)
        self.assertIsInstance(self.way("https://a.test/", proxy="http://p.test:1").plain(), Tunnel)

    def test_the_anchors_are_those_of_the_ca_file(self) -> None:
        """All of them; without one it is the system's business."""
        root, other = Authority.root(), Authority.root("Other")
        file = self.mktemp()
        with open(file, "wb") as written:
            written.write(root.pem + other.pem)
        terms = self.way("https://a.test/", ca_file=file).terms
        self.assertEqual(terms.anchors, (root.issued.certificate, other.issued.certificate))
        self.assertIsNone(self.way("https://a.test/").terms.anchors)

    def test_other_terms_hold_for_the_next_connection(self) -> None:
        """The options are made anew."""
        way = self.way("https://a.test/")
        before = way.options
        root = Authority.root()
        way.take(Terms(anchors=[root.issued.certificate]))
        self.assertIsNot(way.options, before)
        self.assertEqual(way.terms.anchors, [root.issued.certificate])

    def test_a_proxy_of_the_environment_that_cannot_be_used_names_who_wants_it(self) -> None:
        """The key is the caller's."""
        error = self.assertRaises(
            ConfigError, way_to, "https://a.test/", self.reactor, {"https_proxy": "socks5://p.test"}, key="alerts[0]"
        )
        self.assertIn("alerts[0]", str(error))
