"""What a hostile or broken TLS client sends, on the wire of a real daemon: refused with the alert that the RFC names.

The essential ones of tlsfuzzer's scripts, written anew: tlsfuzzer is on no package index. Its own results are in the
guide ``tls-assessment``. A daemon that logs a traceback fails when it is stopped (:mod:`tests.daemon`).
"""

from __future__ import annotations

import subprocess
from typing import Final

from tests.certificates import NAME
from tests.clients import HttpClient
from tests.daemon import DaemonCase
from tests.hellos import (
    ALERT,
    APPLICATION,
    HANDSHAKE,
    HEARTBEAT,
    Answer,
    ServerHello,
    client_hello,
    extensions_tls13,
    record,
    talk,
)
from tests.processes import require

# RFC 8446 §6, RFC 7507 §2, RFC 7301 §3.2.
UNEXPECTED_MESSAGE, RECORD_OVERFLOW, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER = 10, 22, 40, 47
DECODE_ERROR, PROTOCOL_VERSION, INAPPROPRIATE_FALLBACK, UNRECOGNIZED_NAME = 50, 70, 86, 112
NO_APPLICATION_PROTOCOL = 120
# For answers after which the server rightly waits for more.
PATIENCE: Final = 0.5
TLS12: Final = 0x0303
# RFC 8446 §4.1.3: "a better version was possible", in the last bytes of the server's random.
SENTINEL: Final = b"DOWNGRD\x01"


