"""JSON with comments to the tree."""

# The lines are quoted whole, as the operator reads them.
# ruff: noqa: E501

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.jsonc import read_json
from mcptunnel.config.positions import MapNode
from mcptunnel.config.report import Report
from mcptunnel.test.config.test_reader import plain


class JsonTests(SynchronousTestCase):
    def read(self, text: str) -> tuple[Any, list[str]]:
        report = Report(name="f.json")
        return plain(read_json(text, report, "f.json")), [str(finding) for finding in report.findings]

    def test_comments_trailing_commas_and_tabs_are_fine(self) -> None:
        """As VS Code writes its files."""
        text = '// head\n{\n\t"a": [1, /* one */ 2,],\n\t"url": "http://x", // not "a" comment\n}\n'
        self.assertEqual(self.read(text), ({"a": ["1", "2"], "url": "http://x"}, []))

    def test_keys_know_their_lines(self) -> None:
        """A finding in such a file has its line, comments counted."""
        tree = read_json('{\n/*\n\n*/ "a": 1,\n"b": 2}', Report(name="f"), "f")
        assert isinstance(tree, MapNode)
        self.assertEqual([key.place.line for key, _ in tree.entries], [4, 5])

    def test_what_is_not_json_is_explained(self) -> None:
        """With the line at which reading stopped."""
        cases = {
            "": "f.json:1: not valid JSON: a value is expected, not the end of the file",
            '{"a": 1\n"b": 2}': "f.json:2: not valid JSON: a comma or } is expected, not '\"'",
            "{a: 1}": "f.json:1: not valid JSON: a text in double quotes, closed on the same line is expected, not 'a'",
            '{"a" 1}': "f.json:1: not valid JSON: a colon after the name is expected, not '1'",
            '["a\n"]': "f.json:1: not valid JSON: a text in double quotes, closed on the same line is expected, not '\"'",
            "[yes]": "f.json:1: 'yes' is not JSON; put text in double quotes",
            "[01]": "f.json:1: '01' is not JSON; put text in double quotes",
            '["\\x"]': "f.json:1: a text holds a backslash that means nothing in JSON; write \\\\ for a backslash",
            "{}\n{}": "f.json:2: something follows after the end of the JSON value; remove it",
            '{"a": 1,\n"a": 2}': "f.json:2: a: the key is given twice, first on line 1; remove one of the two",
            "[" * 33: "f.json:1: nested more than 32 levels deep; flatten it",
            "[" + "1," * 50_000 + "]": "f.json:1: more than 50000 values; shorten the file",
        }
        self.assertEqual({text: self.read(text)[1] for text in cases}, {text: [line] for text, line in cases.items()})

    @settings(max_examples=100, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
            max_leaves=12,
        ),
        st.sampled_from([None, 1, "\t"]),
        st.booleans(),
    )
    def test_all_json_is_read_as_the_library_reads_it(self, value: Any, indent: Any, ascii_only: bool) -> None:
        """Agreement with ``json`` on what both know."""

        def texts(item: Any) -> Any:
            if isinstance(item, dict):
                return {key: texts(inner) for key, inner in item.items()}
            if isinstance(item, list):
                return [texts(inner) for inner in item]
            return item if item is None or isinstance(item, str) else json.dumps(item)

        self.assertEqual(self.read(json.dumps(value, indent=indent, ensure_ascii=ascii_only)), (texts(value), []))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=100) | st.text(alphabet='{}[]:,"\\/* \n0a-.', max_size=40))
    def test_any_text_is_a_tree_or_one_finding(self, text: str) -> None:
        """Nothing is raised."""
        report = Report(name="f")
        tree = read_json(text, report, "f")
        self.assertEqual(tree is None, any(not finding.key for finding in report.findings))
