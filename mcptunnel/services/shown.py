"""What is found of certificates as JSON has it, for ``/health`` and for alerts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mcptunnel.core.certificates import Facts
from mcptunnel.core.verdicts import Finding, days

__all__ = ["rfc3339", "shown", "shown_facts"]


def shown(finding: Finding) -> dict[str, Any]:
    """One certificate for ``/health``."""
    return {
        **shown_facts(finding.facts),
        "verdict": finding.verdict,
        "days_left": days(finding.remaining),
        "flaw": finding.facts.flaw,
        "unseen": finding.unseen,
    }


def shown_facts(facts: Facts) -> dict[str, Any]:
    """Which certificate it is."""
    return {
        "subject": facts.subject,
        "names": list(facts.names),
        "file": facts.file,
        "role": facts.role,
        "serial": facts.serial,
        "fingerprint": facts.fingerprint,
        "not_after": rfc3339(facts.not_after),
    }


def rfc3339(seconds: float) -> str:
    """A moment in UTC, seconds since the epoch, such as ``2027-01-15T08:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
