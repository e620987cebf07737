"""Who the client is: the shared vectors, the cases beside them, and what no header may ever achieve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from attrs import evolve
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.addresses import Trust, canon
from mcptunnel.core.errors import ForwardedError
from mcptunnel.core.forwarded import FAMILIES, FORWARDING, ForwardedPolicy, Hop, Resolver, strip
from mcptunnel.core.hosts import HostPolicy

VECTORS = yaml.safe_load(Path(__file__).with_name("forwarded.yaml").read_text(encoding="utf-8"))
TRUST = Trust(tuple(VECTORS["defaults"]["trusted"]))
XFF, PROTO, HOST, PORT = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"
CLIENT = (XFF, "203.0.113.7")


def decide(
    *headers: tuple[str, str],
    peer: str = "10.0.0.5",
    tls: bool = False,
    host: str | None = "app.test",
    allowed_hosts: list[str] | None = None,
    trusted: list[str] | None = None,
    **policy: Any,
) -> dict[str, Any]:
    """The decision in the vectors' own keys."""
    if allowed_hosts is not None:
        policy["allowed_hosts"] = HostPolicy.build(allowed_hosts=allowed_hosts).host_allowed
    resolver = Resolver(ForwardedPolicy(trust=TRUST if trusted is None else Trust(trusted), **policy))
    lines = [("Host", host), *headers] if host is not None else headers
    try:
        identity = resolver.resolve(peer, tls, [(name.encode(), value.encode("latin-1")) for name, value in lines])
    except ForwardedError as error:
        return {"reject": error.status, "reason": error.reason}
    keys = ("client_ip", "client_port", "opaque", "scheme", "host", "prefix", "verdict")
    return {key: getattr(identity, key) for key in keys}


class VectorTests(SynchronousTestCase):
    """One test per case of forwarded.yaml, named by its id."""

    def check(self, vector: dict[str, Any]) -> None:
        seen = decide(
            *map(tuple, vector["headers"]),
            peer=vector["peer"],
            tls=vector.get("tls", False),
            family=vector.get("family", VECTORS["defaults"]["family"]),
            host=VECTORS["defaults"]["host_header"],
            **vector.get("config", {}),
        )
        self.assertEqual({key: seen.get(key) for key in vector["expect"]}, vector["expect"], vector["why"])


def _add_vector(vector: dict[str, Any]) -> None:
    def test(self: VectorTests) -> None:
        self.check(vector)

    test.__doc__ = vector["desc"]
    setattr(VectorTests, f"test_{vector['id']}", test)


for _vector in VECTORS["vectors"]:
    _add_vector(_vector)


class DecisionTestCase(SynchronousTestCase):
    def accepted(self, *headers: tuple[str, str], want: dict[str, Any], **options: Any) -> None:
        seen = decide(*headers, **options)
        self.assertEqual({key: seen.get(key) for key in want}, want, (headers, options))

    def refused(self, reason: str, *headers: tuple[str, str], status: int = 400, **options: Any) -> None:
        self.assertEqual(decide(*headers, **options), {"reject": status, "reason": reason}, (headers, options))


