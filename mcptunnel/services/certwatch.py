"""Every certificate we serve, trust or meet is looked at again and again, and what changes is said once.

Where they come from does not matter here: a *source* yields facts. One that fails or hangs is told of, and stops
neither the others nor the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from mcptunnel.core.certificates import Facts, Thresholds, Verdict, worst_of
from mcptunnel.core.errors import CertificateError, UnseenError
from mcptunnel.core.verdicts import Change, Finding, Seen, Verdicts

__all__ = ["CertificateWatch", "Finding", "Source"]

# From the start until the first look at what takes its time: starting comes first.
SETTLE_SECONDS: Final = 2.0

_LEVELS: Final = {
    "warning": LogLevel.warn,
    "critical": LogLevel.error,
    "expired": LogLevel.critical,
    "not_yet_valid": LogLevel.error,
    "invalid": LogLevel.error,
}


@frozen(kw_only=True)
class Source:
    """Where certificates come from.

    Attributes:
        name: For the log and for health: a key of the configuration.
        facts: Asked at each look. What it raises, or its Deferred fails with, is told of; a CertificateError, an
            UnseenError or an OSError in one line, anything else with its traceback.
        cheap: It can be asked at any time. What is not is asked at the interval only, and not while we start.
        patience: Seconds after which it is late; its Deferred is cancelled then.
    """

    name: str
    facts: Callable[[], Sequence[Facts] | Deferred[Sequence[Facts]]]
    cheap: bool = True
    patience: float = 60.0


@define(eq=False)
class _State:
    """What is known of a source."""

    source: Source
    facts: tuple[Facts, ...] = ()
    error: str | None = None
    asking: Deferred[Any] | None = None


@define(eq=False, kw_only=True, slots=False)
class CertificateWatch(Service):
    """Looks at every certificate, at start and then at an interval.

    A verdict is logged when it changes and once a day as long as it is not ``ok``.

    Attributes:
        sources: Whom to ask. What one has found stays when it fails later.
        thresholds: When a certificate is a warning and an error.
        interval: Seconds between looks.
        clock: Drives the looks; its seconds are those of the epoch.
        listeners: Told of each change.
    """

    sources: Sequence[Source]
    thresholds: Thresholds
    interval: float
    clock: IReactorTime
    listeners: list[Callable[[Change], None]] = field(factory=list)
    _states: tuple[_State, ...] = field(init=False)
    _verdicts: Verdicts = field(init=False)
    _loop: LoopingCall = field(init=False)
    _running: Deferred[LoopingCall] | None = field(init=False, default=None)
    _settling: IDelayedCall | None = field(init=False, default=None)
    _looking: bool = field(init=False, default=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._states = tuple(_State(source) for source in self.sources)
        self._verdicts = Verdicts(thresholds=self.thresholds)
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self.clock

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the last look found."""
        return self._verdicts.findings

    @property
    def errors(self) -> dict[str, str | None]:
        """Why each source could not be asked the last time; None where it could."""
        return {state.source.name: state.error for state in self._states}

    @property
    def worst(self) -> Verdict:
        """The worst verdict of the last look."""
        return worst_of([finding.verdict for finding in self.findings])

    @property
    def serves_expired(self) -> bool:
        """Whether a certificate that we serve has expired, or one that vouches for it: clients refuse us."""
        return any(
            finding.verdict == "expired" and finding.facts.role in ("leaf", "intermediate") for finding in self.findings
        )

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._settling = self.clock.callLater(SETTLE_SECONDS, self._settle)
        self._running = self._loop.start(self.interval, now=True)

    def stopService(self) -> Deferred[LoopingCall] | None:
        super().stopService()  # type: ignore[no-untyped-call]
        running, self._running = self._running, None
        if self._loop.running:
            self._loop.stop()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        for state in self._states:
            asking, state.asking = state.asking, None
            if asking is not None:
                asking.cancel()
        return running

    def look(self) -> None:
        """Look at what is cheap to look at now, as after a reload, and say what has to be said."""
        self._look([state for state in self._states if state.source.cheap])

    def _settle(self) -> None:
        self._settling = None
        self._look([state for state in self._states if not state.source.cheap])

    def _tick(self) -> None:
        # A LoopingCall that raises once never comes again.
        try:
            if self._settling is not None:
                self.look()
            else:
                self._look(self._states)
        except Exception:
            self._log.failure(
                "the certificates could not be looked at; the next look is in {interval} s", interval=self.interval
            )

    def _look(self, states: Sequence[_State]) -> None:
        self._looking = True
        try:
            for state in states:
                self._ask(state)
        finally:
            self._looking = False
        self._judge()

    def _ask(self, state: _State) -> None:
        if state.asking is not None:
            return
        asking: Deferred[Any] = maybeDeferred(state.source.facts)
        state.asking = asking
        asking.addTimeout(state.source.patience, self.clock, _late)
        asking.addCallbacks(self._saw, self._failed, callbackArgs=(state,), errbackArgs=(state,))
        asking.addErrback(lambda failure: self._log.failure("a look at certificates failed", failure))

    def _saw(self, facts: Sequence[Facts], state: _State) -> None:
        if state.asking is None:
            return
        state.asking, state.facts = None, tuple(facts)
        if state.error is not None:
            state.error = None
            self._log.info("the certificates of {source} can be looked at again", source=state.source.name)
        self._answered()

    def _failed(self, failure: Failure, state: _State) -> None:
        # We have stopped and do not want to know any more.
        if state.asking is None:
            return
        state.asking = None
        before, state.error = state.error, _reason(failure)
        if state.error != before:
            self._tell_of(failure, state)
        self._answered()

    def _tell_of(self, failure: Failure, state: _State) -> None:
        name, text = state.source.name, "the certificates of {source} cannot be looked at: {reason}"
        if isinstance(failure.value, CertificateError | UnseenError | OSError):
            self._log.warn(text, source=name, reason=state.error)
        else:
            self._log.failure(text, failure, source=name, reason=state.error)

    def _answered(self) -> None:
        if not self._looking:
            self._judge()

    def _judge(self) -> None:
        seen: list[Seen] = [(facts, state.error) for state in self._states for facts in state.facts]
        changes, reminders = self._verdicts.judge(seen, self.clock.seconds())
        for finding in reminders:
            self._say(finding.message, finding.facts, finding.verdict)
        for change in changes:
            self._say(change.message, change.facts, change.after or "ok")
            for listener in self.listeners:
                try:
                    listener(change)
                except Exception:
                    self._log.failure("a change of a certificate's verdict could not be passed on")

    def _say(self, message: str, facts: Facts, verdict: Verdict) -> None:
        self._log.emit(
            _LEVELS.get(verdict, LogLevel.info),
            "{message}",
            message=message,
            subject=facts.subject,
            role=facts.role,
            file=facts.file,
            serial=facts.serial,
            verdict=verdict,
        )


def _late(_: Any, seconds: float) -> Any:
    raise UnseenError(f"no answer within {seconds:g} s")


def _reason(failure: Failure) -> str:
    text = failure.getErrorMessage()
    known = isinstance(failure.value, CertificateError | UnseenError)
    return text if known else f"{type(failure.value).__name__}: {text}"
