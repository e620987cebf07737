"""Tests for mcptunnel.ws: handshakes on the real site, and MCP over one connection."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

import txaio
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import RequestError
from mcptunnel.core.mcp import VERSION_KEY
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.relay import Bounds, Relay
from mcptunnel.core.routing import targets
from mcptunnel.test.web.sites import NOW, serve
from mcptunnel.testing import (
    FakeSeal,
    FakeUpstream,
    FakeWire,
    know_both_eras,
    notification,
    request,
    response,
)
from mcptunnel.web.tree import Nothing
from mcptunnel.ws.protocol import PING_SECONDS, PONG_SECONDS, McpSocketFactory
from mcptunnel.ws.resource import McpSocketResource

KEY = base64.b64encode(b"0123456789abcdef").decode()
# RFC 6455 §1.3.
ACCEPT = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Wire(StringTransport):
    """A TCP transport as autobahn wants it."""

    protocol: Any = None
    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Not looked at."""

    def abortConnection(self) -> None:
        self.aborted = True

    def pauseProducing(self) -> None:
        """Not looked at."""

    def resumeProducing(self) -> None:
        """Not looked at."""

    def unregisterProducer(self) -> None:
        """As often as somebody likes, which real transports take."""
        self.producer = None


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    if size > 0xFFFF:
        length = b"\xff" + struct.pack("!Q", size)
    return bytes([(0x80 if fin else 0) | opcode]) + length + b"\0\0\0\0" + payload


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The server's frames: opcode and payload."""
    found = []
    while data:
        size, at = data[1], 2
        if size == 126:
            size, at = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, at = struct.unpack("!Q", data[2:10])[0], 10
        found.append((data[0] & 0x0F, data[at : at + size]))
        data = data[at + size :]
    return found


class Case(SynchronousTestCase):
    """Two servers, a and b; ``/servers/a/ws`` shows one."""

    limits = LimitsConfig(body_bytes=1000)

    def setUp(self) -> None:
        self.upstreams = {name: FakeUpstream(name, streams=False) for name in "ab"}
        self.relay = Relay(self.upstreams, Bounds(sessions=2), self.seconds, FakeSeal(), {"name": "us", "version": "0"})
        know_both_eras(self.relay.eras, "ab")
        self.principal = ANONYMOUS
        self.refusal: RequestError | None = None
        routes: dict[bytes, IResource] = {}
        self.records: list[Any] = []
        self.clock = Clock()
        self.clock.advance(NOW)
        # Where autobahn takes its timers from.
        self.patch(txaio.config, "loop", self.clock)  # type: ignore[attr-defined]  # made at run time
        self.factory = McpSocketFactory(self.limits, self.clock)
        for base, target in targets(["a", "b"]).items():
            routes[f"{base}/ws".encode()] = McpSocketResource(self.relay, target, self.factory, self.records.append)
        self.served = serve(Nothing(), routes=routes, admit=self.admit, on_record=self.records.append)

    def seconds(self) -> float:
        return self.clock.seconds() if hasattr(self, "clock") else NOW

    def admit(self, request: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        request.principal = self.principal

    def wire(self, server: str = "a") -> FakeWire:
        return self.upstreams[server].wire

    def handshake(self, *, method: str = "GET", path: str = "/servers/a/ws", **changes: str | None) -> bytes:
        """What comes back for a handshake; names in ``changes`` have underscores for hyphens."""
        lines: dict[str, str | None] = {
            "Host": "h",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": "mcp",
        }
        lines |= {name.replace("_", "-"): value for name, value in changes.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        self.transport = Wire(peerAddress=IPv4Address("TCP", "192.0.2.1", 4000))
        self.connection = self.served.connect(transport=self.transport)
        self.transport.protocol = self.connection.channel
        data: bytes = self.connection.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        return data

    def open(self, path: str = "/servers/a/ws") -> Any:
        """A connection past its handshake; the protocol."""
        data = self.handshake(path=path)
        self.assertTrue(data.startswith(b"HTTP/1.1 101 "), data)
        return self.transport.protocol

    def say(self, raw: bytes, opcode: int = TEXT) -> list[Any]:
        """One message; what comes back, decoded."""
        self.transport.protocol.dataReceived(frame(opcode, raw))
        return self.heard()

    def heard(self) -> list[Any]:
        """What has come since the last look: messages decoded, closes as (code, reason)."""
        data = self.transport.value()
        self.transport.clear()
        found: list[Any] = []
        for opcode, payload in frames(data):
            if opcode == TEXT:
                found.append(json.loads(payload))
            elif opcode == CLOSE:
                found.append((struct.unpack("!H", payload[:2])[0], payload[2:].decode()))
            else:
                found.append((opcode, payload))
        return found

    def lose(self) -> None:
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))

    def initialize(self) -> None:
        self.assertEqual(self.say(request("initialize", 0, {"protocolVersion": "2025-06-18"})), [])
        self.wire().answer({"protocolVersion": "2025-06-18"})
        self.assertEqual([m["id"] for m in self.heard()], [0])


