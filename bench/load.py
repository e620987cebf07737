"""A load generator: one request in flight on each of many connections, as fast as the server answers.

A process of its own, so that its time is not the server's: ``python -m bench.load HOST:PORT CONNECTIONS SECONDS VARY``
with the body on standard input; prints ``{"requests": …, "seconds": …}``. Raw sockets and epoll: about 7 µs per
request. Replies are counted by their length, which is the same for all of them.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def load(host: str, port: int, connections: int, seconds: float, vary: bool, body: bytes) -> dict[str, float]:
    """Run for ``seconds``; with ``vary`` each request has a header that no other has."""
    head = (
        f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/json, text/event-stream\r\n"
        f"Content-Type: application/json\r\nUser-Agent: bench\r\nX-Request-Id: 00000000\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    request = head + body
    before, after = request.split(b"00000000", 1)
    poll = select.epoll()
    sockets = {}
    missing: dict[int, int] = {}
    for _ in range(connections):
        client = socket.create_connection((host, port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[client.fileno()] = client
        missing[client.fileno()] = 0
        poll.register(client.fileno(), select.EPOLLIN)
    size = _reply_size(next(iter(sockets.values())), request)
    sent = done = 0
    for number, client in sockets.items():
        client.sendall(request)
        missing[number] = size
    started = time.perf_counter()
    end = started + seconds
    while time.perf_counter() < end:
        for number, _ in poll.poll(1):
            client = sockets[number]
            got = len(client.recv(65536))
            if not got:
                raise SystemExit("the server closed a connection")
            missing[number] -= got
            if missing[number] <= 0:
                if missing[number] < 0:
                    raise SystemExit("a reply has another length than the first one")
                missing[number] = size
                done += 1
                if vary:
                    sent += 1
                    client.send(b"%b%08d%b" % (before, sent, after))
                else:
                    client.send(request)
    return {"requests": done, "seconds": time.perf_counter() - started}


def _reply_size(client: socket.socket, request: bytes) -> int:
    client.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    if not data.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(data.decode("latin-1"))
    length = _LENGTH.search(data)
    assert length is not None, data
    size = data.index(b"\r\n\r\n") + 4 + int(length[1])
    while len(data) < size:
        data += client.recv(65536)
    return size


if __name__ == "__main__":
    address, count, duration, varied = sys.argv[1:]
    name, _, number = address.rpartition(":")
    print(json.dumps(load(name, int(number), int(count), float(duration), varied == "1", sys.stdin.buffer.read())))