class PeerTests(DecisionTestCase):
    def test_an_untrusted_unix_peer_is_nobody(self):
        """Trust in UNIX sockets has to be given like any other."""
        want = {"client_ip": None, "verdict": "stripped"}
        self.accepted(CLIENT, peer="unix:", trusted=["10.0.0.0/8"], want=want)
        self.accepted(CLIENT, peer="unix:/run/a", want={"client_ip": "203.0.113.7", "verdict": "forwarded"})

    def test_an_untrusted_mapped_peer_is_shown_in_ipv4(self):
        """Or limiter keys would differ between listeners."""
        self.accepted(CLIENT, peer="::ffff:198.51.100.66", want={"client_ip": "198.51.100.66", "verdict": "stripped"})

    def test_translated_addresses_gain_no_trust(self):
        """64:ff9b::10.0.0.5 is anybody behind a NAT64."""
        self.accepted(CLIENT, peer="64:ff9b::a00:5", want={"client_ip": "64:ff9b::a00:5", "verdict": "stripped"})

    def test_nobody_is_trusted_without_a_list(self):
        """Not even loopback."""
        self.accepted(CLIENT, peer="127.0.0.1", trusted=[], want={"client_ip": "127.0.0.1", "verdict": "stripped"})

    def test_underscored_names_do_not_exist(self):
        """Neither as claims nor as a reason to call a peer stripped."""
        line = ("X_Forwarded_For", "1.2.3.4")
        self.accepted(line, want={"client_ip": "10.0.0.5", "verdict": "trusted"})
        self.accepted(line, peer="198.51.100.66", on_untrusted="reject", want={"verdict": "direct"})

    def test_claims_of_an_untrusted_peer_may_be_refused(self):
        """on_untrusted: reject, for internal listeners; every header of the list counts."""
        for name in sorted(FORWARDING):
            self.refused("forwarded_from_untrusted", (name.decode(), "x"), peer="8.8.8.8", on_untrusted="reject")
        self.accepted(("Via", "1.1 x"), peer="8.8.8.8", on_untrusted="reject", want={"verdict": "direct"})
        self.accepted(CLIENT, on_untrusted="reject", want={"verdict": "forwarded"})

    def test_connection_may_nominate_no_forwarding_header(self):
        """Of whatever family, in whatever case, on whatever line, from whatever peer."""
        for option in ("x-forwarded-proto", "Forwarded", "X-REAL-IP", "CF-Connecting-IP", "keep-alive ,\tforwarded,"):
            for peer in ("10.0.0.5", "198.51.100.66"):
                self.refused(
                    "connection_nominates_forwarded", ("Connection", "close"), ("connection", option), peer=peer
                )
        self.accepted(("Connection", "keep-alive, Upgrade, X-Forwarded, Via"), want={"verdict": "trusted"})


class ChainTests(DecisionTestCase):
    def test_several_proxies_are_walked_through(self):
        """To the first address that no rule holds."""
        self.accepted((XFF, "203.0.113.7, fd00::9, ::ffff:10.0.0.9, [::1]:80"), want={"client_ip": "203.0.113.7"})

    def test_the_port_of_the_client_is_kept_and_that_of_a_proxy_is_not(self):
        """It belongs to the address."""
        self.accepted((XFF, "203.0.113.7:1, 10.0.0.9:2"), want={"client_ip": "203.0.113.7", "client_port": 1})
        self.accepted((XFF, "203.0.113.7, 10.0.0.9:2"), want={"client_ip": "203.0.113.7", "client_port": None})
        self.accepted((XFF, "203.0.113.7:0"), want={"client_port": 0})

    def test_nothing_left_of_the_client_is_parsed(self):
        """A stranger's garbage is neither believed nor a way to make the daemon refuse others."""
        self.accepted((XFF, '<script>, "a, 203.0.113.7'), want={"client_ip": "203.0.113.7", "verdict": "forwarded"})

    def test_malformed_entries_on_the_way_refuse_the_request(self):
        """Skipping them would make the entry before them count."""
        for bad in (
            "x",
            "203.0.113.7:99999",
            "203.0.113.7:",
            "[203.0.113.7]",
            "_",
            "unknown:1",
            "1.2.3",
            "fe80::1%1",
            "\xb2",
        ):
            self.refused("malformed_node", (XFF, f"1.2.3.4, {bad}"))
            self.refused("malformed_node", (XFF, f"1.2.3.4, {bad}, 10.0.0.9"))

    def test_only_blanks_and_commas_say_nothing(self):
        """Like an empty header."""
        self.accepted((XFF, " ,\t, ,"), (XFF, ""), want={"client_ip": "10.0.0.5", "verdict": "trusted"})

    def test_an_opaque_name_ends_the_chain(self):
        """Also behind a proxy."""
        want = {"client_ip": None, "opaque": "unknown", "client_port": None, "verdict": "forwarded"}
        self.accepted((XFF, "1.2.3.4, unknown, 10.0.0.9"), want=want)

    def test_bounds_are_inclusive_and_count_what_is_there(self):
        """max_entries ignores empty members, max_bytes counts all lines joined."""
        self.accepted((XFF, "1.1.1.1,,2.2.2.2,"), max_entries=2, want={"client_ip": "2.2.2.2"})
        self.refused("too_many_hops", (XFF, "1.1.1.1,2.2.2.2,3.3.3.3"), max_entries=2)
        self.accepted((XFF, "1.1.1.1"), (XFF, "2.2.2.2"), max_bytes=15, want={"client_ip": "2.2.2.2"})
        self.refused("too_long", (XFF, "1.1.1.1"), (XFF, "2.2.2.2"), max_bytes=14)
        self.refused("too_long", (XFF, "," * 4097))
        self.refused("too_long", CLIENT, (HOST, "a" * 4097))
        self.refused("too_long", ("Forwarded", "a" * 4097), family="forwarded")
        self.accepted((XFF, "," * 9999), peer="8.8.8.8", want={"verdict": "stripped"})

    def test_family_none_believes_nothing(self):
        """Though the peer is trusted."""
        lines = (CLIENT, (PROTO, "https"), ("Forwarded", "for=1.2.3.4"), ("X-Real-IP", "1.2.3.4"))
        self.accepted(*lines, family="none", want={"client_ip": "10.0.0.5", "scheme": "http", "verdict": "trusted"})