class HostileTests(DaemonCase):
    """Application mode, default profile."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.daemon("application")
        self.addCleanup(self.still_serves)

    def still_serves(self) -> None:
        """Whatever was sent: the next client is served."""
        self.assertEqual(HttpClient(port=self.server.port).send("GET", "/health/live").status, 200)

    def hello(self, message: bytes, *after: bytes) -> Answer:
        """To a connection that the server ends."""
        return talk(self.server.port, record(HANDSHAKE, message), *after)

    def greeting(self, message: bytes, version: int = 0x0301) -> ServerHello:
        """To one that it goes on with."""
        answer = talk(self.server.port, record(HANDSHAKE, message, version), patience=PATIENCE)
        assert answer.hello is not None, answer
        self.assertEqual(answer.ended, "open")
        return answer.hello

    def assertRefused(self, answer: Answer, alert: int, what: object) -> None:
        self.assertEqual((answer.alert, answer.hello), (alert, None), what)
        self.assertIn(answer.ended, ("closed", "reset"), what)

    def test_versions_before_1_2_are_refused(self) -> None:
        """SSL 3.0, TLS 1.0 and 1.1 by the alert; SSL 2.0 has no TLS alerts and gets a reset."""
        for version in (0x0300, 0x0301, 0x0302):
            self.assertRefused(self.hello(client_hello(version)), PROTOCOL_VERSION, hex(version))
        old = b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + bytes(16)
        answer = talk(self.server.port, old)
        self.assertEqual((answer.records, answer.ended), ([], "reset"))

    def test_versions_that_do_not_exist_yet_get_the_best_that_does(self) -> None:
        """RFC 5246 §E.1: and the version of the record does not count at all."""
        for version in (0x0303, 0x0304, 0x03FE, 0xFEFE):
            self.assertEqual(self.greeting(client_hello(version)).version, TLS12, hex(version))
        for version in (0x0300, 0x0302, 0x0303, 0x03FE):
            self.assertEqual(self.greeting(client_hello(), version).version, TLS12, hex(version))

    def test_a_downgrade_is_visible_to_the_client(self) -> None:
        """The sentinel in TLS 1.2, none in 1.3, and no fallback of a client that could do better (RFC 7507)."""
        hello = self.greeting(client_hello())
        self.assertEqual(hello.random[-8:], SENTINEL)
        better = self.greeting(client_hello(suites=(0x1301, 0x5600), more=extensions_tls13()))
        self.assertNotIn(b"DOWNGRD", better.random)
        self.assertIn(43, better.extensions)
        self.assertRefused(self.hello(client_hello(suites=(0xC02B, 0x5600))), INAPPROPRIATE_FALLBACK, "fallback")

    def test_renegotiation_is_refused(self) -> None:
        """The client asks in the middle of TLS 1.2; and is told beforehand that it could be secure (RFC 5746)."""
        hello = self.greeting(client_hello(more={0xFF01: b"\0"}))
        self.assertEqual(hello.extensions[0xFF01], b"\0")
        command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{self.server.port}", "-tls1_2"]
        done = subprocess.run(
            [*command, "-servername", NAME], input=b"R\n", capture_output=True, timeout=30, check=False
        )
        self.assertIn(b"RENEGOTIATING", done.stdout + done.stderr)
        self.assertIn(b"no renegotiation", done.stderr)

    def test_compression_is_never_chosen(self) -> None:
        """CRIME. TLS 1.3 forbids even the offer (RFC 8446 §4.1.2)."""
        hello = self.greeting(client_hello(compression=b"\1\0"))
        self.assertEqual(hello.compression, 0)
        self.assertRefused(self.hello(client_hello(compression=b"\1")), ILLEGAL_PARAMETER, "only deflate")
        both = client_hello(compression=b"\1\0", more=extensions_tls13())
        self.assertRefused(self.hello(both), ILLEGAL_PARAMETER, "deflate in TLS 1.3")

    def test_heartbeats_are_not_answered(self) -> None:
        """Heartbleed: neither the extension nor the message, before the handshake's end or as its first byte."""
        beat = record(HEARTBEAT, b"\1\x40\0" + b"x" * 16, TLS12)
        answer = self.hello(client_hello(more={15: b"\1"}), beat)
        assert answer.hello is not None
        self.assertNotIn(15, answer.hello.extensions)
        self.assertEqual(answer.alert, UNEXPECTED_MESSAGE)
        self.assertEqual(talk(self.server.port, beat).ended, "reset")

    def test_records_that_are_too_long_are_an_overflow(self) -> None:
        """2¹⁴ bytes and one more (RFC 8446 §5.1), told by the header alone; and later in the connection."""
        head = record(HANDSHAKE, b"\1\0\x40\0" + bytes(100), length=(1 << 14) + 1)
        self.assertRefused(talk(self.server.port, head), RECORD_OVERFLOW, "first record")
        later = self.hello(client_hello(), record(HANDSHAKE, bytes((1 << 14) + 2049), TLS12))
        self.assertEqual((later.alert, later.ended), (RECORD_OVERFLOW, "closed"))

    def test_a_hello_in_many_records_is_read(self) -> None:
        """One byte each, at once or one after the other, in both versions."""
        for more in ({}, extensions_tls13()):
            message = client_hello(more=more)
            pieces = [record(HANDSHAKE, message[at : at + 1]) for at in range(len(message))]
            self.assertIsNotNone(talk(self.server.port, b"".join(pieces), patience=PATIENCE).hello)
            self.assertIsNotNone(talk(self.server.port, *pieces, pause=0.001, patience=PATIENCE).hello)

    def test_what_is_no_hello_is_refused(self) -> None:
        """Other messages, a length that no hello has, and one that is never reached."""
        self.assertRefused(self.hello(b"\2" + client_hello()[1:]), UNEXPECTED_MESSAGE, "a ServerHello")
        self.assertRefused(self.hello(b"\0\0\0\0"), UNEXPECTED_MESSAGE, "a HelloRequest")
        self.assertRefused(self.hello(client_hello(length=0xFFFFFF)), ILLEGAL_PARAMETER, "sixteen megabytes")
        answer = talk(self.server.port, record(HANDSHAKE, client_hello())[:60], finish=True)
        self.assertEqual((answer.records, answer.ended), ([], "closed"))

    def test_what_may_not_follow_a_hello_ends_the_connection(self) -> None:
        """Unknown types, data before the handshake is over, a second hello, plain HTTP; and an alert ends it too."""
        for what, piece, alert in (
            ("unknown type", record(99, b"x", TLS12), UNEXPECTED_MESSAGE),
            ("early data", record(APPLICATION, b"GET / HTTP/1.1\r\n\r\n", TLS12), UNEXPECTED_MESSAGE),
            ("a second hello", record(HANDSHAKE, client_hello(), TLS12), UNEXPECTED_MESSAGE),
            ("a Finished too early", record(HANDSHAKE, b"\x14\0\0\x0c" + b"x" * 12, TLS12), UNEXPECTED_MESSAGE),
            ("plain HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", PROTOCOL_VERSION),
            ("the client's alert", record(ALERT, b"\2\x28", TLS12), None),
        ):
            answer = self.hello(client_hello(), piece)
            self.assertIsNotNone(answer.hello, what)
            self.assertEqual((answer.alert, answer.ended), (alert, "closed"), what)
        for what, piece in (
            ("alert in the clear", record(ALERT, b"\2\x28", TLS12)),
            ("unknown type", record(99, b"x", TLS12)),
            ("data that nobody has encrypted", record(APPLICATION, bytes(64), TLS12)),
        ):
            answer = self.hello(client_hello(more=extensions_tls13()), piece)
            self.assertIsNotNone(answer.hello, what)
            self.assertEqual(answer.ended, "closed", f"{what} in TLS 1.3")

    def test_what_is_no_tls_gets_a_reset(self) -> None:
        """By the first byte: nothing is said to those who speak another language."""
        for first in (record(99, client_hello()), record(ALERT, b"\2\x28"), record(APPLICATION, b"x"), bytes(100)):
            answer = talk(self.server.port, first)
            self.assertEqual((answer.records, answer.ended), ([], "reset"), first[:5])

    def test_weak_suites_and_other_protocols_are_refused(self) -> None:
        """RSA key exchange, CBC, RC4 and NULL; HTTP/2 alone (ALPACA)."""
        weak = (0x002F, 0x009C, 0xC009, 0x0005, 0x0000)
        self.assertRefused(self.hello(client_hello(suites=weak)), HANDSHAKE_FAILURE, "suites")
        for more in ({}, extensions_tls13()):
            answer = self.hello(client_hello(more={**more, 16: b"\0\3\2h2"}))
            self.assertRefused(answer, NO_APPLICATION_PROTOCOL, "h2")

    def test_malformed_extensions_are_refused(self) -> None:
        """server_name and ALPN, which we read ourselves or hand to a callback of ours."""
        for what, more, alert in (
            ("an empty list of names", {0: b""}, DECODE_ERROR),
            ("a kind of name that is none", {0: b"\0\4\1\0\1a"}, DECODE_ERROR),
            ("a name longer than its list", {0: b"\0\4\0\0\x09a"}, DECODE_ERROR),
            ("a name with a NUL", {0: b"\0\6\0\0\3a\0b"}, UNRECOGNIZED_NAME),
            ("a protocol longer than its list", {16: b"\0\3\x09h2"}, DECODE_ERROR),
        ):
            self.assertRefused(self.hello(client_hello(more=more)), alert, what)
