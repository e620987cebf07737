"""What is collected while files are read: findings, warnings, where each key stands, and which files are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from attrs import define, evolve, field, frozen

from mcptunnel.config.positions import Place, seen, step
from mcptunnel.core.errors import ConfigError, Finding

__all__ = ["At", "FileUse", "Report", "Scope"]

# More would scroll the first, most telling ones away.
_MOST_FINDINGS: Final = 100
_LAST_STEP: Final = re.compile(r"(\[[0-9]+\]|\.?('[^']*'|[^.\[]+))\Z")


@frozen(kw_only=True)
class FileUse:
    """A file that must exist when the daemon starts.

    Attributes:
        what: What it holds, for messages.
        path: Resolved path.
        shown: The path as messages may show it.
    """

    key: str
    place: Place
    what: str
    path: str
    shown: str


@define(eq=False)
class Report:
    """The collection.

    Attributes:
        name: The main file's name.
        places: Where each key stands.
        given: Keys that have a value.
        refused: Keys whose value is wrong, or that are probably meant by an unknown key.
        tainted: These, and every key above them.
        hidden: Keys whose value came out of a reference, and is not shown.
        files: Files that must exist when the daemon starts.
    """

    name: str
    findings: list[Finding] = field(factory=list)
    warnings: list[Finding] = field(factory=list)
    places: dict[str, Place] = field(factory=dict)
    given: set[str] = field(factory=set)
    refused: set[str] = field(factory=set)
    tainted: set[str] = field(factory=set)
    hidden: set[str] = field(factory=set)
    files: list[FileUse] = field(factory=list)

    def error(self, key: str, message: str, place: Place | None = None) -> None:
        """Note something wrong, at ``place`` or where ``key`` stands; ``key`` counts as refused from now on."""
        place = place or self.place(key)
        self.refuse(key)
        self.findings.append(Finding(file=place.file, line=place.line, key=key, message=message))

    def warn(self, key: str, message: str, place: Place | None = None) -> None:
        """Note something the operator should hear at every start."""
        place = place or self.place(key)
        self.warnings.append(Finding(file=place.file, line=place.line, key=key, message=message))

    def refuse(self, key: str) -> None:
        """Let ``key`` count as refused."""
        self.refused.add(key)
        while key and key not in self.tainted:
            self.tainted.add(key)
            key = _above(key)

    def shown(self, key: str, value: str) -> str:
        """``value`` of ``key`` for a message, unless it came out of a reference."""
        return "the value" if self.hidden & {key, _above(key)} else seen(value)

    def place(self, key: str) -> Place:
        """Where ``key`` stands, or the nearest key above it that is there."""
        while key and key not in self.places:
            key = _above(key)
        return self.places.get(key, Place(file=self.name))

    def sound(self, *keys: str) -> bool:
        """Whether none of ``keys``, and nothing above or below them, was refused.

        Rules that look at several keys stay silent otherwise: one mistake, one finding.
        """
        for key in keys:
            if key in self.tainted:
                return False
            above = _above(key)
            while above:
                if above in self.refused:
                    return False
                above = _above(above)
        return True

    def done(self) -> tuple[str, ...]:
        """The warnings.

        Raises:
            ConfigError: With every finding, in file order, when there is any.
        """
        order = {finding.file: i for i, finding in reversed(list(enumerate(self.findings)))}
        order[self.name] = -1
        ordered = sorted(self.findings, key=lambda finding: (order[finding.file], finding.line or 0))
        if len(ordered) > _MOST_FINDINGS:
            more = len(ordered) - _MOST_FINDINGS
            rest = Finding(file=self.name, line=None, key="", message=f"{more} more findings are not shown")
            ordered = [*ordered[:_MOST_FINDINGS], rest]
        if ordered:
            raise ConfigError(ordered)
        return tuple(map(str, self.warnings))


def _above(key: str) -> str:
    """The key that holds ``key``; empty for a key of the whole file."""
    return _LAST_STEP.sub("", key)


@frozen(kw_only=True)
class Scope:
    """What holds for all values of one file.

    Attributes:
        expand: References in a value replaced; raises ``ExpandError``.
        base: Directory at which relative paths start; None: the working directory.
        foreign: The file was written for another program: what only that program understands is no mistake.
        idle: The values are of a disabled entry: looked at, but nothing outside the file has to exist.
        elsewhere: Key paths of the schema that end in a given name.
    """

    report: Report
    expand: Callable[[str], str]
    base: str | None
    elsewhere: Callable[[str], tuple[str, ...]]
    foreign: bool = False
    idle: bool = False


@frozen(kw_only=True)
class At:
    """One spot while reading: key path, place and scope."""

    key: str
    place: Place
    scope: Scope

    @property
    def report(self) -> Report:
        return self.scope.report

    def child(self, name: str, place: Place) -> At:
        """The spot of entry ``name`` below this one; its place is remembered."""
        path = self.path(name)
        self.report.places.setdefault(path, place)
        return evolve(self, key=path, place=place)

    def item(self, index: int, place: Place) -> At:
        """The spot of a list's item; its place is remembered."""
        path = f"{self.key}[{index}]"
        self.report.places.setdefault(path, place)
        return evolve(self, key=path, place=place)

    def again(self, name: str) -> At:
        """The spot of entry ``name`` below this one, where it was found before."""
        path = self.path(name)
        return evolve(self, key=path, place=self.report.place(path))

    def path(self, name: str) -> str:
        """The key path of entry ``name`` below this one."""
        return f"{self.key}.{step(name)}" if self.key else step(name)

    def error(self, message: str) -> None:
        """Note something wrong here."""
        self.report.error(self.key, message, self.place)

    def warn(self, message: str) -> None:
        """Note here something the operator should hear."""
        self.report.warn(self.key, message, self.place)
