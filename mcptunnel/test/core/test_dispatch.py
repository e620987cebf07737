"""Tests for mcptunnel.core.dispatch: one decision for lists and for calls, and names as each side knows them."""

from __future__ import annotations

import json

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.dispatch import Links, authorize, filtered, items, to_named, to_one
from mcptunnel.core.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, decode
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import Era
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.routing import Target
from mcptunnel.testing import FakeUpstream, FakeWire, RecordingSink, make_exchange, request, response


@define(eq=False)
class OneLink(Links):
    """Links to fake servers, each opened when it is asked for."""

    upstreams: dict[str, FakeUpstream] = field(factory=dict)
    open: dict[str, Link] = field(factory=dict)
    era: Era = "legacy"

    def forward(self, server: str, exchange: Exchange) -> None:
        self.link(server).request(exchange)

    def link(self, server: str) -> Link:
        if server not in self.open:
            self.upstreams[server] = FakeUpstream(server)
            self.open[server] = Link.open(self.upstreams[server], self.era, self, lambda: 0.0)
        return self.open[server]

    def from_server(self, link: Link, message: Message, exchange: Exchange | None) -> None:
        raise AssertionError(message)

    def session_lost(self, link: Link) -> bool:
        return False

    def doubted(self, link: Link) -> None:
        """Nothing is known here of eras."""

    def link_lost(self, link: Link) -> None:
        del self.open[link.server]

    def wire(self, server: str) -> FakeWire:
        return self.upstreams[server].wire


def limited(*allow: str) -> Principal:
    """Somebody with patterns."""
    return Principal(name="limited", allow=allow)


class Case(SynchronousTestCase):
    """One server called srv."""

    target = Target(("srv",), False)

    def setUp(self) -> None:
        self.links = OneLink()

    def ask(self, raw: bytes, principal: Principal = ANONYMOUS, era: Era = "legacy") -> tuple[Exchange, RecordingSink]:
        exchange, sink = make_exchange(raw, principal=principal, era=era)
        to_one(self.links, exchange, self.target)
        return exchange, sink

    def refused(self, raw: bytes, principal: Principal = ANONYMOUS) -> RpcError:
        error: RpcError = self.assertRaises(RpcError, self.ask, raw, principal)
        self.assertEqual(self.links.upstreams, {}, "a link was opened for what was refused")
        return error


class OneServerTests(Case):
    """Names and bytes stay as they are."""

    def test_a_request_is_passed_on_and_the_record_says_what_it_named(self) -> None:
        """Tool, prompt, resource, and the reference of a completion."""
        for method, params, target in (
            ("tools/call", {"name": "a"}, "a"),
            ("prompts/get", {"name": "a"}, "a"),
            ("resources/read", {"uri": "x:y"}, "x:y"),
            ("resources/subscribe", {"uri": "x:y"}, "x:y"),
            ("resources/unsubscribe", {"uri": "x:y"}, "x:y"),
            ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}, "p"),
            ("completion/complete", {"ref": {"type": "ref/resource", "uri": "t:{a}"}}, "t:{a}"),
            ("tools/list", {}, None),
            ("made/up", {"name": "a"}, None),
        ):
            exchange, _ = self.ask(request(method, 1, params))
            self.assertEqual(exchange.record.target, target)
            self.assertEqual(self.links.wire("srv").last.body["params"], params)

    def test_a_request_that_ought_to_name_something_and_does_not_is_refused(self) -> None:
        """Before anything is opened or sent."""
        for method, params in (
            ("tools/call", {}),
            ("tools/call", {"name": 5}),
            ("prompts/get", {"name": None}),
            ("resources/read", {"name": "a"}),
            ("completion/complete", {}),
            ("completion/complete", {"ref": {}}),
        ):
            self.assertEqual(self.refused(request(method, 1, params)).code, INVALID_PARAMS)
        for text in (b"[]", b'{"ref":"x"}', b'{"ref":{"name":"a","name":"b"}}'):
            raw = b'{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":%b}' % text
            self.refused(raw)
        self.refused(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1e999}}')
        self.refused(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}')

    def test_with_no_server_at_all_the_refusal_says_so(self) -> None:
        """It names the setting."""
        exchange, _ = make_exchange(request("tools/list"))
        error = self.assertRaises(RpcError, to_one, self.links, exchange, Target((), False))
        self.assertIn("mcpServers", error.message)

    def test_another_name_is_spliced_in(self) -> None:
        """And nothing else changes."""
        raw = b'{"jsonrpc":"2.0","id":7, "method":"tools/call","params":{ "name" : "srv__a" ,"arguments":{"n":1.0}}}'
        exchange, _ = make_exchange(raw)
        to_named(self.links, exchange, "srv", exchange.message.params["name"], "a")
        expected = raw.replace(b"srv__a", b"a").replace(b'"id":7', b'"id":1')
        self.assertEqual(self.links.wire("srv").last.raw, expected)


