"""What was found of every certificate, and what has changed since the last time. Facts and the time in, changes out."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Final

from attrs import define, field, frozen

from mcptunnel.core.certificates import DAY, Facts, Thresholds, Verdict, judge

__all__ = ["Change", "Finding", "Seen", "Verdicts", "days"]

# What is seen of a certificate: its facts, and why they are old; None when they are not.
Seen = tuple[Facts, str | None]
_Key = tuple[str, str, str]


@frozen(kw_only=True)
class Finding:
    """The verdict on one certificate at the last look.

    Attributes:
        facts: The certificate.
        verdict: See :func:`mcptunnel.core.certificates.judge`.
        remaining: Seconds of life that were left.
        unseen: Why it could not be looked at again, so that the facts are those of an earlier look; None if it could.
    """

    facts: Facts
    verdict: Verdict
    remaining: float
    unseen: str | None = None

    @property
    def message(self) -> str:
        """One sentence, without a full stop."""
        return f"{_named(self.facts)} {_words(self.facts, self.verdict, self.remaining)}"


@frozen(kw_only=True)
class Change:
    """The verdict on a certificate, or on what stood in its place before, is another.

    Attributes:
        facts: The certificate as it is now.
        before: The last verdict; ``ok`` for what is seen for the first time.
        after: The new one; None when the certificate is not in use any more and nothing stands in its place.
        remaining: Seconds of life that are left.
        when: Seconds since the epoch.
    """

    facts: Facts
    before: Verdict
    after: Verdict | None
    remaining: float
    when: float

    @property
    def message(self) -> str:
        """One sentence, without a full stop."""
        if self.after is None:
            return f"{_named(self.facts)} is not in use any more; it was {_plain(self.before)}"
        again = " again" if self.after == "ok" else ""
        return f"{_named(self.facts)} {_words(self.facts, self.after, self.remaining, again)}"


@define(eq=False, kw_only=True)
class Verdicts:
    """The memory: a change is told once, what is not ``ok`` again after a day.

    A certificate that appears where another one has vanished (same file, same role) has taken its place: the verdict on
    it is compared with the one on its predecessor, so that a renewal ends the trouble there was.

    Attributes:
        thresholds: When a certificate is a warning and an error.
        findings: Of the last look.
    """

    thresholds: Thresholds
    findings: tuple[Finding, ...] = ()
    _known: dict[_Key, Finding] = field(init=False, factory=dict)
    _said: dict[_Key, float] = field(init=False, factory=dict)

    def judge(self, seen: Iterable[Seen], now: float) -> tuple[list[Change], list[Finding]]:
        """Judge every certificate at ``now``; what has changed, and what has not and is to be said again."""
        old, said = self._known, self._said
        new = {_key(facts): self._find(facts, unseen, now) for facts, unseen in seen}
        self._known, self._said, self.findings = new, {}, tuple(new.values())
        places: defaultdict[tuple[str, str], deque[_Key]] = defaultdict(deque)
        for key in old:
            if key not in new:
                places[_place(key)].append(key)
        changes: list[Change] = []
        reminders: list[Finding] = []
        for key, finding in new.items():
            vanished = places[_place(key)]
            before = key if key in old else vanished.popleft() if vanished else None
            verdict: Verdict = "ok" if before is None else old[before].verdict
            at = now if before is None else said[before]
            if finding.verdict != verdict:
                changes.append(_change(finding, verdict, finding.verdict, now))
                at = now
            elif finding.verdict != "ok" and now - at >= DAY:
                reminders.append(finding)
                at = now
            self._said[key] = at
        for finding in (old[key] for keys in places.values() for key in keys):
            if finding.verdict != "ok":
                changes.append(_change(finding, finding.verdict, None, now))
        return changes, reminders

    def _find(self, facts: Facts, unseen: str | None, now: float) -> Finding:
        verdict = judge(facts, now, self.thresholds)
        return Finding(facts=facts, verdict=verdict, remaining=facts.remaining(now), unseen=unseen)


def days(seconds: float) -> float:
    """In days, to a tenth."""
    return round(seconds / DAY, 1)


def _change(finding: Finding, before: Verdict, after: Verdict | None, now: float) -> Change:
    return Change(facts=finding.facts, before=before, after=after, remaining=finding.facts.remaining(now), when=now)


def _key(facts: Facts) -> _Key:
    return facts.file, facts.role, facts.fingerprint or facts.serial


def _place(key: _Key) -> tuple[str, str]:
    file, role, _ = key
    return file, role


_KINDS: Final = {"crl": "revocation list of"}


def _named(facts: Facts) -> str:
    return f"{_KINDS.get(facts.role, 'certificate')} {facts.subject} ({_plain(facts.role)}, {facts.file})"


def _words(facts: Facts, verdict: Verdict, remaining: float, again: str = "") -> str:
    if verdict == "invalid":
        return f"is invalid: {facts.flaw}"
    if verdict == "expired":
        return f"has expired {days(-remaining)} days ago"
    if verdict == "not_yet_valid":
        return f"is not yet valid: its life begins in {days(remaining - facts.life)} days"
    return f"is {verdict}{again}: {days(remaining)} days of life are left"


def _plain(word: str) -> str:
    return word.replace("_", " ")
