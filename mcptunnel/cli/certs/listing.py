"""``mcptunnel certs``: every certificate that a configuration puts in play, judged."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

from mcptunnel.cli.certs.inventory import Entry, Inventory, take
from mcptunnel.cli.certs.live import look_at_listener, look_at_upstreams, show_progress
from mcptunnel.cli.certs.words import Outcome, as_json, colour, left, name_of, names_of, status_of, worst
from mcptunnel.cli.paint import Paint, show
from mcptunnel.config.schema import Config
from mcptunnel.core.certificates import Thresholds, Verdict, judge
from mcptunnel.core.errors import ConfigError

__all__ = ["Report", "declare", "run"]

# Of a name, in the table.
_WIDEST: Final = 60
_WORDS: Final = {"warning": "warning", "invalid": "problem", "unknown": "unknown"}
_ROLES: Final = {
    "leaf": "served",
    "intermediate": "chain",
    "client_ca": "client CA",
    "crl": "revocations",
    "upstream_ca": "upstream CA",
    "upstream_client": "our client",
    "upstream": "upstream",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config", metavar="FILE", help="configuration; default: /etc/mcptunnel.yaml if it exists, else the defaults"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--no-upstreams",
        dest="upstreams",
        action="store_false",
        help="do not connect to https servers behind us to see what they present",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything, and print."""
    now = time.time()
    try:
        config = _load(args.config)
    except ConfigError as error:
        return _refused(error, as_json=args.json)
    found = take(config, now)
    look_at_listener(config, found)
    if args.upstreams:
        with show_progress() as progress:
            look_at_upstreams(config, found, progress)
    tls = config.server.tls
    report = Report(
        found=found, now=now, thresholds=Thresholds(warning=tls.expiry_warning, critical=tls.expiry_critical)
    )
    show(args.json, report.json, report.lines)
    return status_of(report.outcome)


@frozen(kw_only=True)
class Report:
    """What was found, judged.

    Attributes:
        found: It.
        now: Seconds since the epoch.
        thresholds: When a certificate is a warning, and when it is critical.
    """

    found: Inventory
    now: float
    thresholds: Thresholds

    @property
    def judged(self) -> list[tuple[Entry, Verdict]]:
        """Every certificate with its verdict."""
        return [(entry, judge(entry.facts, self.now, self.thresholds)) for entry in self.found.entries]

    @property
    def outcome(self) -> Outcome:
        """The whole of it."""
        kinds: list[Outcome] = [problem.kind for problem in self.found.problems]
        return worst([*(verdict for _, verdict in self.judged), *kinds])

    def json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "certificates": [self._entry(entry, verdict) for entry, verdict in self.judged],
            "errors": [problem.says for problem in self.found.problems],
            "worst": self.outcome,
        }

    def _entry(self, entry: Entry, verdict: Verdict) -> dict[str, Any]:
        shown = {
            **as_json(entry.facts, verdict, self.now),
            "file": entry.facts.file,
            "bundled_with": entry.more,
            "configured_by": entry.key,
        }
        if entry.facts.role == "leaf":
            shown |= {
                "chosen_for": list(entry.names),
                "default": entry.default,
                "served": entry.served,
                "served_instead": entry.instead,
            }
        return shown

    def lines(self, paint: Paint) -> Iterator[str]:
        """For people; the first line is the sum of it."""
        yield f"certificates {paint(self.outcome, colour(self.outcome))}: {self._sum()}"
        shown = list(self._rows())
        widths = [max((len(row[at]) for _, row, _ in shown), default=0) for at in range(5)]
        for verdict, row, below in shown:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            yield "  ".join([paint(cells[0], colour(verdict)), cells[1].rjust(widths[1]), *cells[2:]]).rstrip()
            for line in below:
                yield f"{'':<{widths[0]}}  {paint(line, 'faint')}"
        for problem in self.found.problems:
            word = _WORDS[problem.kind]
            yield f"{paint(word, 'bad' if problem.kind == 'invalid' else 'warn')}: {problem.says}"

    def _rows(self) -> Iterator[tuple[Outcome, tuple[str, str, str, str, str], list[str]]]:
        """Verdict, cells and further lines of each certificate."""
        for entry, verdict in self.judged:
            facts = entry.facts
            name = names_of(facts)
            if len(name) > _WIDEST:
                name = f"{name[: _WIDEST - 1]}…"
            if entry.more:
                name += f" and {entry.more} more"
            row = (verdict, left(facts.remaining(self.now)), _ROLES[facts.role], name, facts.file)
            yield verdict, row, list(_below(entry))

    def _sum(self) -> str:
        judged = self.judged
        if not judged and not self.found.problems:
            return "none is in play"
        worst_one = worst([verdict for _, verdict in judged])
        if worst_one != "ok":
            facts = min((e.facts for e, verdict in judged if verdict == worst_one), key=lambda facts: facts.not_after)
            bad = sum(verdict != "ok" for _, verdict in judged)
            more = f"; {bad} of {len(judged)} are not ok" if len(judged) > 1 else ""
            return f"{name_of(facts)} is {worst_one} ({left(facts.remaining(self.now))} left){more}"
        if self.found.problems:
            return self.found.problems[0].says
        nearest = min((entry.facts for entry, _ in judged), key=lambda facts: facts.not_after)
        return f"{len(judged)} in play, the first to end is {name_of(nearest)} in {left(nearest.remaining(self.now))}"


def _below(entry: Entry) -> Iterator[str]:
    """What does not fit into the row."""
    facts = entry.facts
    yield f"{facts.key or 'list'} SHA-256 {facts.fingerprint[:16]}… by {entry.key}" if facts.fingerprint else entry.key
    if facts.role == "leaf" and entry.key != "(in service)":
        whom = [*entry.names, *(["whoever asks for none of these names"] if entry.default else [])]
        served = "" if entry.served is None else f"; served: {entry.served}"
        if entry.instead is not None:
            served += f" (SHA-256 {entry.instead[:16]}…)"
        yield f"for {', '.join(whom) if whom else 'nobody: others have its names already'}{served}"
    if facts.flaw is not None:
        yield f"flaw: {facts.flaw}"


def _load(path: str | None) -> Config:
    from mcptunnel.config.load import default_path, load_file  # noqa: PLC0415  # --help and --version need no YAML

    path = path or default_path()
    return Config() if path is None else load_file(path)


def _refused(error: ConfigError, *, as_json: bool) -> int:
    lines = str(error).splitlines()
    if as_json:
        print(json.dumps({"certificates": [], "errors": lines, "worst": "unknown"}))
    else:
        print(f"certificates unknown: the configuration is refused: {lines[0]}")
    for line in lines:
        print(f"mcptunnel: {line}", file=sys.stderr)
    return status_of("unknown")