class HandshakeTests(Case):
    """Before there is a WebSocket."""

    def test_an_upgrade_has_the_headers_that_every_response_has(self) -> None:
        """Each once; over https the promise of it as well."""
        self.served = serve(Nothing(), routes=self.served.site.routes, trusted=("192.0.2.1",))
        for scheme in ("http", "https"):
            lines = self.handshake(X_Forwarded_Proto=scheme).split(b"\r\n")
            self.assertEqual(lines[0], b"HTTP/1.1 101 Switching Protocols")
            expected = self.served.site.common.lines(scheme == "https", NOW)
            self.assertEqual(b"Strict-Transport-Security" in dict(expected), scheme == "https")
            for name, value in expected:
                self.assertEqual([line for line in lines if line.startswith(name + b":")], [name + b": " + value])

    def test_so_has_a_refusal_of_autobahns(self) -> None:
        """Which is a whole response, after which the connection ends."""
        data = self.handshake(Sec_WebSocket_Extensions="permessage-deflate; nonsense=1")
        head, _, rest = data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 400 "), data)
        for name, value in (*self.served.site.common.lines(False, NOW), (b"Content-Length", b"0")):
            self.assertEqual(head.count(b"\r\n" + name + b": " + value), 1, name)
        self.assertEqual((rest, self.transport.disconnecting), (b"", True))

    def test_a_handshake_is_answered_with_our_subprotocol(self) -> None:
        """Whatever else is offered, in any case and order."""
        for offered in ("mcp", "foo, mcp", "mcp,bar"):
            data = self.handshake(Sec_WebSocket_Protocol=offered)
            head = data.partition(b"\r\n\r\n")[0].lower()
            self.assertTrue(head.startswith(b"http/1.1 101 "))
            self.assertIn(b"\r\nsec-websocket-accept: " + ACCEPT.lower().encode(), head)
            self.assertIn(b"\r\nsec-websocket-protocol: mcp", head)
            self.assertNotIn(b"\r\nserver:", head)
        self.assertTrue(
            self.handshake(Upgrade="WebSocket", Connection="keep-alive, Upgrade").startswith(b"HTTP/1.1 101 ")
        )

    def test_what_is_no_handshake_is_refused_as_http(self) -> None:
        """Each with its status and what would be right; the connection goes on."""
        table: tuple[tuple[dict[str, Any], int, bytes], ...] = (
            ({"method": "POST"}, 405, b"Allow: GET"),
            ({"Upgrade": None}, 426, b"Upgrade: websocket"),
            ({"Upgrade": "h2c"}, 426, b"Connection: Upgrade"),
            ({"Connection": None}, 426, b"Upgrade: websocket"),
            ({"Connection": "keep-alive"}, 426, b"Upgrade: websocket"),
            ({"Sec_WebSocket_Key": None}, 426, b"Upgrade: websocket"),
            ({"Sec_WebSocket_Key": "short"}, 400, b""),
            ({"Sec_WebSocket_Key": base64.b64encode(b"x" * 15).decode()}, 400, b""),
            ({"Sec_WebSocket_Version": "8"}, 400, b"Sec-WebSocket-Version: 13"),
            ({"Sec_WebSocket_Version": None}, 400, b"Sec-WebSocket-Version: 13"),
            ({"Sec_WebSocket_Protocol": None}, 400, b""),
            ({"Sec_WebSocket_Protocol": "MCP"}, 400, b""),
            ({"Sec_WebSocket_Protocol": "xmcp, mcpx"}, 400, b""),
        )
        for changes, status, header in table:
            data = self.handshake(**changes)
            self.assertTrue(data.startswith(b"HTTP/1.1 %d " % status), (changes, data))
            self.assertIn(header, data)
            self.assertEqual(len(self.factory.sockets), 0)
            self.assertEqual(self.records[-1].status, status)
            self.assertFalse(self.transport.disconnecting)

    def test_the_gate_comes_first(self) -> None:
        """A handshake without a credential is told so in HTTP."""
        self.refusal = RequestError(401, "unauthenticated", "no", ((b"WWW-Authenticate", b"Bearer"),))
        data = self.handshake()
        self.assertTrue(data.startswith(b"HTTP/1.1 401 "))
        self.assertIn(b"WWW-Authenticate: Bearer\r\n", data)

    def test_an_address_that_shows_nothing_to_the_principal_is_none(self) -> None:
        """404."""
        self.principal = Principal(name="p", allow=("b__*",))
        self.assertTrue(self.handshake().startswith(b"HTTP/1.1 404 "))
        self.assertTrue(self.handshake(path="/servers/b/ws").startswith(b"HTTP/1.1 101 "))

    def test_a_daemon_that_stops_takes_none(self) -> None:
        """503."""
        self.relay.close()
        self.assertTrue(self.handshake().startswith(b"HTTP/1.1 503 "))


