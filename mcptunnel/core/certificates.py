"""What is known of a certificate, and the verdict on its remaining life. Facts and the time in, words out."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, Literal

from attrs import frozen

__all__ = [
    "CRITICAL",
    "DAY",
    "WARNING",
    "Facts",
    "Role",
    "Threshold",
    "Thresholds",
    "Verdict",
    "covers",
    "judge",
    "wildcard_of",
    "worst_of",
]

DAY: Final = 86_400.0

# CA/Browser Forum, baseline requirements: no public certificate of a server has lived longer since 2020 (398 days).
_LONG: Final = 400 * DAY

Verdict = Literal["ok", "warning", "critical", "expired", "not_yet_valid", "invalid"]

# From the best to the worst.
_ORDER: Final[tuple[Verdict, ...]] = ("ok", "warning", "critical", "not_yet_valid", "expired", "invalid")

Role = Literal["leaf", "intermediate", "client_ca", "crl", "upstream_ca", "upstream_client", "upstream"]


@frozen(kw_only=True)
class Facts:
    """One certificate in play, or a revocation list, which has a life as well.

    Attributes:
        file: The file it came from, as the operator gave it; ``mcpServers.NAME`` for what an upstream presents.
        role: ``leaf`` for the server's own, ``intermediate`` for one that vouches for it, ``client_ca`` for one that
            client certificates must chain to, ``crl`` for a revocation list of such a one, ``upstream_ca`` for one that
            an upstream's must chain to, ``upstream_client`` for what we show an upstream, ``upstream`` for what an
            upstream presents.
        subject: Distinguished name, RFC 4514; of a revocation list, its issuer's.
        issuer: Distinguished name of who signed it.
        serial: Serial number in lower-case hexadecimal; of a revocation list, its number.
        names: DNS names and IP addresses of the subject alternative name, lower case.
        not_before: Start of its life, seconds since the epoch.
        not_after: End of its life, seconds since the epoch; of a revocation list, when the next one is due.
        key: Kind and size of the key, such as ``EC P-256``.
        fingerprint: SHA-256 of the DER encoding, lower-case hexadecimal.
        flaw: Why clients refuse it whatever the time is; None when nothing is known against it.
    """

    file: str
    role: Role
    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...] = ()
    not_before: float
    not_after: float
    key: str = ""
    fingerprint: str = ""
    flaw: str | None = None

    @property
    def life(self) -> float:
        """Seconds from the beginning to the end of its life."""
        return self.not_after - self.not_before

    def remaining(self, now: float) -> float:
        """Seconds of life left at ``now``; negative once it has expired."""
        return self.not_after - now


@frozen(kw_only=True)
class Threshold:
    """A remaining life below which something has to be said.

    Certificates live for six days or for a year; one number of days cannot fit both. So a share of the whole life
    counts, and an absolute time only where it is shorter. Without an absolute time, what lives for ten years, as
    authorities do, counts as if it lived for 400 days: nobody needs two years to renew it.

    Attributes:
        share: Of the whole life, between 0 and 1.
        seconds: Upper bound; None for none.
    """

    share: float
    seconds: float | None = None

    def of(self, life: float) -> float:
        """Seconds of remaining life, for a certificate that lives for ``life`` seconds."""
        return min(life, _LONG) * self.share if self.seconds is None else min(life * self.share, self.seconds)


# Automatic renewal happens with a third of the life left; later than a quarter it has failed at least once.
WARNING: Final = Threshold(share=1 / 4)
CRITICAL: Final = Threshold(share=1 / 10)


@frozen(kw_only=True)
class Thresholds:
    """When a certificate is a warning, and when it is an error, which is never before that."""

    warning: Threshold = WARNING
    critical: Threshold = CRITICAL


def judge(facts: Facts, now: float, thresholds: Thresholds) -> Verdict:
    """The verdict on one certificate at ``now`` (seconds since the epoch)."""
    remaining = facts.remaining(now)
    if remaining <= 0:
        return "expired"
    if now < facts.not_before:
        return "not_yet_valid"
    if facts.flaw is not None:
        return "invalid"
    warning = thresholds.warning.of(facts.life)
    if remaining >= warning:
        return "ok"
    return "critical" if remaining < min(warning, thresholds.critical.of(facts.life)) else "warning"


def worst_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them; ``ok`` when there is none."""
    return max(verdicts, key=_ORDER.index, default="ok")


def wildcard_of(name: str) -> str | None:
    """The wildcard that would match host ``name``: ``*`` for its first label, or None where none can.

    RFC 9525 §6.3: a wildcard stands for exactly one label, and it is the left-most one.
    """
    _, dot, parent = name.partition(".")
    return f"*.{parent}" if dot and "." in parent else None


def covers(facts: Facts, host: str) -> bool:
    """Whether a client that calls us ``host`` (a name, or an address with or without brackets) accepts this name."""
    host = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        return host in facts.names or wildcard_of(host) in facts.names
    return host in facts.names
