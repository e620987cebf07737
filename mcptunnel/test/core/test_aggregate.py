"""Tests for mcptunnel.core.aggregate: several servers as one, and one bad server among them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.aggregate import to_many
from mcptunnel.core.directory import Directory
from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.lists import MAX_PAGES
from mcptunnel.core.mcp import Era
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.routing import PATIENCE_SECONDS, Target, join
from mcptunnel.test.core.test_dispatch import OneLink
from mcptunnel.testing import FakeWire, RecordingSink, make_exchange, request

IDENTITY = {"name": "mcptunnel", "version": "0"}


class Case(SynchronousTestCase):
    """Two servers, a and b."""

    era: Era = "legacy"
    target = Target(("a", "b"), True)

    def setUp(self) -> None:
        self.links = OneLink(era=self.era)
        self.directory = Directory()

    def ask(
        self, method: str, params: Any = None, principal: Principal = ANONYMOUS, id_: int | str = "i"
    ) -> tuple[Exchange, RecordingSink]:
        raw = request(method, id_, params, modern=self.era == "modern")
        exchange, sink = make_exchange(raw, principal=principal, era=self.era)
        to_many(self.links, exchange, self.target, self.directory, IDENTITY)
        return exchange, sink

    def wire(self, server: str) -> FakeWire:
        return self.links.wire(server)


class ListTests(Case):
    """Lists of all servers as one list."""

    def test_the_lists_are_joined_in_the_order_of_the_configuration(self) -> None:
        """Whoever answers first."""
        _, sink = self.ask("tools/list")
        self.wire("b").answer({"tools": [{"name": "x"}]})
        self.assertFalse(sink.answered)
        self.wire("a").answer({"tools": [{"name": "z"}, {"name": "x", "inputSchema": {}}]})
        self.assertEqual(
            sink.answer,
            {
                "jsonrpc": "2.0",
                "id": "i",
                "result": {"tools": [{"name": "a__z"}, {"name": "a__x", "inputSchema": {}}, {"name": "b__x"}]},
            },
        )

    def test_a_server_that_is_down_or_lying_costs_its_own_part_only(self) -> None:
        """Lost, an error, a list that is none, silence."""
        for fail in (
            lambda wire: wire.lose(),
            lambda wire: wire.answer(error={"code": -32601, "message": "no"}),
            lambda wire: wire.answer({"tools": 7}),
            lambda wire: wire.answer({"tools": [{"name": 5}, 3]}),
            lambda wire: wire.say(b"junk", 1),
            lambda wire: wire.link.expire(PATIENCE_SECONDS + 1, 120.0, 3600.0),
        ):
            self.setUp()
            exchange, sink = self.ask("tools/list")
            self.wire("b").answer({"tools": [{"name": "x"}]})
            fail(self.wire("a"))
            self.assertEqual(sink.answer["result"], {"tools": [{"name": "b__x"}]})
            self.assertEqual((exchange.record.error, exchange.record.code), (None, None))

    def test_when_none_answers_the_client_is_told(self) -> None:
        """Our own words, or the servers' refusal when they agree that there is no such thing."""
        exchange, sink = self.ask("tools/list")
        self.wire("a").lose()
        self.wire("b").lose()
        self.assertIn("a, b", sink.answer["error"]["message"])
        self.assertEqual(exchange.record.error, "upstream_unavailable")
        self.setUp()
        _, sink = self.ask("prompts/list")
        for server in "ab":
            self.wire(server).answer(error={"code": -32601, "message": "Method not found"})
        self.assertEqual(sink.answer["error"], {"code": -32601, "message": "Method not found"})
        self.assertEqual(sink.answer["id"], "i")

    def test_all_pages_make_one_list(self) -> None:
        """Each with the cursor of the one before, whatever the params were."""
        for params in (None, {}, {"_meta": {"x": 1}}):
            self.setUp()
            _, sink = self.ask("tools/list", params)
            self.wire("b").answer({"tools": []})
            self.wire("a").answer({"tools": [{"name": "1"}], "nextCursor": 'p"2'})
            sent = self.wire("a").last.body["params"]
            self.assertEqual(sent, {**(params or {}), "cursor": 'p"2'})
            self.wire("a").answer({"tools": [{"name": "2"}]})
            self.assertEqual(sink.answer["result"], {"tools": [{"name": "a__1"}, {"name": "a__2"}]})

    def test_a_server_whose_pages_never_end_is_stopped(self) -> None:
        """At a cursor that has been there before, and after a hundred."""
        _, sink = self.ask("tools/list")
        self.wire("b").answer({"tools": []})
        for cursor in ("x", "y", "x"):
            self.assertFalse(sink.answered)
            self.wire("a").answer({"tools": [{"name": cursor}], "nextCursor": cursor})
        self.assertEqual(sink.answer["result"]["tools"], [{"name": "a__x"}, {"name": "a__y"}])
        self.setUp()
        _, sink = self.ask("tools/list")
        self.wire("b").answer({"tools": []})
        pages = 0
        while not sink.answered:
            pages += 1
            self.wire("a").answer({"tools": [], "nextCursor": str(pages)})
        self.assertEqual(pages, MAX_PAGES + 1)

    def test_a_cursor_of_the_client_is_none_of_ours(self) -> None:
        """There is one page here."""
        error = self.assertRaises(RpcError, self.ask, "tools/list", {"cursor": "c"})
        self.assertEqual(error.code, -32602)

    def test_only_what_the_principal_may_use_is_listed_and_asked(self) -> None:
        """Servers out of reach are not even opened."""
        _, sink = self.ask("tools/list", principal=Principal(name="p", allow=("b__x*",)))
        self.assertEqual(set(self.links.open), {"b"})
        self.wire("b").answer({"tools": [{"name": "x1"}, {"name": "y"}]})
        self.assertEqual(sink.answer["result"], {"tools": [{"name": "b__x1"}]})

    def test_the_same_uri_twice_is_listed_once_and_belongs_to_the_first(self) -> None:
        """By the order of the configuration."""
        _, sink = self.ask("resources/list")
        self.wire("b").answer({"resources": [{"uri": "x:1", "name": "of b"}, {"uri": "x:2"}]})
        self.wire("a").answer({"resources": [{"uri": "x:1", "name": "of a"}]})
        self.assertEqual(sink.answer["result"]["resources"], [{"uri": "x:1", "name": "of a"}, {"uri": "x:2"}])
        self.assertEqual((self.directory.owner("x:1"), self.directory.owner("x:2")), ("a", "b"))

    def test_a_client_that_cancels_cancels_every_part(self) -> None:
        """And hears nothing more."""
        exchange, sink = self.ask("tools/list")
        exchange.abandon()
        for server in "ab":
            self.assertEqual(self.wire(server).last.body["method"], "notifications/cancelled")
            self.wire(server).answer({"tools": []}, number=1)
        self.assertFalse(sink.answered)


