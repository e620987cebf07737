"""YAML text to the tree of :mod:`mcptunnel.config.positions`.

Uses PyYAML's composer only: no constructor ever runs, so no tag can make an object. Bounds on depth, size and expanded
aliases make every input end soon. Merge keys are refused: a security configuration says what it means in one place.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from mcptunnel.config.positions import (
    MAX_DEPTH,
    MAX_NODES,
    Key,
    Kind,
    ListNode,
    MapNode,
    Node,
    Place,
    ScalarNode,
    seen,
    step,
)
from mcptunnel.config.report import Report

__all__ = ["MAX_FILE", "decode", "read_yaml"]

# Largest configuration file, in bytes.
MAX_FILE: Final = 1 << 20

_STANDARD: Final = "tag:yaml.org,2002:"
_KINDS: Final[dict[str, Kind]] = {
    "null": "null",
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    # A plain date or `=` is text to us.
    "timestamp": "str",
    "value": "str",
}
_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


class _DepthError(Exception):
    """Nested deeper than ``MAX_DEPTH``; ``args[0]`` is the line."""


class _CountError(Exception):
    """More than ``MAX_NODES`` values after expansion of aliases."""


class _Loader(Reader, Scanner, Parser, Composer, Resolver):
    """PyYAML's pipeline up to the node tree, with bounds on depth and number."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        Resolver.__init__(self)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        self._count += 1
        if self._count > MAX_NODES:
            raise _CountError
        if self._depth > MAX_DEPTH:
            raise _DepthError(self.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def decode(content: bytes, report: Report, file: str) -> str | None:
    """The text of a file, or None after a finding."""
    if len(content) > MAX_FILE:
        report.error("", f"the file is larger than {MAX_FILE} bytes; split it or shorten it", Place(file=file))
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        what = "the file is UTF-16" if wide else f"byte 0x{content[error.start]:02x} is not UTF-8"
        report.error("", f"{what}; save the file as UTF-8", Place(file=file, line=line))
        return None


def read_yaml(text: str, report: Report, file: str) -> Node | None:
    """The tree of the one document in ``text``; None when it is empty, or after a finding."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        root = loader.get_single_node()
        return None if root is None else _Tree(report, file).convert(root, "", 1)
    except ReaderError as error:
        line = len(_BREAK.findall(text, 0, int(error.position))) + 1
        what = f"character U+{int(error.character):04X}"
        report.error("", f"{what} is not allowed in YAML; remove it or write an escape", Place(file=file, line=line))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        report.error("", _explain(error, _line(text, line)), Place(file=file, line=line))
    except _DepthError as error:
        report.error("", f"nested more than {MAX_DEPTH} levels deep; flatten it", Place(file=file, line=error.args[0]))
    except _CountError:
        message = f"more than {MAX_NODES} values, aliases counted as often as used; shorten it"
        report.error("", message, Place(file=file))
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML turns escapes such as "\UFFFFFFFF" into characters without looking whether they exist.
        line = loader.line + 1 if loader else 1
        report.error("", "an escape names a character that does not exist; correct it", Place(file=file, line=line))
    return None


def _line(text: str, number: int) -> str:
    lines = _BREAK.split(text)
    return lines[number - 1] if number <= len(lines) else ""


def _explain(error: yaml.MarkedYAMLError, line: str) -> str:
    problem = " ".join(part for part in (error.context, error.problem) if part)
    problem = re.sub(r"\s+", " ", problem)
    if "single document" in problem:
        return "a second YAML document starts here; write one document per file"
    if "'\\t'" in problem or line.lstrip(" ").startswith("\t"):
        hint = "indent with spaces, YAML does not allow tabs"
    elif "${" in line:
        hint = 'put values with ${…} in quotes: "${env:NAME}"'
    elif "mapping values are not allowed" in problem:
        hint = "check the indentation, and quote values that hold a colon and a space"
    else:
        hint = "check indentation, quotes and brackets on this line and the one before"
    return f"not valid YAML ({problem}); {hint}"


class _Tree:
    """Turns PyYAML's nodes into ours, expanding aliases within the bounds."""

    def __init__(self, report: Report, file: str) -> None:
        self._report = report
        self._file = file
        self._count = 0

    def convert(self, node: yaml.Node, key: str, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise _CountError
        line = node.start_mark.line + 1
        if depth > MAX_DEPTH:
            # Only an alias that holds itself comes here: the composer has bounded the text.
            raise _DepthError(line)
        place = Place(file=self._file, line=line)
        name = node.tag.removeprefix(_STANDARD)
        if isinstance(node, yaml.SequenceNode) and name == "seq":
            items = (self.convert(item, f"{key}[{i}]", depth + 1) for i, item in enumerate(node.value))
            return ListNode(place=place, items=tuple(items))
        if isinstance(node, yaml.MappingNode) and name == "map":
            return MapNode(place=place, entries=tuple(self._entries(node, key, depth)))
        if isinstance(node, yaml.ScalarNode) and name in _KINDS:
            return ScalarNode(place=place, kind=_KINDS[name], text=node.value)
        tag = "!!" + name if node.tag.startswith(_STANDARD) else node.tag
        self._report.error(key, f"the tag {seen(tag)} is not accepted; remove it and write plain YAML", place)
        return ScalarNode(place=place, kind="null", text="")

    def _entries(self, mapping: yaml.MappingNode, key: str, depth: int) -> list[tuple[Key, Node]]:
        entries: list[tuple[Key, Node]] = []
        lines: dict[str, int] = {}
        for name_node, value in mapping.value:
            line = name_node.start_mark.line + 1
            place = Place(file=self._file, line=line)
            if not isinstance(name_node, yaml.ScalarNode):
                self._report.error(key, "a key is a list or a mapping; write a plain word before the colon", place)
                continue
            name = name_node.value
            path = f"{key}.{step(name)}" if key else step(name)
            if name_node.tag == _STANDARD + "merge":
                self._report.error(path, "merge keys are not supported; write the keys out, or use an alias (*)", place)
            elif name in lines:
                message = f"the key is given twice, first on line {lines[name]}; remove one of the two"
                self._report.error(path, message, place)
            else:
                lines[name] = line
                entries.append((Key(name=name, place=place), self.convert(value, path, depth + 1)))
        return entries
