"""Tests for mcptunnel.core.naming: what is shown of several servers, and under which names; through to_many."""

from __future__ import annotations

from typing import Any

from mcptunnel.core.aggregate import PAGE
from mcptunnel.core.directory import Directory
from mcptunnel.core.errors import RpcError
from mcptunnel.core.overrides import Override, Overrides
from mcptunnel.core.principal import Principal
from mcptunnel.core.routing import Target
from mcptunnel.test.core.test_aggregate import Case as AggregateCase
from mcptunnel.testing import FakeSeal, RecordingSink


class Case(AggregateCase):
    """Two servers, a and b, that both have a tool x."""

    tools: dict[str, list[str]] = {"a": ["x", "only_a"], "b": ["x", "only_b"]}  # noqa: RUF012  # read only

    def serve(self, *servers: str) -> None:
        """The servers answer the latest list request."""
        for server in servers or ("a", "b"):
            self.wire(server).answer({"tools": [{"name": name} for name in self.tools[server]]})

    def names(self, sink: RecordingSink) -> list[str]:
        return [tool["name"] for tool in sink.answer["result"]["tools"]]

    def listed(self, **more: Any) -> list[str]:
        _, sink = self.ask("tools/list", **more)
        self.serve()
        return self.names(sink)

    def call(self, name: str, **more: Any) -> RecordingSink:
        return self.ask("tools/call", {"name": name, "arguments": {}}, **more)[1]

    def went(self) -> dict[str, Any]:
        """Server to the name of the tool that it was asked for by the latest request."""
        return {
            server: body["params"]["name"]
            for server in "ab"
            if server in self.links.upstreams and (body := self.wire(server).last.body)["method"] == "tools/call"
        }


class NeverTests(Case):
    """``prefix: never``."""

    target = Target(("a", "b"), True, "never")

    def test_the_first_server_has_a_name_that_two_want(self) -> None:
        """In the list and in calls."""
        self.assertEqual(self.listed(), ["x", "only_a", "only_b"])
        self.call("x")
        self.call("only_b")
        self.assertEqual(self.went(), {"a": "x", "b": "only_b"})

    def test_a_call_before_any_list_asks_for_the_lists(self) -> None:
        """Once; then names are known, and one that nobody has is unknown without asking."""
        sink = self.call("only_b")
        self.assertEqual([self.wire(server).last.body["method"] for server in "ab"], ["tools/list"] * 2)
        self.serve()
        self.assertEqual(self.went(), {"b": "only_b"})
        self.assertFalse(sink.answered)
        sent = len(self.wire("a").sent)
        error = self.assertRaises(RpcError, self.call, "nobody")
        self.assertEqual((error.code, error.message, len(self.wire("a").sent)), (-32602, "Unknown tool: nobody", sent))

    def test_a_change_makes_names_doubtful_and_they_are_asked_for_again(self) -> None:
        """Only those of that server; the catalogue is up to date before anybody is told."""
        self.listed()
        self.directory.changed("b", "notifications/tools/list_changed")
        self.assertEqual(self.directory.named("tools/list", "x"), ("a", "x"))
        self.assertIsNone(self.directory.named("tools/list", "only_b"))
        self.tools = {**self.tools, "b": ["new"]}
        self.call("new")
        self.serve()
        self.assertEqual(self.went(), {"b": "new"})

    def test_names_do_not_depend_on_who_asks(self) -> None:
        """Who may not use the first one does not get the second one under the same name."""
        limited = Principal(name="limited", allow=("b__*",))
        self.assertEqual(self.listed(principal=limited), ["only_b"])
        error = self.assertRaises(RpcError, self.call, "x", principal=limited)
        self.assertEqual(error.message, "Unknown tool: x")
        self.call("only_b", principal=limited)
        self.assertEqual(self.went(), {"b": "only_b"})


class CollisionTests(Case):
    """``prefix: on-collision``."""

    target = Target(("a", "b"), True, "on-collision")

    def test_only_names_that_collide_get_prefixes(self) -> None:
        """Those of every server that has them."""
        self.assertEqual(self.listed(), ["a__x", "only_a", "b__x", "only_b"])
        self.call("b__x")
        self.call("only_a")
        self.assertEqual(self.went(), {"a": "only_a", "b": "x"})
        self.assertRaises(RpcError, self.call, "x")

    def test_a_server_that_is_down_does_not_change_names(self) -> None:
        """Once they have collided they keep their prefixes."""
        self.listed()
        _, sink = self.ask("tools/list")
        self.wire("a").lose("it exited")
        self.serve("b")
        self.assertEqual(self.names(sink), ["b__x", "only_b"])


