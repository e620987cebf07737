"""The PROXY protocol header, versions 1 and 2: bytes in, the true endpoints out.

By https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt. Stricter where the text leaves room: what is not
exactly a header of a TCP connection is refused. Not here: whose header is believed. Invariant: the answer depends on
the bytes alone, never on how they were cut into segments.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from mcptunnel.core.addresses import canon

__all__ = ["MAX_HEADER", "V1_SIGNATURE", "V2_SIGNATURE", "ProxyHeader", "parse"]

V1_SIGNATURE: Final = b"PROXY "
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"

# §2.1: the longest line with its CRLF, two full IPv6 addresses and two ports.
_V1_MAX: Final = 107
# §2.2: "The receiver must be able to read 536 bytes"; UNIX addresses take 216, the rest is for TLVs.
_V2_MAX: Final = 536
_V2_FIXED: Final = 16
MAX_HEADER: Final = _V2_FIXED + _V2_MAX

_V1_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
# Bytes of the address block by address family: IPv4, IPv6, UNIX.
_V2_ADDRESSES: Final = {1: 12, 2: 36, 3: 216}
_TLV_CRC32C: Final = 0x03


@frozen(kw_only=True)
class ProxyHeader:
    """A complete header.

    Attributes:
        source: Canonical address of the client; None when the header names none (LOCAL, UNKNOWN, a UNIX socket): then
            the socket's own peer stays.
        source_port: The client's port; None without an address.
        destination: Canonical address that the client connected to; None like ``source``.
        destination_port: The port there.
        consumed: Bytes of the header; what follows belongs to the connection.
        local: The proxy speaks for itself, as in its health checks (version 2 LOCAL).
    """

    source: str | None = None
    source_port: int | None = None
    destination: str | None = None
    destination_port: int | None = None
    consumed: int
    local: bool = False


def parse(buffer: bytes) -> ProxyHeader | None:
    """Read the header at the start of ``buffer``.

    Returns:
        The header, or None while more bytes are needed; never None once ``MAX_HEADER`` bytes are there.

    Raises:
        ValueError: No continuation of these bytes is a header.
    """
    if _starts(buffer, V1_SIGNATURE):
        return _version_1(buffer)
    if _starts(buffer, V2_SIGNATURE):
        return _version_2(buffer) if len(buffer) >= _V2_FIXED else None
    raise ValueError("the connection does not begin with a PROXY header")


def _starts(buffer: bytes, signature: bytes) -> bool:
    """Whether ``buffer`` begins with ``signature``, or is too short to tell and so far does."""
    return buffer[: len(signature)] == signature[: len(buffer)]


def _version_1(buffer: bytes) -> ProxyHeader | None:
    head = buffer[:_V1_MAX]
    end = head.find(b"\r")
    if end < 0 and b"\n" not in head and len(head) < _V1_MAX:
        return None
    if end < 0 or b"\n" in head[:end] or head[end + 1 : end + 2] not in (b"", b"\n") or end + 2 > _V1_MAX:
        raise ValueError(f"a PROXY v1 line has to end with CR LF within {_V1_MAX} bytes")
    if len(head) < end + 2:
        return None
    # latin-1 decodes anything; what is not ASCII is then no family, no address and no port.
    words = head[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        # §2.1: "the receiver must ignore anything presented before the CRLF".
        return ProxyHeader(consumed=end + 2)
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        raise ValueError("a PROXY v1 line is 'PROXY TCP4|TCP6 source destination sport dport' or 'PROXY UNKNOWN'")
    address = _v4 if words[1] == "TCP4" else _v6
    return ProxyHeader(
        source=address(words[2]),
        destination=address(words[3]),
        source_port=_v1_port(words[4]),
        destination_port=_v1_port(words[5]),
        consumed=end + 2,
    )


def _v4(text: str) -> str:
    return str(IPv4Address(text))


def _v6(text: str) -> str:
    if ":" not in text:
        raise ValueError(f"{text!r} is not an IPv6 address, which TCP6 says it is")
    return canon(text)


def _v1_port(text: str) -> int:
    if not _V1_PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _version_2(buffer: bytes) -> ProxyHeader | None:
    version_command, family_protocol, length = struct.unpack_from("!BBH", buffer, len(V2_SIGNATURE))
    version, command = divmod(version_command, 16)
    family, protocol = divmod(family_protocol, 16)
    if version != 2 or command > 1:
        raise ValueError(f"PROXY version and command 0x{version_command:02x} are not known")
    if length > _V2_MAX:
        raise ValueError(f"a PROXY v2 header announces {length} bytes, {_V2_MAX} are allowed")
    consumed = _V2_FIXED + length
    if command == 0:
        # §2.2: for LOCAL the receiver "must discard the protocol block including the family".
        return ProxyHeader(consumed=consumed, local=True) if len(buffer) >= consumed else None
    if family > 3 or protocol > 2 or (family in (1, 2) and protocol != 1):
        raise ValueError(f"PROXY family and protocol 0x{family_protocol:02x} are not those of a TCP connection")
    if length < _V2_ADDRESSES.get(family, 0):
        raise ValueError(f"a PROXY v2 header of {length} bytes is too short for its addresses")
    if len(buffer) < consumed:
        return None
    if family == 0:
        # §2.2 AF_UNSPEC: the receiver "should ignore address information"; so where TLVs begin is not known.
        return ProxyHeader(consumed=consumed)
    _check_tlvs(buffer[:consumed], _V2_FIXED + _V2_ADDRESSES[family])
    if family == 3:
        return ProxyHeader(consumed=consumed)
    source, destination, source_port, destination_port = struct.unpack_from(
        "!4s4sHH" if family == 1 else "!16s16sHH", buffer, _V2_FIXED
    )
    build = IPv4Address if family == 1 else IPv6Address
    return ProxyHeader(
        source=canon(str(build(source))),
        destination=canon(str(build(destination))),
        source_port=source_port,
        destination_port=destination_port,
        consumed=consumed,
    )


def _check_tlvs(header: bytes, position: int) -> None:
    """Walk the TLVs (§2.2) of a complete header; verify its checksum if it carries one."""
    while position < len(header):
        start = position + 3
        if start > len(header):
            raise ValueError("a PROXY v2 header ends within the head of a TLV")
        kind, size = struct.unpack_from("!BH", header, position)
        position = start + size
        if position > len(header):
            raise ValueError(f"PROXY v2 TLV 0x{kind:02x} is longer than the header")
        if kind == _TLV_CRC32C and not _checksum_holds(header, start, size):
            raise ValueError("the checksum (CRC32c) of a PROXY v2 header is wrong")


def _checksum_holds(header: bytes, start: int, size: int) -> bool:
    """§2.2.3: computed over the whole header with the checksum's own bytes, four of them, set to zero."""
    cleared = header[:start] + bytes(size) + header[start + size :]
    return _crc32c(cleared).to_bytes(4, "big") == header[start : start + size]


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            # RFC 4960 appendix B: the Castagnoli polynomial, bits reversed.
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def _crc32c(block: bytes) -> int:
    crc = 0xFFFF_FFFF
    for octet in block:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFF_FFFF
