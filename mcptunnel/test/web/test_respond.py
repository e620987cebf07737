"""Common header lines, status lines, and refusals."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.web.respond import DEFAULT_HEADERS, CommonHeaders, header_block, status_line

DATE = b"Date: Thu, 01 Jan 1970 00:00:0%d GMT\r\n"


class CommonHeadersTests(SynchronousTestCase):
    """One block per second and scheme."""

    def test_a_block_has_each_default_once(self) -> None:
        """And the date, which follows the seconds."""
        common = CommonHeaders({}, "max-age=5")
        block = common.block(False, 1.9)
        self.assertTrue(block.startswith(DATE % 1), block)
        for name in DEFAULT_HEADERS:
            self.assertEqual(block.count(name.encode() + b": "), 1)
        self.assertTrue(common.block(False, 2.0).startswith(DATE % 2))

    def test_only_https_promises_https(self) -> None:
        """Strict-Transport-Security is the one difference."""
        common = CommonHeaders({}, "max-age=5")
        self.assertEqual(common.block(True, 1), common.block(False, 1) + b"Strict-Transport-Security: max-age=5\r\n")
        off = CommonHeaders({}, None)
        self.assertEqual(off.block(True, 1), off.block(False, 1))

    def test_an_override_of_hsts_stays_with_https(self) -> None:
        """However it is configured."""
        common = CommonHeaders({"strict-transport-security": "max-age=1; includeSubDomains"}, "max-age=5")
        self.assertIn(b"max-age=1; includeSubDomains\r\n", common.block(True, 1))
        self.assertNotIn(b"max-age", common.block(False, 1))
        none = CommonHeaders({"Strict-Transport-Security": None}, "max-age=5")
        self.assertNotIn(b"max-age", none.block(True, 1))

    def test_the_promise_may_change_while_connections_are_open(self) -> None:
        """Within the same second, taken away and put back; an override is the operator's last word."""
        common = CommonHeaders({}, None)
        self.assertNotIn(b"strict-transport-security", common.names)
        for value in ("max-age=300", "max-age=86400; includeSubDomains"):
            common.promise(value)
            line = b"Strict-Transport-Security: " + value.encode() + b"\r\n"
            self.assertTrue(common.block(True, 1).endswith(line), value)
            self.assertEqual(common.block(False, 1) + line, common.block(True, 1))
            self.assertNotIn(line, common.block_without({b"strict-transport-security"}, True, 1))
        common.promise(None)
        self.assertEqual(common.block(True, 1), common.block(False, 1))
        fixed = CommonHeaders({"Strict-Transport-Security": "max-age=1"}, "max-age=5")
        fixed.promise("max-age=9")
        self.assertIn(b"max-age=1\r\n", fixed.block(True, 1))

    def test_the_lines_one_by_one_make_the_block(self) -> None:
        """For a reply that is written elsewhere."""
        common = CommonHeaders({"X-Mine": "yes", "X-Frame-Options": None}, "max-age=5")
        for https in (False, True):
            self.assertEqual(header_block(common.lines(https, 1)), common.block(https, 1))

    def test_lines_give_way_to_those_of_a_resource(self) -> None:
        """By name, the date included; unrelated ones change nothing."""
        common = CommonHeaders({}, "max-age=5")
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
