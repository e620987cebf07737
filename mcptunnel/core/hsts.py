"""Strict-Transport-Security: the promise that we will be reached by https, and how it may grow.

A browser that has been promised https refuses, for as long as the promise says, to reach us in any other way: also when
our certificate has expired. So a promise should be no longer than what renewal has shown to hold. The ramp begins with
minutes and goes one step on with every certificate that was put in service before its predecessor had expired.

Invariants: the same certificate, or an older one that comes back, never counts. One that comes too late sends the ramp
back to its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

__all__ = ["RampState", "Renewal", "hsts"]

# Renewals that are remembered, for whoever asks how the promise came to be: years of them at 47 days each.
_REMEMBERED: Final = 32


def hsts(max_age: int, *, include_subdomains: bool = False, preload: bool = False) -> str:
    """The header's value (RFC 6797 §6.1; ``preload`` is that of hstspreload.org).

    Args:
        max_age: Seconds; 0 tells browsers to forget.
        include_subdomains: The promise holds for every name below ours.
        preload: Browsers may build it in.
    """
    parts = [f"max-age={max_age}"]
    if include_subdomains:
        parts.append("includeSubDomains")
    if preload:
        parts.append("preload")
    return "; ".join(parts)


@frozen(kw_only=True)
class Renewal:
    """A certificate that came into service.

    Attributes:
        fingerprint: SHA-256 of the leaf, lower-case hexadecimal.
        not_before: Start of its life, seconds since the epoch.
        not_after: End of its life.
        at: When it was put in service.
        in_time: The one before it had not expired; True for the first.
    """

    fingerprint: str
    not_before: float
    not_after: float
    at: float
    in_time: bool = True


@frozen(kw_only=True)
class RampState:
    """How far the promise has grown.

    Attributes:
        step: Renewals in time, one after the other.
        issued: Start of life of the newest certificate there was; older ones are no renewals.
        expires: End of life of the certificate in service.
        fingerprint: That of the certificate in service; empty before the first.
        renewals: What came into service, oldest first; the latest 32.
    """

    step: int = 0
    issued: float = 0.0
    expires: float = 0.0
    fingerprint: str = ""
    renewals: tuple[Renewal, ...] = ()

    def renewed(self, fingerprint: str, not_before: float, not_after: float, now: float) -> RampState:
        """The state after a certificate came into service; the same object when nothing has changed.

        Args:
            fingerprint: SHA-256 of the leaf.
            not_before: Start of its life, seconds since the epoch.
            not_after: End of its life.
            now: The time of the change.
        """
        if fingerprint == self.fingerprint:
            return self
        in_time = not self.fingerprint or now < self.expires
        if in_time and not_before <= self.issued:
            # Put back, or made at the same moment: nothing has been shown by it.
            return evolve(self, fingerprint=fingerprint, expires=not_after)
        seen = Renewal(fingerprint=fingerprint, not_before=not_before, not_after=not_after, at=now, in_time=in_time)
        return RampState(
            step=self.step + 1 if self.fingerprint and in_time else 0,
            issued=max(self.issued, not_before),
            expires=not_after,
            fingerprint=fingerprint,
            renewals=(*self.renewals, seen)[-_REMEMBERED:],
        )

    def max_age(self, steps: Sequence[int], whole: int) -> int:
        """Seconds to promise now.

        Args:
            steps: One for each renewal in time, from the first certificate on.
            whole: What is promised after the last of them.
        """
        return steps[self.step] if self.step < len(steps) else whole
