"""A small MCP server to try the daemon with: both eras, over standard input and output or over HTTP.

    python -m mcptunnel.demo stdio
    python -m mcptunnel.demo http 3002
    python -m mcptunnel.demo hints https://localhost:3000

The third form is no server: it waits until a daemon answers there and prints three commands to try.

Tools: ``echo``, ``add``, ``clock``, ``count`` (reports progress), ``ask`` (asks the user for a name: by a request of
the server in the legacy era, by an input-required result in the modern one). It uses the standard library only and is
no part of the daemon: it is what stands behind one.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["main"]

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
IDENTITY: Final = {"name": "mcptunnel-demo", "version": "1"}
CACHING: Final = {"ttlMs": 60_000, "cacheScope": "public"}

Json = dict[str, Any]
Emit = Callable[[Json], None]
# Sends a request to the client and waits for its result; None where no answer can come.
Ask = Callable[[str, Json], Json | None]


def _tool(name: str, description: str, required: bool = True, **properties: str) -> Json:
    schema: Json = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    if properties and required:
        schema["required"] = list(properties)
    return {"name": name, "description": description, "inputSchema": schema}


TOOLS: Final = [
    _tool("echo", "Say the text again.", text="string"),
    _tool("add", "Add two numbers.", a="number", b="number"),
    _tool("clock", "The time of day, UTC."),
    _tool("count", "Count up to a number, one step a tenth of a second, with progress.", to="integer"),
    _tool("ask", "Ask the user for a name and greet them."),
]
ELICIT: Final = {
    "message": "What is your name?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}


class RefusedError(Exception):
    """A JSON-RPC error for the client."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error: Final = {"code": code, "message": message} | ({} if data is None else {"data": data})


def _text(text: str, **more: Any) -> Json:
    return {"content": [{"type": "text", "text": text}], **more}


def _greeting(answer: Json) -> Json:
    name = answer.get("content", {}).get("name")
    return _text(f"Hello {name}!" if answer.get("action") == "accept" and name else "Hello whoever you are!")


def call(name: str, params: Json, modern: bool, emit: Emit, ask: Ask) -> Json:
    """The result of one tool call."""
    arguments = params.get("arguments") or {}
    if name == "echo":
        return _text(str(arguments.get("text", "")))
    if name == "add":
        try:
            total = arguments["a"] + arguments["b"]
        except (KeyError, TypeError):
            return _text("add needs two numbers, a and b", isError=True)
        return _text(str(total), structuredContent={"total": total})
    if name == "clock":
        return _text(datetime.now(UTC).isoformat(timespec="milliseconds"))
    if name == "count":
        try:
            to = min(int(arguments.get("to", 3)), 100)
        except (TypeError, ValueError):
            return _text("count needs an integer, to", isError=True)
        token = params.get("_meta", {}).get("progressToken")
        for step in range(1, to + 1):
            time.sleep(0.1)
            if token is not None:
                progress = {"progressToken": token, "progress": step, "total": to, "message": f"step {step}"}
                emit({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        return _text(f"counted to {to}")
    if name == "ask":
        if not modern:
            return _greeting(ask("elicitation/create", dict(ELICIT)) or {})
        given = params.get("inputResponses", {}).get("name")
        if given is None:
            request = {"method": "elicitation/create", "params": {"mode": "form", **ELICIT}}
            return {"resultType": "input_required", "inputRequests": {"name": request}}
        return _greeting(given)
    raise RefusedError(-32602, f"Unknown tool: {name}")


def result_of(method: str, params: Json, modern: bool, emit: Emit, ask: Ask) -> Json:
    """The result of one request.

    Raises:
        RefusedError: There is none.
    """
    if modern:
        asked = params["_meta"].get(VERSION_KEY)
        if asked != MODERN:
            raise RefusedError(-32022, "Unsupported protocol version", {"supported": [MODERN], "requested": asked})
    if method == "tools/call":
        return call(str(params.get("name")), params, modern, emit, ask)
    if method == "tools/list":
        return {"tools": TOOLS} | (CACHING if modern else {})
    if method == "server/discover" and modern:
        return {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "serverInfo": IDENTITY, **CACHING}
    if method == "initialize" and not modern:
        wanted = params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in LEGACY else LEGACY[-1],
            "capabilities": {"tools": {}},
            "serverInfo": IDENTITY,
        }
    if method == "ping" and not modern:
        return {}
    raise RefusedError(-32601, f"Method not found: {method}")


def answer(message: Json, emit: Emit, ask: Ask) -> Json:
    """The response to one request."""
    params = message.get("params") or {}
    modern = VERSION_KEY in (params.get("_meta") or {})
    try:
        result = result_of(str(message["method"]), params, modern, emit, ask)
        if modern:
            result = {"resultType": "complete", "_meta": {"io.modelcontextprotocol/serverInfo": IDENTITY}} | result
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}
    except RefusedError as e:
        return {"jsonrpc": "2.0", "id": message["id"], "error": e.error}


