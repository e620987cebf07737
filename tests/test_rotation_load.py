"""Certificates are swapped fifty times under load: no call fails, no stream ends, what is served follows the file."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from tests.certificates import NAME, authority, client_context, issue
from tests.clients import ACCEPT, INITIALIZE, SECONDS, HttpClient, WebSocket, _Connection, dial, modern, websocket
from tests.daemon import DaemonCase

DEMO: Final = "/servers/demo/mcp"
CALLS: Final = 10_000
CALLERS: Final = 4
# A connection is given up after so many calls, so that handshakes happen all the time.
CALLS_EACH: Final = 20
STREAMS: Final = 100
SWAPS: Final = 50
FOLLOWS: Final = 1.0


def served(port: int) -> str:
    """The fingerprint that a new connection gets."""
    with client_context().wrap_socket(dial(port), server_hostname=NAME) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return sha256(der).hexdigest()


def in_file(path: str) -> str:
    """The fingerprint of the first certificate in a file."""
    return x509.load_pem_x509_certificates(Path(path).read_bytes())[0].fingerprint(SHA256()).hex()


@define(eq=False)
class Caller:
    """Calls without a pause, each answer checked, on connections that it changes."""

    port: int
    calls: int = 0
    failures: list[object] = field(factory=list)
    enough: threading.Event = field(factory=threading.Event)

    def run(self) -> None:
        client = HttpClient(port=self.port)
        while not self.enough.is_set() or self.calls < CALLS // CALLERS:
            connection = _Connection(self.port, client.source, client.tls, NAME)
            try:
                for _ in range(CALLS_EACH):
                    self.call(client, connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                if len(self.failures) > 100:
                    return
            finally:
                connection.close()

    def call(self, client: HttpClient, connection: http.client.HTTPConnection) -> None:
        text = f"call {self.calls}"
        message = modern("tools/call", name="echo", arguments={"text": text})
        connection.request("POST", DEMO, json.dumps(message), client.modern_headers(message))
        reply = connection.getresponse()
        body = reply.read()
        self.calls += 1
        if reply.status != 200 or json.loads(body)["result"]["content"][0]["text"] != text:
            self.failures.append((reply.status, body))


@define(eq=False)
class EventStream:
    """One open stream of HTTP+SSE, and the address for its messages."""

    client: HttpClient
    response: http.client.HTTPResponse
    address: str

    @classmethod
    @contextlib.contextmanager
    def open(cls, port: int) -> Iterator[EventStream]:
        client = HttpClient(port=port)
        with client.open("GET", "/servers/demo/sse", headers={"Accept": "text/event-stream"}) as (response, _):
            yield cls(client, response, urljoin("/servers/demo/sse", cls.event(response)))

    @staticmethod
    def event(response: http.client.HTTPResponse) -> str:
        """The data of the next event; comments are passed over."""
        while line := response.readline():
            if line.startswith(b"data: "):
                return line.decode().removeprefix("data: ").rstrip("\r\n")
        raise AssertionError("the stream has ended")

    def works(self) -> None:
        """A request gets its answer on this very stream."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}).encode()
        reply = self.client.send("POST", self.address, body, ACCEPT)
        assert reply.status == 202, (reply.status, reply.body)
        answer = json.loads(self.event(self.response))
        assert answer["result"]["serverInfo"], answer


