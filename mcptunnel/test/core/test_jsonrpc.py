"""Tests for mcptunnel.core.jsonrpc: places of members, kinds of messages, what two parsers could read differently."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import INVALID_REQUEST, PARSE_ERROR, RpcError, UpstreamError
from mcptunnel.core.jsonrpc import Message, decode, error_reply, loads, members, result_reply, splice

# Text of any kind but lone surrogates, which no UTF-8 holds.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def spelled_keys(draw: Any) -> str:
    """A key from a small alphabet, each letter plain or escaped, so that one name has many spellings."""
    name = draw(st.text('ab"\\/é', max_size=3))
    return '"' + "".join(_letter(c, draw(st.booleans())) for c in name) + '"'


def _letter(char: str, escaped: bool) -> str:
    if escaped:
        return f"\\u{ord(char):04X}"
    return "\\" + char if char in '"\\' else char


@st.composite
def objects(draw: Any) -> str:
    """The text of an object with any white space, any values, and perhaps a key twice."""
    pairs = draw(st.lists(st.tuples(spelled_keys(), VALUES), max_size=5))
    gap = lambda: draw(SPACE)  # noqa: E731
    inner = ",".join(
        f"{gap()}{key}{gap()}:{gap()}{json.dumps(value, ensure_ascii=draw(st.booleans()))}{gap()}"
        for key, value in pairs
    )
    return f"{gap()}{{{inner or gap()}}}{gap()}"


def pairs_of(text: bytes) -> list[tuple[str, Any]]:
    """What the standard library reads, duplicates included."""
    found: list[tuple[str, Any]] = []

    def top(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found[:] = pairs
        return dict(pairs)

    json.loads(text, object_pairs_hook=top)
    return found


def refusal(raw: bytes) -> RpcError:
    """The error with which ``raw`` is refused."""
    try:
        message = decode(raw)
    except RpcError as e:
        return e
    raise AssertionError(f"accepted as {message}: {raw!r}")


class MembersTests(SynchronousTestCase):
    """Where the members of an object are, or that it cannot be said."""

    @settings(deadline=None, max_examples=120)
    @given(objects())
    def test_every_span_is_what_the_standard_library_reads_and_a_key_twice_is_refused(self, text: str) -> None:
        """The oracle is json.loads with all pairs."""
        raw = text.encode()
        pairs = pairs_of(raw)
        if len({name for name, _ in pairs}) < len(pairs):
            self.assertRaises(ValueError, members, raw)
        else:
            spans = members(raw)
            self.assertEqual([(name, json.loads(raw[a:b])) for name, (a, b) in spans.items()], pairs)

    def test_a_key_twice_is_refused_however_it_is_spelled(self) -> None:
        """Escapes, lengths and nesting do not hide the second one."""
        for text in (
            b'{"a":1,"a":1}',
            b'{"a":1,"a":2}',
            b'{"a":1,"\\u0061":2}',
            b'{"\\u0061":1,"a":2}',
            b'{"a":11,"b":2,"a":3}',
            b'{"a":1,"b":2,"a":33}',
            b'{"a":"x","b":1,"a":"longer"}',
            b'{"a":{"b":1},"a":{"b":1}}',
            b'{"":1,"":2}',
            b'{"a\\/b":1,"a/b":2}',
            b'{"a":1, "a" : {}}',
        ):
            self.assertRaises(ValueError, members, text)

    def test_a_value_laid_out_so_that_the_walk_goes_on_inside_it_is_refused(self) -> None:
        """By lengths alone this reads as two members; a parser sees the key a twice."""
        self.assertRaises(ValueError, members, b'{"a":1,"b":12,"a":{"x":0,      "b":1}}')

    @settings(deadline=None, max_examples=100)
    @given(st.integers(0, 12), st.integers(0, 14), st.sampled_from([b"1", b"12", b"123", b'"x"', b"{}"]), st.data())
    def test_no_amount_of_padding_hides_a_second_key(self, pad: int, more: int, last: bytes, data: Any) -> None:
        """Every layout near the one above."""
        first = data.draw(st.sampled_from([b"1", b"12", b'"x"', b"{}", b"[1]", b'{"b":1}']))
        inner = data.draw(st.sampled_from([b'"x":0', b'"x":00'[:5], b'"b":1', b'"y":"}"']))
        raw = b'{"a":%b,%b"b":%b,"a":{%b,%b"b":1}}' % (first, b" " * more, last, inner, b" " * pad)
        self.assertRaises(ValueError, members, raw)

    def test_what_only_looks_like_a_second_key_is_none(self) -> None:
        """The same name inside a value or a string is somebody else's."""
        for text in (b'{"a":{"a":1}}', b'{"a":"\\"a\\":1","b":"a"}', b'{"a":[{"a":1},{"a":2}],"b":{"a":0}}'):
            self.assertEqual(set(members(text)), {name for name, _ in pairs_of(text)})

    def test_an_empty_object_has_no_members(self) -> None:
        """With white space anywhere."""
        self.assertEqual(members(b" { \n } "), {})

    def test_what_is_not_one_object_has_no_members(self) -> None:
        """Arrays, scalars, two values, nothing."""
        for text in (b"", b"[]", b"1", b"null", b'{"a":1}{"b":2}', b'{"a":1}x', b'{"a":1,}', b'{"a"}', b"{" * 9999):
            self.assertRaises(ValueError, members, text)

    def test_nesting_without_end_is_a_value_error(self) -> None:
        """Not a RecursionError."""
        deep = b"[" * 100_000 + b"]" * 100_000
        self.assertRaises(ValueError, members, b'{"a":%b}' % deep)
        self.assertRaises(ValueError, loads, deep)


