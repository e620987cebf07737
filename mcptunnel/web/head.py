"""A request head: bytes in, one frozen value or one refusal out.

llhttp (through httptools) reads the header lines. What it is too generous about is refused here, on the whole head at
once: other request lines than ``METHOD SP target SP HTTP/1.x``, other protocols that it happens to know, hosts that
are missing, doubled or malformed, transfer codings other than ``chunked``.

Invariant: every :class:`Head` has exactly one reading. Where two parsers could see two requests there is no Head but a
:class:`~mcptunnel.core.errors.RequestError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import httptools
from attrs import evolve, frozen

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import RequestError

__all__ = ["CHUNKED", "Head", "parse_head"]

# The value of `Head.length` for a body whose end only its own framing tells.
CHUNKED: Final = -1

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9112 §3: single spaces, no control characters, no bare version. Other spellings are what smuggling is made of.
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION: Final = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]\r\n")
# RFC 9110 §7.2 by way of RFC 3986 §3.2.2, less what no host that is really served is called.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
_CODINGS: Final = re.compile(rb"\r\n(?i:transfer-encoding):[ \t]*([^\r\n]*)")
_TOKENS: Final = re.compile(_TOKEN + rb"(?:[ \t]*,[ \t]*" + _TOKEN + rb")*[ \t]*")

_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_ALLOW: Final = ((b"Allow", b", ".join(sorted(_METHODS))),)
# RFC 9110 §9.3.6, §9.3.8: tunnels are not our trade, and TRACE shows a script what it must not see.
_REFUSED_METHODS: Final = frozenset((b"CONNECT", b"TRACE"))
# Fields that say what the request is: one line each, or two readers may pick different ones.
_SINGLE: Final = frozenset(
    (b"authorization", b"content-length", b"content-type", b"expect", b"host", b"origin", b"transfer-encoding")
)
# Connection options that concern this hop and nominate nothing (RFC 9110 §7.6.1).
_USUAL_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
_NONE: Final[frozenset[bytes]] = frozenset()


# Without slots attrs fills a frozen instance through its dictionary: half the time, on every new head.
@frozen(kw_only=True, eq=False, slots=False)
class Head:
    """One request head, read and found unambiguous.

    Attributes:
        method: As sent; methods are case-sensitive.
        target: Origin-form or ``*``; an absolute-form is cut down to its path and query.
        path: ``target`` up to the query, still percent-encoded.
        version: ``HTTP/1.0`` or ``HTTP/1.1``.
        host: The Host line as sent; empty only in HTTP/1.0.
        lines: Header lines in wire order, names in lower case, values without surrounding whitespace. Lines whose
            name has an underscore are gone: behind CGI conventions ``Content_Length`` becomes Content-Length.
        fields: ``lines`` by name; the last line of each.
        repeated: Names that occur more than once.
        nominated: Connection options beyond the usual ones: headers that this hop is asked to drop.
        length: Body bytes to come, or CHUNKED.
        keep_alive: The client wants to go on after this exchange.
        expects: The client waits for ``100 Continue``.
        verb: ``method`` as text.
        text: ``path`` as text.
    """

    method: bytes
    target: bytes
    path: bytes
    version: bytes
    host: bytes
    lines: tuple[tuple[bytes, bytes], ...]
    fields: Mapping[bytes, bytes]
    repeated: frozenset[bytes]
    nominated: frozenset[bytes]
    length: int
    keep_alive: bool
    expects: bool
    verb: str
    text: str

    def only(self, lines: Iterable[tuple[bytes, bytes]]) -> Head:
        """The same head with no other header lines than ``lines``."""
        kept = tuple(lines)
        fields = dict(kept)
        return evolve(self, lines=kept, fields=fields, repeated=_repeated(kept, fields))


class _Collector:
    """What httptools calls back."""

    __slots__ = ("complete", "lines")

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9110 §5.5: whitespace around a value is no part of it; llhttp leaves what follows.
        self.lines.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_head(raw: bytes, limits: LimitsConfig) -> Head:
    """The head in ``raw``.

    Args:
        raw: From the first byte of the request line up to and including the first empty line.
        limits: ``uri_bytes`` and ``header_count`` are applied here. The size of the whole head is the caller's
            matter, who must bound it before it is complete.

    Raises:
        RequestError: 400, 405, 413, 414, 417, 431, 501 or 505. Framing is lost: the connection must close.
    """
    method, target, modern = _request_line(raw, limits)
    lines = _header_lines(raw)
    if len(lines) > limits.header_count:
        raise RequestError(
            431,
            "too_many_headers",
            f"The request has {len(lines)} header lines; server.limits.header_count is {limits.header_count}.",
        )
    if b"_" in raw:
        lines = [line for line in lines if b"_" not in line[0]]
    fields = dict(lines)
    repeated = _NONE if len(fields) == len(lines) else _repeated(lines, fields)
    if repeated and not repeated.isdisjoint(_SINGLE):
        name = min(repeated & _SINGLE).decode("ascii")
        raise RequestError(400, "duplicate_header", f"The header {name} occurs more than once.")
    host = _host(fields, modern)
    if target[0] != 0x2F:
        target = _origin_form(method, target, host)
    if b"#" in target:
        raise RequestError(400, "bad_target", "The request target has a fragment; clients keep it to themselves.")
    options = _connection_options(lines) if b"connection" in fields else _NONE
    closes = b"close" in options
    path = target.partition(b"?")[0]
    return Head(
        method=method,
        target=target,
        path=path,
        version=b"HTTP/1.1" if modern else b"HTTP/1.0",
        host=host,
        lines=tuple(lines),
        fields=fields,
        repeated=repeated,
        nominated=options - _USUAL_OPTIONS if options else _NONE,
        length=_body_length(fields, modern),
        keep_alive=not closes if modern else b"keep-alive" in options and not closes,
        expects=b"expect" in fields and _expects(fields[b"expect"], modern),
        verb=method.decode("ascii"),
        text=path.decode("ascii"),
    )


def _request_line(raw: bytes, limits: LimitsConfig) -> tuple[bytes, bytes, bool]:
    match = _REQUEST_LINE.match(raw)
    if match is None:
        if _OTHER_VERSION.match(raw):
            raise RequestError(505, "http_version", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        raise RequestError(400, "bad_request_line", "The first line is not: METHOD, space, target, space, HTTP/1.1.")
    method, target, minor = match.groups()
    if len(target) > limits.uri_bytes:
        raise RequestError(
            414,
            "uri_too_long",
            f"The request target has {len(target)} bytes; server.limits.uri_bytes is {limits.uri_bytes}.",
        )
    if method not in _METHODS:
        if method in _REFUSED_METHODS:
            raise RequestError(405, "method_not_allowed", f"{method.decode('ascii')} is not served.", _ALLOW)
        raise RequestError(501, "unknown_method", "The request method is not known here.", _ALLOW)
    return method, target, minor == b"1"


def _header_lines(raw: bytes) -> list[tuple[bytes, bytes]]:
    # A new parser for each head: 0.3 µs, and nothing of another request can be left in it.
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(raw)
    except httptools.HttpParserUpgrade:
        # llhttp stops where an upgrade could begin. Whether one does is the resource's decision.
        pass
    except httptools.HttpParserError as e:
        raise _malformed(raw, str(e)) from None
    if not collector.complete:
        raise RequestError(400, "bad_header", "The request head does not end at its first empty line.")
    return collector.lines


def _malformed(raw: bytes, complaint: str) -> RequestError:
    """The refusal for a head that llhttp does not read. It has one error for all; HTTP has several."""
    if "Content-Length overflow" in complaint:
        return RequestError(413, "body_too_large", "The announced body is larger than any that is read here.")
    codings = _CODINGS.findall(raw)
    if codings and all(map(_TOKENS.fullmatch, codings)):
        names = {name.strip(b" \t").lower() for value in codings for name in value.split(b",")}
        if names != {b"chunked"}:
            return _unknown_coding()
    return RequestError(400, "bad_header", f"The request head is malformed: {complaint}.")


def _unknown_coding() -> RequestError:
    # RFC 9112 §6.1: a server that does not understand the transfer coding should say 501.
    return RequestError(501, "transfer_coding", "The only transfer coding known here is chunked.")


def _repeated(lines: Iterable[tuple[bytes, bytes]], fields: Mapping[bytes, bytes]) -> frozenset[bytes]:
    names = [name for name, _ in lines]
    return frozenset(name for name in fields if names.count(name) > 1) if len(names) != len(fields) else _NONE


def _host(fields: Mapping[bytes, bytes], modern: bool) -> bytes:
    # RFC 9112 §3.2: 400 for a 1.1 request without Host, and for any with an invalid one.
    host = fields.get(b"host")
    if host is None:
        if modern:
            raise RequestError(400, "no_host", "The request has no Host header.")
        return b""
    if _HOST.fullmatch(host) is None:
        raise RequestError(400, "bad_host", "The Host header is not a host name or address with an optional port.")
    return host


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    if target == b"*":
        if method == b"OPTIONS":
            return target
        raise RequestError(400, "bad_target", "The target * goes with OPTIONS only.")
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise RequestError(400, "bad_target", "The request target is neither a path nor an http URL.")
    authority, rest = match.groups()
    # RFC 9112 §3.2.2 lets the authority win. Whoever judged by Host before us would not know.
    if authority.lower() != host.lower():
        raise RequestError(400, "host_mismatch", "The request target names another host than the Host header.")
    return rest if rest[:1] == b"/" else b"/" + rest


def _connection_options(lines: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    joined = b",".join(value for name, value in lines if name == b"connection").lower()
    return frozenset(option.strip(b" \t") for option in joined.split(b",")) - {b""}


def _body_length(fields: Mapping[bytes, bytes], modern: bool) -> int:
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked":
            raise _unknown_coding()
        # RFC 9112 §6.1: a 1.0 client does not know what it sent, or somebody else wrote the line.
        if not modern:
            raise RequestError(400, "transfer_coding", "Transfer-Encoding does not exist in HTTP/1.0.")
        return CHUNKED
    # llhttp has seen to it that there is one line of digits, and no Transfer-Encoding beside it.
    return int(fields.get(b"content-length", b"0"))


def _expects(value: bytes, modern: bool) -> bool:
    # RFC 9110 §10.1.1: from a 1.0 client the expectation must be ignored; 417 for any other than 100-continue.
    if not modern:
        return False
    if value.lower() != b"100-continue":
        raise RequestError(417, "expectation", "The only expectation met here is 100-continue.")
    return True