class SchemeTests(DecisionTestCase):
    def test_known_schemes_in_any_case(self):
        """WebSocket schemes are those of their handshakes."""
        for text, scheme in {
            "HTTPS": "https",
            "http": "http",
            "ws": "http",
            "WSS": "https",
            " https ": "https",
        }.items():
            self.accepted(CLIENT, (PROTO, text), tls=scheme == "http", want={"scheme": scheme})

    def test_anything_else_is_refused(self):
        """Wherever in the list it stands."""
        for text in ("ftp", "https;", '"https"', "http/1.1", "on", "https https", "https, x", "x, https"):
            self.refused("bad_proto", (XFF, "1.1.1.1, 203.0.113.7"), (PROTO, text))

    def test_equal_values_need_no_chain(self):
        """wss and https are the same claim."""
        self.accepted(CLIENT, (PROTO, "https, wss,HTTPS"), want={"scheme": "https"})

    def test_as_many_values_as_hops_are_aligned(self):
        """The value beside the client counts, behind two proxies as well."""
        chain = (XFF, "1.2.3.4, 203.0.113.7, 10.0.0.9")
        self.accepted(chain, (PROTO, "http, https, http"), want={"scheme": "https", "client_ip": "203.0.113.7"})
        self.accepted((XFF, "10.0.0.7, 10.0.0.9"), (PROTO, "https, http"), want={"scheme": "https"})
        self.refused("ambiguous_proto", chain, (PROTO, "https, http"))
        self.refused("ambiguous_proto", (PROTO, "https, http"))

    def test_silence_is_the_transports_scheme_unless_it_is_required(self):
        """proto_required, of trusted peers in families that can say it."""
        self.accepted(CLIENT, (PROTO, ""), tls=True, want={"scheme": "https"})
        self.refused("missing_proto", CLIENT, proto_required=True)
        self.refused("missing_proto", ("Forwarded", "for=1.2.3.4"), family="forwarded", proto_required=True)
        self.accepted(CLIENT, (PROTO, "http"), proto_required=True, want={"scheme": "http"})
        self.accepted(peer="8.8.8.8", proto_required=True, want={"scheme": "http"})
        self.accepted(("X-Real-IP", "1.2.3.4"), family="x-real-ip", proto_required=True, want={"scheme": "http"})


