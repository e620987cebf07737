"""The promise of https that the site makes, and the ramp on which it grows: its file, its log, its refusals.

The rules are in :mod:`mcptunnel.core.hsts`. Invariant: whatever becomes of the file, the daemon goes on, and the
promise is never longer than what the state in memory allows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from attrs import define, field
from twisted.application.service import Service
from twisted.logger import Logger

from mcptunnel.config.schema import HstsRampConfig, TlsConfig
from mcptunnel.core.certificates import Facts
from mcptunnel.core.errors import CertificateError
from mcptunnel.core.hsts import RampState, hsts
from mcptunnel.tls.chain import self_signed
from mcptunnel.tls.pem import read_chain, read_file

__all__ = ["Ramp", "first_promise", "ramp_from", "refuse_self_signed"]

_SETTING: Final = "server.tls.hsts_ramp"


def first_promise(tls: TlsConfig) -> str | None:
    """What the site promises before anything is known of renewals; None for nothing."""
    return _promise(tls, RampState()) if tls.hsts_enabled else None


def ramp_from(
    tls: TlsConfig, facts: Callable[[], Sequence[Facts]], promise: Callable[[str | None], None], clock: Any
) -> Ramp | None:
    """The ramp of ``server.tls.hsts_ramp``, None where the promise is whole from the beginning.

    Args:
        tls: A mode that speaks TLS.
        facts: Asked for the certificates in service, the first leaf first.
        promise: See :class:`Ramp`.
        clock: See :class:`Ramp`.

    Raises:
        CertificateError: The first certificate is self-signed.
    """
    if tls.hsts_ramp is None:
        return None
    refuse_self_signed(tls)
    return Ramp(tls=tls, leaf=lambda: facts()[0], promise=promise, clock=clock)


def refuse_self_signed(tls: TlsConfig) -> None:
    """A certificate that vouches for itself is renewed by nobody, and browsers that were promised https lock us out.

    Raises:
        CertificateError: There is a ramp, and the first certificate is self-signed.
    """
    if tls.hsts_ramp is None or not tls.pairs:
        return
    file = tls.pairs[0].cert_file
    try:
        leaf = read_chain(read_file(file))[0]
    except OSError as error:
        raise CertificateError(f"{file}: cannot be read: {error.strerror or error}") from error
    if self_signed(leaf):
        raise CertificateError(
            f"{file}: is self-signed, and {_SETTING} would promise browsers that its renewals succeed; "
            f"remove {_SETTING}, or serve a certificate of an authority"
        )


@define(eq=False, kw_only=True, slots=False)
class Ramp(Service):
    """Keeps the promise at the length that renewals have earned.

    Attributes:
        tls: ``server.tls``, with a ramp.
        leaf: Asked for the first certificate in service.
        promise: Told the value of Strict-Transport-Security whenever it may have changed.
        clock: Its seconds are those of the epoch.
        state: How far it has grown.
    """

    tls: TlsConfig
    leaf: Callable[[], Facts]
    promise: Callable[[str | None], None]
    clock: Any
    state: RampState = field(init=False, factory=RampState)

    _log = Logger()

    @property
    def max_age(self) -> int:
        """Seconds that are promised now."""
        return self.state.max_age(self._ramp.steps, self.tls.hsts_max_age)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if self._ramp.file is not None:
            self.state = self._remembered(self._ramp.file)
        self.look()

    def look(self) -> None:
        """Compare the certificate in service with the one before. Call it after each swap."""
        leaf = self.leaf()
        if leaf.subject == leaf.issuer:
            self._log.warn(
                "{file} is self-signed now: it counts as no renewal for {setting}", file=leaf.file, setting=_SETTING
            )
            return
        self.renewed(leaf.fingerprint, leaf.not_before, leaf.not_after)

    def renewed(self, fingerprint: str, not_before: float, not_after: float) -> None:
        """A certificate is in service: the same as before, or a renewal.

        Args:
            fingerprint: SHA-256 of the leaf, lower-case hexadecimal.
            not_before: Start of its life, seconds since the epoch.
            not_after: End of its life.
        """
        before = self.state
        self.state = before.renewed(fingerprint, not_before, not_after, self.clock.seconds())
        self.promise(_promise(self.tls, self.state))
        if self.state is before:
            return
        if self.state.step > before.step:
            self._log.info("the certificate was renewed in time: https is promised for {age} s", age=self.max_age)
        elif self.state.step < before.step:
            self._log.warn(
                "the certificate was renewed after it had expired: https is promised for {age} s only, until renewal "
                "works again",
                age=self.max_age,
            )
        if self._ramp.file is not None:
            self._remember(self._ramp.file)

    @property
    def _ramp(self) -> HstsRampConfig:
        assert self.tls.hsts_ramp is not None
        return self.tls.hsts_ramp

    def _remembered(self, file: str) -> RampState:
        """The state in ``file``, or a new one where there is none that can be used."""
        try:
            state = msgspec.json.decode(read_file(file), type=RampState)
            if state.step < 0:
                raise ValueError("the step is below 0")
        except FileNotFoundError:
            self._log.warn("{file} ({setting}.file) does not exist yet: the ramp begins", file=file, setting=_SETTING)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self._log.warn(
                "{file} ({setting}.file) cannot be used, the ramp begins anew: {reason}",
                file=file,
                setting=_SETTING,
                reason=str(error),
            )
        else:
            return state
        return RampState()

    def _remember(self, file: str) -> None:
        try:
            _replace(file, msgspec.json.encode(self.state))
        except OSError as error:
            self._log.error(
                "{file} ({setting}.file) cannot be written, the next start begins at an older step: {reason}",
                file=file,
                setting=_SETTING,
                reason=error.strerror or str(error),
            )


def _promise(tls: TlsConfig, state: RampState) -> str:
    age = tls.hsts_max_age if tls.hsts_ramp is None else state.max_age(tls.hsts_ramp.steps, tls.hsts_max_age)
    return hsts(age, include_subdomains=tls.hsts_include_subdomains, preload=tls.hsts_preload)


def _replace(file: str, content: bytes) -> None:
    """Write ``file`` whole or not at all, for its owner only."""
    # mkstemp makes files with mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=".hsts-", dir=os.path.dirname(file) or ".")
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
