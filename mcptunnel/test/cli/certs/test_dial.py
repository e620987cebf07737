"""Tests for mcptunnel.cli.certs.dial, connect and together; tests/test_certs_command.py has what needs a network."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli.certs.connect import DialError, Way
from mcptunnel.cli.certs.dial import dial
from mcptunnel.cli.certs.together import all_at_once
from mcptunnel.upstream.proxies import Proxy


class DialTests(SynchronousTestCase):
    """A UNIX socket, behind which somebody says something that is no certificate."""

    def meet(
        self, says: bytes, *, hold: bool = False, seconds: float = 5, before: bytes = b""
    ) -> tuple[DialError, bytes]:
        """How it ends, and what the other side got first."""
        # Not mktemp(): the path of a socket has at most 107 bytes.
        directory = tempfile.mkdtemp()
        path = str(Path(directory, "s"))
        got: list[bytes] = []
        over = threading.Event()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            self.addCleanup(os.rmdir, directory)
            self.addCleanup(os.unlink, path)
            listening.listen()

            def serve() -> None:
                connection, _ = listening.accept()
                with connection:
                    # Longer than whatever goes ahead of a ClientHello.
                    while len(b"".join(got)) < 100:
                        got.append(connection.recv(65_536))
                    connection.sendall(says)
                    if hold:
                        over.wait(10)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            error = self.assertRaises(
                DialError, dial, Way(host=path, port=None, before=before), "a.test", (), seconds=seconds
            )
            over.set()
            thread.join(10)
        return error, b"".join(got)

    def test_what_comes_instead_of_tls(self) -> None:
        """Recognised by its first bytes."""
        for says, kind, words in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http", "plain HTTP"),
            (b"<!DOCTYPE HTML><html>", "http", "plain HTTP"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "not_tls", "it says: SSH-2.0-OpenSSH_9.9"),
            (b"\x00\x1b[31m\r\n", "not_tls", "it says: ..[31m"),
            (b"", "closed", "without a word"),
            (b"\x16\x03\x03\x00\x04\x63\x00\x00\x00", "closed", "gives up in the handshake"),
        ):
            error, _ = self.meet(says)
            self.assertEqual(error.kind, kind, says)
            self.assertIn(words, str(error))

    def test_an_alert_is_named(self) -> None:
        """RFC 8446 §6.2; an unknown one by its number."""
        for number, name in ((112, "unrecognized_name"), (70, "protocol_version"), (99, "number 99")):
            error, _ = self.meet(b"\x15\x03\x03\x00\x02\x02" + bytes([number]))
            self.assertEqual((error.kind, error.alert), ("alert", name))

    def test_silence_ends_with_the_deadline(self) -> None:
        """It took the connection."""
        error, _ = self.meet(b"", hold=True, seconds=0.05)
        self.assertEqual(error.kind, "timeout")
        self.assertIn("says nothing for 0.05 s", str(error))

    def test_what_goes_ahead_of_tls(self) -> None:
        """A PROXY header, in front of the ClientHello."""
        _, got = self.meet(b"", before=b"PROXY UNKNOWN\r\n")
        self.assertTrue(got.startswith(b"PROXY UNKNOWN\r\n\x16"))

    def test_nothing_listens(self) -> None:
        """Whatever the reason of the system."""
        error = self.assertRaises(DialError, dial, Way(host="/no/such", port=None), None, (), seconds=1)
        self.assertEqual(error.kind, "refused")

    def test_a_name_that_cannot_be_resolved(self) -> None:
        """Of the server, and of a proxy."""

        def nowhere(*args: object, **others: object) -> list[object]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.patch(socket, "getaddrinfo", nowhere)
        for way in (Way(host="a", port=1), Way(host="b", port=1, proxy=Proxy(host="a", port=2))):
            error = self.assertRaises(DialError, dial, way, None, (), seconds=1)
            self.assertEqual(
                (error.kind, str(error)), ("unresolved", "the name a cannot be resolved: Name or service not known")
            )


class TogetherTests(SynchronousTestCase):
    """Many at once."""

    def test_jobs_run_side_by_side_and_are_left_behind(self) -> None:
        """Results in their order; what raised is given back; what is not done is None."""

        def fail() -> int:
            raise ValueError("no")

        jobs: list[Callable[[], int]] = [lambda: 1, fail, lambda: 3]
        first, second, third = all_at_once(jobs, 5)
        self.assertEqual((first, str(second), third), (1, "no", 3))
        self.assertEqual(all_at_once([], 5), [])

    def test_what_takes_too_long_is_left_behind(self) -> None:
        """None stands for it."""
        never = threading.Event()
        self.addCleanup(never.set)
        self.assertEqual(all_at_once([lambda: never.wait(10)], 0.02), [None])