class ModernListTests(Case):
    """Hints for caches, of several parts."""

    era: Era = "modern"

    def hints(self, a: dict[str, Any], b: dict[str, Any], principal: Principal = ANONYMOUS) -> Any:
        self.setUp()
        _, sink = self.ask("tools/list", principal=principal)
        self.wire("a").answer({"tools": [], "resultType": "complete", **a})
        self.wire("b").answer({"tools": [], **b})
        result = sink.answer["result"]
        self.assertEqual(result["resultType"], "complete")
        return result["ttlMs"], result["cacheScope"]

    def test_the_shortest_life_and_the_narrowest_scope_win(self) -> None:
        """What is missing or malformed is 0 and private."""
        public = {"ttlMs": 9, "cacheScope": "public"}
        self.assertEqual(self.hints(public, {"ttlMs": 5, "cacheScope": "public"}), (5, "public"))
        self.assertEqual(self.hints(public, {"ttlMs": 50, "cacheScope": "private"}), (9, "private"))
        self.assertEqual(self.hints(public, {}), (0, "private"))
        self.assertEqual(self.hints(public, {"ttlMs": "x", "cacheScope": "public"}), (0, "public"))

    def test_a_list_for_one_principal_is_private(self) -> None:
        """It was filtered."""
        public = {"ttlMs": 9, "cacheScope": "public"}
        self.assertEqual(self.hints(public, public, Principal(name="p", allow=("*",))), (9, "private"))

    def test_discover_tells_what_can_be_passed_on(self) -> None:
        """Under our own name, changes included where some server tells of them."""
        _, sink = self.ask("server/discover")
        self.wire("a").answer(
            {"capabilities": {"tools": {"listChanged": True}, "tasks": {}}, "ttlMs": 3, "cacheScope": "public"}
        )
        self.wire("b").answer(
            {
                "capabilities": {"resources": {"subscribe": True}},
                "ttlMs": 4,
                "cacheScope": "public",
                "instructions": "hi",
            }
        )
        result = sink.answer["result"]
        self.assertEqual(result["capabilities"], {"tools": {"listChanged": True}, "resources": {"subscribe": True}})
        self.assertEqual((result["supportedVersions"], result["serverInfo"]), (["2026-07-28"], IDENTITY))
        self.assertEqual((result["ttlMs"], result["cacheScope"], result["resultType"]), (3, "public", "complete"))
        self.assertEqual(result["instructions"], "b: hi")

    def test_removed_methods_are_refused(self) -> None:
        """This revision has none of them."""
        for method in ("ping", "logging/setLevel"):
            error = self.assertRaises(RpcError, self.ask, method)
            self.assertEqual((error.code, error.status), (-32601, 404))


