"""The demo MCP server behind what stands before servers in the world: TLS that asks for a certificate, a redirect.

python -m tests.secured PORT tls CERT KEY CA     Streamable HTTP over TLS, for clients with a certificate of CA
python -m tests.secured PORT redirect URL        Every POST is redirected (307) to URL, /mcp/ is served
"""

from __future__ import annotations

import ssl
import sys
from http.server import ThreadingHTTPServer

from mcptunnel.demo import _Handler


class Redirecting(_Handler):
    """Sends clients elsewhere, unless they have come to where it sends them."""

    to = ""

    def do_POST(self) -> None:
        if self.path == "/mcp/":
            super().do_POST()
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(307)
        self.send_header("Location", self.to)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    port, kind, *rest = sys.argv[1:]
    Redirecting.to = rest[0]
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler if kind == "tls" else Redirecting)
    server.daemon_threads = True
    if kind == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=rest[2])
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(rest[0], rest[1])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()
