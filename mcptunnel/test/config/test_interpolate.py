"""References in values."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.interpolate import MAX_VALUE, ExpandError, FileError, References, expand, read_small_file


class ExpandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = self.mktemp()
        os.mkdir(self.base)
        self.references = References(
            environ={"A": "alpha", "EMPTY": "", "TRICK": "${env:A}", "CLOSE": "}"}, base=self.base
        )

    def write(self, name: str, content: bytes) -> None:
        with open(os.path.join(self.base, name), "wb") as file:
            file.write(content)

    def expand(self, text: str) -> str:
        return expand(text, self.references)

    def test_variables_defaults_and_escapes(self) -> None:
        """Each form, alone and within text."""
        cases = {
            "plain $5 {x}": "plain $5 {x}",
            "${env:A}": "alpha",
            "<${env:A}${env:A}>": "<alphaalpha>",
            "${env:EMPTY}": "",
            "${env:EMPTY:-x}": "x",
            "${env:NONE:-}": "",
            "${env:NONE:-a:-b}": "a:-b",
            "${env:A:-x}": "alpha",
            "$${env:A}": "${env:A}",
            "$$${env:A}": "$${env:A}",
        }
        self.assertEqual({text: self.expand(text) for text in cases}, cases)

    def test_what_comes_out_is_not_expanded_again(self) -> None:
        """A variable that holds a reference is that text, also across a border."""
        self.assertEqual(self.expand("${env:TRICK}"), "${env:A}")
        self.assertEqual(self.expand("${env:NONE:-$}{env:A${env:CLOSE}"), "${env:A}")

    def test_a_file_loses_only_its_last_newlines(self) -> None:
        """The path starts at the base; blanks within and around stay."""
        self.write("secret", b" a\nb \r\n\n")
        self.assertEqual(self.expand("${file:secret}"), " a\nb ")

    def test_what_cannot_be_expanded_is_explained(self) -> None:
        """Every message names the reference and the way out."""
        self.write("binary", b"\xff")
        self.write("large", b"x" * (MAX_VALUE + 1))
        os.mkfifo(os.path.join(self.base, "pipe"))
        cases = {
            "${env:NONE}": "the environment variable NONE is not set; set it for the daemon, or write "
            "${env:NONE:-default} for a default",
            "${env:NO NE}": "'NO NE' cannot be the name of a variable; write ${env:NAME}",
            "${HOME}": "${HOME} is not a reference; write ${env:HOME} for the variable; "
            "write $${ instead of ${ if the text itself is meant",
            "${1+1}": "'${1+1}' is not a reference; known are ${env:NAME}, ${env:NAME:-default} and ${file:PATH}; "
            "write $${ instead of ${ if the text itself is meant",
            "${env:A": "a reference ${ has no closing brace; close it, or write $${ if the text itself is meant",
            "${env:A:-${env:B}}": "a reference stands inside another; only one level is expanded",
            "${file:}": "${file:} names no file; write ${file:PATH}",
            "${file:none}": "the file of '${file:none}' does not exist; correct the path or the file",
            "${file:.}": "the file of '${file:.}' is a directory; correct the path or the file",
            "${file:pipe}": "the file of '${file:pipe}' is not a regular file; correct the path or the file",
            "${file:binary}": "the file of '${file:binary}' is not UTF-8 text; name a text file",
            "${file:large}": "the file of '${file:large}' is larger than 65536 bytes; correct the path or the file",
        }
        self.assertEqual({text: str(self.assertRaises(ExpandError, self.expand, text)) for text in cases}, cases)

    def test_a_value_stays_bounded(self) -> None:
        """Many references to a large file do not make a huge value."""
        self.write("half", b"x" * 40_000)
        self.assertEqual(len(self.expand("${file:half}")), 40_000)
        self.assertIn("longer than 65536", str(self.assertRaises(ExpandError, self.expand, "${file:half}" * 2)))

    def test_a_path_with_a_nul_is_a_message(self) -> None:
        """The operating system's own exception does not come through."""
        self.assertIn("cannot be opened", str(self.assertRaises(ExpandError, self.expand, "${file:a\0b}")))


class ReadSmallFileTests(SynchronousTestCase):
    def test_exactly_the_limit_is_read(self) -> None:
        """One byte more is refused."""
        name = self.mktemp()
        with open(name, "wb") as file:
            file.write(b"12345")
        self.assertEqual(read_small_file(name, 5), b"12345")
        self.assertEqual(str(self.assertRaises(FileError, read_small_file, name, 4)), "is larger than 4 bytes")
