"""The far end of WebSockets, in memory: frames written and read by hand, so that no code of ours checks itself."""

from __future__ import annotations

import struct
from base64 import b64encode
from hashlib import sha1
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mcptunnel.test.upstream.servers import Wire

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame, as servers send them."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


@define(eq=False)
class Far:
    """One connection, seen from the server."""

    protocol: Any
    transport: Wire
    head: bytes = b""
    _read: bytes = b""
    _gone: bool = False

    def handshake(self, *lines: str, status: str = "101 Switching Protocols") -> None:
        """Read the request, and answer it."""
        self.head, _, self._read = self.transport.value().partition(b"\r\n\r\n")
        self.transport.clear()
        headers = dict(line.split(": ", 1) for line in self.head.decode("latin-1").split("\r\n")[1:])
        key = headers["Sec-WebSocket-Key"].encode()
        accept = b64encode(sha1(key + _MAGIC).digest()).decode()
        answer = [f"HTTP/1.1 {status}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        self.send("\r\n".join([*answer, *(lines or ("Sec-WebSocket-Protocol: mcp",)), "", ""]).encode())

    def send(self, data: bytes) -> None:
        """Deliver ``data``."""
        if not self._gone and not self.transport.aborted:
            self.protocol.dataReceived(data)

    def say(self, raw: bytes) -> None:
        """Send a text message."""
        self.send(frame(TEXT, raw))

    def frames(self) -> list[tuple[int, bytes]]:
        """Opcode and payload of what has been received since the last time."""
        data, found = self._read + self.transport.value(), []
        self.transport.clear()
        while len(data) >= 2:
            size, at = data[1] & 0x7F, 2
            if not data[1] & 0x80:
                raise AssertionError("a client must mask")
            if size == 126:
                size, at = struct.unpack("!H", data[2:4])[0], 4
            elif size == 127:
                size, at = struct.unpack("!Q", data[2:10])[0], 10
            mask, payload = data[at : at + 4], data[at + 4 : at + 4 + size]
            found.append((data[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))))
            data = data[at + 4 + size :]
        self._read = data
        return found

    def texts(self) -> list[bytes]:
        """The text messages among them."""
        return [payload for opcode, payload in self.frames() if opcode == TEXT]

    def lose(self) -> None:
        """The connection ends."""
        if not self._gone:
            self._gone = True
            self.protocol.connectionLost(Failure(ConnectionAborted() if self.transport.aborted else ConnectionDone()))

    @property
    def left(self) -> bool:
        """The client has said goodbye, or is gone."""
        return self.transport.aborted or self.transport.disconnecting or CLOSE in [o for o, _ in self.frames()]


@implementer(IStreamClientEndpoint)
@define(eq=False)
class SocketServer:
    """Accepts connections; each completes its handshake at once unless ``silent``."""

    clock: Clock = field(factory=Clock)
    accepted: list[Far] = field(factory=list)
    silent: bool = False

    def connect(self, factory: Any) -> Deferred[Any]:
        protocol, transport = factory.buildProtocol(None), Wire()
        protocol.makeConnection(transport)
        far = Far(protocol, transport)
        self.accepted.append(far)
        if not self.silent:
            far.handshake()
        return succeed(protocol)

    @property
    def last(self) -> Far:
        """The latest connection."""
        return self.accepted[-1]