class NameTests(Case):
    """Calls by prefixed name."""

    def test_a_call_goes_to_its_server_under_the_servers_name(self) -> None:
        """And nobody else hears of it."""
        exchange, sink = self.ask("tools/call", {"name": "b__x__y", "arguments": {}})
        self.assertEqual(self.wire("b").last.body["params"]["name"], "x__y")
        self.assertEqual(set(self.links.open), {"b"})
        self.wire("b").answer({"content": []})
        self.assertEqual(sink.answer, {"jsonrpc": "2.0", "id": "i", "result": {"content": []}})
        self.assertEqual((exchange.record.target, exchange.record.upstream), ("b__x__y", "b"))

    def test_names_of_no_server_are_unknown(self) -> None:
        """In the words of the caller, also for what is not allowed."""
        for method, text in (("tools/call", "Unknown tool: "), ("prompts/get", "Unknown prompt: ")):
            for name in ("x", "c__x", "a__", "a"):
                self.assertEqual(self.assertRaises(RpcError, self.ask, method, {"name": name}).message, text + name)
            error = self.assertRaises(
                RpcError, self.ask, method, {"name": "a__x"}, Principal(name="p", allow=("b__*",))
            )
            self.assertEqual(error.message, text + "a__x")
        self.assertEqual(self.links.open, {})

    def test_a_completion_goes_by_the_kind_of_its_reference(self) -> None:
        """A prompt by its prefix, a resource by its owner; an unknown prompt is not tried on anybody."""
        self.ask("completion/complete", {"ref": {"type": "ref/prompt", "name": "b__p"}})
        self.assertEqual(self.wire("b").last.body["params"]["ref"], {"type": "ref/prompt", "name": "p"})
        error = self.assertRaises(
            RpcError, self.ask, "completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}
        )
        self.assertEqual(error.message, "Unknown prompt: p")
        self.directory.learn("a__x:{y}", "b")
        self.ask("completion/complete", {"ref": {"type": "ref/resource", "uri": "a__x:{y}"}})
        self.assertEqual(self.wire("b").last.body["params"]["ref"]["uri"], "a__x:{y}")
        self.assertNotIn("a", self.links.open)


LONG = "a_tool_with_a_name_that_says_everything_there_is_to_say_about_what_it_does"
OTHER = LONG + "_and_more"


