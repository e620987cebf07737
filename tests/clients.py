"""Plain MCP clients that see every header and the moment each event arrives: HTTP and WebSocket, from any address.

They share no code with the daemon. The official SDK is in :mod:`tests.sdk`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define, field, frozen
from websockets.sync.client import ClientConnection, connect

from tests.certificates import NAME, client_context

__all__ = ["CLIENT", "STRANGER", "HttpClient", "Reply", "dial", "modern", "websocket"]

# Distinct addresses of this machine, so that "who is the client" has an answer that can be wrong.
CLIENT: Final = "127.0.0.9"
STRANGER: Final = "127.0.0.77"
SECONDS: Final = 15.0

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    "io.modelcontextprotocol/clientInfo": {"name": "outside", "version": "1"},
}
ACCEPT: Final = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
INITIALIZE: Final = {
    "protocolVersion": LEGACY,
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "outside", "version": "1"},
}


def dial(port: int, source: str = CLIENT, *, tls: ssl.SSLContext | None = None, name: str = NAME) -> socket.socket:
    """A connection to 127.0.0.1:``port`` from ``source``; over TLS if a context is given."""
    plain = socket.create_connection(("127.0.0.1", port), SECONDS, (source, 0))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return plain
    try:
        return tls.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise


class _Connection(http.client.HTTPConnection):
    """One connection of ours. ``http.client`` would resolve the name; we know where we go."""

    def __init__(self, port: int, source: str, tls: ssl.SSLContext | None, name: str) -> None:
        super().__init__(name, port, timeout=SECONDS)
        self.default_port = 443 if tls is not None else 80
        self._dial: Final = lambda: dial(port, source, tls=tls, name=name)

    def connect(self) -> None:
        self.sock = self._dial()


@frozen(kw_only=True)
class Reply:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: Response headers.
        body: The body as it came.
        messages: JSON-RPC messages, in order.
        times: When each arrived, in seconds after the first byte of the request was sent.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    messages: list[dict[str, Any]]
    times: list[float]

    @property
    def last(self) -> dict[str, Any]:
        """The response itself."""
        return self.messages[-1]

    @property
    def text(self) -> str:
        """The text of a tool's result."""
        found = self.last["result"]["content"][0]["text"]
        assert isinstance(found, str)
        return found


def modern(method: str, **params: Any) -> dict[str, Any]:
    """A request of the modern era."""
    meta = {**META, **params.pop("_meta", {})}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"_meta": meta, **params}}


@define(eq=False, kw_only=True)
class HttpClient:
    """Speaks HTTP/1.1 to 127.0.0.1:``port``; a fresh connection for each request.

    Attributes:
        source: Our own address.
        tls: None for plaintext.
        name: Host and SNI.
        headers: Sent with every request.
        session: ``Mcp-Session-Id`` after :meth:`initialize`.
    """

    port: int
    source: str = CLIENT
    tls: ssl.SSLContext | None = field(factory=client_context)
    name: str = NAME
    headers: dict[str, str] = field(factory=dict)
    session: str | None = None

    def send(self, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request, and its whole response."""
        with self.open(verb, path, body, headers) as (response, started):
            messages: list[dict[str, Any]] = []
            times: list[float] = []
            raw = b""
            if "text/event-stream" in (response.headers["Content-Type"] or ""):
                for arrived, message in events(response):
                    messages.append(message)
                    times.append(arrived - started)
            else:
                raw = response.read()
                if "json" in (response.headers["Content-Type"] or ""):
                    messages.append(json.loads(raw))
                    times.append(time.monotonic() - started)
            return Reply(status=response.status, headers=response.headers, body=raw, messages=messages, times=times)

    @contextlib.contextmanager
    def open(
        self, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[http.client.HTTPResponse, float]]:
        """One request, its response unread, and when it was sent; closed afterwards wherever it stands."""
        connection = _Connection(self.port, self.source, self.tls, self.name)
        try:
            started = time.monotonic()
            connection.request(verb, path, body, {**self.headers, **(headers or {})})
            yield connection.getresponse(), started
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """GET."""
        return self.send("GET", path, None, headers)

    def modern_headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        """The headers that go with a modern request (MCP 2026-07-28, Transports)."""
        found = {**ACCEPT, "MCP-Protocol-Version": MODERN, "Mcp-Method": message["method"]}
        if name := message["params"].get("name"):
            found["Mcp-Name"] = name
        return found

    def modern(self, path: str, method: str, **params: Any) -> Reply:
        """A call of the modern era."""
        message = modern(method, **params)
        return self.send("POST", path, json.dumps(message).encode(), self.modern_headers(message))

    def initialize(self, path: str) -> Reply:
        """Open a session of the legacy era."""
        reply = self.send("POST", path, _request("initialize", INITIALIZE), ACCEPT)
        self.session = reply.headers["Mcp-Session-Id"]
        assert reply.status == 200, (reply.status, reply.body)
        assert self.session, "no Mcp-Session-Id"
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
        assert self.send("POST", path, note, self.legacy_headers()).status == 202
        return reply

    def legacy_headers(self) -> dict[str, str]:
        """The headers of a session."""
        assert self.session is not None
        return {**ACCEPT, "Mcp-Session-Id": self.session, "MCP-Protocol-Version": LEGACY}

    def legacy(self, path: str, method: str, **params: Any) -> Reply:
        """A call in the session."""
        return self.send("POST", path, _request(method, params), self.legacy_headers())


def _request(method: str, params: Mapping[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[float, dict[str, Any]]]:
    """The messages of an event stream, each with the moment its last byte arrived."""
    buffer = b""
    while chunk := response.read1(65_536):
        now = time.monotonic()
        buffer += chunk
        while b"\n\n" in buffer:
            event, _, buffer = buffer.partition(b"\n\n")
            data = b"\n".join(line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:"))
            if data:
                yield now, json.loads(data)


@contextlib.contextmanager
def websocket(
    port: int,
    path: str = "/mcp/ws",
    *,
    source: str = CLIENT,
    tls: ssl.SSLContext | None = None,
    name: str = NAME,
    headers: Mapping[str, str] | None = None,
) -> Iterator[WebSocket]:
    """A WebSocket session with subprotocol ``mcp``."""
    sock = dial(port, source)
    scheme = "ws" if tls is None else "wss"
    with connect(
        f"{scheme}://{name}:{port}{path}",
        sock=sock,
        ssl=tls,
        server_hostname=None if tls is None else name,
        subprotocols=["mcp"],
        additional_headers=dict(headers or {}),
        proxy=None,
        open_timeout=SECONDS,
        close_timeout=5,
    ) as connection:
        yield WebSocket(connection)


@define(eq=False)
class WebSocket:
    """JSON-RPC over one WebSocket."""

    connection: ClientConnection
    _id: int = field(init=False, default=0)

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        self.connection.send(json.dumps(message))

    def hear(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(self.connection.recv(timeout=SECONDS))
        return message

    def call(self, method: str, **params: Any) -> tuple[dict[str, Any], list[float]]:
        """The response to one request, and when each message up to it arrived, in seconds after the request."""
        self._id += 1
        started = time.monotonic()
        self.say({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        times: list[float] = []
        while True:
            message = self.hear()
            times.append(time.monotonic() - started)
            if message.get("id") == self._id and "method" not in message:
                return message, times

    def initialize(self) -> dict[str, Any]:
        """Open a session; the result."""
        reply, _ = self.call("initialize", **INITIALIZE)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result: dict[str, Any] = reply["result"]
        return result
