"""Every kind of response there is, on real sockets, by http and by https: none goes without the security headers."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

from tests.certificates import NAME, client_context
from tests.clients import INITIALIZE, MODERN, STRANGER, dial, modern
from tests.daemon import Daemon, DaemonCase
from tests.processes import free_port

PROXY: Final = "127.0.0.2"
TOKEN: Final = "t" * 40
DEMO: Final = "/servers/demo"

# Every header line that each response has exactly once: the defaults, and what the operator has made of them.
EXPECTED: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "x-ours": "yes",
}
OVERRIDES: Final = {"X-Frame-Options": "SAMEORIGIN", "Permissions-Policy": None, "X-Ours": "yes"}
HSTS: Final = "strict-transport-security"
PROMISE: Final = "max-age=31536000; includeSubDomains; preload"

KEY: Final = "MDEyMzQ1Njc4OWFiY2RlZg=="
UPGRADE: Final = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")


def ask(verb: str, path: str, *lines: str, body: bytes = b"", token: bool = True, host: str = NAME) -> bytes:
    """A request."""
    head = [f"{verb} {path} HTTP/1.1", f"Host: {host}", *lines]
    if token:
        head.append(f"Authorization: Bearer {TOKEN}")
    if body or verb == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def post(message: dict[str, Any], *lines: str, path: str = f"{DEMO}/mcp") -> bytes:
    """An MCP message."""
    kinds = ("Content-Type: application/json", "Accept: application/json, text/event-stream")
    return ask("POST", path, *kinds, *lines, body=json.dumps(message).encode())


def call(tool: str, *lines: str, _meta: Mapping[str, Any] | None = None, **arguments: Any) -> bytes:
    """A call of the modern era."""
    message = modern("tools/call", name=tool, arguments=arguments, _meta=_meta or {})
    return post(message, f"MCP-Protocol-Version: {MODERN}", "Mcp-Method: tools/call", f"Mcp-Name: {tool}", *lines)


# Events must not be held back by what compresses, either.
STREAMS: Final = ("a stream", "HTTP+SSE")
INITIALIZED: Final = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}

# What is asked, and the status that answers it; all of them are understood, so that a proxy can say how they came.
READABLE: Final[dict[str, tuple[bytes, int]]] = {
    "liveness": (ask("GET", "/health/live", token=False), 200),
    "details": (ask("GET", "/health"), 200),
    "HEAD": (ask("HEAD", "/health/ready", token=False), 200),
    "no method": (ask("DELETE", "/health/live"), 405),
    "nowhere": (ask("GET", "/nowhere"), 404),
    "options": (ask("OPTIONS", "*"), 200),
    "no token": (ask("GET", f"{DEMO}/mcp", token=False), 401),
    "other host": (ask("GET", f"{DEMO}/mcp", host="other.test"), 421),
    "foreign page": (ask("GET", f"{DEMO}/mcp", "Origin: https://evil.test"), 403),
    "twice": (ask("GET", f"{DEMO}/ws", "Upgrade: a", "Upgrade: b"), 400),
    "too long": (ask("POST", f"{DEMO}/mcp", body=b"x" * 3000), 413),
    "a call": (call("echo", text="hi"), 200),
    "after 100 Continue": (call("echo", "Expect: 100-continue", text="hi"), 200),
    "initialize": (post(INITIALIZED), 200),
    "no JSON": (ask("POST", f"{DEMO}/mcp", "Content-Type: application/json", body=b"{"), 400),
    "a stream": (call("count", _meta={"progressToken": 1}, to=2), 200),
    "HTTP+SSE": (ask("GET", f"{DEMO}/sse", "Accept: text/event-stream"), 200),
    "WebSocket": (ask("GET", f"{DEMO}/ws", *UPGRADE, "Sec-WebSocket-Protocol: mcp"), 101),
    "no WebSocket": (ask("GET", f"{DEMO}/ws"), 426),
    "no subprotocol": (ask("GET", f"{DEMO}/ws", *UPGRADE), 400),
    "autobahn's no": (
        ask(
            "GET",
            f"{DEMO}/ws",
            *UPGRADE,
            "Sec-WebSocket-Protocol: mcp",
            "Sec-WebSocket-Extensions: permessage-deflate; x",
        ),
        400,
    ),
    "challenge": (ask("GET", "/.well-known/acme-challenge/token", token=False, host="new.test"), 200),
    "no challenge": (ask("GET", "/.well-known/acme-challenge/other", token=False, host="new.test"), 404),
}
UNREADABLE: Final[dict[str, tuple[bytes, int]]] = {
    "no request": (b"GET\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "framed twice": (ask("POST", "/mcp", "Transfer-Encoding: chunked"), 400),
    "a later version": (b"GET / HTTP/2.7\r\nHost: a\r\n\r\n", 505),
    "long target": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
    "long head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000 + b"\r\n\r\n", 431),
    "too slow": (b"GET / HTTP/1.1\r\nHost:", 408),
}


class HeadersTests(DaemonCase):
    """The whole set, each once, with the operator's changes."""

    timeout = 240

    def setUp(self) -> None:
        super().setUp()
        place = self.place / "webroot" / ".well-known" / "acme-challenge"
        place.mkdir(parents=True)
        (place / "token").write_text("answer")

    def run_daemon(self, mode: str, headers: Mapping[str, str | None] = OVERRIDES, **tls: Any) -> Daemon:
        promise = {"hsts_max_age": "365d", "hsts_include_subdomains": True, "hsts_preload": True}
        return self.daemon(
            mode,
            trusted=(PROXY,),
            tls={"acme_webroot": str(self.place / "webroot"), **promise, **tls},
            server={"limits": {"header_bytes": 4096, "body_bytes": 2048, "header_timeout": "1s"}},
            auth={"tokens": [{"name": "t", "token": TOKEN}]},
            security={"headers": dict(headers)},
        )

    def answer(self, port: int, data: bytes, source: str, tls: ssl.SSLContext | None) -> tuple[int, list[list[str]]]:
        """Status and header lines of the final response; a stream is left after its head."""
        with contextlib.closing(dial(port, source, tls=tls)) as connection:
            connection.sendall(data)
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    chunk = connection.recv(65_536)
                    self.assertTrue(chunk, f"{data[:80]!r}: ended after {received!r}")
                    received += chunk
                head, _, received = received.partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                if not first.startswith("HTTP/1.1 100"):
                    return int(first[9:12]), [line.split(": ", 1) for line in lines]

    def check(
        self, what: str, port: int, data: bytes, status: int, *, https: bool, source: str, tls: bool = False
    ) -> None:
        got, lines = self.answer(port, data, source, client_context() if tls else None)
        self.assertEqual(got, status, f"{what}: {lines}")
        names = [name.lower() for name, _ in lines]
        values = {name.lower(): value for name, value in lines}
        expected = {**EXPECTED, **({HSTS: PROMISE} if https else {})}
        if what in STREAMS:
            expected["cache-control"] = "no-store, no-transform"
        for name, value in expected.items():
            self.assertEqual((names.count(name), values.get(name)), (1, value), f"{what}, {name}: {lines}")
        self.assertEqual([names.count(name) for name in ("date", "server", "permissions-policy")], [1, 0, 0], what)
        self.assertEqual(HSTS in names, https, f"{what}: {lines}")

    def test_whatever_is_served(self) -> None:
        """By https here, by http through a proxy, and by https through one that does not encrypt anew."""
        port = self.run_daemon("auto", redirect_http={"port": free_port()}).port
        for what, (data, status) in READABLE.items():
            self.check(what, port, data, status, https=True, source=STRANGER, tls=True)
            self.check(what, port, data, status, https=False, source=PROXY)
            proxied = data.replace(b"\r\n", b"\r\nX-Forwarded-Proto: https\r\n", 1)
            self.check(what, port, proxied, status, https=True, source=PROXY)
        for what, (data, status) in UNREADABLE.items():
            self.check(what, port, data, status, https=True, source=STRANGER, tls=True)
            self.check(what, port, data, status, https=False, source=PROXY)

    def test_each_can_be_replaced_and_taken_away(self) -> None:
        """By the operator, on a whole reply, a stream, a refusal, and what autobahn writes."""
        kinds, every = ("liveness", "nowhere", "WebSocket", *STREAMS), sorted((*EXPECTED, "permissions-policy"))
        daemons = [
            (value, self.run_daemon("disabled", dict.fromkeys(every, value), hsts_preload=False).port)
            for value in ("ours", None)
        ]
        for what in kinds:
            data, status = READABLE[what]
            for value, port in daemons:
                got, lines = self.answer(port, data, STRANGER, None)
                self.assertEqual(got, status)
                found = sorted(name.lower() for name, text in lines if text == "ours")
                self.assertEqual(found, every if value else [], f"{what}: {lines}")
                self.assertEqual(sorted(name.lower() for name, _ in lines if name.lower() in every), found, what)

    def test_whatever_is_refused_because_it_came_in_plaintext(self) -> None:
        """In every mode, and on the port for http; a challenge is not, and has them too."""
        http = free_port()
        for mode, get_status, tls in (
            ("auto", 308, {"redirect_http": {"port": http}}),
            ("application", 400, {"redirect_http": {"port": free_port()}}),
            ("behind_proxy", 403, {}),
        ):
            port = self.run_daemon(mode, **tls).port
            post_status = 403 if get_status == 308 else get_status
            ports = [port, http] if mode == "auto" else [port]
            for at in ports:
                plain = ask("GET", "/mcp", token=False)
                self.check(f"{mode} GET", at, plain, get_status, https=False, source=STRANGER)
                self.check(f"{mode} POST", at, ask("POST", "/mcp"), post_status, https=False, source=STRANGER)
                for what in ("challenge", "no challenge"):
                    self.check(f"{mode} {what}", at, *READABLE[what], https=False, source=STRANGER)
                self.check(f"{mode} early", at, b"GET\r\n\r\n", 400, https=False, source=STRANGER)