class _Pending:
    """Requests to the client that wait for their answers."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._waiting: Final[dict[str, tuple[threading.Event, list[Json]]]] = {}

    def ask(self, emit: Emit, method: str, params: Json) -> Json | None:
        """Send a request through ``emit`` and wait a minute for the result."""
        id_ = f"demo-{secrets.token_hex(4)}"
        settled = threading.Event()
        results: list[Json] = []
        with self._lock:
            self._waiting[id_] = (settled, results)
        emit({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        settled.wait(60)
        with self._lock:
            self._waiting.pop(id_, None)
        return results[0] if results else None

    def settle(self, message: Json) -> None:
        """Take the client's response."""
        with self._lock:
            waiting = self._waiting.get(str(message.get("id")))
        if waiting is not None:
            settled, results = waiting
            if isinstance(result := message.get("result"), dict):
                results.append(result)
            settled.set()


def serve_stdio() -> None:
    """Speak over standard input and output until the input closes."""
    lock, pending = threading.Lock(), _Pending()

    def emit(message: Json) -> None:
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def work(message: Json) -> None:
        emit(answer(message, emit, lambda method, params: pending.ask(emit, method, params)))

    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message:
            pending.settle(message)
        elif "id" in message:
            # A thread each, so that one call never waits for another.
            threading.Thread(target=work, args=(message,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    """Streamable HTTP at every path; answers in JSON, or as an event stream when there is more than one message."""

    protocol_version = "HTTP/1.1"
    # Head and body are written one after the other; the second would wait 40 ms for the client's delayed ACK.
    disable_nagle_algorithm = True
    pending: Final = _Pending()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the daemon in front logs."""

    def do_GET(self) -> None:
        self._plain(405)

    def do_DELETE(self) -> None:
        self._plain(200)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if "method" not in message:
            self.pending.settle(message)
        if "id" not in message or "method" not in message:
            self._plain(202)
            return
        streaming = False

        def emit(event: Json) -> None:
            nonlocal streaming
            if not streaming:
                streaming = True
                self._head(200, "text/event-stream", None)
            self.wfile.write(b"event: message\ndata: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()

        reply = answer(message, emit, lambda method, params: self.pending.ask(emit, method, params))
        if streaming:
            emit(reply)
            self.close_connection = True
            return
        code = reply.get("error", {}).get("code")
        modern = self.headers.get("MCP-Protocol-Version") == MODERN
        status = {-32601: 404, -32602: 400, -32022: 400}.get(code, 200) if modern and code else 200
        body = json.dumps(reply).encode()
        self._head(status, "application/json", len(body), new=message["method"] == "initialize")
        self.wfile.write(body)

    def _plain(self, status: int) -> None:
        self._head(status, None, 0)

    def _head(self, status: int, kind: str | None, length: int | None, new: bool = False) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        if new:
            self.send_header("Mcp-Session-Id", secrets.token_hex(16))
        self.end_headers()


def serve_http(port: int) -> None:
    """Speak Streamable HTTP on 127.0.0.1:``port``; says so once it listens. Ends when its parent does."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    except OSError as e:
        sys.exit(f"the demo MCP server cannot listen on 127.0.0.1:{port}: {e.strerror}")
    server.daemon_threads = True
    print(f"demo MCP server on http://127.0.0.1:{server.server_port}/mcp", flush=True)
    _end_with_parent()
    server.serve_forever()


def _end_with_parent() -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


HINTS: Final = """
mcptunnel answers at {url}/mcp, https and http on the same port. Three commands to try, from this folder:

  curl --cacert .dev/ca.pem {url}/servers/demo/mcp -H 'Content-Type: application/json' \\
       -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/list' \\
       -d '{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}'

  NODE_EXTRA_CA_CERTS=.dev/ca.pem npx @modelcontextprotocol/inspector --cli {url}/mcp --transport http \\
       --method tools/call --tool-name demo__echo --tool-arg text=hello

  curl {plain}/health
"""  # noqa: E501  # commands to copy


def hints(url: str) -> int:
    """Print three commands once something listens at ``url``; status 1 when nothing does within half a minute."""
    parts = urlsplit(url)
    _end_with_parent()
    for _ in range(150):
        try:
            socket.create_connection((parts.hostname or "localhost", parts.port or 443), 1).close()
        except OSError:
            time.sleep(0.2)
            continue
        print(HINTS.format(url=url, plain="http" + url.removeprefix("https")), flush=True)
        return 0
    return 1


def main(argv: list[str]) -> int:
    """Run the transport that ``argv`` names."""
    if argv[:1] == ["stdio"] and len(argv) == 1:
        serve_stdio()
        return 0
    if argv[:1] == ["http"] and len(argv) == 2 and argv[1].isdigit():
        serve_http(int(argv[1]))
        return 0
    if argv[:1] == ["hints"] and len(argv) == 2:
        return hints(argv[1])
    print("usage: python -m mcptunnel.demo stdio | http PORT | hints URL", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
