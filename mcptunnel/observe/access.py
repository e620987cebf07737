"""The access log: one line per exchange, as text for people or as JSON for machines.

A line is made of a :class:`~mcptunnel.core.record.Record`, which holds no secret; control characters in what clients
sent are escaped, so that a line is a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import msgspec

from mcptunnel.core.record import Record

__all__ = ["AccessLog", "as_json", "as_text"]

_encode: Final = msgspec.json.Encoder().encode
_SPECIAL: Final = re.compile(r'["\\]')
# What is said in another form, or to others.
_FIELDS: Final = tuple(field.name for field in attrs.fields(Record) if field.name not in ("started", "credential"))


def as_json(record: Record) -> str:
    """One JSON object: ``time`` (RFC 3339, UTC) and the record's fields, without those that are None."""
    values: dict[str, Any] = {"time": _time(record)}
    for name in _FIELDS:
        value = getattr(record, name)
        if value is not None:
            values[name] = round(value, 6) if name == "duration" else value
    return _encode(values).decode()


def as_text(record: Record) -> str:
    """``client principal "verb scheme://host/path" status sent duration``, then what is known of the MCP call."""
    line = (
        f"{record.client or record.peer} {record.principal or '-'} "
        f'"{record.verb} {record.scheme}://{_plain(record.host)}{_plain(record.path)}" '
        f"{record.status or '-'} {record.received}/{record.sent}B {record.duration * 1000:.1f}ms"
    )
    if record.protocol != "http":
        line += f" {record.protocol}"
    if record.method is not None:
        line += f" {_word(record.method)}"
    if record.target is not None:
        line += f" {_word(record.target)}"
    if record.upstream is not None:
        line += f" via {record.upstream}"
    if record.code is not None:
        line += f" rpc={record.code}"
    if record.error is not None:
        line += f" error={record.error}"
    return line


def _time(record: Record) -> str:
    return datetime.fromtimestamp(record.started, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(text: str) -> str:
    """``text`` with everything escaped that could start a line, end a quote, steer a terminal or look escaped."""
    if text.isprintable() and not _SPECIAL.search(text):
        return text
    return "".join(c if c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in text)


def _word(text: str) -> str:
    """``text`` so that it is one word: a target must not read like the fields that follow it."""
    return _plain(text).replace(" ", "\\u{20}") or "\\u{}"


class AccessLog:
    """Writes records as they end.

    Args:
        form: ``text`` or ``json``.
        write: Takes one line without its end.
    """

    def __init__(self, form: str, write: Callable[[str], None]) -> None:
        self._form: Final = as_json if form == "json" else as_text
        self._write: Final = write

    def __call__(self, record: Record) -> None:
        """Write the line of ``record``."""
        self._write(self._form(record))
