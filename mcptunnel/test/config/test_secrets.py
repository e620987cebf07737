"""Tokens as digests."""

from __future__ import annotations

import os
from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_checked
from mcptunnel.config.schema import TokenConfig
from mcptunnel.config.secrets import token_digest
from mcptunnel.core.errors import ConfigError

DIGEST = sha256(b"0123456789abcdef").digest()


class DigestTests(SynchronousTestCase):
    def file(self, content: bytes) -> str:
        name: str = os.path.abspath(self.mktemp())
        with open(name, "wb") as file:
            file.write(content)
        return name

    def test_the_three_forms_of_one_secret_agree(self) -> None:
        """Text, file and digest; of a file the first line counts, without blanks and byte order mark."""
        self.assertEqual(token_digest(TokenConfig(name="a", token="0123456789abcdef")), DIGEST)
        self.assertEqual(token_digest(TokenConfig(name="a", token_sha256=DIGEST.hex())), DIGEST)
        for content in (
            b"0123456789abcdef",
            b"0123456789abcdef\n",
            b"0123456789abcdef \r\n# note\n",
            b"\xef\xbb\xbf0123456789abcdef\n",
        ):
            self.assertEqual(token_digest(TokenConfig(name="a", token_file=self.file(content))), DIGEST)

    def test_a_file_that_holds_no_token_is_refused(self) -> None:
        """At a reload as well as at the start; its content is not shown."""
        for content, message in (
            (b"", "its first line is empty"),
            (b"\nsecret\n", "its first line is empty"),
            (b"two words\n", "its first line holds blanks"),
            (b"\xff\xfe\n", "its first line holds blanks or non-ASCII"),
        ):
            path = self.file(content)
            error = self.assertRaises(ConfigError, token_digest, TokenConfig(name="a", token_file=path))
            self.assertTrue(str(error).startswith(f"{path}: token a: {message}"), str(error))
        missing = TokenConfig(name="a", token_file="/nonexistent/t")
        self.assertIn("does not exist", str(self.assertRaises(ConfigError, token_digest, missing)))

    def test_files_are_looked_into_at_start(self) -> None:
        """Empty, no token, the same twice: findings; a short one: a warning."""
        good, short = self.file(b"0123456789abcdef\n"), self.file(b"short\n")
        empty, words = self.file(b" \n"), self.file(b"two words\n")

        def config(*paths: str) -> str:
            tokens = "".join(f"    - {{name: t{i}, token_file: {path}}}\n" for i, path in enumerate(paths))
            return self.file(f"auth:\n  tokens:\n{tokens}".encode())

        self.assertEqual(load_checked(config(good)).warnings, ())
        self.assertIn("is short", load_checked(config(short)).warnings[0])
        error = self.assertRaises(ConfigError, load_checked, config(empty, words))
        self.assertEqual([finding.line for finding in error.findings], [3, 4])
        self.assertIn("is empty; write the token into it", error.findings[0].message)
        self.assertIn("holds blanks", error.findings[1].message)
        self.assertNotIn("two words", str(error))
        error = self.assertRaises(ConfigError, load_checked, config(good, self.file(b"0123456789abcdef")))
        self.assertEqual(error.findings[0].message, "has the same secret as t0; give each its own")