class HostTests(DecisionTestCase):
    def test_a_host_may_have_a_port_or_be_an_address(self):
        """In lower case, IPv6 compressed, the scheme's own port left out."""
        for text, host in {
            "public.example:8443": "public.example:8443",
            "Public.Example:443": "public.example",
            "public.example:80": "public.example:80",
            "192.0.2.1": "192.0.2.1",
            "[2001:DB8:0::1]:8443": "[2001:db8::1]:8443",
            "": "app.test",
        }.items():
            self.accepted(CLIENT, (PROTO, "https"), (HOST, text), want={"host": host})

    def test_malformed_hosts_are_refused(self):
        """Each could be another host to the next reader."""
        for text in ("a b", "u@a", "a:0", "a:99999", "a:", "a/", "::1", "a..b", "http://a", "a\\b", "a?", "caf\xe9"):
            self.refused("bad_host", CLIENT, (HOST, text))

    def test_lists_are_selected_like_schemes(self):
        """Equal, aligned, or refused."""
        self.accepted(CLIENT, (HOST, "a.test, A.TEST"), want={"host": "a.test"})
        self.refused("ambiguous_host", CLIENT, (HOST, "evil.test, a.test"))
        self.refused("ambiguous_host", (HOST, "evil.test"), (HOST, "a.test"))

    def test_a_port_header_fills_an_absent_port(self):
        """What the client itself wrote beside the name wins; the scheme's own port is left out."""
        https = (PROTO, "https")
        self.accepted(CLIENT, https, (PORT, "443"), want={"host": "app.test"})
        self.accepted(CLIENT, https, (PORT, "8443"), want={"host": "app.test:8443"})
        self.accepted(CLIENT, (PORT, "443"), want={"host": "app.test:443"})
        self.accepted(CLIENT, https, (HOST, "a.test:9"), (PORT, "8443"), want={"host": "a.test:9"})
        self.accepted((PORT, "8443"), want={"host": "app.test:8443", "verdict": "forwarded"})
        self.accepted((PORT, "8443"), host=None, want={"host": ""})

    def test_malformed_ports_are_refused(self):
        """1 to 65535, decimal."""
        for text in ("0", "65536", "99999", "-1", "+80", "080", "8o", "80 80", "0x50", "\xb2"):
            self.refused("bad_port", CLIENT, (HOST, "a.test"), (PORT, text))
        self.refused("ambiguous_port", CLIENT, (PORT, "80, 443"))
        self.accepted(CLIENT, (PORT, "443, 443"), (PROTO, "https"), want={"host": "app.test"})

    def test_a_named_host_has_to_be_allowed(self):
        """By name on any port, or by name and port; of any family."""
        allowed = ["app.test", "public.example:443"]
        https = (PROTO, "https")
        self.accepted(CLIENT, https, (HOST, "APP.test:8443"), allowed_hosts=allowed, want={"host": "app.test:8443"})
        self.accepted(CLIENT, https, (HOST, "public.example"), allowed_hosts=allowed, want={"host": "public.example"})
        self.refused("host_not_allowed", CLIENT, (HOST, "public.example:1"), status=421, allowed_hosts=allowed)
        line = ("Forwarded", "for=1.2.3.4;host=evil.test")
        self.refused("host_not_allowed", line, status=421, family="forwarded", allowed_hosts=allowed)

    def test_the_request_s_own_host_is_normal_too(self):
        """And refused when it is none or two."""
        self.accepted(host="APP.test:80", want={"host": "app.test"})
        self.accepted(host="APP.test:443", tls=True, peer="8.8.8.8", want={"host": "app.test"})
        self.accepted(host=None, want={"host": ""})
        self.refused("bad_host", host="a/b")
        self.refused("bad_host", ("host", "other.test"))


