"""Tests for mcptunnel.core.mcp: eras, envelopes, and headers that must agree with the body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_VERSION,
    RpcError,
)
from mcptunnel.core.jsonrpc import Message, decode
from mcptunnel.core.mcp import (
    CAPABILITIES_KEY,
    LEGACY_VERSIONS,
    SUBSCRIPTION_KEY,
    VERSION_KEY,
    HeaderLookup,
    check_headers,
    check_legacy_version,
    decode_header,
    encode_header,
    era_of_message,
    era_of_request,
    subject,
    subscription_span,
)
from mcptunnel.testing import notification, request, response

MODERN = "2026-07-28"


def lookup(headers: Mapping[str, str | list[str]]) -> HeaderLookup:
    """Header lines as the site hands them out: names in lower case, white space trimmed."""
    lines = {name.lower(): [v] if isinstance(v, str) else v for name, v in headers.items()}
    return lambda name: [value.encode("latin-1") for value in lines.get(name.decode("ascii"), [])]


def call(**params: Any) -> Message:
    """A modern tools/call."""
    return decode(request("tools/call", 1, {"name": "add", **params}, modern=True))


GOOD = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "add"}


class HeaderValueTests(SynchronousTestCase):
    """How a value travels in a header."""

    @settings(deadline=None, max_examples=100)
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    def test_every_value_comes_back(self, value: str) -> None:
        """In bytes that any header line may have."""
        line = encode_header(value)
        self.assertRegex(line, r"\A(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?\Z")
        self.assertEqual(decode_header(line.encode("ascii")), value)

    def test_plain_values_stay_as_they_are(self) -> None:
        """And all others are wrapped."""
        for plain in ("add", "file:///a b", "", "=?base64?", "100%"):
            self.assertEqual(encode_header(plain), plain)
        for value, line in (
            ("é", "=?base64?w6k=?="),
            (" a", "=?base64?IGE=?="),
            ("a\n", "=?base64?YQo=?="),
            ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
        ):
            self.assertEqual(encode_header(value), line)

    def test_malformed_wrappings_are_no_value(self) -> None:
        """Not canonical, not Base64, not UTF-8, not ASCII."""
        for line in (
            b"=?base64?YQ=?=",
            b"=?base64?YQ?=",
            b"=?base64?YR==?=",
            b"=?base64?Y Q==?=",
            b"=?base64?-_8=?=",
            b"=?base64?/w==?=",
            b"=?base64?!?=",
            b"caf\xe9",
        ):
            self.assertIsNone(decode_header(line), line)
        self.assertEqual(decode_header(b"=?base64??="), "")


class EraTests(SynchronousTestCase):
    """Which rules a message travels under."""

    def test_the_envelope_decides_where_there_are_no_headers(self) -> None:
        """A legacy date in it means legacy; initialize and replies always do."""
        for raw, era in (
            (request("tools/list"), "legacy"),
            (request("tools/list", 1, {}), "legacy"),
            (request("tools/list", 1, {"_meta": {"progressToken": 1}}), "legacy"),
            (request("tools/list", 1, {"_meta": {VERSION_KEY: "2025-06-18"}}), "legacy"),
            (request("tools/list", 1, {"_meta": {VERSION_KEY: 7}}), "legacy"),
            (request("initialize", 1, {"_meta": {VERSION_KEY: MODERN}}), "legacy"),
            (response(1, {"_meta": {VERSION_KEY: MODERN}}), "legacy"),
            (request("tools/list", modern=True), "modern"),
            (request("tools/list", 1, {"_meta": {VERSION_KEY: "2099-01-01"}}), "modern"),
            (notification("notifications/x", {"_meta": {VERSION_KEY: MODERN}}), "modern"),
        ):
            self.assertEqual(era_of_message(decode(raw)), era, raw)

    def test_the_header_decides_over_http(self) -> None:
        """Whatever is no legacy date is modern, so that its refusal is a modern one."""
        for value, era in (
            *((v, "legacy") for v in LEGACY_VERSIONS),
            (MODERN, "modern"),
            ("1999-01-01", "modern"),
            ("", "modern"),
        ):
            headers = lookup({"MCP-Protocol-Version": value})
            self.assertEqual(era_of_request(headers, None), era)
            self.assertEqual(era_of_request(headers, call()), era)

    def test_without_the_header_a_request_is_legacy(self) -> None:
        """Unless its body says otherwise: then the header is missing."""
        self.assertEqual(era_of_request(lookup({}), None), "legacy")
        self.assertEqual(era_of_request(lookup({}), decode(request("tools/list"))), "legacy")
        error = self.assertRaises(RpcError, era_of_request, lookup({}), call())
        self.assertEqual((error.code, error.status), (HEADER_MISMATCH, 400))

    def test_two_headers_are_refused(self) -> None:
        """Even when they agree: somebody else might read the other."""
        headers = lookup({"MCP-Protocol-Version": ["2025-06-18", "2025-06-18"]})
        error = self.assertRaises(RpcError, era_of_request, headers, None)
        self.assertEqual((error.code, error.status), (HEADER_MISMATCH, 400))

    def test_a_legacy_revision_that_is_unknown_is_refused(self) -> None:
        """Absent is fine (2025-03-26 had no such header)."""
        check_legacy_version(lookup({}))
        for version in LEGACY_VERSIONS:
            check_legacy_version(lookup({"MCP-Protocol-Version": version}))
        for value in ("2025-06-19", "x", ""):
            error = self.assertRaises(RpcError, check_legacy_version, lookup({"MCP-Protocol-Version": value}))
            self.assertEqual((error.code, error.status, error.reason), (INVALID_REQUEST, 400, "unsupported_version"))


class CheckTests(SynchronousTestCase):
    """The checks of a modern message, each code and status."""

    def refused(self, message: Message, headers: Mapping[str, Any] | None, code: int, status: int) -> RpcError:
        """The refusal of ``message``, which has ``code`` and ``status``."""
        error: RpcError = self.assertRaises(
            RpcError, check_headers, message, None if headers is None else lookup(headers)
        )
        self.assertEqual((error.code, error.status), (code, status), error.message)
        return error

    def test_a_request_whose_headers_agree_passes(self) -> None:
        """With names in any case, and wrapped or plain values."""
        check_headers(call(), lookup(GOOD))
        check_headers(call(), lookup({k.upper(): v for k, v in GOOD.items()}))
        check_headers(call(), lookup({**GOOD, "Mcp-Name": "=?base64?YWRk?="}))
        check_headers(call(name="é"), lookup({**GOOD, "Mcp-Name": "=?base64?w6k=?="}))
        check_headers(
            decode(request("tools/list", modern=True)),
            lookup({"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/list"}),
        )
        check_headers(call(), None)

    def test_each_header_must_be_there_once_and_agree(self) -> None:
        """Missing, different, different in case, malformed, twice."""
        for name, good in GOOD.items():
            self.refused(call(), {k: v for k, v in GOOD.items() if k != name}, HEADER_MISMATCH, 400)
            for value in ("other", good.upper() + "x", "", [good, good], "=?base64?!?="):
                self.refused(call(), {**GOOD, name: value}, HEADER_MISMATCH, 400)
        self.refused(call(), {**GOOD, "Mcp-Method": "Tools/call"}, HEADER_MISMATCH, 400)
        self.refused(call(), {**GOOD, "Mcp-Name": "Add"}, HEADER_MISMATCH, 400)

    def test_the_name_is_that_of_the_method(self) -> None:
        """params.name for tools and prompts, params.uri for resources, nothing for lists."""
        for method, params, name in (
            ("tools/call", {"name": "n", "uri": "u"}, "n"),
            ("prompts/get", {"name": "n", "uri": "u"}, "n"),
            ("resources/read", {"name": "n", "uri": "u"}, "u"),
            ("tools/list", {"name": "n"}, None),
        ):
            message = decode(request(method, 1, params, modern=True))
            self.assertEqual(subject(message), name)
            headers = {**GOOD, "Mcp-Method": method, "Mcp-Name": name or "whatever"}
            check_headers(message, lookup(headers))

    def test_a_name_that_is_no_string_is_an_invalid_parameter(self) -> None:
        """There is nothing that a header could agree with."""
        for params in ({}, {"name": 5}, {"name": None}, {"name": ["add"]}):
            message = decode(request("tools/call", 1, params, modern=True))
            self.refused(message, GOOD, INVALID_PARAMS, 400)

    def test_the_envelope_must_be_complete(self) -> None:
        """Revision and capabilities, on every transport."""
        metas: tuple[dict[str, Any], ...] = (
            {},
            {CAPABILITIES_KEY: {}},
            {VERSION_KEY: 3, CAPABILITIES_KEY: {}},
            {VERSION_KEY: MODERN},
            {VERSION_KEY: MODERN, CAPABILITIES_KEY: None},
            {VERSION_KEY: MODERN, CAPABILITIES_KEY: []},
        )
        for meta in metas:
            message = decode(request("tools/call", 1, {"name": "add", "_meta": meta}))
            for headers in (GOOD, None):
                self.refused(message, headers, INVALID_PARAMS, 400)

    def test_an_unknown_revision_names_those_we_know(self) -> None:
        """So that the client can try again."""
        message = decode(
            request("tools/call", 1, {"name": "add", "_meta": {VERSION_KEY: "2099-01-01", CAPABILITIES_KEY: {}}})
        )
        error = self.refused(message, {**GOOD, "MCP-Protocol-Version": "2099-01-01"}, UNSUPPORTED_VERSION, 400)
        self.assertEqual(error.data, {"supported": [MODERN], "requested": "2099-01-01"})

    def test_initialize_is_gone(self) -> None:
        """It is a method that does not exist: 404."""
        message = decode(request("initialize", 1, {}, modern=True))
        self.refused(message, {**GOOD, "Mcp-Method": "initialize"}, METHOD_NOT_FOUND, 404)

    def test_clients_send_no_responses(self) -> None:
        """There is nothing they could answer."""
        for raw in (response(1, {}), response(1, error={"code": 1, "message": ""})):
            self.refused(decode(raw), {"MCP-Protocol-Version": MODERN}, INVALID_REQUEST, 400)

    def test_notifications_need_no_envelope_but_their_method(self) -> None:
        """The header may not say something else."""
        message = decode(notification("notifications/cancelled", {"requestId": 1}))
        check_headers(message, lookup({"MCP-Protocol-Version": MODERN, "Mcp-Method": "notifications/cancelled"}))
        self.refused(message, {"MCP-Protocol-Version": MODERN}, HEADER_MISMATCH, 400)

    def test_an_ambiguous_envelope_is_refused(self) -> None:
        """Two revisions in one _meta."""
        meta = json.dumps({CAPABILITIES_KEY: {}})[:-1] + f', "{VERSION_KEY}": "{MODERN}", "{VERSION_KEY}": "{MODERN}"}}'
        raw = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"add","_meta":{meta}}}}}'
        self.refused(decode(raw.encode()), GOOD, INVALID_REQUEST, 400)


class SubscriptionTests(SynchronousTestCase):
    """Where a server names the subscription of a message."""

    def test_in_notifications_and_in_results(self) -> None:
        """In params._meta and in result._meta; nowhere else."""
        for raw in (
            notification("notifications/x", {"_meta": {SUBSCRIPTION_KEY: 7}}),
            response(1, {"_meta": {SUBSCRIPTION_KEY: 7}}),
        ):
            message = decode(raw)
            self.assertEqual(message.id_at(subscription_span(message)), 7)
        for raw in (
            notification("notifications/x", {SUBSCRIPTION_KEY: 7}),
            notification("notifications/x"),
            response(1, {SUBSCRIPTION_KEY: 7}),
            response(1, {"text": SUBSCRIPTION_KEY}),
            response(1, {"a": {"_meta": {SUBSCRIPTION_KEY: 7}}}),
            response(1, error={"code": 1, "message": SUBSCRIPTION_KEY}),
        ):
            self.assertIsNone(subscription_span(decode(raw)))
