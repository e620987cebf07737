"""TLS records and ClientHellos by hand, right and wrong: what no TLS library lets a client send."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

__all__ = [
    "ALERT",
    "APPLICATION",
    "HANDSHAKE",
    "HEARTBEAT",
    "Answer",
    "ServerHello",
    "client_hello",
    "extensions_tls13",
    "record",
    "talk",
]

SECONDS: Final = 10.0
# RFC 8446 §5.1, RFC 6520 §3.
ALERT, HANDSHAKE, APPLICATION, HEARTBEAT = 21, 22, 23, 24
# TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256.
SUITES: Final = (0xC02B, 0x1301)
_SERVER_HELLO: Final = 2
# RFC 8422 §5.1, RFC 8446 §4.2.3: P-256 and X25519, ecdsa_secp256r1_sha256; all clients send these.
_COMMON: Final[Mapping[int, bytes]] = {
    10: b"\0\4\0\x17\0\x1d",
    11: b"\1\0",
    13: b"\0\2\4\3",
}


def record(kind: int, body: bytes, version: int = 0x0301, length: int | None = None) -> bytes:
    """One record, which may lie about its length."""
    return struct.pack("!BHH", kind, version, len(body) if length is None else length) + body


def client_hello(
    version: int = 0x0303,
    *,
    suites: Sequence[int] = SUITES,
    compression: bytes = b"\0",
    more: Mapping[int, bytes] | None = None,
    length: int | None = None,
) -> bytes:
    """A handshake message.

    Args:
        version: ``legacy_version``; what is spoken unless ``more`` has supported_versions.
        suites: Cipher suites.
        compression: Compression methods.
        more: Extensions beside the common ones, by number.
        length: What it says its length is; None for the truth.
    """
    extensions = b"".join(
        struct.pack("!HH", kind, len(body)) + body for kind, body in {**_COMMON, **(more or {})}.items()
    )
    offered = b"".join(struct.pack("!H", suite) for suite in suites)
    body = struct.pack("!H", version) + os.urandom(32) + b"\0"
    body += struct.pack("!H", len(offered)) + offered + bytes([len(compression)]) + compression
    body += struct.pack("!H", len(extensions)) + extensions
    return b"\1" + (len(body) if length is None else length).to_bytes(3) + body


def extensions_tls13() -> dict[int, bytes]:
    """supported_versions with 1.3, and a key share: a random X25519 key is as good as any."""
    return {43: b"\2\3\4", 51: b"\0\x24\0\x1d\0\x20" + os.urandom(32)}


@frozen(kw_only=True)
class ServerHello:
    """RFC 8446 §4.1.3.

    Attributes:
        version: ``legacy_version``.
        random: Its last eight bytes say whether a better version was passed over.
        suite: The one that was chosen.
        compression: The method that was chosen.
        extensions: By number.
    """

    version: int
    random: bytes
    suite: int
    compression: int
    extensions: Mapping[int, bytes]

    @classmethod
    def parse(cls, body: bytes) -> ServerHello:
        """From the body of the message."""
        at = 35 + body[34]
        suite, compression = struct.unpack("!HB", body[at : at + 3])
        extensions, rest = {}, body[at + 5 :]
        while rest:
            kind, length = struct.unpack("!HH", rest[:4])
            extensions[kind], rest = rest[4 : 4 + length], rest[4 + length :]
        version = int.from_bytes(body[:2])
        return cls(version=version, random=body[2:34], suite=suite, compression=compression, extensions=extensions)


@frozen(kw_only=True)
class Answer:
    """What came back until the connection ended, or until nothing came any more.

    Attributes:
        records: Content type and body of each.
        ended: How it ended: ``closed``, ``reset``, or ``open`` when it did not.
    """

    records: list[tuple[int, bytes]] = field(factory=list)
    ended: str = "open"

    @property
    def alert(self) -> int | None:
        """Description of the first fatal alert in the clear; None without one."""
        return next((body[1] for kind, body in self.records if kind == ALERT and body[:1] == b"\2"), None)

    @property
    def hello(self) -> ServerHello | None:
        """The server's hello; None without one."""
        for kind, body in self.records:
            if kind == HANDSHAKE and body[0] == _SERVER_HELLO:
                return ServerHello.parse(body[4 : 4 + int.from_bytes(body[1:4])])
        return None


def talk(port: int, *pieces: bytes, pause: float = 0.02, patience: float = SECONDS, finish: bool = False) -> Answer:
    """Connect, send ``pieces`` with a ``pause`` after each, and read.

    Args:
        port: On 127.0.0.1.
        pieces: Each leaves in a segment of its own.
        pause: Seconds.
        patience: How long to wait for more once there is something, seconds; what is served goes on and does not end.
        finish: Close our side after the last piece.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for piece in pieces:
                wire.sendall(piece)
                received += _there(wire, pause)
            if finish:
                wire.shutdown(socket.SHUT_WR)
            wire.settimeout(patience if received else SECONDS)
            while chunk := wire.recv(65_536):
                received += chunk
                wire.settimeout(patience)
            ended = "closed"
        except TimeoutError:
            ended = "open"
        except (ConnectionResetError, BrokenPipeError):
            ended = "reset"
    return Answer(records=_split(received), ended=ended)


def _there(wire: socket.socket, pause: float) -> bytes:
    """What is there within ``pause``: a peer that resets takes what was not read with it."""
    wire.settimeout(pause)
    try:
        return wire.recv(65_536)
    except TimeoutError:
        return b""
    finally:
        wire.settimeout(SECONDS)


def _split(data: bytes) -> list[tuple[int, bytes]]:
    records = []
    while len(data) >= 5:
        end = 5 + int.from_bytes(data[3:5])
        records.append((data[0], data[5:end]))
        data = data[end:]
    return records
