"""Tests for mcptunnel.web.challenges."""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.test.web.sites import get, serve, split
from mcptunnel.web.challenges import Challenges
from mcptunnel.web.tree import Nothing

WHERE = b"/.well-known/acme-challenge/"


class ChallengeTests(SynchronousTestCase):
    """One directory, file by file."""

    def setUp(self) -> None:
        self.webroot = Path(self.mktemp())
        self.place = self.webroot / ".well-known" / "acme-challenge"
        self.place.mkdir(parents=True)
        (self.place / "token_1-A").write_text("token_1-A.thumbprint")
        self.served = serve(Challenges(str(self.webroot), Nothing()))

    def ask(self, name: bytes, method: bytes = b"GET") -> tuple[int, dict[bytes, bytes], bytes]:
        first, headers, body = split(self.served.connect().send(get(path=WHERE + name, method=method)))
        return int(first[9:12]), headers, body

    def refused(self, name: bytes) -> None:
        status, _, body = self.ask(name)
        self.assertEqual((status, json.loads(body)["reason"]), (404, "no_challenge"), name)

    def test_a_file_is_served_to_get_and_head(self) -> None:
        """As plain text, with its length, and the security headers."""
        status, headers, body = self.ask(b"token_1-A")
        self.assertEqual((status, headers[b"content-type"], body), (200, b"text/plain", b"token_1-A.thumbprint"))
        self.assertEqual(headers[b"x-content-type-options"], b"nosniff")
        status, headers, body = self.ask(b"token_1-A?x=y", b"HEAD")
        self.assertEqual((status, headers[b"content-length"], body), (200, b"20", b""))

    def test_what_is_not_there_or_has_no_tokens_name_is_404(self) -> None:
        """Also if a file of that name is there."""
        (self.place / "a.b").write_text("no")
        for name in (b"other", b"a.b", b"", b".", b"..", b"%74oken_1-A", b"token_1-A/", b"../acme-challenge/token_1-A"):
            self.refused(name)

    def test_what_is_no_small_regular_file_of_its_own_is_404(self) -> None:
        """A directory, a pipe, a link out, a link within, one that may not be read, one byte too many."""
        secret = self.webroot / "secret"
        secret.write_text("secret")
        (self.place / "directory").mkdir()
        os.mkfifo(self.place / "pipe")
        (self.place / "out").symlink_to(secret.resolve())
        (self.place / "within").symlink_to("token_1-A")
        (self.place / "large").write_bytes(b"x" * 8193)
        for name in (b"directory", b"pipe", b"out", b"within", b"large"):
            self.refused(name)
        (self.place / "large").write_bytes(b"x" * 8192)
        self.assertEqual(self.ask(b"large")[0], 200)

    def test_a_token_that_comes_later_is_found(self) -> None:
        """The directory may even be made later."""
        served = serve(Challenges(self.mktemp(), Nothing()))
        self.assertEqual(split(served.connect().send(get(path=WHERE + b"a")))[0], b"HTTP/1.1 404 Not Found")
        self.refused(b"later")
        (self.place / "later").write_text("x")
        self.assertEqual(self.ask(b"later")[0], 200)

    def test_other_methods_and_other_addresses(self) -> None:
        """405, and whatever lies there."""
        status, headers, _ = self.ask(b"token_1-A", b"DELETE")
        self.assertEqual((status, headers[b"allow"]), (405, b"GET, HEAD"))
        _, _, body = split(self.served.connect().send(get(path=b"/other")))
        self.assertEqual(json.loads(body)["reason"], "not_found")
