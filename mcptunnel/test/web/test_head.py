"""Reading request heads."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.errors import RequestError
from mcptunnel.web.head import CHUNKED, Head, parse_head

LIMITS = LimitsConfig()


def head(extra: bytes = b"", line: bytes = b"GET /a/b?c=d HTTP/1.1", host: bytes = b"Host: localhost\r\n") -> Head:
    return parse_head(line + b"\r\n" + host + extra + b"\r\n", LIMITS)


class HeadTests(SynchronousTestCase):
    """What a head says, and what it may not say. The channel's vectors cover the rest."""

    def assertRefused(self, status: int, reason: str, *args: bytes, **kwargs: bytes) -> None:
        with self.assertRaises(RequestError) as caught:
            head(*args, **kwargs)
        self.assertEqual((caught.exception.status, caught.exception.reason), (status, reason))

    def test_the_parts_of_a_request(self) -> None:
        """Each attribute."""
        got = head(b"X-Up: V \t\r\nx-up:W\r\nEmpty:\r\nContent-Length: 12\r\n")
        self.assertEqual((got.method, got.target, got.path, got.version), (b"GET", b"/a/b?c=d", b"/a/b", b"HTTP/1.1"))
        self.assertEqual((got.verb, got.text, got.host, got.length), ("GET", "/a/b", b"localhost", 12))
        self.assertEqual(
            got.lines,
            (
                (b"host", b"localhost"),
                (b"x-up", b"V"),
                (b"x-up", b"W"),
                (b"empty", b""),
                (b"content-length", b"12"),
            ),
        )
        self.assertEqual((got.fields[b"x-up"], got.repeated), (b"W", {b"x-up"}))
        self.assertEqual((got.keep_alive, got.expects, got.nominated), (True, False, frozenset()))

    def test_a_head_may_be_reduced(self) -> None:
        """Fields and repeated names follow the lines."""
        got = head(b"A: 1\r\nA: 2\r\nB: 3\r\n")
        less = got.only(line for line in got.lines if line != (b"a", b"2"))
        self.assertEqual((less.fields, less.repeated), ({b"host": b"localhost", b"a": b"1", b"b": b"3"}, frozenset()))
        self.assertEqual(less.target, got.target)

    def test_chunked_in_any_case(self) -> None:
        """The only coding, whatever its spelling."""
        self.assertEqual(head(b"Transfer-Encoding: ChunKed\r\n").length, CHUNKED)
        self.assertRefused(501, "transfer_coding", b"Transfer-Encoding: deflate, chunked\r\n")
        self.assertRefused(400, "transfer_coding", b"Transfer-Encoding: chunked\r\n", line=b"GET / HTTP/1.0")

    def test_hosts(self) -> None:
        """Names, addresses, ports; nothing else, and only an old client may leave it out."""
        for host in (b"a.example", b"A_b", b"127.0.0.1:8080", b"[::1]", b"[::1]:65535", b"xn--bcher-kva.example."):
            self.assertEqual(head(host=b"Host: " + host + b"\r\n").host, host)
        for host in (b"a b", b"a/b", b"a@b", b"a:b", b"[::1", b"::1", b"a:123456", b"", b"a,b", b"\xff", b"a%41"):
            self.assertRefused(400, "bad_host", host=b"Host: " + host + b"\r\n")
        self.assertRefused(400, "no_host", host=b"")
        self.assertEqual(head(host=b"", line=b"GET / HTTP/1.0").host, b"")

    def test_targets(self) -> None:
        """RFC 9112 §3.2: origin-form, absolute-form of this host, * for OPTIONS."""
        for line, target in (
            (b"GET //x/y?z HTTP/1.1", b"//x/y?z"),
            (b"GET http://LOCALHOST HTTP/1.1", b"/"),
            (b"GET https://localhost?a=b HTTP/1.1", b"/?a=b"),
            (b"GET http://localhost/x?y HTTP/1.1", b"/x?y"),
            (b"OPTIONS * HTTP/1.1", b"*"),
        ):
            self.assertEqual(head(line=line).target, target)
        for line, reason in (
            (b"GET * HTTP/1.1", "bad_target"),
            (b"GET *x HTTP/1.1", "bad_target"),
            (b"GET /a#b HTTP/1.1", "bad_target"),
            (b"GET ftp://localhost/ HTTP/1.1", "bad_target"),
            (b"GET http://user@localhost/ HTTP/1.1", "host_mismatch"),
            (b"GET http://localhost:80/ HTTP/1.1", "host_mismatch"),
            (b"GET relative HTTP/1.1", "bad_header"),
        ):
            self.assertRefused(400, reason, line=line)

    def test_methods(self) -> None:
        """Known ones pass, tunnels and TRACE are refused, others are not known."""
        for method in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"):
            self.assertEqual(head(line=method + b" / HTTP/1.1").method, method)
        self.assertRefused(405, "method_not_allowed", line=b"TRACE / HTTP/1.1")
        self.assertRefused(501, "unknown_method", line=b"BREW / HTTP/1.1")
        self.assertRefused(501, "unknown_method", line=b"get / HTTP/1.1")

    def test_other_protocols_that_llhttp_knows_are_refused(self) -> None:
        """It also reads RTSP and ICE."""
        self.assertRefused(400, "bad_request_line", line=b"GET / RTSP/1.0")
        self.assertRefused(400, "bad_request_line", line=b"SOURCE / ICE/1.0")

    def test_headers_that_decide_may_not_be_repeated(self) -> None:
        """Two readers may pick different ones; lists may be repeated."""
        for line in (
            b"Authorization: a\r\n",
            b"Content-Type: a/b\r\n",
            b"Origin: null\r\n",
            b"Expect: 100-continue\r\n",
        ):
            head(line)
            self.assertRefused(400, "duplicate_header", line * 2)
        self.assertEqual(head(b"Accept: a/b\r\nAccept: c/d\r\n").repeated, {b"accept"})

    def test_connection_options(self) -> None:
        """Tokens over all lines; unusual ones are nominated headers."""
        got = head(b"Connection: Keep-Alive, X-Forwarded-For\r\nConnection: upgrade\r\n")
        self.assertEqual((got.keep_alive, got.nominated), (True, {b"x-forwarded-for"}))
        self.assertFalse(head(b"Connection: x , close\r\n").keep_alive)
        self.assertTrue(head(b"Connection: enclose\r\n").keep_alive)

    def test_expectations(self) -> None:
        """One is met, by any spelling; an old client's is ignored."""
        self.assertTrue(head(b"Expect: 100-Continue\r\n").expects)
        self.assertRefused(417, "expectation", b"Expect: 200-ok\r\n")
        self.assertFalse(head(b"Expect: 200-ok\r\n", line=b"GET / HTTP/1.0").expects)

    def test_a_name_with_an_underscore_counts_but_is_gone(self) -> None:
        """An underscore in a value harms nobody."""
        got = head(b"X_A: 1\r\nX-B: a_b\r\n")
        self.assertEqual(got.lines[1:], ((b"x-b", b"a_b"),))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60), st.integers(0, 60))
    def test_whatever_is_accepted_has_one_reading(self, noise: bytes, place: int) -> None:
        """Noise anywhere in a head: a refusal, or a head that says the same when written down again."""
        raw = b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nX: y\r\n"
        raw = raw[:place] + noise + raw[place:]
        raw = raw.partition(b"\r\n\r\n")[0].rstrip(b"\r\n") + b"\r\n\r\n"
        try:
            got = parse_head(raw, LIMITS)
        except RequestError as e:
            self.assertIn(e.status, (400, 405, 413, 414, 417, 431, 501, 505))
            return
        again = got.method + b" " + got.target + b" " + got.version + b"\r\n"
        again += b"".join(name + b": " + value + b"\r\n" for name, value in got.lines) + b"\r\n"
        same = parse_head(again, LIMITS)
        self.assertEqual(
            (same.lines, same.length, same.host, same.target), (got.lines, got.length, got.host, got.target)
        )
        self.assertEqual(sum(name == b"host" for name, _ in got.lines), 1)
