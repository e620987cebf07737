"""What a connection is by its first bytes, and what becomes of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.preface import Action, Kind, Mode, classify, decide
from mcptunnel.core.proxyheader import V2_SIGNATURE

MODES: tuple[Mode, ...] = ("disabled", "application", "behind_proxy", "auto")


class ClassifyTests(SynchronousTestCase):
    def test_each_kind_is_told_at_the_first_byte_that_tells_it(self):
        """The whole is decided, all but its last byte is not."""
        for buffer, kind in {
            b"\x16\x03": Kind.TLS,
            b"\x16\x02": Kind.GARBAGE,
            b"G": Kind.HTTP,
            b"Z": Kind.HTTP,
            b"PO": Kind.HTTP,
            b"PROP": Kind.HTTP,
            b"PROXYX": Kind.HTTP,
            b"PRI * HTTP/1": Kind.HTTP,
            b"PRI * HTTP/2": Kind.H2C,
            b"PROXY ": Kind.PROXY,
            V2_SIGNATURE: Kind.PROXY,
            V2_SIGNATURE[:-1] + b"X": Kind.GARBAGE,
            b"\r\n\r\nG": Kind.GARBAGE,
            b"\x80\x2e\x01": Kind.SSL2,
            b"\x80\x2e\x02": Kind.GARBAGE,
            b"\x00": Kind.GARBAGE,
            b"g": Kind.GARBAGE,
            b" ": Kind.GARBAGE,
            b"{": Kind.GARBAGE,
            b"@": Kind.GARBAGE,
            b"[": Kind.GARBAGE,
        }.items():
            self.assertEqual(classify(buffer), kind, buffer)
            self.assertIsNone(classify(buffer[:-1]), buffer)

    def test_any_minor_version_of_a_record_is_tls(self):
        """RFC 5246 §E.1: what is spoken is said inside, and OpenSSL refuses it in words."""
        for minor in range(256):
            self.assertEqual(classify(bytes([0x16, 3, minor])), Kind.TLS)

    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(
            st.binary(min_size=12, max_size=20),
            st.tuples(
                st.sampled_from([b"PROXY ", b"PRI * HTTP/2", V2_SIGNATURE, b"\x16\x03\x01", b"GET / HTTP/1.1\r\n"]),
                st.integers(0, 16),
                st.binary(min_size=12, max_size=12),
            ).map(lambda cut: cut[0][: cut[1]] + cut[2]),
        )
    )
    def test_twelve_bytes_decide_and_more_never_change_it(self, buffer):
        """So neither a slow client nor its segments choose what it is taken for."""
        kinds = [classify(buffer[:end]) for end in range(len(buffer) + 1)]
        decided = [kind for kind in kinds if kind is not None]
        self.assertIsNotNone(kinds[12])
        self.assertEqual(len(set(decided)), 1)
        self.assertEqual(kinds[len(kinds) - len(decided) :], decided)


class DecideTests(SynchronousTestCase):
    def test_the_table_of_modes(self):
        """Plaintext from untrusted and trusted peers, and TLS from either."""
        table: tuple[tuple[Mode, Action, Action, Action], ...] = (
            ("disabled", Action.SERVE_PLAIN, Action.SERVE_PLAIN, Action.CLOSE),
            ("application", Action.REFUSE_BAD_REQUEST, Action.REFUSE_BAD_REQUEST, Action.SERVE_TLS),
            ("behind_proxy", Action.REFUSE_NOT_PROXY, Action.SERVE_PLAIN, Action.CLOSE),
            ("auto", Action.REFUSE_INSECURE, Action.SERVE_PLAIN, Action.SERVE_TLS),
        )
        for mode, untrusted, trusted, tls in table:
            self.assertEqual(decide(mode, Kind.HTTP, False), untrusted)
            self.assertEqual(decide(mode, Kind.HTTP, True), trusted)
            self.assertEqual(decide(mode, Kind.TLS, False), tls)
            self.assertEqual(decide(mode, Kind.TLS, True), tls)

    def test_nothing_else_is_answered(self):
        """HTTP/2 in plaintext, SSL 2.0, and a PROXY header out of its place; trusted or not."""
        for mode in MODES:
            for kind in (Kind.H2C, Kind.SSL2, Kind.PROXY):
                for trusted in (False, True):
                    self.assertEqual(decide(mode, kind, trusted), Action.CLOSE)

    def test_garbage_is_only_answered_where_nothing_but_http_is_spoken(self):
        """The HTTP parser says 400 then; elsewhere the connection just ends."""
        for mode in MODES:
            expected = Action.SERVE_PLAIN if mode == "disabled" else Action.CLOSE
            for trusted in (False, True):
                self.assertEqual(decide(mode, Kind.GARBAGE, trusted), expected)