class OverrideTests(Case):
    """Tools that are shown otherwise."""

    target = Target(
        ("a", "b"),
        True,
        overrides=Overrides(
            {"a": {"x": Override(name="find", description="Find it."), "only_a": Override(hidden=True)}}
        ),
    )

    def test_lists_and_calls(self) -> None:
        """The new name, the new description; what is hidden reads as if it did not exist."""
        _, sink = self.ask("tools/list")
        self.serve()
        self.assertEqual(
            sink.answer["result"]["tools"],
            [{"name": "a__find", "description": "Find it."}, {"name": "b__x"}, {"name": "b__only_b"}],
        )
        self.call("a__find")
        self.call("b__x")
        self.assertEqual(self.went(), {"a": "x", "b": "x"})
        for name in ("a__x", "a__only_a"):
            self.assertEqual(self.assertRaises(RpcError, self.call, name).message, f"Unknown tool: {name}")

    def test_policy_speaks_of_the_servers_own_names(self) -> None:
        """A pattern means the tool, whatever it is called here."""
        for pattern, wanted in (("a__x", ["a__find"]), ("a__find", [])):
            _, sink = self.ask("tools/list", principal=Principal(name="p", allow=(pattern,)))
            self.serve("a")
            self.assertEqual(self.names(sink), wanted)


class PageTests(Case):
    """Lists of more than one page."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Directory(seal=FakeSeal())
        self.tools = {"a": [f"t{n}" for n in range(PAGE)], "b": ["last"]}

    def test_every_entry_is_on_one_page(self) -> None:
        """In order; the last page has no cursor."""
        _, sink = self.ask("tools/list")
        self.serve()
        first = sink.answer["result"]
        self.assertEqual((len(first["tools"]), first["tools"][-1]["name"]), (PAGE, f"a__t{PAGE - 1}"))
        _, sink = self.ask("tools/list", {"cursor": first["nextCursor"]})
        self.assertNotIn("cursor", self.wire("a").last.body.get("params", {}))
        self.serve()
        self.assertEqual(sink.answer["result"], {"tools": [{"name": "b__last"}]})

    def test_a_cursor_is_for_one_list_and_one_principal(self) -> None:
        """Anything else is none."""
        _, sink = self.ask("tools/list")
        self.serve()
        cursor = sink.answer["result"]["nextCursor"]
        for method, given, principal in (
            ("prompts/list", cursor, None),
            ("tools/list", cursor, Principal(name="else")),
            ("tools/list", "made-up", None),
            ("tools/list", 7, None),
        ):
            more = {} if principal is None else {"principal": principal}
            error = self.assertRaises(RpcError, self.ask, method, {"cursor": given}, **more)
            self.assertEqual((error.code, error.reason), (-32602, "invalid_cursor"))


class TemplateTests(Case):
    """Resources that no list has, but a template."""

    def test_the_server_whose_template_fits_is_asked(self) -> None:
        """The one that says most, before those that are merely there; a template is its server's, too."""
        _, sink = self.ask("resources/templates/list")
        self.wire("a").answer({"resourceTemplates": [{"uriTemplate": "x://{any}"}]})
        self.wire("b").answer({"resourceTemplates": [{"uriTemplate": "x://b/{id}"}, {"uriTemplate": "x://{any}"}]})
        self.assertEqual(len(sink.answer["result"]["resourceTemplates"]), 2)
        for uri, server in (("x://b/7", "b"), ("x://c", "a"), ("x://b/{id}", "b")):
            _, sink = self.ask("resources/read", {"uri": uri}, id_=uri)
            self.wire(server).answer({"contents": [{"uri": uri}]})
            self.assertEqual(sink.answer["result"], {"contents": [{"uri": uri}]}, uri)

    def test_a_server_without_resources_does_not_say_that_one_is_missing(self) -> None:
        """The one that has some does, whichever is asked first."""
        for order in ("ab", "ba"):
            self.setUp()
            self.target = Target(tuple(order), True)
            _, sink = self.ask("resources/read", {"uri": "x://1"})
            for server in order:
                code = -32002 if server == "a" else -32601
                self.wire(server).answer(error={"code": code, "message": server})
            self.assertEqual(sink.answer["error"]["message"], "a", order)

    def test_if_it_does_not_know_the_others_are_asked(self) -> None:
        """A template is a promise of form only."""
        self.ask("resources/templates/list")
        self.wire("a").answer({"resourceTemplates": []})
        self.wire("b").answer({"resourceTemplates": [{"uriTemplate": "x://{any}"}]})
        _, sink = self.ask("resources/read", {"uri": "x://1"})
        self.wire("b").answer(error={"code": -32002, "message": "no"})
        self.wire("a").answer({"contents": []})
        self.assertEqual(sink.answer["result"], {"contents": []})