class PrefixTests(DecisionTestCase):
    def test_absolute_paths_are_prefixes(self):
        """Without their last slash."""
        for text, prefix in {"/mcp": "/mcp", "/a/b-c/": "/a/b-c", "/a%20b:@!$": "/a%20b:@!$", "": ""}.items():
            self.accepted(CLIENT, ("X-Forwarded-Prefix", text), prefix=True, want={"prefix": prefix})

    def test_everything_else_is_refused(self):
        """It ends up in addresses that we emit."""
        for text in (
            *(
                "mcp",
                "/",
                "//",
                "/a//b",
                "/..",
                "/a/../b",
                "/a/.",
                "/%2e%2E/x",
                "/a%2fb",
                "/a%5Cb",
                "/a\\b",
                "/a b",
                "/a?b",
            ),
            *("/a#b", "/a%2", "/a%zz", "http://evil.test", "/a, /b", "/a,/a", "/caf\xe9", "/a\x00"),
        ):
            self.refused("bad_prefix", CLIENT, ("X-Forwarded-Prefix", text), prefix=True)

    def test_a_prefix_alone_is_a_claim_that_counts(self):
        """If it is read at all."""
        line = ("X-Forwarded-Prefix", "/mcp")
        self.accepted(line, prefix=True, want={"verdict": "forwarded", "prefix": "/mcp"})
        self.accepted(line, want={"verdict": "trusted", "prefix": ""})
        self.accepted(line, prefix=True, peer="8.8.8.8", want={"verdict": "stripped", "prefix": ""})


class XRealIpTests(DecisionTestCase):
    def test_one_address(self):
        """Alone, with a port, or kept back."""
        self.accepted(("X-Real-IP", "203.0.113.7"), family="x-real-ip", want={"client_ip": "203.0.113.7"})
        self.accepted(("x-real-ip", " [2001:db8::9]:5 "), family="x-real-ip", want={"client_port": 5})
        self.accepted(("X-Real-IP", "unknown"), family="x-real-ip", want={"client_ip": None, "opaque": "unknown"})
        self.accepted(("X-Real-IP", ""), family="x-real-ip", want={"client_ip": "10.0.0.5", "verdict": "trusted"})

    def test_more_or_less_than_an_address_is_refused(self):
        """It is set by one proxy, not appended to."""
        self.refused("malformed_node", ("X-Real-IP", "garbage"), family="x-real-ip")
        self.refused("malformed_node", ("X-Real-IP", "203.0.113.07"), family="x-real-ip")
        self.refused("multiple_x_real_ip", ("X-Real-IP", "1.2.3.4, 203.0.113.7"), family="x-real-ip")
        self.refused("multiple_x_real_ip", ("X-Real-IP", "1.2.3.4"), ("X-Real-IP", "1.2.3.4"), family="x-real-ip")

    def test_the_other_families_are_not_read_beside_it(self):
        """A proxy that sets X-Real-IP alone lets the client's X-Forwarded headers through."""
        lines = (("X-Real-IP", "203.0.113.7"), (XFF, "1.2.3.4"), (PROTO, "https"), (HOST, "evil.test"))
        want = {"client_ip": "203.0.113.7", "scheme": "http", "host": "app.test"}
        self.accepted(*lines, family="x-real-ip", want=want)


