"""What somebody is to be told of, and whether it concerns them."""

from __future__ import annotations

from attrs import frozen

from mcptunnel.core.certificates import Facts, Verdict, worst_of
from mcptunnel.core.verdicts import Change

__all__ = ["Alert", "told"]


@frozen(kw_only=True)
class Alert:
    """One thing that has happened.

    Attributes:
        event: What kind of thing: ``certificate_verdict``, ``reload_refused``, ``reload_recovered``.
        verdict: How bad it is now; ``ok`` for a recovery, None for a certificate that is not in use any more.
        before: How bad it was.
        message: One sentence, without a full stop and without secrets.
        when: Seconds since the epoch.
        facts: The certificate, if it is about one.
    """

    event: str
    verdict: Verdict | None
    before: Verdict
    message: str
    when: float
    facts: Facts | None = None

    @classmethod
    def of(cls, change: Change) -> Alert:
        """That the verdict on a certificate has changed."""
        return cls(
            event="certificate_verdict",
            verdict=change.after,
            before=change.before,
            message=change.message,
            when=change.when,
            facts=change.facts,
        )


def told(alert: Alert, least: Verdict) -> bool:
    """Whether who wants to know of ``least`` and worse is told: of trouble, and of the end of what was told of."""
    worst = worst_of([alert.before, alert.verdict or "ok"])
    return worst_of([worst, least]) == worst
