"""The certificates in service are looked at again and again, and those that are about to expire are said aloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from mcptunnel.core.certificates import DAY, Facts, Thresholds, Verdict, judge

__all__ = ["CertificateWatch", "Finding"]

_LEVELS = {
    "warning": LogLevel.warn,
    "critical": LogLevel.error,
    "expired": LogLevel.critical,
    "not_yet_valid": LogLevel.error,
}


@frozen(kw_only=True)
class Finding:
    """The verdict on one certificate at the last look.

    Attributes:
        facts: The certificate.
        verdict: See :func:`mcptunnel.core.certificates.judge`.
        remaining: Seconds of life that were left.
    """

    facts: Facts
    verdict: Verdict
    remaining: float


@define(eq=False, kw_only=True, slots=False)
class CertificateWatch(Service):
    """Looks at every certificate in service, at start and then at an interval.

    A verdict is logged when it changes and once a day as long as it is not ``ok``.

    Attributes:
        facts: Asked at each look, since certificates may be swapped.
        thresholds: When a certificate is a warning and an error.
        interval: Seconds between looks.
        clock: Drives the looks; its seconds are those of the epoch.
        findings: What the last look found, for health and metrics.
    """

    facts: Callable[[], Sequence[Facts]]
    thresholds: Thresholds
    interval: float
    clock: IReactorTime
    findings: tuple[Finding, ...] = field(init=False, default=())
    _loop: LoopingCall = field(init=False)
    _running: Deferred[LoopingCall] | None = field(init=False, default=None)
    _said: dict[tuple[str, str], tuple[Verdict, float]] = field(init=False, factory=dict)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self.clock

    @property
    def worst(self) -> Verdict:
        """The worst verdict of the last look."""
        order: tuple[Verdict, ...] = ("ok", "warning", "critical", "not_yet_valid", "expired")
        return max((finding.verdict for finding in self.findings), key=order.index, default="ok")

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._running = self._loop.start(self.interval, now=True)

    def stopService(self) -> Deferred[LoopingCall] | None:
        super().stopService()  # type: ignore[no-untyped-call]
        running, self._running = self._running, None
        if self._loop.running:
            self._loop.stop()
        return running

    def look(self) -> None:
        """Judge every certificate now, and say what has to be said."""
        now = self.clock.seconds()
        self.findings = tuple(
            Finding(facts=facts, verdict=judge(facts, now, self.thresholds), remaining=facts.remaining(now))
            for facts in self.facts()
        )
        said, self._said = self._said, {}
        for finding in self.findings:
            key = (finding.facts.file, finding.facts.serial)
            verdict, at = said.get(key, ("ok", now))
            if verdict != finding.verdict or (finding.verdict != "ok" and now - at >= DAY):
                self._say(finding)
                at = now
            self._said[key] = (finding.verdict, at)

    def _tick(self) -> None:
        # A LoopingCall that raises once never comes again.
        try:
            self.look()
        except Exception:
            self._log.failure(
                "the certificates could not be looked at; the next look is in {interval} s", interval=self.interval
            )

    def _say(self, finding: Finding) -> None:
        facts = finding.facts
        self._log.emit(
            _LEVELS.get(finding.verdict, LogLevel.info),
            "certificate {subject} ({role}, {file}) is {verdict}: {days:.1f} days of life are left",
            subject=facts.subject,
            role=facts.role,
            file=facts.file,
            serial=facts.serial,
            verdict=finding.verdict,
            days=finding.remaining / DAY,
        )