class PolicyTests(Case):
    """What a principal with patterns may do."""

    @settings(deadline=None, max_examples=80)
    @given(
        st.lists(st.text("ab_*?srv[]!", max_size=8) | st.sampled_from(["srv__*", "*", "srv__a*"]), max_size=3),
        st.lists(st.text("ab_", min_size=1, max_size=4), unique=True, max_size=4),
        st.sampled_from(
            [
                ("tools/list", "tools", "name", "tools/call", "name"),
                ("prompts/list", "prompts", "name", "prompts/get", "name"),
                ("resources/list", "resources", "uri", "resources/read", "uri"),
            ]
        ),
    )
    def test_what_is_in_the_list_can_be_called_and_nothing_else(
        self, allow: list[str], names: list[str], kind: tuple[str, str, str, str, str]
    ) -> None:
        """One decision: a name is listed exactly if calling it is not refused as unknown."""
        self.setUp()
        listing, member, key, calling, argument = kind
        principal = limited(*allow)
        _, sink = self.ask(request(listing), principal)
        self.links.wire("srv").answer({member: [{key: name} for name in names]})
        listed = [item[key] for item in sink.answer["result"][member]]
        callable_ = []
        for name in names:
            try:
                self.ask(request(calling, 1, {argument: name}), principal)
                callable_.append(name)
            except RpcError as e:
                self.assertTrue(e.reason.startswith("unknown_"))
        self.assertEqual(listed, callable_)

    def test_what_is_not_allowed_reads_like_what_does_not_exist(self) -> None:
        """The same words and code for tools, prompts and resources."""
        for method, params, text in (
            ("tools/call", {"name": "b"}, "Unknown tool: b"),
            ("prompts/get", {"name": "b"}, "Unknown prompt: b"),
            ("resources/read", {"uri": "b"}, "Unknown resource: b"),
            ("resources/subscribe", {"uri": "b"}, "Unknown resource: b"),
            ("completion/complete", {"ref": {"name": "b"}}, "Unknown resource: b"),
        ):
            error = self.refused(request(method, 1, params), limited("srv__a"))
            self.assertEqual((error.code, error.message), (INVALID_PARAMS, text))

    def test_methods_that_name_nothing_are_known_or_refused(self) -> None:
        """An unknown method could reach what no pattern speaks of."""
        for method in (
            "initialize",
            "ping",
            "server/discover",
            "logging/setLevel",
            "tools/list",
            "resources/templates/list",
        ):
            self.ask(request(method), limited("srv__a"))
        self.links = OneLink()
        for method in ("tasks/get", "made/up", "tools/call2", ""):
            error = self.refused(request(method), limited("srv__a"))
            self.assertEqual((error.code, error.status), (METHOD_NOT_FOUND, 404))
            self.links = OneLink()
            self.ask(request(method))
            self.links = OneLink()

    def test_a_subscription_may_name_only_what_is_allowed(self) -> None:
        """Each of its resources."""
        fine = {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}}
        self.ask(request("subscriptions/listen", 1, fine), limited("srv__x:*"))
        self.links = OneLink()
        more = {"notifications": {"resourceSubscriptions": ["x:a", "y:b"]}}
        self.refused(request("subscriptions/listen", 1, more), limited("srv__x:*"))
        self.ask(request("subscriptions/listen", 1, more))

    def test_who_has_no_patterns_may_do_everything(self) -> None:
        """And lists pass byte for byte."""
        _, sink = self.ask(request("tools/list", "i"))
        raw = b'{"jsonrpc":"2.0","id":1, "result":{"tools":[ {"name":"a"} ],"x":1.0}}'
        self.links.open["srv"].received(raw)
        self.assertEqual(sink.replies[0][0], raw.replace(b'"id":1', b'"id":"i"'))
        exchange, _ = make_exchange(request("made/up"))
        authorize(exchange, "srv", None)


