"""What is known of a served certificate, and the verdict on its remaining life. Facts and the time in, words out."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

from attrs import frozen

__all__ = ["DAY", "Facts", "Thresholds", "Verdict", "covers", "judge", "wildcard_of"]

DAY: Final = 86_400.0

# Automatic renewal happens with a third of the life left; later than a quarter it has failed at least once.
_WARNING_FRACTION: Final = 1 / 4
_CRITICAL_FRACTION: Final = 1 / 10

Verdict = Literal["ok", "warning", "critical", "expired", "not_yet_valid"]


@frozen(kw_only=True)
class Facts:
    """One certificate as it is served.

    Attributes:
        file: The file it came from, as the operator gave it.
        role: ``leaf`` for the server's own, ``intermediate`` for one that vouches for it.
        subject: Distinguished name, RFC 4514.
        issuer: Distinguished name of who signed it.
        serial: Serial number in lower-case hexadecimal.
        names: DNS names and IP addresses of the subject alternative name, lower case.
        not_before: Start of its life, seconds since the epoch.
        not_after: End of its life, seconds since the epoch.
    """

    file: str
    role: Literal["leaf", "intermediate"]
    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...] = ()
    not_before: float
    not_after: float

    def remaining(self, now: float) -> float:
        """Seconds of life left at ``now``; negative once it has expired."""
        return self.not_after - now


@frozen(kw_only=True)
class Thresholds:
    """Seconds of remaining life at which a certificate is a warning and an error."""

    warning: float = 30 * DAY
    critical: float = 7 * DAY


def judge(facts: Facts, now: float, thresholds: Thresholds) -> Verdict:
    """The verdict on one certificate at ``now`` (seconds since the epoch).

    The thresholds are upper bounds: a certificate that lives six days would always be critical by them, so that a
    quarter and a tenth of its whole life count instead where these are shorter.
    """
    if now < facts.not_before:
        return "not_yet_valid"
    remaining = facts.remaining(now)
    if remaining <= 0:
        return "expired"
    life = facts.not_after - facts.not_before
    if remaining < min(thresholds.critical, life * _CRITICAL_FRACTION):
        return "critical"
    if remaining < min(thresholds.warning, life * _WARNING_FRACTION):
        return "warning"
    return "ok"


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