class ForwardedTests(DecisionTestCase):
    def said(self, *values: str, want: dict[str, Any]) -> None:
        self.accepted(*(("Forwarded", value) for value in values), family="forwarded", want=want)

    def test_nodes_by_the_rfc(self):
        """Quoted where the grammar needs it."""
        self.said('for="[2001:DB8::9]"', want={"client_ip": "2001:db8::9", "client_port": None})
        self.said('for="203.0.113.7:80"', want={"client_ip": "203.0.113.7", "client_port": 80})
        self.said(r'for="203.0.\113.7"', want={"client_ip": "203.0.113.7"})
        self.said("for=unknown", want={"client_ip": None, "opaque": "unknown"})
        self.said("for=1.2.3.4, for=_hidden, for=10.0.0.9", want={"client_ip": None, "opaque": "_hidden"})
        self.said("for=1.2.3.4, for=203.0.113.7;by=10.0.0.5;secret=x", want={"client_ip": "203.0.113.7"})

    def test_malformed_values_are_refused(self):
        """The element grammar first, then the node that is reached."""
        for value in (
            "for=a;for=b",
            "for=1.2.3.4:80",
            'for="1.2.3.4"x',
            "for=1.2.3.4; proto=https",
            "for=a b",
            'for="\\"',
        ):
            self.refused("malformed_forwarded", ("Forwarded", value), family="forwarded")
        for value in ('for="2001:db8::9"', "for=garbage", 'for=""', 'for="203.0.113.7:99999"', 'for=" 203.0.113.7"'):
            self.refused("malformed_node", ("Forwarded", value), family="forwarded")
        self.refused("bad_proto", ("Forwarded", "for=1.2.3.4;proto=ftp"), family="forwarded")
        self.refused("bad_host", ("Forwarded", 'for=1.2.3.4;host="a/b"'), family="forwarded")
        self.refused("too_many_hops", ("Forwarded", ",".join(["for=1.2.3.4"] * 33)), family="forwarded")
        self.said(",".join(["for=1.2.3.4"] * 32), want={"client_ip": "1.2.3.4"})

    def test_a_quote_cannot_reach_into_the_next_line(self):
        """Client's line, then the proxy's: joined they are malformed, as they should be."""
        lines = (("Forwarded", 'for="1.2.3.4'), ("Forwarded", 'for="203.0.113.7"'))
        self.refused("malformed_forwarded", *lines, family="forwarded")

    def test_scheme_and_host_come_from_the_clients_element_or_the_nearest_to_its_right(self):
        """Never from its left."""
        want = {"client_ip": "203.0.113.7", "scheme": "https", "host": "a.test:8443"}
        self.said('for=1.2.3.4;host=evil.test, for=203.0.113.7;proto=wss;host="A.test:8443", for=10.0.0.9', want=want)
        self.said('for=203.0.113.7, for=10.0.0.9;proto=https, for=10.0.0.8;proto=http;host="a.test:8443"', want=want)
        self.said("for=1.2.3.4;proto=https, for=203.0.113.7", want={"scheme": "http"})

    def test_a_proxy_that_names_nobody_stands_as_the_client(self):
        """The for parameter is optional; what is left of its absence was written by whoever was not named."""
        want = {"client_ip": "10.0.0.5", "scheme": "https", "verdict": "forwarded"}
        self.said("proto=https", want=want)
        self.said("for=1.2.3.4, proto=https", want=want)
        self.said("for=1.2.3.4, proto=https, for=10.0.0.9;proto=http", want={"client_ip": "10.0.0.9"})

    def test_elements_that_say_nothing_of_the_client_are_no_claim(self):
        """by= alone, or nothing at all."""
        for value in ("by=10.0.0.5", "", ", ,", ";"):
            self.said(value, want={"client_ip": "10.0.0.5", "verdict": "trusted"})

    def test_tls_from_the_proxy_does_not_outvote_it(self):
        """A re-encrypting proxy knows what the client spoke."""
        self.accepted(("Forwarded", "for=1.2.3.4;proto=http"), family="forwarded", tls=True, want={"scheme": "http"})
        self.accepted(("Forwarded", "for=1.2.3.4"), family="forwarded", tls=True, want={"scheme": "https"})


class ExplanationTests(SynchronousTestCase):
    def test_each_hop_names_the_rule_that_trusts_it(self):
        """What `mcptunnel explain` prints."""
        identity = Resolver(ForwardedPolicy(trust=TRUST)).resolve(
            "::ffff:10.0.0.5", False, [(b"X-Forwarded-For", b"1.1.1.1, 2.2.2.2, 203.0.113.7:5, fd00::9")]
        )
        self.assertEqual(
            identity.hops,
            (
                Hop("10.0.0.5", "10.0.0.0/8", "socket"),
                Hop("fd00::9", "fd00::/8", "X-Forwarded-For"),
                Hop("203.0.113.7", None, "X-Forwarded-For"),
            ),
        )
        self.assertEqual((identity.peer, identity.unread), ("10.0.0.5", 2))

    def test_a_refusal_says_what_was_seen_and_which_setting_decides(self):
        """A stranger's text is clipped and escaped."""
        resolver = Resolver(ForwardedPolicy(trust=TRUST, max_entries=1))
        error = self.assertRaises(ForwardedError, resolver.resolve, "10.0.0.5", False, [(b"X-Forwarded-For", b"a,b")])
        self.assertIn("server.tls.forwarded.max_entries", error.message)
        line = (b"X-Forwarded-Proto", b"\x1b[31m" + b"x" * 4000)
        error = self.assertRaises(ForwardedError, resolver.resolve, "10.0.0.5", False, [line])
        self.assertNotIn("\x1b", error.message)
        self.assertLess(len(error.message), 200)