class MessageTests(Case):
    """One message, one frame."""

    def test_a_session_over_one_connection(self) -> None:
        """No header, no envelope; our numbers upstream, theirs here."""
        self.open()
        self.initialize()
        self.say(notification("notifications/initialized"))
        self.assertEqual(self.wire().last.body["method"], "notifications/initialized")
        self.say(request("tools/call", "x", {"name": "t", "_meta": {"progressToken": "p"}}))
        self.wire().say(notification("notifications/progress", {"progressToken": 2}))
        self.wire().answer({"ok": 1})
        progress, reply = self.heard()
        self.assertEqual((progress["params"]["progressToken"], reply["id"], reply["result"]), ("p", "x", {"ok": 1}))

    def test_messages_of_servers_and_answers_to_them(self) -> None:
        """The connection is the standing stream."""
        self.open()
        self.initialize()
        self.wire().say(notification("notifications/message", {"n": 1}))
        self.wire().say(request("roots/list", "q"))
        note, asked = self.heard()
        self.assertEqual(note["params"], {"n": 1})
        self.say(response(asked["id"], {"roots": []}))
        self.assertEqual(self.wire().last.body, {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})

    def test_the_era_is_that_of_each_message(self) -> None:
        """Both on one connection, with the same id."""
        self.open()
        self.initialize()
        legacy = self.wire()
        self.say(request("tools/call", 1, {"name": "t"}))
        self.say(request("tools/call", 1, {"name": "t"}, modern=True))
        modern = self.wire()
        self.assertIsNot(legacy, modern)
        modern.answer({"era": "modern"})
        legacy.answer({"era": "legacy"})
        self.assertEqual([(m["id"], m["result"]["era"]) for m in self.heard()], [(1, "modern"), (1, "legacy")])
        self.assertEqual([r.era for r in self.records if r.method == "tools/call"], ["modern", "legacy"])

    def test_errors_come_under_the_requests_id_where_it_can_be_read(self) -> None:
        """And the connection goes on."""
        self.open()
        for raw, id_, code in (
            (b"junk", None, -32700),
            (b"[]", None, -32600),
            (request("tools/list", "x"), "x", -32600),
            (
                request("tools/call", "x", {"name": "t", "_meta": {VERSION_KEY: "2099-01-01"}}),
                "x",
                -32022,
            ),
            (request("initialize", "x", {}, modern=True).replace(b"initialize", b"tools/call"), "x", -32602),
            (b'{"jsonrpc":"2.0","id":"x","method":"tools/list","params":[]}', "x", -32600),
        ):
            (reply,) = self.say(raw)
            self.assertEqual((reply["id"], reply["error"]["code"]), (id_, code), raw)

    def test_notifications_and_responses_are_never_answered(self) -> None:
        """Not even those that are refused."""
        self.open()
        for raw in (
            notification("notifications/x"),
            notification("notifications/cancelled", {"requestId": [1]}),
            notification("notifications/cancelled", {"requestId": {"a": 1}}),
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[]}',
            response(7),
            response(None, error={"code": 1, "message": ""}),
        ):
            self.assertEqual(self.say(raw), [])
        self.initialize()

    def test_initialize_happens_once_unless_it_fails(self) -> None:
        """A second one is refused; after a refusal the client may try again."""
        self.open()
        self.say(request("initialize", 1))
        self.wire().answer(error={"code": -32602, "message": "no"})
        self.assertEqual([m["error"]["code"] for m in self.heard()], [-32602])
        self.assertEqual(self.relay.sessions, {})
        self.initialize()
        (reply,) = self.say(request("initialize", 2))
        self.assertEqual(reply["error"]["code"], -32600)
        self.assertEqual(len(self.relay.sessions), 1)

    def test_the_same_id_twice_at_once_is_refused(self) -> None:
        """In both eras."""
        self.open()
        self.initialize()
        for modern in (False, True):
            self.say(request("tools/call", 1, {"name": "t"}, modern=modern))
            (reply,) = self.say(request("tools/call", 1, {"name": "t"}, modern=modern))
            self.assertEqual(reply["error"]["code"], -32600)
            self.wire().answer({})
            self.assertEqual(len(self.heard()), 1)

    def test_binary_messages_are_refused(self) -> None:
        """1003: MCP is text."""
        self.open()
        self.assertEqual(self.say(request("ping"), BINARY), [(1003, "MCP messages are text")])

    def test_text_that_is_not_utf8_is_refused(self) -> None:
        """1007, by autobahn."""
        self.open()
        ((code, _),) = self.say(b'{"a":"\xff"}')
        self.assertEqual(code, 1007)

    def test_a_message_that_is_too_long_is_refused(self) -> None:
        """1009, in one frame and in many."""
        self.open()
        ((code, _),) = self.say(b" " * 1001)
        self.assertEqual(code, 1009)
        self.open()
        self.transport.protocol.dataReceived(frame(TEXT, b" " * 600, fin=False))
        self.transport.protocol.dataReceived(frame(0, b" " * 600))
        ((code, _),) = self.heard()
        self.assertEqual(code, 1009)


