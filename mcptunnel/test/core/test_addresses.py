"""One spelling per address, strict entries, and who is trusted."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.addresses import Node, Trust, canon, is_unix, local_way, parse_node, peer_address


class CanonTests(SynchronousTestCase):
    def test_mapped_addresses_become_ipv4_in_any_spelling(self):
        """A dual-stack socket shows IPv4 peers mapped; rules are written in IPv4."""
        for text in ("::ffff:10.0.0.5", "::FFFF:a00:5", "0:0:0:0:0:ffff:0a00:0005", "10.0.0.5"):
            self.assertEqual(canon(text), "10.0.0.5")

    def test_translated_prefixes_are_not_unwrapped(self):
        """Anybody may write any IPv4 address into NAT64 and 6to4."""
        self.assertEqual(canon("64:ff9b::10.0.0.5"), "64:ff9b::a00:5")
        self.assertEqual(canon("2002:a00:5::"), "2002:a00:5::")

    def test_ipv6_is_compressed_lower_case(self):
        """Keys of limiters and logs must not depend on spelling."""
        self.assertEqual(canon("2001:DB8:0:0::09"), "2001:db8::9")

    def test_a_zone_is_cut_from_a_peer_and_refused_elsewhere(self):
        """A zone is about this host's interfaces."""
        self.assertEqual(canon("fe80::1%eth0", peer=True), "fe80::1")
        self.assertRaises(ValueError, canon, "fe80::1%eth0")

    def test_what_is_not_exactly_an_address_is_refused(self):
        """Short forms and leading zeros mean different addresses to different readers."""
        for text in (
            "",
            "10.1",
            "0x7f.0.0.1",
            "010.0.0.5",
            "10.0.0.5 ",
            "10.0.0.0/8",
            "\uff110.0.0.5",
            "unix:",
            "[::1]",
        ):
            self.assertRaises(ValueError, canon, text)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**128 - 1))
    def test_the_canonical_form_is_stable(self, number):
        """Canonical twice is canonical once, for the whole address space."""
        for text in (str(IPv6Address(number)), IPv6Address(number).exploded, str(IPv4Address(number & 0xFFFFFFFF))):
            self.assertEqual(canon(canon(text)), canon(text))

    def test_a_unix_peer_has_no_address(self):
        """There is nothing to compare with networks."""
        self.assertTrue(is_unix("unix:") and is_unix("unix:/run/x") and not is_unix("::1"))
        self.assertIsNone(peer_address("unix:"))
        self.assertEqual(peer_address("fe80::1%2"), "fe80::1")


class NodeTests(SynchronousTestCase):
    def test_entries_of_x_forwarded_for(self):
        """Every form that real proxies write."""
        for text, expected in {
            "203.0.113.7": Node(address="203.0.113.7"),
            "203.0.113.7:4711": Node(address="203.0.113.7", port=4711),
            "203.0.113.7:0": Node(address="203.0.113.7", port=0),
            "203.0.113.7:65535": Node(address="203.0.113.7", port=65535),
            "2001:DB8::9": Node(address="2001:db8::9"),
            "[2001:db8::9]": Node(address="2001:db8::9"),
            "[2001:db8::9]:4711": Node(address="2001:db8::9", port=4711),
            "[::ffff:10.0.0.5]:1": Node(address="10.0.0.5", port=1),
            "::ffff:10.0.0.5": Node(address="10.0.0.5"),
            "unknown": Node(opaque="unknown"),
            "Unknown": Node(opaque="Unknown"),
            "_gazonk": Node(opaque="_gazonk"),
            "_a.b-C_9": Node(opaque="_a.b-C_9"),
        }.items():
            self.assertEqual(parse_node(text), expected)

    def test_malformed_entries_of_x_forwarded_for(self):
        """Nothing is guessed from an entry that is nearly right."""
        for text in (
            *(
                "",
                "garbage",
                "_",
                "_a b",
                "_a:1",
                "unknown:1",
                '"203.0.113.7"',
                "1.2.3.4 203.0.113.7",
                "203.0.113.0/24",
            ),
            *("203.0.113.07", "203.0.113", "203.0.113.7:", "203.0.113.7:65536", "203.0.113.7:-1", "203.0.113.7:080"),
            *(
                "203.0.113.7:_p",
                "203.0.113.7:\uff14",
                "[203.0.113.7]",
                "[2001:db8::9",
                "2001:db8::9]",
                "[2001:db8::9]4711",
            ),
            *(
                "[2001:db8::9]:",
                "[2001:db8::9]:99999",
                "fe80::1%eth0",
                "[fe80::1%eth0]",
                "1:2:3:4:5:6:7:8:9",
                "[]",
                "::g",
            ),
            *("http://203.0.113.7", "203.0.113.7:1:2", "0xcb.0.113.7", "localhost"),
        ):
            self.assertRaises(ValueError, parse_node, text)

    def test_nodes_of_rfc_7239(self):
        """Section 6: IPv6 in brackets, and obfuscated names and ports."""
        for text, expected in {
            "203.0.113.7:_p1": Node(address="203.0.113.7"),
            "[2001:db8::9]:_p": Node(address="2001:db8::9"),
            "unknown:80": Node(opaque="unknown", port=80),
            "_x:_y": Node(opaque="_x"),
        }.items():
            self.assertEqual(parse_node(text, rfc7239=True), expected)
        for text in ("2001:db8::9", "203.0.113.7:_", "_x:", "_x:99999", ""):
            self.assertRaises(ValueError, parse_node, text, rfc7239=True)

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="0123456789abf.:[]_%x unkow", max_size=30), st.booleans())
    def test_nothing_but_value_error(self, text, rfc7239):
        """Whatever a stranger writes is a node or one kind of error."""
        try:
            node = parse_node(text, rfc7239=rfc7239)
        except ValueError:
            return
        self.assertNotEqual(node.address is None, node.opaque is None)


