"""Servers of one test, in threads of the test run: TLS with any certificate, and a receiver of alerts."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field

from mcptunnel.config.schema import CertificatePair
from tests.processes import OutsideCase

__all__ = ["Receiver", "over_tls", "receiver"]


class _Silent(BaseHTTPRequestHandler):
    """Answers nothing and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Not looked at."""


class _Quiet(ThreadingHTTPServer):
    """Clients may break off."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Not looked at."""


@define(eq=False)
class Receiver:
    """What has been posted.

    Attributes:
        url: Where to post it.
        refusals: Statuses of the next answers; 204 when there is none left.
        attempts: Status of each answer so far.
        documents: What was taken.
        headers: Those of the last request.
    """

    url: str
    refusals: list[int]
    attempts: list[int] = field(factory=list)
    documents: list[dict[str, Any]] = field(factory=list)
    headers: dict[str, str] = field(factory=dict)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """One request; the status of its answer."""
        self.headers = headers
        status = self.refusals.pop(0) if self.refusals else 204
        if status == 204:
            self.documents.append(json.loads(body))
        self.attempts.append(status)
        return status


def receiver(case: OutsideCase, refusals: Sequence[int] = (), pair: CertificatePair | None = None) -> Receiver:
    """A receiver that lives as long as the test; over TLS with ``pair``."""

    class Taking(_Silent):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(taken.take({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()

    port = _serve(case, Taking, pair)
    taken = Receiver(f"{'http' if pair is None else 'https'}://127.0.0.1:{port}/hook?key=T0KEN", list(refusals))
    return taken


def over_tls(case: OutsideCase, pair: CertificatePair) -> int:
    """The port of a server that shows the certificate of ``pair`` and lives as long as the test."""
    return _serve(case, _Silent, pair)


def _serve(case: OutsideCase, handler: type[BaseHTTPRequestHandler], pair: CertificatePair | None) -> int:
    server = _Quiet(("127.0.0.1", 0), handler)
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert_file, pair.key_file)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    case.addCleanup(stop)
    return int(server.server_address[1])
