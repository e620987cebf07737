"""``mcptunnel certs check HOST[:PORT]``: what a client sees, and whether it would accept it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from attrs import field, frozen
from cryptography import x509

from mcptunnel.cli.certs.connect import DialError, Way
from mcptunnel.cli.certs.dial import Seen, dial
from mcptunnel.cli.certs.flaws import advice, flaws, notes
from mcptunnel.cli.certs.target import Target, parse
from mcptunnel.cli.certs.together import all_at_once
from mcptunnel.cli.certs.words import USAGE, Outcome, as_json, colour, left, name_of, names_of, status_of, worst
from mcptunnel.cli.paint import Paint, show
from mcptunnel.core.certificates import Facts, Thresholds, Verdict, covers, judge
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import facts_of
from mcptunnel.tls.pem import read_chain, read_file

__all__ = ["Report", "add", "report_on", "run"]

_SECONDS: Final = 10.0
# How long a server gets to say that it misses a client certificate.
_LINGER: Final = 0.5
_THRESHOLDS: Final = Thresholds()


def add(subparsers: Any) -> None:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check",
        help="show what a client sees of a TLS server, and whether it would accept it",
        description="Connect to a TLS server as a client does, and show its certificates, what was agreed on, and "
        "everything a client would refuse it for.",
        epilog=USAGE,
        allow_abbrev=False,
    )
    parser.add_argument(
        "target", metavar="HOST[:PORT]", type=_target, help="name, address ([::1]:443) or https URL; port 443 if none"
    )
    parser.add_argument(
        "--name", type=_name, metavar="NAME", help="ask for this name (SNI), and expect it in the certificate"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="CA certificates to trust instead of the system's")
    # SUPPRESS, because `certs` has the same option, which would be overwritten.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
    parser.add_argument(
        "--timeout", type=_timeout, default=_SECONDS, metavar="SECONDS", help="for all of it (default %(default)g)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, and print."""
    name = args.name or args.target.host
    try:
        trust = None if args.ca_file is None else read_chain(read_file(args.ca_file))
    except (OSError, CertificateError) as error:
        print(f"mcptunnel: {args.ca_file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return status_of("unknown")
    report = report_on(args.target, name, args.ca_file, trust, args.timeout, time.time())
    show(args.json, report.json, report.lines)
    return status_of(report.outcome)


@frozen(kw_only=True)
class Report:
    """What was seen.

    Attributes:
        target: Where.
        name: What was asked for.
        ca_file: Whom we trusted; None for whom the system trusts.
        now: Seconds since the epoch.
        seen: What the server presented; None when it presented nothing.
        facts: Of its chain.
        problems: Why a client would refuse it.
        notes: What else is worth knowing.
    """

    target: Target
    name: str
    ca_file: str | None
    now: float
    seen: Seen | None = None
    facts: tuple[Facts, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def verdicts(self) -> list[Verdict]:
        """On each certificate of the chain."""
        return [judge(facts, self.now, _THRESHOLDS) for facts in self.facts]

    @property
    def outcome(self) -> Outcome:
        """The whole of it."""
        outcome = worst(self.verdicts)
        return worst((outcome, "critical")) if self.problems else outcome

    @property
    def trusted(self) -> bool:
        """Whether somebody whom the client trusts vouches for the chain."""
        return self.seen is not None and not self.seen.presented.flaws

    @property
    def covered(self) -> bool:
        """Whether the certificate is for the name."""
        return bool(self.facts) and covers(self.facts[0], self.name)

    def json(self) -> dict[str, Any]:
        """One JSON object."""
        presented = None if self.seen is None else self.seen.presented
        return {
            "target": str(self.target),
            "name": self.name,
            "address": None if self.seen is None else self.seen.peer,
            "version": None if presented is None else presented.version,
            "cipher": None if presented is None else presented.cipher,
            "group": (presented.group or None) if presented is not None else None,
            "certificates": [
                as_json(facts, verdict, self.now) for facts, verdict in zip(self.facts, self.verdicts, strict=True)
            ],
            "covered": self.covered,
            "trusted": self.trusted,
            "problems": list(self.problems),
            "notes": list(self.notes),
            "worst": self.outcome,
        }

    def lines(self, paint: Paint) -> Iterator[str]:
        """For people; the first line is the sum of it."""
        yield f"{self.target} {paint(self.outcome, colour(self.outcome))}: {self._sum()}"
        if self.seen is not None:
            presented = self.seen.presented
            group = f", key exchange {presented.group}" if presented.group else ""
            yield f"address      {self.seen.peer}"
            yield f"agreed on    {presented.version}, {presented.cipher}{group}"
            yield f"name         {self.name}: {_answer(paint, self.covered, 'covered', 'NOT covered')}"
            whom = self.ca_file or "this system"
            trust = _answer(paint, self.trusted, f"trusted by {whom}", f"NOT trusted by {whom}")
            chain = f"{len(self.facts)} certificate{'s' if len(self.facts) > 1 else ''}"
            yield f"chain        {chain}, {trust}"
        for number, (facts, verdict) in enumerate(zip(self.facts, self.verdicts, strict=True), 1):
            remaining = left(facts.remaining(self.now))
            yield f"{number:<4} {paint(f'{verdict:<13}', colour(verdict))} {remaining:>9}  {names_of(facts)}"
            yield f"     subject {facts.subject or '(none)'}"
            yield f"     issuer  {facts.issuer}"
            yield f"     key     {facts.key}"
            yield f"     SHA-256 {facts.fingerprint}"
        # One alone stands in the first line already.
        for problem in self.problems if len(self.problems) > 1 else ():
            yield f"{paint('problem', 'bad')}      {problem}"
        for note in self.notes:
            yield f"{paint('note', 'warn')}         {note}"

    def _sum(self) -> str:
        if self.problems:
            more = len(self.problems) - 1
            return self.problems[0] + (f" (and {more} more)" if more else "")
        nearest = min(self.facts, key=lambda facts: facts.not_after)
        return f"{left(nearest.remaining(self.now))} left ({name_of(nearest)})"


def report_on(
    target: Target,
    name: str,
    ca_file: str | None,
    trust: tuple[x509.Certificate, ...] | None,
    seconds: float,
    now: float,
) -> Report:
    """Connect once, and judge.

    Args:
        target: Where.
        name: What to ask for, and to expect.
        ca_file: Where ``trust`` came from.
        trust: Trust anchors; None for the system's.
        seconds: For all of it.
        now: Seconds since the epoch.
    """
    way = Way(host=target.host, port=target.port)
    asked = None if Target(host=name, port=target.port).is_address else name
    # In a thread of its own, because nothing else bounds the resolution of names.
    (seen,) = all_at_once([partial(dial, way, asked, trust, seconds=seconds, linger=_LINGER)], seconds + _LINGER)
    if isinstance(seen, DialError) or seen is None:
        said = DialError("timeout", f"does not answer within {seconds:g} s") if seen is None else seen
        problems: tuple[str, ...] = (advice(said, name),)
        return Report(target=target, name=name, ca_file=ca_file, now=now, problems=problems)
    if isinstance(seen, Exception):
        raise seen
    facts = tuple(
        facts_of(seen.peer, one, "intermediate" if at else "leaf") for at, one in enumerate(seen.presented.chain)
    )
    return Report(
        target=target,
        name=name,
        ca_file=ca_file,
        now=now,
        seen=seen,
        facts=facts,
        problems=tuple(flaws(seen, facts, name, ca_file, now)),
        notes=tuple(notes(seen)),
    )


def _answer(paint: Paint, good: bool, yes: str, no: str) -> str:
    return paint(yes, "good") if good else paint(no, "bad")


def _target(text: str) -> Target:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _name(text: str) -> str:
    return _target(text).host


def _timeout(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 600:
        raise argparse.ArgumentTypeError("from 0.1 to 600 seconds")
    return seconds