class LongNameTests(Case):
    """Names that do not fit into what clients take."""

    def show(self, **shown: list[str]) -> RecordingSink:
        """A list of the client."""
        _, sink = self.ask("tools/list")
        for server in "ab":
            self.wire(server).answer({"tools": [{"name": name} for name in shown.get(server, [])]})
        return sink

    def names(self, sink: RecordingSink) -> list[str]:
        return [tool["name"] for tool in sink.answer["result"]["tools"]]

    @settings(deadline=None, max_examples=60)
    @given(
        st.dictionaries(
            st.sampled_from("ab"), st.lists(st.text("xyz_", min_size=1, max_size=90), unique=True, max_size=5)
        ),
        st.booleans(),
    )
    def test_what_is_listed_can_be_called(self, tools: dict[str, list[str]], fresh: bool) -> None:
        """By the name that the list shows, with the directory of the list and with an empty one."""
        self.setUp()
        listed = self.names(self.show(**tools))
        self.assertEqual(len(set(listed)), sum(map(len, tools.values())))
        expected = [(server, name) for server in "ab" for name in tools.get(server, [])]
        for shown, (server, name) in zip(listed, expected, strict=True):
            self.assertLessEqual(len(shown), 64)
            if fresh:
                self.directory = Directory()
            self.ask("tools/call", {"name": shown})
            if self.wire(server).last.body["method"] == "tools/list":
                self.wire(server).answer({"tools": [{"name": name} for name in tools[server]]})
            self.assertEqual(self.wire(server).last.body["method"], "tools/call")
            self.assertEqual(self.wire(server).last.body["params"], {"name": name})

    def test_a_name_that_nobody_has_listed_yet_is_looked_up_once(self) -> None:
        """On all pages of the server whose prefix it shows, in the envelope of the call, without its progress token."""
        for era in ("legacy", "modern"):
            self.era = era
            self.setUp()
            exchange, sink = self.ask("tools/call", {"name": join("b", LONG), "_meta": {"progressToken": "t", "x": 1}})
            self.assertEqual(set(self.links.open), {"b"})
            sent = self.wire("b").last.body
            self.assertEqual(sent["method"], "tools/list")
            meta = sent.get("params", {}).get("_meta", {})
            self.assertEqual(("progressToken" in meta, "x" in meta), (False, era == "modern"))
            self.wire("b").answer({"tools": [{"name": "x"}], "nextCursor": "2"})
            self.assertEqual(self.wire("b").last.body["params"]["cursor"], "2")
            self.wire("b").answer({"tools": [{"name": OTHER}, {"name": LONG}]})
            self.assertEqual(self.wire("b").last.body["params"]["name"], LONG)
            self.wire("b").answer({"content": []})
            self.assertEqual(sink.answer, {"jsonrpc": "2.0", "id": "i", "result": {"content": []}})
            self.assertEqual((exchange.record.target, exchange.record.upstream), (join("b", LONG), "b"))
            self.ask("tools/call", {"name": join("b", OTHER)})
            self.assertEqual(self.wire("b").last.body["params"]["name"], OTHER)

    def test_prompts_and_tools_are_told_apart(self) -> None:
        """A tool of that name is no prompt; a completion means the prompt."""
        self.show(b=[LONG])
        reference = {"type": "ref/prompt", "name": join("b", LONG)}
        for method, params in (("prompts/get", {"name": join("b", LONG)}), ("completion/complete", {"ref": reference})):
            self.directory = Directory()
            self.ask(method, params)
            self.assertEqual(self.wire("b").last.body["method"], "prompts/list")
            self.wire("b").answer({"prompts": [{"name": LONG}]})
            self.assertEqual(self.wire("b").last.body["method"], method)
            sent = self.wire("b").last.body["params"]
            self.assertEqual(sent.get("ref", sent)["name"], LONG)

    def test_a_whole_name_of_the_same_form_goes_to_its_server(self) -> None:
        """Also when it is in no list; what cannot be split is unknown."""
        chance = "y" * 52 + "_0123abcd"
        self.ask("tools/call", {"name": f"a__{chance}"})
        self.wire("a").answer({"tools": []})
        self.assertEqual(self.wire("a").last.body["params"]["name"], chance)
        self.target = Target(("a", "b" * 60), True)
        _, sink = self.ask("tools/call", {"name": join("b" * 60, "xyz")})
        self.wire("b" * 60).answer({"tools": [{"name": "z"}]})
        self.assertEqual(sink.answer["error"]["message"], "Unknown tool: " + join("b" * 60, "xyz"))

    def test_when_it_cannot_be_looked_up_the_caller_learns_why(self) -> None:
        """A server that is down is no unknown tool."""
        exchange, sink = self.ask("tools/call", {"name": join("b", LONG)})
        self.wire("b").lose()
        self.assertEqual((sink.answer["error"]["code"], exchange.record.error), (-32010, "upstream_unavailable"))

    def test_a_call_cancelled_during_the_look_up_is_never_made(self) -> None:
        """The look-up is cancelled with it."""
        exchange, sink = self.ask("tools/call", {"name": join("b", LONG)})
        exchange.abandon()
        self.assertEqual(self.wire("b").last.body["method"], "notifications/cancelled")
        self.wire("b").answer({"tools": [{"name": LONG}]}, number=1)
        self.assertEqual((len(self.wire("b").sent), sink.answered), (2, False))

    def test_patterns_speak_of_the_whole_name(self) -> None:
        """What they leave out is neither listed nor found, whoever has listed it before."""
        end = Principal(name="p", allow=(f"b__*{LONG[-9:]}",))
        self.show(b=[LONG, OTHER])
        _, sink = self.ask("tools/list", principal=end)
        self.wire("b").answer({"tools": [{"name": LONG}, {"name": OTHER}]})
        self.assertEqual(self.names(sink), [join("b", LONG)])
        self.ask("tools/call", {"name": join("b", LONG)}, end)
        self.assertEqual(self.wire("b").last.body["params"]["name"], LONG)
        error = self.assertRaises(RpcError, self.ask, "tools/call", {"name": join("b", OTHER)}, end)
        self.assertEqual(error.message, "Unknown tool: " + join("b", OTHER))
        self.directory = Directory()
        _, sink = self.ask("tools/call", {"name": join("b", OTHER)}, end)
        self.wire("b").answer({"tools": [{"name": LONG}, {"name": OTHER}]})
        self.assertEqual(sink.answer["error"]["message"], "Unknown tool: " + join("b", OTHER))

    def test_the_directory_of_names_is_bounded(self) -> None:
        """The oldest makes room; the latest list counts."""
        directory = Directory(limit=2)
        for shown, server in (("1", "a"), ("2", "a"), ("1", "b"), ("3", "b")):
            directory.learn_name("tools/list", shown, server, "n" + shown)
        found = [directory.named("tools/list", shown) for shown in "123"]
        self.assertEqual(found, [("b", "n1"), None, ("b", "n3")])
        self.assertIsNone(directory.named("prompts/list", "1"))


