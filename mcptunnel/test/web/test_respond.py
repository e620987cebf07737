"""Common header lines, status lines, and refusals."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.web.respond import DEFAULT_HEADERS, CommonHeaders, header_block, status_line

DATE = b"Date: Thu, 01 Jan 1970 00:00:0%d GMT\r\n"


class CommonHeadersTests(SynchronousTestCase):
    """One block per second and scheme."""

    def test_a_block_has_each_default_once(self) -> None:
        """And the date, which follows the seconds."""
        common = CommonHeaders({}, 5)
        block = common.block(False, 1.9)
        self.assertTrue(block.startswith(DATE % 1), block)
        for name in DEFAULT_HEADERS:
            self.assertEqual(block.count(name.encode() + b": "), 1)
        self.assertTrue(common.block(False, 2.0).startswith(DATE % 2))

    def test_only_https_promises_https(self) -> None:
        """Strict-Transport-Security is the one difference."""
        common = CommonHeaders({}, 5)
        self.assertEqual(common.block(True, 1), common.block(False, 1) + b"Strict-Transport-Security: max-age=5\r\n")
        off = CommonHeaders({}, None)
        self.assertEqual(off.block(True, 1), off.block(False, 1))

    def test_an_override_of_hsts_stays_with_https(self) -> None:
        """However it is configured."""
        common = CommonHeaders({"strict-transport-security": "max-age=1; includeSubDomains"}, 5)
        self.assertIn(b"max-age=1; includeSubDomains\r\n", common.block(True, 1))
        self.assertNotIn(b"max-age", common.block(False, 1))
        none = CommonHeaders({"Strict-Transport-Security": None}, 5)
        self.assertNotIn(b"max-age", none.block(True, 1))

    def test_lines_give_way_to_those_of_a_resource(self) -> None:
        """By name, the date included; unrelated ones change nothing."""
        common = CommonHeaders({}, 5)
        self.assertIs(common.block_without({b"x-mine"}, True, 1), common.block(True, 1))
        got = common.block_without({b"cache-control", b"date"}, True, 1)
        self.assertNotIn(b"Cache-Control", got)
        self.assertNotIn(b"Date", got)
        self.assertIn(b"Strict-Transport-Security", got)
        self.assertIn(DATE % 1, common.block_without({b"cache-control"}, False, 1))

    def test_what_is_no_header_is_refused(self) -> None:
        """Line breaks, NUL, names that are no tokens."""
        for name, value in (("A", "b\r\nc"), ("A", "b\nc"), ("A", "b\0"), ("A:", "b"), ("", "b"), ("A B", "c")):
            self.assertRaises(ValueError, CommonHeaders, {name: value}, None)
        self.assertEqual(header_block([(b"A", b""), (b"B", b"\xff\t")]), b"A: \r\nB: \xff\t\r\n")


class StatusLineTests(SynchronousTestCase):
    """The first line of a reply."""

    def test_usual_unusual_and_unknown(self) -> None:
        """A phrase cannot split the reply."""
        self.assertEqual(status_line(200), b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(status_line(200, b"OK"), b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(status_line(299), b"HTTP/1.1 299 \r\n")
        self.assertEqual(status_line(404, b"Gone\r\nX: y"), b"HTTP/1.1 404 Gone  X: y\r\n")