class SpliceTests(SynchronousTestCase):
    """Changing some bytes and no others."""

    @settings(deadline=None, max_examples=80)
    @given(
        objects().filter(lambda t: len({n for n, _ in pairs_of(t.encode())}) == len(pairs_of(t.encode()))), st.data()
    )
    def test_all_bytes_outside_the_spans_survive(self, text: str, data: Any) -> None:
        """Replacing values and putting them back gives the same text."""
        raw = text.encode()
        spans = members(raw)
        chosen = data.draw(st.lists(st.sampled_from(sorted(spans)), unique=True)) if spans else []
        changed = splice(raw, [(spans[name], b'"new"') for name in chosen])
        expected = [(name, "new" if name in chosen else value) for name, value in pairs_of(raw)]
        self.assertEqual(pairs_of(changed), expected)
        after = members(changed)
        back = splice(changed, [(after[name], raw[spans[name][0] : spans[name][1]]) for name in chosen])
        self.assertEqual(back, raw)

    def test_edits_may_come_in_any_order(self) -> None:
        """They are sorted by place."""
        self.assertEqual(splice(b"abcdef", [((4, 5), b"E"), ((0, 2), b""), ((3, 3), b"+")]), b"c+dEf")

    def test_no_edits_change_nothing(self) -> None:
        """Not even the object."""
        self.assertEqual(splice(b'{"a": 1.0e0}', []), b'{"a": 1.0e0}')


