"""asyncio's ssl with the least HTTP/1.1 that can be: PORT CERT KEY BYTES."""

from __future__ import annotations

import asyncio
import ssl
import sys

port, cert_file, key_file, size = sys.argv[1:5]
LARGE = b"x" * int(size)


class Answers(asyncio.Protocol):
    """Every segment is one request, which holds for the bench's client."""

    transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        body = LARGE if data.startswith(b"GET /large ") else b"ok"
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        self.transport.write(body)


async def serve() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", int(port), ssl=context, backlog=1024)
    await server.serve_forever()


asyncio.run(serve())
