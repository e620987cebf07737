"""What the commands of ``mcptunnel certs`` have in common: verdicts, statuses, and how time and names are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from mcptunnel.core.certificates import DAY, Facts, Verdict

__all__ = ["USAGE", "Outcome", "as_json", "colour", "left", "name_of", "names_of", "status_of", "worst"]

# A verdict, or ``unknown``: it cannot be said.
Outcome = Verdict | Literal["unknown"]

# From the best to the worst: what is known to be broken outweighs what could not be looked at.
_ORDER: Final[tuple[Outcome, ...]] = (
    "ok",
    "warning",
    "unknown",
    "critical",
    "not_yet_valid",
    "expired",
    "invalid",
)
_AUTHORITIES: Final = ("crl", "client_ca", "upstream_ca", "intermediate")
# The statuses that Nagios, Icinga and all their relatives read.
_STATUSES: Final[dict[Outcome, int]] = {"ok": 0, "warning": 1, "unknown": 3}
_CRITICAL: Final = 2

_COLOURS: Final[dict[Outcome, str]] = {"ok": "good", "warning": "warn", "unknown": "warn"}

USAGE: Final = (
    "exit status, for monitoring: 0 ok, 1 warning, 2 critical (about to expire, expired, not yet valid, of no use), "
    "3 unknown (something could not be read or reached); 2 for wrong arguments, too. The first line sums up."
)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst of them; ``ok`` when there is none."""
    return max(outcomes, key=_ORDER.index, default="ok")


def status_of(outcome: Outcome) -> int:
    """The exit status."""
    return _STATUSES.get(outcome, _CRITICAL)


def colour(outcome: Outcome) -> str:
    """What :data:`~mcptunnel.cli.paint.Paint` calls its colour."""
    return _COLOURS.get(outcome, "bad")


def left(seconds: float) -> str:
    """Remaining life in words: ``89 days``, ``35 hours``, ``-3 days`` once it is over."""
    unit, name = (DAY, "day") if abs(seconds) >= 2 * DAY else (3600.0, "hour")
    if seconds == float("inf"):
        return "no end"
    # Never more than there is: 29.9 days are not 30.
    number = int(seconds // unit) if seconds >= 0 else -int(-seconds // unit)
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def name_of(facts: Facts) -> str:
    """What to call a certificate: its first name, or its subject."""
    return facts.subject if facts.role in _AUTHORITIES or not facts.names else facts.names[0]


def names_of(facts: Facts, most: int = 3) -> str:
    """As :func:`name_of`, with ``most`` of its names."""
    if facts.role in _AUTHORITIES or not facts.names:
        return facts.subject
    rest = len(facts.names) - most
    return ", ".join(facts.names[:most]) + (f" and {rest} more" if rest > 0 else "")


def as_json(facts: Facts, verdict: Outcome, now: float) -> dict[str, Any]:
    """The members of a certificate's JSON object that every command shows."""
    return {
        "verdict": verdict,
        "days_left": _finite(round(facts.remaining(now) / DAY, 2)),
        "role": facts.role,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "names": list(facts.names),
        "not_before": facts.not_before,
        "not_after": _finite(facts.not_after),
        "key": facts.key,
        "sha256": facts.fingerprint,
        "flaw": facts.flaw,
    }


def _finite(number: float) -> float | None:
    # A revocation list may have no end, and JSON has no infinity.
    return None if number == float("inf") else number