class UriTests(Case):
    """Resources, which keep their URIs."""

    def test_the_owner_is_asked_alone(self) -> None:
        """It was learned from a list."""
        self.directory.learn("x:1", "b")
        exchange, sink = self.ask("resources/read", {"uri": "x:1"})
        self.assertEqual(set(self.links.open), {"b"})
        self.wire("b").answer({"contents": []})
        self.assertEqual(sink.answer["result"], {"contents": []})
        self.assertEqual(exchange.record.upstream, "b")

    def test_an_unlisted_uri_is_tried_in_order_and_remembered(self) -> None:
        """Results link to what no list has."""
        exchange, sink = self.ask("resources/read", {"uri": "x:9"})
        self.assertEqual(set(self.links.open), {"a"})
        self.wire("a").answer(error={"code": -32002, "message": "not found"})
        self.wire("b").answer({"contents": [1]})
        self.assertEqual(sink.answer["result"], {"contents": [1]})
        self.assertEqual(self.directory.owner("x:9"), "b")
        self.assertEqual((exchange.record.error, exchange.record.code, exchange.record.upstream), (None, None, "b"))

    def test_when_nobody_has_it_the_last_answer_counts(self) -> None:
        """Nothing is remembered."""
        _, sink = self.ask("resources/read", {"uri": "x:9"})
        self.wire("a").lose()
        self.wire("b").answer(error={"code": -32002, "message": "not found"})
        self.assertEqual(sink.answer["error"]["code"], -32002)
        self.assertIsNone(self.directory.owner("x:9"))

    def test_servers_where_it_is_not_allowed_are_not_asked(self) -> None:
        """And nobody learns that it exists."""
        principal = Principal(name="p", allow=("a__*", "b__y:*"))
        _, sink = self.ask("resources/read", {"uri": "x:9"}, principal)
        self.wire("a").answer(error={"code": -32002, "message": "not found"})
        self.assertEqual(sink.answer["error"]["message"], "not found")
        self.assertNotIn("b", self.links.open)
        _, sink = self.ask("resources/read", {"uri": "x:9"}, Principal(name="p", allow=("b__y:*",)))
        self.assertEqual(sink.answer["error"]["message"], "Unknown resource: x:9")

    def test_a_client_that_cancels_ends_the_search(self) -> None:
        """The next server is not asked."""
        exchange, _ = self.ask("resources/read", {"uri": "x:9"})
        exchange.abandon()
        self.wire("a").answer(error={"code": -32002, "message": "not found"}, number=1)
        self.assertNotIn("b", self.links.open)

    def test_the_directory_is_bounded(self) -> None:
        """The oldest entry makes room; who showed it first keeps it."""
        directory = Directory(limit=2)
        for uri, server in (("1", "a"), ("2", "a"), ("2", "b"), ("3", "b")):
            directory.learn(uri, server)
        self.assertEqual([directory.owner(uri) for uri in "123"], [None, "a", "b"])