class RotationUnderLoadTests(DaemonCase):
    """The promise of the whole thing."""

    def setUp(self) -> None:
        super().setUp()
        self.live, self.told = self.place / "live", self.place / "alerts"
        self.live.mkdir()
        for number in range(2):
            pair = issue(self.place, f"first-{number}")
            for file, name in ((pair.cert_file, "cert.pem"), (pair.key_file, "key.pem")):
                os.replace(file, self.live / name)
        self.cert, self.key = str(self.live / "cert.pem"), str(self.live / "key.pem")
        self.server = self.daemon(
            "application",
            tls={"cert_file": self.cert, "key_file": self.key},
            servers={"demo": {"url": self.upstream()}},
            logging={"access": "off"},
            alerts=[{"command": ["/bin/sh", "-c", 'cat >> "$0"; echo >> "$0"', str(self.told)]}],
        )

    def events(self) -> list[tuple[str, str]]:
        """What the target of alerts was told of the files, and how bad it was."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        told = [json.loads(line) for line in lines if line]
        return [(one["event"], one["verdict"]) for one in told if one["event"].startswith("reload_")]

    def swap(self, number: int) -> bool:
        """Replace the pair, in one of the ways that others do it; False for a pair that is broken."""
        pair = issue(self.place, f"next-{number}")
        cert, key = Path(pair.cert_file).read_bytes(), Path(pair.key_file).read_bytes()
        broken = number % 5 == 4
        if broken:
            # Half a chain, or a key of another certificate.
            if number % 2:
                cert = cert[: len(cert) // 2]
            else:
                key = Path(issue(self.place, "other").key_file).read_bytes()
        if number % 2:
            for path, content in ((self.cert, cert), (self.key, key)):
                beside = Path(f"{path}.new")
                beside.write_bytes(content)
                beside.chmod(0o600)
                os.replace(beside, path)
        else:
            # In place, the key first, as a careless script does it.
            Path(self.key).write_bytes(key)
            Path(self.cert).write_bytes(cert)
        return not broken

    def follow(self, expected: str) -> float:
        """Seconds until a new connection is shown ``expected``."""
        started = time.monotonic()
        while served(self.server.port) != expected:
            if time.monotonic() - started > 5:
                self.fail(f"{expected} is not served after 5 s:\n{self.server.process.output()}")
            time.sleep(0.02)
        return time.monotonic() - started

    def test_no_call_fails_and_no_stream_ends(self) -> None:
        """10,000 calls, 200 open streams, 50 swaps of which every fifth is broken."""
        port = self.server.port
        callers = [Caller(port) for _ in range(CALLERS)]
        threads = [threading.Thread(target=caller.run) for caller in callers]
        slowest = 0.0
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(EventStream.open(port)) for _ in range(STREAMS)]
            sockets: list[WebSocket] = []
            for _ in range(STREAMS):
                sockets.append(stack.enter_context(websocket(port, "/servers/demo/ws", tls=client_context())))
                sockets[-1].initialize()
            for thread in threads:
                thread.start()
            try:
                good = in_file(self.cert)
                for number in range(SWAPS):
                    if self.swap(number):
                        good = in_file(self.cert)
                        slowest = max(slowest, self.follow(good))
                    else:
                        time.sleep(0.5)
                        self.assertEqual(served(port), good, "a broken pair was put in service")
            finally:
                for caller in callers:
                    caller.enough.set()
                for thread in threads:
                    thread.join(SECONDS * 10)
            for stream in streams:
                stream.works()
            for socket in sockets:
                reply, _ = socket.call("tools/call", name="echo", arguments={"text": "on"})
                self.assertEqual(reply["result"]["content"][0]["text"], "on")
        self.assertEqual([failure for caller in callers for failure in caller.failures], [])
        self.assertGreaterEqual(sum(caller.calls for caller in callers), CALLS)
        self.assertLess(slowest, FOLLOWS)
        self.assertIn("generation", self.server.process.output())

    def test_what_stays_broken_raises_the_alarm(self) -> None:
        """In the log, in health and at the target of alerts, until it is right again; what is served stays."""
        client = HttpClient(port=self.server.port)
        before = served(self.server.port)
        good = Path(self.cert).read_bytes()
        self.assertEqual(client.get("/health").last["refused"], [])
        Path(self.cert).write_bytes(good[: len(good) // 2])
        self.eventually(lambda: client.get("/health").last["refused"] != [], "no alarm in health")
        self.assertIn("ends in the middle of a certificate", client.get("/health").last["refused"][0])
        self.assertIn("those on disk are refused", self.server.process.output())
        self.eventually(lambda: self.events() == [("reload_refused", "critical")], "nobody was told")
        self.assertEqual(served(self.server.port), before)
        Path(self.cert).write_bytes(good)
        self.eventually(lambda: client.get("/health").last["refused"] == [], "the alarm stays")
        self.eventually(lambda: self.events()[1:] == [("reload_recovered", "ok")], "nobody was told that it is over")

    def test_kubernetes_swaps_a_directory(self) -> None:
        """Files that are links into ``..data``, which is a link that is renamed."""
        place = self.place / "mounted"
        place.mkdir()
        for version in ("..1", "..2"):
            pair = issue(place / version, "tls")
            for file, name in ((pair.cert_file, "tls.crt"), (pair.key_file, "tls.key")):
                if Path(file).name != name:
                    os.replace(file, place / version / name)
        os.symlink("..1", place / "..data")
        for name in ("tls.crt", "tls.key"):
            os.symlink(f"..data/{name}", place / name)
        daemon = self.daemon(
            "application", tls={"cert_file": str(place / "tls.crt"), "key_file": str(place / "tls.key")}
        )
        self.assertEqual(served(daemon.port), in_file(str(place / "..1" / "tls.crt")))
        os.symlink("..2", place / "..data_tmp")
        os.replace(place / "..data_tmp", place / "..data")
        expected = in_file(str(place / "..2" / "tls.crt"))
        self.eventually(lambda: served(daemon.port) == expected, "the new directory is not seen", FOLLOWS)


class TrustRotationTests(DaemonCase):
    """Trust anchors and revocation lists follow as well."""

    def refused(self, port: int, context: ssl.SSLContext) -> bool:
        """Whether a client with that certificate gets no answer."""
        client = HttpClient(port=port, tls=context)
        try:
            return client.get("/health/live").status != 200
        except (OSError, http.client.HTTPException):
            return True

    def test_a_certificate_that_is_revoked_opens_no_connection_any_more(self) -> None:
        """Within a second; and an authority that is taken out of the bundle neither."""
        ca = authority()
        now = time.time()
        pair = ca.issue("machine", client=True, now=now).write(self.place, "machine")
        context = ssl.create_default_context(cadata=ca.pem.decode())
        context.load_cert_chain(pair.cert_file, pair.key_file)
        machine = x509.load_pem_x509_certificate(Path(pair.cert_file).read_bytes())
        bundle, crl = self.place / "clients.pem", self.place / "revoked.pem"
        bundle.write_bytes(ca.pem)
        crl.write_bytes(ca.revoke(now=now))
        daemon = self.daemon(
            "application", tls={"client_auth": "required", "ca_file": str(bundle), "crl_file": str(crl)}
        )
        self.assertFalse(self.refused(daemon.port, context))
        crl.write_bytes(ca.revoke(machine, now=now))
        self.eventually(lambda: self.refused(daemon.port, context), "it is not revoked", 2.0)
        self.eventually(lambda: "client_certificate_revoked" in daemon.process.output(), "the log does not say why")
        crl.write_bytes(ca.revoke(now=now))
        self.eventually(lambda: not self.refused(daemon.port, context), "it is not back", 2.0)