class MemoryTests(SynchronousTestCase):
    def test_an_equal_request_gets_the_same_identity(self):
        """Headers that decide nothing do not matter; those that do, do."""
        resolver = Resolver(ForwardedPolicy(trust=TRUST))
        first = resolver.resolve("10.0.0.5", False, [(b"X-Forwarded-For", b"1.1.1.1"), (b"Accept", b"a")])
        self.assertIs(resolver.resolve("10.0.0.5", False, [(b"x-forwarded-for", b"1.1.1.1"), (b"Accept", b"b")]), first)
        for peer, tls, value in (
            ("10.0.0.6", False, b"1.1.1.1"),
            ("10.0.0.5", True, b"1.1.1.1"),
            ("10.0.0.5", False, b"2"),
        ):
            try:
                other = resolver.resolve(peer, tls, [(b"X-Forwarded-For", value)])
            except ForwardedError:
                continue
            self.assertNotEqual(other, first)

    def test_nobody_fills_the_memory(self):
        """Neither with many requests nor with long ones."""
        resolver = Resolver(ForwardedPolicy(trust=TRUST))
        for number in range(4200):
            resolver.resolve("8.8.8.8", False, [(b"Host", b"a%d.test" % number)])
        self.assertEqual(len(resolver._known), 4096)
        before = list(resolver._known)
        resolver.resolve("8.8.8.8", False, [(b"X-Forwarded-For", b"x" * 1025)])
        self.assertEqual(list(resolver._known), before)


class StripTests(SynchronousTestCase):
    def test_every_forwarding_header_and_every_underscore_goes(self):
        """In any case; the rest stays as it was, in order."""
        kept = [(b"Host", b"a"), (b"Via", b"1.1 b"), (b"X-Forwarded", b"c"), (b"Host", b"d")]
        gone = [(name.title(), b"x") for name in FORWARDING] + [(b"X_Forwarded_For", b"x"), (b"Content_Length", b"4")]
        self.assertEqual(strip([*kept[:2], *gone, *kept[2:]]), kept)

    def test_every_family_is_made_of_forwarding_headers(self):
        """Or an untrusted peer's claim would slip through."""
        for family in FAMILIES.values():
            self.assertLessEqual(family, FORWARDING)


