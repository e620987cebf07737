"""YAML to the tree."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.positions import ListNode, MapNode, Node, ScalarNode
from mcptunnel.config.reader import decode, read_yaml
from mcptunnel.config.report import Report


def plain(node: Node | None) -> Any:
    """The tree without places."""
    if isinstance(node, MapNode):
        return {key.name: plain(value) for key, value in node.entries}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return None if node is None or node.kind == "null" else node.text


class ReaderTests(SynchronousTestCase):
    def read(self, text: str) -> tuple[Any, list[str]]:
        report = Report(name="f.yaml")
        return plain(read_yaml(text, report, "f.yaml")), [str(finding) for finding in report.findings]

    def test_scalars_keep_the_text_that_was_written(self) -> None:
        """What YAML 1.1 makes of ``off`` or ``1.20`` is not ours to undo later."""
        self.assertEqual(
            self.read("a: off\nb: 1.20\nc: 0777\nd: '5'\ne: 2020-01-01\nf:\n"),
            ({"a": "off", "b": "1.20", "c": "0777", "d": "5", "e": "2020-01-01", "f": None}, []),
        )

    def test_nodes_know_their_lines(self) -> None:
        """Lines count from 1, for keys and values."""
        report = Report(name="f.yaml")
        tree = read_yaml("# c\na:\n  - x\n  - y: 1\n", report, "f.yaml")
        assert isinstance(tree, MapNode)
        (key, items), *_ = tree.entries
        assert isinstance(items, ListNode)
        self.assertEqual([key.place.line, *(item.place.line for item in items.items)], [2, 3, 4])

    def test_aliases_are_expanded(self) -> None:
        """An anchor is the way to say a thing once."""
        self.assertEqual(self.read("a: &x [1]\nb: *x\n"), ({"a": ["1"], "b": ["1"]}, []))

    def test_what_is_refused_names_its_line(self) -> None:
        """Syntax, duplicates, tags, merge keys, bounds: each with the way out."""
        laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
        )
        cases = {
            "a: 1\nb: 2\na: 3\n": "f.yaml:3: a: the key is given twice, first on line 1; remove one of the two",
            "s:\n  a: 1\n  a: 1\n": "f.yaml:3: s.a: the key is given twice, first on line 2; remove one of the two",
            "a:\n  - !!python/object:os.system x\n": "f.yaml:2: a[0]: the tag '!!python/object:os.system' is not "
            "accepted; remove it and write plain YAML",
            "a: !own x\n": "f.yaml:1: a: the tag '!own' is not accepted; remove it and write plain YAML",
            "a: !!set {x}\n": "f.yaml:1: a: the tag '!!set' is not accepted; remove it and write plain YAML",
            "a: &x {b: 1}\nc:\n  <<: *x\n": "f.yaml:3: c.'<<': merge keys are not supported; write the keys out, "
            "or use an alias (*)",
            "? [a]\n: 1\n": "f.yaml:1: a key is a list or a mapping; write a plain word before the colon",
            "a: 1\n---\nb: 2\n": "f.yaml:2: a second YAML document starts here; write one document per file",
            "a:\n\tb: 1\n": "f.yaml:2: not valid YAML (while scanning for the next token found character '\\t' that "
            "cannot start any token); indent with spaces, YAML does not allow tabs",
            "a: {b: ${env:X}}\n": "f.yaml:1: not valid YAML (while parsing a flow mapping expected ',' or '}', but "
            "got '{'); put values with ${…} in quotes: \"${env:NAME}\"",
            "a: b: c\n": "f.yaml:1: not valid YAML (mapping values are not allowed here); check the indentation, and "
            "quote values that hold a colon and a space",
            "a: 'x\n": "f.yaml:2: not valid YAML (while scanning a quoted scalar found unexpected end of stream); "
            "check indentation, quotes and brackets on this line and the one before",
            "a: *nope\n": "f.yaml:1: not valid YAML (found undefined alias 'nope'); check indentation, quotes and "
            "brackets on this line and the one before",
            "a: 1\nb: \x07\n": "f.yaml:2: character U+0007 is not allowed in YAML; remove it or write an escape",
            'a: "\\UFFFFFFFF"\n': "f.yaml:1: an escape names a character that does not exist; correct it",
            "[" * 40: "f.yaml:1: nested more than 32 levels deep; flatten it",
            "&a [*a]": "f.yaml:1: nested more than 32 levels deep; flatten it",
            laughs: "f.yaml: more than 50000 values, aliases counted as often as used; shorten it",
        }
        self.assertEqual({text: self.read(text)[1] for text in cases}, {text: [line] for text, line in cases.items()})

    def test_the_deepest_permitted_nesting_is_read(self) -> None:
        """32 levels work; the bound is not off by one."""
        value, findings = self.read("[" * 32 + "]" * 32)
        self.assertEqual(findings, [])
        depth = 0
        while isinstance(value, list):
            depth, value = depth + 1, value[0] if value else None
        self.assertEqual(depth, 32)

    def test_a_byte_order_mark_is_no_content(self) -> None:
        """Some editors write one."""
        self.assertEqual(self.read("\ufeffa: 1\n"), ({"a": "1"}, []))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=200) | st.text(alphabet="{}[]:,&*!-?|>'\"#%@\\\n \tab01", max_size=60))
    def test_any_text_is_a_tree_or_findings(self, text: str) -> None:
        """Nothing is raised, and nothing is silently dropped."""
        report = Report(name="f.yaml")
        tree = read_yaml(text, report, "f.yaml")
        self.assertIsInstance(tree, ScalarNode | ListNode | MapNode | None)
        for finding in report.findings:
            self.assertNotIn("\n", str(finding))


class DecodeTests(SynchronousTestCase):
    def test_other_encodings_are_named(self) -> None:
        """UTF-16 is told apart from a broken byte, which gets its line."""
        cases = {
            b"a: 1\n\xc3\xa4: \xff\n": ["f:2: byte 0xff is not UTF-8; save the file as UTF-8"],
            "a: ä".encode("utf-16"): ["f:1: the file is UTF-16; save the file as UTF-8"],
            b"x" * (1 << 20): [],
            b"x" * ((1 << 20) + 1): ["f: the file is larger than 1048576 bytes; split it or shorten it"],
        }
        for content, lines in cases.items():
            report = Report(name="f")
            text = decode(content, report, "f")
            self.assertEqual([str(finding) for finding in report.findings], lines)
            self.assertEqual(text is None, bool(lines))
