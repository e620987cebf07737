"""A client for ``bench tls``, in a process of its own: ``python -m bench.tls_load PORT WHAT COUNT GROUPS``.

WHAT is one of

- ``full``, ``resumed``: COUNT handshakes one after the other, each on a connection of its own, with no request;
- ``bulk``: COUNT large responses over one connection;
- ``idle``: COUNT connections with one small request each, kept until standard input ends.

Prints one line of JSON when it is done; ``idle`` prints it when all connections are open. OpenSSL is that of
pyOpenSSL, so that every group is there.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from typing import Any

from OpenSSL import SSL

from mcptunnel.tls.context import resumed, set_groups

_REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def context_for(groups: list[str]) -> SSL.Context:
    """TLS 1.3 with these groups. Certificates are not looked at: that would be the client's time, not the server's."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    assert set_groups(context, groups)
    return context


def connect(context: SSL.Context, port: int, session: Any = None) -> SSL.Connection:
    """Connected, and through the handshake."""
    connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", port)))
    connection.set_tlsext_host_name(b"localhost")
    if session is not None:
        connection.set_session(session)
    connection.set_connect_state()
    connection.do_handshake()
    return connection


def close(connection: SSL.Connection) -> None:
    """Say goodbye, as clients do, and without which OpenSSL does not resume the session again."""
    connection.shutdown()
    connection.close()


def ask(connection: SSL.Connection, path: bytes) -> int:
    """One request; the length of its answer's body."""
    connection.sendall(_REQUEST % path)
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65_536)
    head, _, body = head.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(head.decode("latin-1"))
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    got = len(body)
    while got < length:
        got += len(connection.recv(65_536))
    return length


def handshakes(context: SSL.Context, port: int, count: int, resume: bool) -> int:
    """How many of ``count`` connections were as they were to be."""
    session = None
    if resume:
        # Tickets come after the handshake: reading an answer takes them in.
        first = connect(context, port)
        ask(first, b"")
        session = first.get_session()
        close(first)
    right = 0
    for _ in range(count):
        connection = connect(context, port, session)
        right += resumed(connection) == resume
        close(connection)
    return right


def main() -> None:
    port, what, count, groups = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = context_for(groups)
    started = time.perf_counter()
    if what == "bulk":
        connection = connect(context, port)
        done = sum(ask(connection, b"large") for _ in range(count))
    elif what == "idle":
        kept = [connect(context, port) for _ in range(count)]
        done = len([ask(connection, b"") for connection in kept])
    else:
        done = handshakes(context, port, count, what == "resumed")
    print(json.dumps({"done": done, "seconds": time.perf_counter() - started}), flush=True)
    if what == "idle":
        sys.stdin.read()


if __name__ == "__main__":
    main()