class SessionTests(Case):
    """initialize and what belongs to the whole connection."""

    def test_initialize_joins_what_can_be_passed_on(self) -> None:
        """Capabilities, instructions; the revision is negotiated with us."""
        for wanted, answered in (
            ("2025-06-18", "2025-06-18"),
            ("1999-01-01", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
        ):
            self.setUp()
            _, sink = self.ask("initialize", {"protocolVersion": wanted, "capabilities": {"sampling": {}}})
            self.assertEqual(self.wire("a").last.body["params"]["capabilities"], {"sampling": {}})
            self.wire("a").answer(
                {
                    "protocolVersion": "2025-03-26",
                    "capabilities": {"tools": {"listChanged": False}, "experimental": {}},
                    "instructions": "A",
                }
            )
            self.wire("b").answer(
                {
                    "protocolVersion": wanted,
                    "capabilities": {"tools": {"listChanged": True}, "logging": {}},
                    "instructions": "B",
                }
            )
            self.assertEqual(
                sink.answer["result"],
                {
                    "protocolVersion": answered,
                    "capabilities": {"tools": {"listChanged": True}, "logging": {}},
                    "serverInfo": IDENTITY,
                    "instructions": "a: A\n\nb: B",
                },
            )
            self.assertEqual(self.links.open["a"].version, "2025-03-26")

    def test_a_dead_server_does_not_fail_initialize(self) -> None:
        """All dead ones do."""
        _, sink = self.ask("initialize", {"protocolVersion": "2025-06-18"})
        self.wire("a").lose()
        self.wire("b").answer({"capabilities": {"tools": {}}})
        self.assertEqual(sink.answer["result"]["capabilities"], {"tools": {}})
        self.setUp()
        _, sink = self.ask("initialize", {"protocolVersion": "2025-06-18"})
        self.wire("a").lose()
        self.wire("b").say(b'{"jsonrpc":"2.0","id":1,"result":{"capabilities":1e999}}', 1)
        self.assertEqual(sink.answer["error"]["code"], -32010)

    def test_a_revision_that_is_no_string_is_refused(self) -> None:
        """Before anybody is asked."""
        for params in ({}, {"protocolVersion": 5}):
            self.assertEqual(self.assertRaises(RpcError, self.ask, "initialize", params).code, -32602)
        self.assertEqual(self.links.open, {})

    def test_ping_is_ours_to_answer(self) -> None:
        """It asks whether this connection lives."""
        _, sink = self.ask("ping")
        self.assertEqual((sink.answer, self.links.open), ({"jsonrpc": "2.0", "id": "i", "result": {}}, {}))

    def test_the_log_level_goes_to_all_and_one_that_takes_it_is_enough(self) -> None:
        """None is a method that does not exist."""
        _, sink = self.ask("logging/setLevel", {"level": "info"})
        self.wire("a").answer(error={"code": -32601, "message": "no"})
        self.wire("b").answer({})
        self.assertEqual(sink.answer["result"], {})
        _, sink = self.ask("logging/setLevel", {"level": "info"})
        for server in "ab":
            self.wire(server).answer(error={"code": -32601, "message": "no"})
        self.assertEqual(sink.answer["error"]["code"], -32601)

    def test_messages_of_every_part_reach_the_client(self) -> None:
        """A server may say something while it lists."""
        _, sink = self.ask("tools/list")
        note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
        self.wire("a").say(note, 1)
        self.assertEqual(sink.messages, [note])
