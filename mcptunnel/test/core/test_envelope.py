"""Tests for mcptunnel.core.envelope: what is put on and taken off, and the bytes that are left alone."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.envelope import complete, legacy_request, member, modern_request, put, rebuilt, with_visit
from mcptunnel.core.errors import RpcError
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.mcp import CAPABILITIES_KEY, INFO_KEY, LEVEL_KEY, SERVER_KEY, VERSION_KEY, check_headers
from mcptunnel.testing import request, response


class ModernTests(SynchronousTestCase):
    """A legacy request for a server of 2026-07-28."""

    def modern(self, raw: bytes, level: bytes | None = None, **more: bytes) -> Any:
        made = modern_request(decode(raw), b'{"roots":{}}', b'{"name":"c"}', level, more)
        check_headers(decode(made), None)
        return json.loads(made)

    def test_the_envelope_is_put_on(self) -> None:
        """Also on a request without params, and without a level where none is wanted."""
        whole = {VERSION_KEY: "2026-07-28", CAPABILITIES_KEY: {"roots": {}}, INFO_KEY: {"name": "c"}}
        bare: tuple[Any, ...] = (None, {}, {"_meta": {}})
        for params in bare:
            self.assertEqual(self.modern(request("tools/list", 1, params))["params"], {"_meta": whole})
        body = self.modern(request("tools/list"), b'"info"')
        self.assertEqual(body["params"]["_meta"], {**whole, LEVEL_KEY: "info"})

    def test_an_envelope_that_was_there_does_not_count(self) -> None:
        """Whatever its spelling: the session says who the client is and what it can do."""
        raw = (
            b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"io.modelcontextprotocol/client\\u0049nfo":"x",'
            b'"%b":"debug","mine":1.0}}}' % LEVEL_KEY.encode()
        )
        meta = self.modern(raw)["params"]["_meta"]
        self.assertEqual((meta[INFO_KEY], meta["mine"], LEVEL_KEY in meta), ({"name": "c"}, 1.0, False))

    def test_a_client_that_has_not_said_who_it_is_is_nobody(self) -> None:
        """No name is made up."""
        made = modern_request(decode(request("m")), b"{}", None, None, {})
        self.assertNotIn(INFO_KEY, json.loads(made)["params"]["_meta"])

    def test_answers_are_those_of_this_round_only(self) -> None:
        """What the client itself wrote there is no answer."""
        raw = request("tools/call", 1, {"name": "t", "requestState": "old", "inputResponses": {"k": 0}})
        self.assertNotIn("requestState", self.modern(raw)["params"])
        params = self.modern(raw, inputResponses=b'{"k":1}', requestState=b'"new"')["params"]
        self.assertEqual((params["name"], params["inputResponses"], params["requestState"]), ("t", {"k": 1}, "new"))

    def test_everything_else_keeps_its_bytes(self) -> None:
        """Numbers, escapes and unknown members."""
        raw = b'{"jsonrpc":"2.0","method":"m", "x":1.00,"params":{"arguments":{"n":1.0e1, "s":"\\u0061"}},"id":1}'
        made = modern_request(decode(raw), b"{}", None, None, {})
        for piece in (b'"x":1.00', b'"arguments":{"n":1.0e1, "s":"\\u0061"}', b'"id":1}'):
            self.assertIn(piece, made)

    def test_a_key_twice_is_refused(self) -> None:
        """Two readings of one envelope are none."""
        raw = b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"a":1,"\\u0061":2}}}'
        self.assertRaises(RpcError, self.modern, raw)


class LegacyTests(SynchronousTestCase):
    """A request of 2026-07-28 for a legacy server."""

    def test_the_envelope_is_taken_off(self) -> None:
        """With it goes an empty _meta; the token of progress stays."""
        self.assertEqual(json.loads(legacy_request(decode(request("tools/list", modern=True))))["params"], {})
        params = {"name": "t", "_meta": {"progressToken": 1, "traceparent": "x", LEVEL_KEY: "info"}}
        made = json.loads(legacy_request(decode(request("tools/call", 1, params, modern=True))))
        self.assertEqual(made["params"], {"name": "t", "_meta": {"progressToken": 1, "traceparent": "x"}})

    def test_what_a_retry_brings_is_taken_off(self) -> None:
        """No legacy server knows it."""
        raw = request("tools/call", 1, {"name": "t", "requestState": "s", "inputResponses": {}})
        self.assertEqual(json.loads(legacy_request(decode(raw)))["params"], {"name": "t"})

    def test_a_request_without_envelope_is_left_alone(self) -> None:
        """Byte for byte."""
        for raw in (request("m"), b'{ "jsonrpc":"2.0","id":1,"method":"m","params":{ "_meta":{} , "a":1.0} }'):
            self.assertEqual(legacy_request(decode(raw)), raw)


class CompleteTests(SynchronousTestCase):
    """A legacy result for a client of 2026-07-28."""

    def complete(self, result: bytes, method: str = "tools/call", server: bytes | None = b'{"name":"s"}') -> Any:
        made = complete(decode(b'{"jsonrpc":"2.0","result":%b,"id":1}' % result), method, server)
        decode(made).inside(decode(made).spans["result"], "result")
        return json.loads(made)["result"]

    def test_it_is_complete_and_says_whose_it_is(self) -> None:
        """With or without members, with or without _meta."""
        mark = {SERVER_KEY: {"name": "s"}}
        self.assertEqual(self.complete(b"{ }"), {"resultType": "complete", "_meta": mark})
        self.assertEqual(self.complete(b'{"a":{"b":{}} }'), {"a": {"b": {}}, "resultType": "complete", "_meta": mark})
        for meta, more in ((b"{}", {}), (b'{ "x":1}', {"x": 1})):
            made = self.complete(b'{"_meta":%b}' % meta)
            self.assertEqual(made, {"_meta": {**mark, **more}, "resultType": "complete"})
        self.assertNotIn("_meta", self.complete(b"{}", server=None))

    def test_only_what_may_be_cached_says_that_it_must_not(self) -> None:
        """Lists and reads."""
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"):
            made = self.complete(b"{}", method)
            self.assertEqual((made["ttlMs"], made["cacheScope"]), (0, "private"), method)
        for method in ("tools/call", "prompts/get", "completion/complete"):
            self.assertNotIn("ttlMs", self.complete(b"{}", method), method)

    def test_what_the_server_has_said_itself_stays(self) -> None:
        """Each once."""
        said = {"resultType": "task", "ttlMs": 5, "cacheScope": "public", "_meta": {SERVER_KEY: "me"}}
        self.assertEqual(self.complete(json.dumps(said).encode(), "tools/list"), said)

    def test_a_result_that_is_no_result_is_refused(self) -> None:
        """As what is caught on the way of answers."""
        for result in (b"[]", b"null", b'"x"', b'{"a":1,"a":2}', b'{"_meta":null}', b'{"_meta":{"a":1,"a":2}}'):
            self.assertRaises(RpcError, self.complete, result)


class PiecesTests(SynchronousTestCase):
    """What the above is made of."""

    def test_put_replaces_or_adds_params(self) -> None:
        """And leaves the rest alone."""
        for before, after in (
            (b'{"jsonrpc":"2.0","id":1,"method":"m" } ', b'{"jsonrpc":"2.0","id":1,"method":"m" ,"params":[1]} '),
            (b'{"params":{},"jsonrpc":"2.0","method":"m"}', b'{"params":[1],"jsonrpc":"2.0","method":"m"}'),
        ):
            self.assertEqual(put(decode(before), b"[1]"), after)

    def test_rebuilt_leaves_out_and_adds(self) -> None:
        """A new value takes the place of the old."""
        raw = b'{"a": 1.0,"b":2,"c":3}'
        spans = {"a": (6, 9), "b": (14, 15), "c": (20, 21)}
        self.assertEqual(rebuilt(raw, spans, frozenset("b"), {"c": b"4"}), b'{"a":1.0,"c":4}')
        self.assertEqual(rebuilt(b"", {}, frozenset(), {}), b"{}")

    def test_a_member_of_a_result_is_found(self) -> None:
        """None where there is none."""
        reply = decode(response(1, {"a": [1]}))
        self.assertEqual((member(reply, "a"), member(reply, "b")), ([1], None))


class VisitTests(SynchronousTestCase):
    """Questions of servers of 2026-07-28 that lead a legacy client to a page."""

    def test_a_visit_gets_the_name_that_older_clients_demand(self) -> None:
        """Everything else keeps its bytes."""
        params = b'{"mode": "url","url":"https://example.com/","message":"caf\\u00e9", "x": 1.0}'
        self.assertEqual(
            with_visit(params, b'"7"'),
            b'{"mode":"url","url":"https://example.com/","message":"caf\\u00e9","x":1.0,"elicitationId":"7"}',
        )

    def test_what_is_no_visit_or_has_a_name_stays(self) -> None:
        """Forms, other questions, what cannot be read."""
        for params in (
            b'{"mode":"form","message":"m","requestedSchema":{}}',
            b'{"message":"m"}',
            b'{"mode":"url","elicitationId":"theirs"}',
            b'{"messages":[]}',
            b"[]",
        ):
            self.assertEqual(with_visit(params, b'"7"'), params)
