"""Certificates are renewed under the eyes of clients: none of them notices."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from hashlib import sha256
from pathlib import Path

from tests.certificates import NAME, client_context, issue
from tests.clients import HttpClient, dial
from tests.daemon import Daemon, DaemonCase

DEMO = "/servers/demo/mcp"


def served(port: int) -> str:
    """The fingerprint of the certificate that a new connection gets."""
    with client_context().wrap_socket(dial(port), server_hostname=NAME) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return sha256(der).hexdigest()


class RotationTests(DaemonCase):
    """``kill -HUP``."""

    def setUp(self) -> None:
        super().setUp()
        self.pair = issue(self.place, "rotated")
        self.server = self.daemon("auto", tls={"cert_file": self.pair.cert_file, "key_file": self.pair.key_file})

    def reload(self, daemon: Daemon, word: str) -> None:
        before = daemon.process.output().count(word)
        os.kill(daemon.process.popen.pid, signal.SIGHUP)
        self.eventually(lambda: daemon.process.output().count(word) > before, f"no {word!r} in the log")

    def test_new_connections_take_the_new_certificate_and_old_ones_live_on(self) -> None:
        """A call is in flight all the while, and calls come in from a second client without a pause: none fails."""
        first = served(self.server.port)
        client = HttpClient(port=self.server.port)
        failures: list[object] = []
        stop = threading.Event()

        def keep_calling() -> None:
            other = HttpClient(port=self.server.port)
            while not stop.is_set():
                reply = other.modern(DEMO, "tools/call", name="echo", arguments={"text": "on"})
                if reply.status != 200 or reply.text != "on":
                    failures.append(reply)

        def long_call() -> None:
            reply = client.modern(DEMO, "tools/call", name="count", arguments={"to": 15})
            if reply.text != "counted to 15":
                failures.append(reply)

        threads = [threading.Thread(target=keep_calling), threading.Thread(target=long_call)]
        for thread in threads:
            thread.start()
        try:
            fingerprints = {first}
            for _ in range(3):
                issue(self.place, "rotated")
                self.reload(self.server, "certificates were read again")
                fingerprints.add(served(self.server.port))
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        self.assertEqual(failures, [])
        self.assertEqual(len(fingerprints), 4)

    def test_a_bad_pair_keeps_the_last_good_one(self) -> None:
        """Half a file, as a renewal that was interrupted leaves it."""
        first = served(self.server.port)
        good = Path(self.pair.cert_file).read_bytes()
        Path(self.pair.cert_file).write_bytes(good[: len(good) // 2])
        self.reload(self.server, "the certificates in service stay")
        self.assertEqual(served(self.server.port), first)
        self.assertRaises(ssl.SSLError, ssl.create_default_context().load_cert_chain, self.pair.cert_file)
        Path(self.pair.cert_file).write_bytes(good)
        self.reload(self.server, "certificates were read again")