class ListTests(Case):
    """Filters of lists."""

    def test_what_is_kept_keeps_its_bytes(self) -> None:
        """Unknown members, numbers, order; the cursor stays."""
        raw = (
            b'{"jsonrpc":"2.0","id":1,"result":{"nextCursor":"c", "tools" : [ {"x":1.0,"name":"a"} , {"name":"b"},'
            b'{"name" : "ab","inputSchema":{"name":"b"}}],"_meta":{}}}'
        )
        rewritten = filtered("tools/list", "srv", limited("srv__a*"))(decode(raw))
        self.assertEqual(
            rewritten,
            b'{"jsonrpc":"2.0","id":1,"result":{"nextCursor":"c", "tools" : [{"x":1.0,"name":"a"},'
            b'{"name" : "ab","inputSchema":{"name":"b"}}],"_meta":{}}}',
        )

    def test_a_filtered_list_is_private(self) -> None:
        """No shared cache may show it to somebody else."""
        reply = decode(response(1, {"tools": [{"name": "a"}], "ttlMs": 5, "cacheScope": "public"}))
        result = json.loads(filtered("tools/list", "srv", limited("*"))(reply))["result"]
        self.assertEqual(result, {"tools": [{"name": "a"}], "ttlMs": 5, "cacheScope": "private"})

    def test_a_list_that_is_missing_is_empty(self) -> None:
        """The result passes as it is."""
        reply = decode(response(1, {"x": 1}))
        self.assertEqual(filtered("tools/list", "srv", limited("*"))(reply), reply.raw)
        self.assertEqual(items(reply, "tools/list", "srv"), ([], None))

    def test_a_list_that_cannot_be_read_is_the_servers_fault(self) -> None:
        """It is never passed on unfiltered."""
        for result in (
            b"[]",
            b'{"tools":{}}',
            b'{"tools":[1]}',
            b'{"tools":[{}]}',
            b'{"tools":[{"name":"a","name":"b"}]}',
            b'{"tools":[{"name":1e999}]}',
            b'{"tools":1,"tools":[]}',
            b'{"tools":[{"nam\\u0065":"b"},7]}',
        ):
            _, sink = self.ask(request("tools/list"), limited("srv__*"))
            number = self.links.wire("srv").last.number
            self.links.open["srv"].received(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number or 0, result))
            self.assertIn("error", sink.answer, result)

    def test_the_entries_of_a_list(self) -> None:
        """Each as it came, and where its name stands."""
        tools = b'[{"title":"A", "name" : "a"},{"name":"q\\""}]'
        raw = b'{"jsonrpc":"2.0","id":1,"result":{"tools":%b,"nextCursor":"n"}}' % tools
        found, cursor = items(decode(raw), "tools/list", "srv")
        names = [(item.name, item.raw[slice(*item.place)]) for item in found]
        self.assertEqual(names, [("a", b'"a"'), ('q"', b'"q\\""')])
        self.assertEqual((found[0].raw, cursor), (b'{"title":"A", "name" : "a"}', "n"))
        (only,), _ = items(decode(response(1, {"resources": [{"uri": "x:y"}]})), "resources/list", "srv")
        self.assertEqual((only.name, only.raw), ("x:y", b'{"uri":"x:y"}'))