class DecodeTests(SynchronousTestCase):
    """One message, its kind and its id."""

    def test_kinds(self) -> None:
        """What is there decides the kind."""
        for raw, kind, id_, method in (
            (b'{"jsonrpc":"2.0","id":1,"method":"a"}', "request", 1, "a"),
            (b'{"jsonrpc":"2.0","method":"a"}', "notification", None, "a"),
            (b'{"jsonrpc":"2.0","id":"x","result":{}}', "result", "x", None),
            (b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}', "error", 1, None),
            (b'{"jsonrpc":"2.0","id":null,"error":{}}', "error", None, None),
            (b' {"extra":[1], "method":"a\\u0062" ,"id": "1","jsonrpc":"2.0"}\n', "request", "1", "ab"),
        ):
            message = decode(raw)
            self.assertEqual((message.kind, message.id, message.method), (kind, id_, method))
            self.assertEqual(message.raw, raw)

    def test_an_id_keeps_its_spelling(self) -> None:
        """What the client wrote is what it reads."""
        for spelling, value in (
            (b"1", 1),
            (b'"1"', "1"),
            (b"-0", 0),
            (b"9007199254740993", 2**53 + 1),
            (b"9" * 39, int("9" * 39)),
            (b'"\\u0031"', "1"),
            (b'""', ""),
        ):
            message = decode(b'{"jsonrpc":"2.0","id": %b ,"method":"a"}' % spelling)
            self.assertEqual((message.id, type(message.id)), (value, type(value)))
            self.assertEqual(message.id_raw, spelling)

    def test_ids_that_are_neither_strings_nor_integers_are_refused(self) -> None:
        """MCP forbids null and fractions; an integer of forty digits is no id but an attack."""
        for spelling in (b"null", b"1.5", b"1.0", b"1e3", b"true", b"[]", b"{}", b"9" * 40):
            for rest in (b'"method":"a"', b'"result":{}'):
                error = refusal(b'{"jsonrpc":"2.0","id":%b,%b}' % (spelling, rest))
                self.assertEqual((error.code, error.reason), (INVALID_REQUEST, "invalid_id"))

    def test_what_is_not_json_is_a_parse_error(self) -> None:
        """Also where only a value that nobody looks at is broken."""
        for broken in (
            b"",
            b"{",
            b'{"jsonrpc":"2.0","id":1,"method":"a"}x',
            b'{"jsonrpc":"2.0","id":1,"method":"a"}\x00',
            b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"a"}',
            '{"jsonrpc":"2.0","id":1,"method":"a"}'.encode("utf-16"),
            *(
                b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"k":[%b]}}' % value
                for value in (
                    *(b'"a%cb"' % code for code in range(0x20)),
                    b'"\xff"',
                    b'"\xed\xa0\x80"',
                    b'"\xc0\xaf"',
                    b'"\\x"',
                    b'"\\u12"',
                    b"01",
                    b"1.",
                    b".5",
                    b"+1",
                    b"0x1",
                    b"NaN",
                    b"Infinity",
                    b"'a'",
                    b"1,",
                    b"tru",
                )
            ),
        ):
            self.assertEqual(refusal(broken).code, PARSE_ERROR, broken)

    def test_a_lone_surrogate_is_refused_wherever_it_is(self) -> None:
        """Parsers disagree about it (RFC 8259 section 8.2), and UTF-8 cannot hold it; a pair is a letter."""
        template = b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"k":"%b"}}'
        for half in (b"\\ud800", b"\\uDC00", b"\\ud800x", b"\\udc00\\ud800"):
            self.assertEqual(refusal(template % half).code, PARSE_ERROR)
        self.assertEqual(decode(template % b"\\ud83d\\ude00").param("k"), "\N{GRINNING FACE}")

    def test_json_that_is_no_message_is_an_invalid_request(self) -> None:
        """Batches too: one body, one message."""
        for raw in (
            b"[]",
            b'[{"jsonrpc":"2.0","id":1,"method":"a"}]',
            b"1",
            b'"x"',
            b"null",
            b"{}",
            b'{"id":1,"method":"a"}',
            b'{"jsonrpc":"1.0","id":1,"method":"a"}',
            b'{"jsonrpc":2.0,"id":1,"method":"a"}',
            b'{"jsonrpc":"2.0","id":1}',
            b'{"jsonrpc":"2.0","id":1,"method":5}',
            b'{"jsonrpc":"2.0","id":1,"method":1e999}',
            b'{"jsonrpc":"2.0","id":1,"method":null}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","result":{}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","error":{}}',
            b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
            b'{"jsonrpc":"2.0","result":{}}',
            b'{"jsonrpc":"2.0","error":{}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","id":2}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","\\u006dethod":"b"}',
        ):
            error = refusal(raw)
            self.assertEqual((error.code, error.status), (INVALID_REQUEST, 400), raw)

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=40) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass")))
    def test_whatever_comes_it_is_a_message_or_an_rpc_error(self, raw: bytes) -> None:
        """Nothing else is ever raised."""
        with contextlib.suppress(RpcError):
            decode(raw)

    @settings(deadline=None, max_examples=80)
    @given(VALUES, st.sampled_from(["id", "method", "params", "jsonrpc", "error", "result"]))
    def test_any_value_in_any_place_is_a_message_or_an_rpc_error(self, value: Any, member: str) -> None:
        """So are requests with one member replaced."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "a", member: value}
        with contextlib.suppress(RpcError):
            message = decode(json.dumps(body).encode())
            message.param("a")
            message.meta()


class MessageTests(SynchronousTestCase):
    """Looking into a message, and changing it."""

    raw = b'{ "jsonrpc":"2.0", "params" : {"n":1.50,"_meta":{"t": "x" },"big":1e999}, "id" : "q", "method":"m" }'

    def test_spans_inside_are_spans_of_the_message(self) -> None:
        """Offsets count from its beginning."""
        message = decode(self.raw)
        start, end = message.params["n"]
        self.assertEqual(message.raw[start:end], b"1.50")
        start, end = message.meta()["t"]
        self.assertEqual(message.raw[start:end], b'"x"')
        self.assertEqual(message.at(message.meta()["t"]), "x")

    def test_what_is_not_there_is_none_or_empty(self) -> None:
        """Without params there is no _meta either."""
        message = decode(b'{"jsonrpc":"2.0","id":1,"method":"m"}')
        self.assertEqual(
            (message.params, message.meta(), message.param("a"), message.value("params")), ({}, {}, None, None)
        )
        self.assertEqual(decode(b'{"jsonrpc":"2.0","method":"m"}').id_raw, b"null")

    def test_params_that_are_no_object_or_ambiguous_are_refused(self) -> None:
        """The refusal says where."""
        for params in (b"[]", b"null", b"1", b'{"name":"a","name":"b"}', b'{"name":"a","\\u006eame":"b"}'):
            message = decode(b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % params)
            error = self.assertRaises(RpcError, lambda message=message: message.params)
            self.assertEqual((error.code, error.reason), (INVALID_REQUEST, "malformed_params"))
            self.assertIn("params: ", error.message)
        message = decode(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"a":1,"a":1}}}')
        self.assertIn("params._meta: ", self.assertRaises(RpcError, message.meta).message)

    def test_a_number_beyond_all_bounds_refuses_the_message_that_needs_it(self) -> None:
        """It passes where nobody looks, and is no crash where somebody does."""
        message = decode(self.raw)
        self.assertEqual(self.assertRaises(RpcError, message.param, "big").code, INVALID_REQUEST)

    def test_only_strings_and_integers_are_ids(self) -> None:
        """true is not 1, and 1.0 is not 1: a cancellation must name its request."""
        for text, expected in (
            (b"1", 1),
            (b'"1"', "1"),
            (b"true", None),
            (b"1.0", None),
            (b"[1]", None),
            (b"null", None),
        ):
            message = decode(b'{"jsonrpc":"2.0","method":"m","params":{"requestId":%b}}' % text)
            found = message.id_at(message.params["requestId"])
            self.assertEqual((found, type(found)), (expected, type(expected)))
        self.assertIsNone(message.id_at(None))

    def test_another_id_leaves_everything_else_as_it_was(self) -> None:
        """White space, order and number spelling."""
        self.assertEqual(decode(self.raw).with_id(b"17"), self.raw.replace(b'"q"', b"17"))

    def test_a_message_shows_no_payload(self) -> None:
        """Arguments may be secret."""
        message = decode(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"password":"hunter2"}}')
        self.assertEqual(repr(message), "<Message request m id=1 69 bytes>")
        self.assertIsInstance(message, Message)


class ReplyTests(SynchronousTestCase):
    """Replies that we write ourselves."""

    def test_an_error_reply(self) -> None:
        """Under the client's id in its spelling, with data where there is some."""
        self.assertEqual(
            error_reply(RpcError(-32601, 'no "x"'), b'"1"'),
            b'{"jsonrpc":"2.0","id":"1","error":{"code":-32601,"message":"no \\"x\\""}}',
        )
        self.assertEqual(
            json.loads(error_reply(UpstreamError(-32022, "v", data={"supported": []}), None)),
            {"jsonrpc": "2.0", "id": None, "error": {"code": -32022, "message": "v", "data": {"supported": []}}},
        )

    def test_a_result_reply(self) -> None:
        """The result goes in as it is."""
        self.assertEqual(result_reply(b"7", b'{"a": 1}'), b'{"jsonrpc":"2.0","id":7,"result":{"a": 1}}')