class TrustTests(SynchronousTestCase):
    def test_the_rule_that_trusts_is_named(self):
        """Operators want to know which line of their file let somebody in."""
        trust = Trust(("10.0.0.0/8", "fd00::/8", "127.0.0.2", "::1", "unix"))
        for ip, rule in {
            "10.255.0.1": "10.0.0.0/8",
            "::ffff:10.0.0.5": "10.0.0.0/8",
            "fd00::5": "fd00::/8",
            "fd00::5%eth0": "fd00::/8",
            "127.0.0.2": "127.0.0.2",
            "::1": "::1",
            "unix:": "unix",
            "unix:/run/nginx.sock": "unix",
            "11.0.0.1": None,
            "127.0.0.3": None,
            "64:ff9b::a00:5": None,
            "garbage": None,
            "": None,
        }.items():
            self.assertEqual(trust.matching(ip), rule, ip)
            self.assertEqual(trust.holds(ip), rule is not None, ip)

    def test_nobody_is_trusted_by_default(self):
        """Neither networks nor UNIX sockets."""
        self.assertFalse(Trust())
        for ip in ("127.0.0.1", "::1", "unix:"):
            self.assertFalse(Trust().holds(ip))
            self.assertTrue(Trust(["127.0.0.1", "::1", "unix"]).holds(ip))

    def test_a_mapped_network_is_the_ipv4_network(self):
        """Or it would never match, since peers are unmapped."""
        self.assertEqual(Trust(("::ffff:10.0.0.0/104",)).matching("10.1.2.3"), "::ffff:10.0.0.0/104")
        self.assertEqual(Trust(("::ffff:10.0.0.5",)).matching("10.0.0.5"), "::ffff:10.0.0.5")

    def test_rules_that_cannot_be_read_are_refused(self):
        """A rule that silently matched nothing would be found out in production."""
        for rule in ("", "localhost", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/", "fe80::1%eth0", "UNIX", "10.*"):
            error = self.assertRaises(ValueError, Trust, ("10.0.0.0/8", rule))
            self.assertIn(repr(rule), str(error))

    def test_bits_beyond_the_prefix_are_refused_with_the_network_meant(self):
        """10.0.0.5/8 is a typing error of either kind."""
        self.assertIn("10.0.0.0/8", str(self.assertRaises(ValueError, Trust, ("10.0.0.5/8",))))

    def test_rules_too_wide_are_told(self):
        """The start-up checks ask for these."""
        trust = Trust(("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "fd00::/8", "2001:db8::/48", "unix"))
        self.assertEqual(trust.everybody, ("0.0.0.0/0", "::/0"))
        self.assertEqual(trust.wide, ("0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8"))

    def test_trusts_compare_by_their_rules(self):
        """A reload that changes nothing must look like it."""
        self.assertEqual(Trust(("10.0.0.0/8",)), Trust(["10.0.0.0/8"]))
        self.assertNotEqual(Trust(("10.0.0.0/8",)), Trust())


class LocalWayTests(SynchronousTestCase):
    """How this machine reaches its own listeners."""

    def test_all_addresses_are_reached_by_loopback(self) -> None:
        """Any other is reached as it is; brackets are no part of it."""
        for bound, way in (
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("[::]", "::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("192.0.2.1", "192.0.2.1"),
            ("box.lan", "box.lan"),
        ):
            self.assertEqual(local_way(bound), way)