# Mostly things that look right, for a good part of the requests to be accepted.
_VALUES = st.one_of(
    st.sampled_from(
        [
            "203.0.113.7",
            "10.0.0.9",
            "1.2.3.4, 203.0.113.7",
            "https",
            "http, https",
            "public.example",
            "8443",
            "/mcp",
            "for=203.0.113.7;proto=https",
            "for=10.0.0.9, for=_x",
            "unknown",
            "_a",
            "[2001:db8::9]:1",
            "",
            "close",
        ]
    ),
    st.text(alphabet='0123456789.:[]%,; "\\=_/fortunkwhps-\t\x00\xe9', max_size=40),
).map(lambda text: text.encode("latin-1"))
_NAMES = st.sampled_from([*sorted(FORWARDING), b"Host", b"Connection", b"X_Forwarded_For", b"Accept"])
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES), max_size=6)
_POLICIES = st.builds(
    ForwardedPolicy,
    trust=st.just(TRUST),
    family=st.sampled_from(["xff", "forwarded", "x-real-ip", "none"]),
    prefix=st.booleans(),
    on_untrusted=st.sampled_from(["strip", "reject"]),
    proto_required=st.booleans(),
)
_ENTRIES = st.lists(
    st.sampled_from(["203.0.113.7", "10.0.0.9", "fd00::1", "2001:db8::9", "unknown", "_x", "198.51.100.1:80"]),
    max_size=5,
)


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(_POLICIES, st.sampled_from(["10.0.0.5", "unix:", "8.8.8.8", "garbage", "::ffff:10.0.0.5"]), _HEADERS)
    def test_nothing_but_forwarded_error_is_ever_raised(self, policy, peer, headers):
        """And an identity never holds what no caller expects."""
        try:
            identity = Resolver(policy).resolve(peer, False, headers)
        except ForwardedError as error:
            self.assertIn(error.status, (400, 421))
            return
        self.assertIn(identity.scheme, ("http", "https"))
        if identity.client_ip is not None:
            self.assertEqual(canon(identity.client_ip), identity.client_ip)
        self.assertRegex(identity.host, r"\A[a-z0-9.:\[\]_-]*\Z")

    @settings(max_examples=200, deadline=None)
    @given(_POLICIES, st.ip_addresses().map(str), _HEADERS, st.booleans())
    def test_an_untrusted_peer_is_the_client_whatever_it_sends(self, policy, peer, headers, tls):
        """The one sentence that everything else rests on."""
        assume(not TRUST.holds(peer))
        try:
            identity = Resolver(policy).resolve(peer, tls, headers)
        except ForwardedError:
            return
        self.assertEqual(identity.client_ip, canon(peer))
        self.assertEqual((identity.scheme, identity.prefix), ("https" if tls else "http", ""))
        self.assertIn(identity.verdict, ("direct", "stripped"))

    @settings(max_examples=200, deadline=None)
    @given(_ENTRIES, st.sampled_from(["6.6.6.6", "10.6.6.6", "unknown", "garbage", '"', "::ffff:10.0.0.5"]))
    def test_what_a_client_writes_to_the_left_changes_nothing(self, entries, forged):
        """Given that the proxies named somebody: the client's own text is always further left."""
        chain = ["203.0.113.9", *entries]
        resolver = Resolver(ForwardedPolicy(trust=TRUST))
        plain, attacked = (
            resolver.resolve("10.0.0.5", False, [(b"X-Forwarded-For", ", ".join(some).encode())])
            for some in (chain, [forged, *chain])
        )
        self.assertEqual(evolve(attacked, unread=plain.unread), plain)

    @settings(max_examples=200, deadline=None)
    @given(
        _ENTRIES,
        st.sampled_from(["for=6.6.6.6;proto=https", "for=10.6.6.6", "proto=https;host=evil.test", 'for="x,y"', ";"]),
    )
    def test_what_a_client_writes_to_the_left_of_forwarded_changes_nothing(self, entries, forged):
        """As far as it is well-formed; otherwise the client has refused itself."""
        chain = [
            f'for="{entry.replace("fd00::1", "[fd00::1]").replace("2001:db8::9", "[2001:db8::9]")}"'
            for entry in entries
        ]
        chain.insert(0, "for=203.0.113.9")
        resolver = Resolver(ForwardedPolicy(trust=TRUST, family="forwarded"))
        plain, attacked = (
            resolver.resolve("10.0.0.5", False, [(b"Forwarded", ", ".join(some).encode())])
            for some in (chain, [forged, *chain])
        )
        self.assertEqual(evolve(attacked, unread=plain.unread), plain)

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from(["xff", "forwarded"]),
        st.lists(_VALUES, max_size=5),
        st.sampled_from([b"X-Forwarded-For", b"X-Forwarded-Proto", b"Forwarded", b"X-Forwarded-Host"]),
    )
    def test_several_lines_are_one_list(self, family, values, name):
        """RFC 9110 section 5.3, for decisions and refusals alike."""
        policy = ForwardedPolicy(trust=TRUST, family=family)

        def outcome(lines: list[bytes]) -> object:
            try:
                return Resolver(policy).resolve("10.0.0.5", False, [(name, line) for line in lines])
            except ForwardedError as error:
                return error.reason

        self.assertEqual(outcome(values), outcome([b",".join(values)]))
