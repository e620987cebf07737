"""The name that a TLS client asks for, read from its first message before TLS itself begins.

OpenSSL tells the name when the connection object is made already, with everything that object copies from its context:
versions, verification of clients, and the keys of session tickets, so that a session of one name could be resumed under
another (CVE-2025-23419). Whoever knows the name first can give each name a context that is its own.

Not here: whether the message is any good otherwise. What cannot be read is for OpenSSL to refuse, in its own words.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = ["LARGEST", "Hello", "read"]

# RFC 8446 §5.1: type, legacy version and length of a record, and its largest length.
_RECORD: Final = 5
_RECORD_MOST: Final = 1 << 14
_HANDSHAKE: Final = 22
# RFC 8446 §4: type and length of a handshake message.
_MESSAGE: Final = 4
_CLIENT_HELLO: Final = 1
# RFC 8446 §4.1.2: version and random; what comes next has lengths of its own.
_FIXED: Final = 2 + 32
# RFC 6066 §3.
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
# Several times what any client sends. Beyond these, whoever it is gets what a client gets that names nothing: reading
# it again and again, while it arrives in a thousand small records, must cost little.
LARGEST: Final = 1 << 16
_RECORDS_MOST: Final = 32


@frozen
class Hello:
    """What was asked for.

    Attributes:
        name: Host name in lower case, without a final dot; None when none was asked for, or it is no ASCII.
    """

    name: str | None


def read(data: bytes) -> Hello | int:
    """Read the first message of a connection.

    Args:
        data: All bytes so far, beginning with a TLS record.

    Returns:
        What it asks for, or how many bytes are needed at least before it is worth to ask again.

    Raises:
        ValueError: It is no ClientHello, one that cannot be read, or one that is too large to be looked at.
    """
    message = b""
    at = records = 0
    wanted = _MESSAGE
    while len(message) < wanted:
        if records == _RECORDS_MOST:
            raise ValueError("too many records")
        if len(data) < at + _RECORD:
            return at + _RECORD
        length = int.from_bytes(data[at + 3 : at + 5])
        if data[at] != _HANDSHAKE or not 0 < length <= _RECORD_MOST:
            raise ValueError("a record that holds no handshake")
        end = at + _RECORD + length
        if len(data) < end:
            return end
        message += data[at + _RECORD : end]
        at = end
        records += 1
        if len(message) >= _MESSAGE:
            wanted = _MESSAGE + int.from_bytes(message[1:_MESSAGE])
            if message[0] != _CLIENT_HELLO or wanted > LARGEST:
                raise ValueError("no ClientHello")
    return Hello(_name(message[_MESSAGE:wanted]))


def _name(hello: bytes) -> str | None:
    """The host name in the body of a ClientHello."""
    at = _FIXED
    # Session identifier, cipher suites, compression methods.
    for size in (1, 2, 1):
        _, at = _vector(hello, at, size)
    if at == len(hello):
        return None
    extensions, _ = _vector(hello, at, 2)
    at = 0
    while at < len(extensions):
        kind = int.from_bytes(extensions[at : at + 2])
        content, at = _vector(extensions, at + 2, 2)
        if kind == _SERVER_NAME:
            return _host(content)
    return None


def _host(content: bytes) -> str | None:
    """The first host name of the list; no other kind of name was ever defined."""
    names, _ = _vector(content, 0, 2)
    if not names or names[0] != _HOST_NAME:
        raise ValueError("a server name of an unknown kind")
    name, _ = _vector(names, 1, 2)
    # RFC 6066 §3: ASCII, in the form of DNS; case does not count.
    return name.decode("ascii").lower().removesuffix(".") if name.isascii() else None


def _vector(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    """RFC 8446 §3.4: bytes with their length in ``size`` bytes before them; and where they end."""
    start = at + size
    end = start + int.from_bytes(data[at:start])
    if end > len(data):
        raise ValueError("a length beyond the end")
    return data[start:end], end
