"""JSON-RPC 2.0 messages as bytes with known places, so that a proxy changes what it must and nothing else.

A message is never rebuilt. :func:`members` finds where each member of an object begins and ends; :func:`splice`
replaces some of those spans. Unknown members, number spelling, key order and white space survive.

The same walk refuses what two parsers could read differently: an object that holds a key twice (RFC 8259 §4: "the
names within an object SHOULD be unique", and implementations disagree on which one counts), bytes that are not
UTF-8, and text after the value. Only the objects that decide something are walked: the message, its ``params`` and
what the caller asks for; argument values pass untouched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from mcptunnel.core.errors import INVALID_REQUEST, PARSE_ERROR, RpcError

__all__ = ["Id", "Message", "Span", "decode", "error_reply", "loads", "members", "result_reply", "splice"]

Span = tuple[int, int]
Id = int | str
Kind = Literal["request", "notification", "result", "error"]

# What stands before a value: the brace that opens the object or a comma, the key, the colon.
_KEY: Final = re.compile(rb'[ \t\n\r]*[{,][ \t\n\r]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*')
_END: Final = re.compile(rb"[ \t\n\r]*}[ \t\n\r]*\Z")
# RFC 8259 §6 without fraction and exponent: JSON-RPC ids are strings or integers in MCP.
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)\Z")

_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any: Final = msgspec.json.Decoder().decode
encode: Final = msgspec.json.Encoder().encode


def loads(raw: bytes | memoryview) -> Any:
    """Decode ``raw`` whole. For what is looked at rarely; the hot path uses spans.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return _decode_any(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def members(raw: bytes) -> dict[str, Span]:
    """Where the members of the JSON object ``raw`` are.

    Returns:
        Name to (start, end) offsets of the value in ``raw``, in the order of the text.

    Raises:
        ValueError: ``raw`` is not exactly one JSON object, or holds a key twice.
    """
    try:
        fields = _decode_members(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # The decoder keeps one value per name, in the order in which names first occur. A text without repetitions is just
    # those names and values, once each, in that order; anything else differs somewhere. Values are compared, not only
    # measured: one of the right length can be laid out so that a walk goes on inside it as if nothing had happened.
    spans: dict[str, Span] = {}
    match, at = _KEY.match, 0
    for name, value in fields.items():
        key = match(raw, at)
        if key is None or not _spells(key[1], name):
            raise ValueError(f"the key {_unspelled(key)!r} occurs twice")
        text = bytes(value)
        start = key.end()
        at = start + len(text)
        if not raw.startswith(text, start):
            raise ValueError(f"the key {name[:64]!r} occurs twice")
        spans[name] = (start, at)
    if _END.match(raw, at) is None and fields:
        raise ValueError(f"the key {_unspelled(match(raw, at))!r} occurs twice")
    return spans


def _spells(spelled: bytes, name: str) -> bool:
    """Whether the inside of a JSON string says ``name``."""
    if b"\\" in spelled:
        return bool(_decode_any(b'"%b"' % spelled) == name)
    return spelled.decode() == name


def _unspelled(key: re.Match[bytes] | None) -> str:
    """The name at ``key``, for an error message."""
    return "?" if key is None else key[1][:64].decode("utf-8", "replace")


def splice(raw: bytes, edits: Iterable[tuple[Span, bytes]]) -> bytes:
    """``raw`` with each span replaced by its bytes. Spans must not overlap; their order does not matter."""
    parts: list[bytes] = []
    at = 0
    for (start, end), text in sorted(edits):
        parts.append(raw[at:start])
        parts.append(text)
        at = end
    parts.append(raw[at:])
    return b"".join(parts)


class Message:
    """One JSON-RPC message: its bytes, what kind it is, and where its members are.

    Attributes:
        raw: The message exactly as received.
        kind: ``request``, ``notification``, ``result`` or ``error``.
        id: The id, or None for notifications and for error replies to something unreadable.
        method: The method, or None for replies.
        spans: Members of the message.
    """

    __slots__ = ("_meta", "_params", "id", "kind", "method", "raw", "spans")

    def __init__(self, raw: bytes, kind: Kind, id_: Id | None, method: str | None, spans: dict[str, Span]) -> None:
        self.raw: Final = raw
        self.kind: Final = kind
        self.id: Final = id_
        self.method: Final = method
        self.spans: Final = spans
        self._params: dict[str, Span] | None = None
        self._meta: dict[str, Span] | None = None

    def __repr__(self) -> str:
        # No payload: arguments and results may be secret.
        return f"<Message {self.kind} {self.method or ''} id={self.id!r} {len(self.raw)} bytes>"

    @property
    def id_raw(self) -> bytes:
        """The id in its original spelling; ``null`` when there is none."""
        span = self.spans.get("id")
        return b"null" if span is None else self.raw[span[0] : span[1]]

    def value(self, name: str) -> bytes | None:
        """The raw JSON of a top-level member, or None."""
        span = self.spans.get(name)
        return None if span is None else self.raw[span[0] : span[1]]

    @property
    def params(self) -> dict[str, Span]:
        """Members of ``params``, as spans of :attr:`raw`; empty when there are none.

        Raises:
            RpcError: ``params`` is no object, or holds a key twice.
        """
        if self._params is None:
            span = self.spans.get("params")
            self._params = {} if span is None else self.inside(span, "params")
        return self._params

    def inside(self, span: Span, what: str) -> dict[str, Span]:
        """Members of the object at ``span``, as spans of :attr:`raw`.

        Raises:
            RpcError: There is no object at ``span``, or it holds a key twice.
        """
        start, end = span
        try:
            inner = members(self.raw[start:end])
        except ValueError as e:
            raise RpcError(
                INVALID_REQUEST, f"{what}: expected a JSON object with unique keys: {e}", reason="malformed_params"
            ) from None
        return {name: (start + a, start + b) for name, (a, b) in inner.items()}

    def at(self, span: Span) -> Any:
        """The decoded value at ``span``.

        Raises:
            RpcError: It is beyond what can be represented, such as the number ``1e999``.
        """
        try:
            return loads(self.raw[span[0] : span[1]])
        except ValueError as e:
            raise RpcError(INVALID_REQUEST, f"a value cannot be read: {e}", reason="invalid_request") from None

    def id_at(self, span: Span | None) -> Id | None:
        """The id or token at ``span``; None when there is none, or what is there is no string and no integer."""
        return None if span is None else _id(self.raw[span[0] : span[1]])

    def param(self, name: str) -> Any:
        """The decoded value of ``params.name``, or None when absent.

        Raises:
            RpcError: ``params`` or the value cannot be read.
        """
        span = self.params.get(name)
        return None if span is None else self.at(span)

    def meta(self) -> dict[str, Span]:
        """Members of ``params._meta``, as spans of :attr:`raw`; empty when there are none."""
        if self._meta is None:
            span = self.params.get("_meta")
            self._meta = {} if span is None else self.inside(span, "params._meta")
        return self._meta

    def with_id(self, id_raw: bytes) -> bytes:
        """The message under another id."""
        return splice(self.raw, [(self.spans["id"], id_raw)])


def _id(raw: bytes) -> Id | None:
    """The id at ``raw``, or None when it is neither a string nor an integer."""
    if raw[:1] == b'"':
        value = _decode_any(raw)
        return value if isinstance(value, str) else None
    return int(raw) if len(raw) < 40 and _INTEGER.match(raw) else None


def decode(raw: bytes) -> Message:
    """Read one message.

    Raises:
        RpcError: ``PARSE_ERROR`` when it is not JSON or not UTF-8, ``INVALID_REQUEST`` when it is JSON but not one
            JSON-RPC 2.0 message (arrays included: batches exist at 2025-03-26 only and are read by their caller).
    """
    try:
        # The decoder skips over strings it does not look at; what we forward must be what everybody else can read.
        if not raw.isascii():
            raw.decode("utf-8")
        spans = members(raw)
    except (ValueError, msgspec.DecodeError) as e:
        if _is_json(raw):
            what = "a batch (JSON array)" if raw.lstrip()[:1] == b"[" else f"a message that is not one object: {e}"
            raise RpcError(
                INVALID_REQUEST, f"expected one JSON-RPC message, saw {what}", reason="invalid_request"
            ) from None
        raise RpcError(PARSE_ERROR, "the body is not valid JSON in UTF-8", reason="parse_error") from None

    def text(name: str) -> bytes | None:
        span = spans.get(name)
        return None if span is None else raw[span[0] : span[1]]

    if text("jsonrpc") != b'"2.0"':
        raise RpcError(INVALID_REQUEST, 'expected the member "jsonrpc": "2.0"', reason="invalid_request")
    id_raw = text("id")
    id_ = None if id_raw is None else _id(id_raw)
    method_raw = text("method")
    if method_raw is not None:
        method = loads(method_raw) if method_raw.startswith(b'"') else None
        if not isinstance(method, str) or "result" in spans or "error" in spans:
            raise RpcError(INVALID_REQUEST, "expected a method name and no result", reason="invalid_request")
        if id_raw is None:
            return Message(raw, "notification", None, method, spans)
        if id_ is None:
            # JSON-RPC allows null and fractions, MCP does not (Base protocol, "Requests").
            raise RpcError(INVALID_REQUEST, "expected an id that is a string or an integer", reason="invalid_id")
        return Message(raw, "request", id_, method, spans)
    if ("result" in spans) == ("error" in spans) or id_raw is None:
        raise RpcError(
            INVALID_REQUEST, "expected a method, or an id with either a result or an error", reason="invalid_request"
        )
    if "error" in spans:
        return Message(raw, "error", id_, None, spans)
    if id_ is None:
        raise RpcError(INVALID_REQUEST, "expected an id that is a string or an integer", reason="invalid_id")
    return Message(raw, "result", id_, None, spans)


def _is_json(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
        loads(raw)
    except (ValueError, msgspec.DecodeError):
        return False
    return True


def error_reply(error: RpcError, id_raw: bytes | None) -> bytes:
    """The JSON-RPC error response for ``error``; without an id the ``id`` is null (JSON-RPC 2.0 §5)."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_raw or b"null", encode(body))


def result_reply(id_raw: bytes, result: bytes) -> bytes:
    """The JSON-RPC response that carries the raw JSON ``result``."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id_raw, result)
