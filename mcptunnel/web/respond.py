"""What every response has in common: status line, Date, security headers, and the body of a refusal.

The common header lines are made once per second and scheme, as one block of bytes. They give way to what a resource has
set itself, but for those that the operator has decided about.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.web.http import NO_BODY_CODES, RESPONSES, datetimeToString

from mcptunnel.core.errors import RequestError, RpcError, problem

if TYPE_CHECKING:
    from mcptunnel.web.request import Request

__all__ = ["DEFAULT_HEADERS", "PROBLEM", "CommonHeaders", "header_block", "reply_start", "respond_error", "status_line"]

PROBLEM: Final = b"application/problem+json"

# OWASP REST Security and Secure Headers: an API is nobody's page, frame, script, image or cache entry.
DEFAULT_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_HSTS: Final = "strict-transport-security"
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: what would end a line early, and splits the response in two.
_LINE_BREAKS: Final = re.compile(rb"[\r\n\0]")
# Status line and Content-Type of replies without further headers; there are few of them, unless somebody makes many.
_STARTS: Final[dict[tuple[int, bytes], bytes]] = {}
_STARTS_MOST: Final = 256
_STATUS_LINES: Final = {code: b"HTTP/1.1 %d %b\r\n" % (code, phrase) for code, phrase in RESPONSES.items()}


class CommonHeaders:
    """The header lines that go with every response of a site.

    Args:
        overrides: ``security.headers``: replaces, adds, or with None removes header lines. Names in any case.
        hsts: Value of Strict-Transport-Security, None to leave it out. It may change later, see :meth:`promise`.

    Attributes:
        names: Names of all lines that may occur, in lower case.
        decided: Names of security headers of which the operator has said what becomes of them, in lower case: no
            resource knows better.

    Raises:
        ValueError: An override is not a header line.
    """

    def __init__(self, overrides: Mapping[str, str | None], hsts: str | None) -> None:
        chosen = {name.lower(): (name, value) for name, value in DEFAULT_HEADERS.items()}
        self._fixed = False
        for name, value in overrides.items():
            if name.lower() == _HSTS:
                hsts, self._fixed = value, True
            elif value is None:
                chosen.pop(name.lower(), None)
            else:
                chosen[name.lower()] = (name, value)
        self.decided: Final = frozenset(
            name.lower().encode("latin-1") for name in DEFAULT_HEADERS if name.lower() in map(str.lower, overrides)
        )
        self._pairs: Final = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in chosen.values())
        self._blocks = (b"", b"")
        self._date = b""
        self._set(hsts)

    def promise(self, hsts: str | None) -> None:
        """From now on send this value of Strict-Transport-Security, or with None none; an override stays."""
        if not self._fixed:
            self._set(hsts)

    def _set(self, hsts: str | None) -> None:
        secure = () if hsts is None else ((b"Strict-Transport-Security", hsts.encode("latin-1")),)
        self._lines = (self._pairs, self._pairs + secure)
        self._static = tuple(map(header_block, self._lines))
        self.names = frozenset(name.lower() for name, _ in self._lines[True]) | {b"date"}
        # Makes the next block anew.
        self._second = -1

    def block(self, https: bool, now: float) -> bytes:
        """All lines, each ended by CRLF.

        Args:
            https: The client used https and a host name: RFC 6797 §7.2 forbids the promise over http, and §8.1.1
                makes it void for an address.
            now: Seconds since the epoch.
        """
        # Date has a resolution of one second (RFC 9110 §5.6.7).
        if int(now) != self._second:
            self._second = int(now)
            self._date = b"Date: %b\r\n" % datetimeToString(self._second)  # type: ignore[no-untyped-call]
            plain, secure = self._static
            self._blocks = (self._date + plain, self._date + secure)
        return self._blocks[https]

    def lines(self, https: bool, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """The same lines, name by name, for a reply that somebody else writes."""
        self.block(https, now)
        return ((b"Date", self._date[6:-2]), *self._lines[https])

    def block_without(self, present: Collection[bytes], https: bool, now: float) -> bytes:
        """The lines whose names are not in ``present`` (lower case): those a resource has set itself."""
        if self.names.isdisjoint(present):
            return self.block(https, now)
        self.block(https, now)
        lines = header_block(line for line in self._lines[https] if line[0].lower() not in present)
        return lines if b"date" in present else self._date + lines


def header_block(lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines as bytes, each ended by CRLF.

    Raises:
        ValueError: A name is not a token, or a value has a line break in it.
    """
    block = b""
    for name, value in lines:
        if _TOKEN.fullmatch(name) is None or _LINE_BREAKS.search(value) is not None:
            raise ValueError(f"{name!r} with this value is not a header line")
        block += b"%b: %b\r\n" % (name, value)
    return block


def status_line(code: int, phrase: bytes | None = None) -> bytes:
    """The first line of a response, ended by CRLF; ``phrase`` None is the usual one."""
    if phrase is None or phrase == RESPONSES.get(code):
        return _STATUS_LINES.get(code) or b"HTTP/1.1 %d \r\n" % code
    return b"HTTP/1.1 %d %b\r\n" % (code, _LINE_BREAKS.sub(b" ", phrase))


def reply_start(status: int, content_type: bytes) -> bytes | None:
    """Status line and Content-Type, or None for a status that goes without content (RFC 9110 §6.4.1).

    Raises:
        ValueError: The content type has a line break in it.
    """
    start = _STARTS.get((status, content_type))
    if start is None and status not in NO_BODY_CODES:
        start = status_line(status) + header_block([(b"Content-Type", content_type)])
        if len(_STARTS) < _STARTS_MOST:
            _STARTS[status, content_type] = start
    return start


def respond_error(request: Request, error: RequestError) -> None:
    """Answer ``request`` with the refusal ``error``; where the answer has already begun, cut it off."""
    record = request.record
    record.error = error.reason
    if isinstance(error, RpcError):
        record.code = error.code
    request.respond_or_abort(error.status, PROBLEM, msgspec.json.encode(problem(error)), error.headers)
