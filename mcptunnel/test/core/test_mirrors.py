"""Tests for mcptunnel.core.mirrors: arguments that headers repeat (MCP 2026-07-28, "Custom headers")."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import HEADER_MISMATCH, RpcError
from mcptunnel.core.mirrors import Mirror, check, lines, mirrors


def one(kind: Any = "string", token: Any = "Region", **more: Any) -> dict[str, Any]:
    """A property that a header repeats."""
    return {"type": kind, "x-mcp-header": token, **more}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


class SchemaTests(SynchronousTestCase):
    """Which annotations are sound."""

    def test_sound_ones_are_found_wherever_properties_alone_lead(self) -> None:
        """In the order of the schema."""
        found = mirrors(
            schema(a=one(), b={"type": "object", "properties": {"c": one("integer", "N")}}, d=one("boolean", "Ok!"))
        )
        self.assertEqual(
            found,
            (
                Mirror("Mcp-Param-Region", ("a",), False),
                Mirror("Mcp-Param-N", ("b", "c"), True),
                Mirror("Mcp-Param-Ok!", ("d",), False),
            ),
        )

    def test_a_schema_without_any_repeats_nothing(self) -> None:
        """Nor one that is none."""
        odd: tuple[Any, ...] = ({}, None, [], "x", {"properties": 1}, {"properties": []}, schema(a=True, b=None, c=1))
        for value in odd:
            self.assertEqual(mirrors(value), (), value)

    def test_one_that_is_not_as_it_must_be_spoils_all(self) -> None:
        """Clients drop such a tool, so nobody sends its headers."""
        bad: tuple[Any, ...] = (
            *(one(kind) for kind in ("number", "object", "array", "null", None, ["string"], {"a": 1})),
            *(one(token=token) for token in ("", "a b", "a:b", "a\n", "é", "a(b", None, 5, ["x"])),
            one(token="regioN"),
            {"type": "array", "items": one(token="x")},
            {"anyOf": [one(token="x")]},
            {"type": "object", "additionalProperties": one(token="x")},
            {"type": "object", "patternProperties": {".": one(token="x")}},
            {"if": {"properties": {"z": one(token="x")}}},
        )
        for value in bad:
            self.assertEqual(mirrors(schema(good=one(), bad=value)), (), value)
        self.assertEqual(mirrors({**schema(good=one()), "$defs": {"a": one(token="x")}}), ())
        self.assertEqual(mirrors({**schema(good=one()), "x-mcp-header": "root"}), ())

    def test_names_and_values_are_no_annotations(self) -> None:
        """A property may be called so, and a default may hold anything."""
        found = mirrors(
            schema(
                **{"x-mcp-header": {"type": "string"}, "default": one(token="D"), "properties": one(token="P")},
                a={"default": one(), "examples": [one()], "const": one(), "enum": [one()]},
            )
        )
        self.assertEqual([mirror.path for mirror in found], [("default",), ("properties",)])

    def test_depth_is_bounded(self) -> None:
        """Schemas are untrusted; the deepest that counts is found."""
        for depth, found in ((31, 1), (32, 0), (400, 0)):
            deep: Any = schema(a=one())
            for _ in range(depth):
                deep = schema(a=deep)
            self.assertEqual(len(mirrors(deep)), found, depth)


class LinesTests(SynchronousTestCase):
    """Written for a server."""

    def test_values_are_shown_as_headers_want_them(self) -> None:
        """Encoded where they could not travel as they are; nothing for null and for what is not there."""
        wanted = mirrors(schema(v=one()))
        for value, shown in (
            ("eu-1", b"eu-1"),
            ("", b""),
            ("é", b"=?base64?w6k=?="),
            (" a", b"=?base64?IGE=?="),
            ("a\r\nX: y", b"=?base64?YQ0KWDogeQ==?="),
            ("=?base64?YQ==?=", b"=?base64?PT9iYXNlNjQ/WVE9PT89?="),
            (True, b"true"),
            (False, b"false"),
            (0, b"0"),
            (-7, b"-7"),
        ):
            self.assertEqual(lines(wanted, {"v": value}), ((b"Mcp-Param-Region", shown),))
        odd: tuple[Any, ...] = ({"v": None}, {}, None, [], "v", {"v": {}}, {"v": []})
        for arguments in odd:
            self.assertEqual(lines(wanted, arguments), ())

    def test_arguments_within_arguments(self) -> None:
        """Along the path, as far as there is one."""
        wanted = mirrors(schema(a=schema(b=one())))
        self.assertEqual(lines(wanted, {"a": {"b": "x"}}), ((b"Mcp-Param-Region", b"x"),))
        odd: tuple[Any, ...] = ({"a": None}, {"a": "b"}, {"a": {}}, {"b": "x"})
        for arguments in odd:
            self.assertEqual(lines(wanted, arguments), ())


class CheckTests(SynchronousTestCase):
    """Read for a server."""

    def refused(self, kind: str, value: Any, *headers: bytes) -> str | None:
        found = mirrors(schema(v=one(kind)))
        try:
            check(found, [(b"mcp-param-region", header) for header in headers], {} if value is None else {"v": value})
        except RpcError as e:
            self.assertEqual((e.code, e.status), (HEADER_MISMATCH, 400))
            return e.message
        return None

    def test_a_header_that_says_what_the_body_says_is_accepted(self) -> None:
        """Strings exactly, once decoded; integers as numbers."""
        for kind, value, header in (
            ("string", "eu", b"eu"),
            ("string", "é", b"=?base64?w6k=?="),
            ("string", "eu", b"=?base64?ZXU=?="),
            ("string", "", b""),
            ("boolean", True, b"true"),
            ("boolean", False, b"false"),
            ("integer", 42, b"42"),
            ("integer", 42, b"42.0"),
            ("integer", 42.0, b"42"),
            ("integer", 42, b"042"),
            ("integer", -1, b"-1.00"),
            ("integer", 10**30, str(10**30).encode()),
        ):
            self.assertIsNone(self.refused(kind, value, header), (value, header))
        self.assertIsNone(self.refused("string", None))

    def test_one_that_does_not_is_refused(self) -> None:
        """Values are case-sensitive, and numbers only where the schema says so."""
        for kind, value, header in (
            ("string", "eu", b"EU"),
            ("string", "eu", b"us"),
            ("string", "1", b"1.0"),
            ("string", "é", "é".encode("latin-1")),
            ("string", "eu", b"=?base64?ZXU?="),
            ("string", "eu", b"=?base64?!?="),
            ("boolean", True, b"True"),
            ("boolean", True, b"1"),
            ("integer", 42, b"43"),
            ("integer", 42, b"42.5"),
            ("integer", 42.5, b"42"),
            ("integer", 1, b"true"),
            ("integer", "1", b"1.0"),
            ("integer", 42, b""),
            ("integer", 42, b"9" * 5000),
            ("integer", 42, "४२".encode()),
        ):
            self.assertIn("differs", self.refused(kind, value, header) or "", (value, header))

    def test_presence_must_agree(self) -> None:
        """Null is absence; twice is too often, even if both are right."""
        self.assertIn("missing", self.refused("string", "eu") or "")
        self.assertIn("is present", self.refused("string", None, b"eu") or "")
        self.assertIn("more than once", self.refused("string", "eu", b"eu", b"eu") or "")
        found = mirrors(schema(v=one()))
        check(found, [(b"mcp-param-other", b"x")], {"v": None})
        self.assertRaises(RpcError, check, found, [(b"mcp-param-region", b"x")], {"v": None})

    def test_the_message_names_the_header_and_the_argument_but_no_value(self) -> None:
        """Arguments may be secret."""
        message = self.refused("string", "hush", b"secret") or ""
        self.assertIn("Mcp-Param-Region", message)
        self.assertIn("'v'", message)
        self.assertNotIn("hush", message)
        self.assertNotIn("secret", message)