class CancelTests(Case):
    """Stopping work."""

    def test_a_notification_cancels_in_both_eras(self) -> None:
        """With or without the envelope; the server hears its own number."""
        self.open()
        self.say(request("tools/call", "m", {"name": "t"}, modern=True))
        self.say(notification("notifications/cancelled", {"requestId": "m", "reason": "r"}))
        self.assertEqual(self.wire().last.body["params"], {"requestId": 1, "reason": "r"})
        self.initialize()
        self.say(request("tools/call", "l", {"name": "t"}))
        self.say(notification("notifications/cancelled", {"requestId": "l"}))
        self.assertEqual(self.wire().last.body["params"], {"requestId": 2})
        self.wire().answer({}, number=2)
        self.assertEqual(self.heard(), [])

    def test_closing_the_connection_cancels_everything_and_ends_the_session(self) -> None:
        """Each request leaves a record, and so does the connection."""
        self.open()
        self.initialize()
        legacy = self.wire()
        self.say(request("tools/call", 1, {"name": "t"}))
        self.say(request("tools/call", 2, {"name": "t"}, modern=True))
        modern = self.wire()
        self.lose()
        self.assertEqual((legacy.closed, modern.last.body["method"]), (True, "notifications/cancelled"))
        self.assertEqual((self.relay.sessions, self.relay.in_flight, len(self.factory.sockets)), ({}, 0, 0))
        self.assertEqual([r.method for r in self.records], ["initialize", "tools/call", "tools/call", None])
        last = self.records[-1]
        self.assertEqual((last.protocol, last.status, last.path), ("ws", 101, "/servers/a/ws"))
        self.assertGreater(last.received, 0)

    def test_a_session_that_ends_ends_the_connection(self) -> None:
        """1011, after the calls have heard."""
        self.open()
        self.initialize()
        self.say(request("tools/call", 1, {"name": "t"}))
        (session,) = self.relay.sessions.values()
        session.close()
        reply, close = self.heard()
        self.assertEqual(reply["error"]["message"], "the session has ended")
        self.assertEqual(close, (1011, "the session has ended: connect again"))

    def test_a_daemon_that_stops_says_goodbye(self) -> None:
        """1001, with and without a session."""
        self.open()
        self.initialize()
        self.relay.close()
        self.assertEqual(self.heard(), [(1001, "the daemon is stopping")])
        self.setUp()
        protocol = self.open()
        protocol.leave()
        self.assertEqual(self.heard(), [(1001, "the daemon is stopping")])


class PressureTests(Case):
    """A client that does not read."""

    def test_its_calls_are_paused_and_those_it_sends_meanwhile(self) -> None:
        """Until it reads again."""
        protocol = self.open()
        self.initialize()
        self.say(request("tools/call", 1, {"name": "t"}))
        protocol.pauseProducing()
        self.say(request("tools/call", 2, {"name": "t"}))
        self.say(request("tools/call", 3, {"name": "t"}, modern=True))
        legacy, modern = self.upstreams["a"].wires
        self.assertEqual((legacy.paused, modern.paused), ({2, 3}, {1}))
        protocol.resumeProducing()
        self.assertEqual((legacy.paused, modern.paused), (set(), set()))

    def test_a_silent_client_is_asked_and_then_dropped(self) -> None:
        """Half-open connections do not stay for ever."""
        self.open()
        self.initialize()
        self.clock.pump([1.0] * PING_SECONDS)
        ((opcode, payload),) = self.heard()
        self.assertEqual(opcode, PING)
        self.say(payload, PONG)
        self.clock.pump([1.0] * PING_SECONDS)
        self.assertEqual(len(self.heard()), 1)
        self.clock.pump([1.0] * (PONG_SECONDS + 1))
        self.assertTrue(self.transport.aborted or self.transport.disconnecting)
