"""The Forwarded header, cut into elements."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.core.rfc7239 import parse_forwarded


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class ParseForwardedTests(SynchronousTestCase):
    def test_the_examples_of_the_rfc(self):
        """RFC 7239 section 4 and 7.1."""
        self.assertEqual(parse_forwarded('for="_gazonk"'), [{"for": "_gazonk"}])
        self.assertEqual(parse_forwarded('For="[2001:db8:cafe::17]:4711"'), [{"for": "[2001:db8:cafe::17]:4711"}])
        self.assertEqual(
            parse_forwarded("for=192.0.2.60;proto=http;by=203.0.113.43"),
            [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"}],
        )
        self.assertEqual(
            parse_forwarded('for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown'),
            [{"for": "192.0.2.43"}, {"for": "[2001:db8:cafe::17]"}, {"for": "unknown"}],
        )

    def test_what_the_grammar_allows_beyond_them(self):
        """Empty members and pairs, separators within quotes, escaped characters, unknown parameters."""
        for text, elements in {
            "": [],
            " , ,\t,": [],
            ", for=a ,, for=b,": [{"for": "a"}, {"for": "b"}],
            "for=a;": [{"for": "a"}],
            ";for=a;;proto=b": [{"for": "a", "proto": "b"}],
            ";": [{}],
            r'for="a\"b\\c\d"': [{"for": 'a"b\\cd'}],
            'host="x;host=evil,for=1";for=a': [{"host": "x;host=evil,for=1", "for": "a"}],
            'for=""': [{"for": ""}],
            "secret=s3;FOR=a": [{"secret": "s3", "for": "a"}],
            'for="\t\xe9"': [{"for": "\t\xe9"}],
        }.items():
            self.assertEqual(parse_forwarded(text), elements, text)

    def test_everything_else_is_refused(self):
        """Two readers could cut it differently."""
        for text in (
            *("for", "for=", "=a", "for =a", "for= a", "for=a; proto=b", "for=a ;proto=b", "for=a proto=b", "for=a b"),
            *(
                'for="a',
                'for="a, for=b',
                'for="a"b',
                'for="a"for=b',
                'for=a"b"',
                'for="a\\"',
                'for="a\x00"',
                'for="\x7f"',
            ),
            *(
                "for=[2001:db8::9]",
                "for=2001:db8::9",
                "for=1.2.3.4:80",
                "for=a;for=b",
                "for=a;For=a",
                "for=(a)",
                "for=a\n",
            ),
            *("for=\xe9", "f\xe9r=a", "for='a b'"),
        ):
            self.assertRaises(ValueError, parse_forwarded, text)

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet='for=;," \\\tab.1_[]:\x00\xe9', max_size=40))
    def test_nothing_but_value_error(self, text):
        """Whatever a stranger writes is a list of elements or one kind of error."""
        try:
            elements = parse_forwarded(text)
        except ValueError:
            return
        self.assertTrue(all(name == name.lower() for element in elements for name in element))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.dictionaries(
                st.from_regex(re.compile(r"[a-z-]{1,8}"), fullmatch=True),
                st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12),
                min_size=1,
                max_size=4,
            ),
            max_size=4,
        )
    )
    def test_what_is_written_is_read(self, elements):
        """Quoted by the rules, any value comes back as it was, whatever separators it holds."""
        text = ", ".join(
            ";".join(f"{name}={_quoted(value)}" for name, value in element.items()) for element in elements
        )
        self.assertEqual(parse_forwarded(text), elements)
