"""What is served follows what is on disk: certificates, keys, trust anchors and revocation lists.

New connections get the new ones, open ones live on; what is bad changes nothing and raises the alarm. When it is looked
at, and for whom else, is for :mod:`mcptunnel.services.following`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mcptunnel.config.schema import Config, TlsConfig
from mcptunnel.core.certificates import Facts
from mcptunnel.services.filewatch import FileWatch, Outcome
from mcptunnel.services.selfcheck import SelfCheck
from mcptunnel.tls.material import Material, strict_keys
from mcptunnel.tls.policy import Policy
from mcptunnel.tls.store import CertificateStore, load_served

__all__ = ["Rotation", "rotation_from", "served_files"]

# The keys of tickets open every session that they sealed: they must not live for as long as the process.
_TICKET_KEY_SECONDS: Final = 12 * 3600.0

_Loaded = tuple[tuple[Material, ...], Policy]


def served_files(tls: TlsConfig) -> tuple[str, ...]:
    """Every file that decides what the listener shows and accepts."""
    found: dict[str, None] = {}
    for pair in tls.pairs:
        found.update(dict.fromkeys((pair.cert_file, pair.key_file)))
        if pair.key_passphrase_file is not None:
            found[pair.key_passphrase_file] = None
    found.update(dict.fromkeys(file for file in (tls.ca_file, tls.crl_file) if file is not None))
    return tuple(found)


def rotation_from(
    config: Config,
    store: CertificateStore,
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
    clock: IReactorTime,
    check: SelfCheck,
) -> Rotation:
    """Keeps ``store`` the same as the files of ``config``.

    Args:
        config: Names the files.
        store: Just loaded from them.
        in_thread: Runs what blocks.
        clock: For pauses.
        check: Calls our own listener.
    """
    server = config.server
    return Rotation(
        tls=server.tls,
        strict=strict_keys(server),
        store=store,
        host=urlsplit(server.public_url or "").hostname,
        clock=clock,
        in_thread=in_thread,
        check=lambda leaves: Deferred.fromCoroutine(check.differences(leaves)),
    )


@define(eq=False, kw_only=True)
class Rotation:
    """Keeps a :class:`~mcptunnel.tls.store.CertificateStore` the same as its files.

    Attributes:
        tls: Names the files.
        strict: Refuse keys that other users can read.
        store: What is in service.
        host: The host of ``server.public_url``; a certificate that covers it is not replaced by one that does not.
        clock: For pauses.
        in_thread: Runs what blocks.
        check: Asks our own listener what it shows; see :class:`~mcptunnel.services.selfcheck.SelfCheck`.
        taken: Called after each swap with the leaves in service.
        alarm: Called with what is wrong, and with None when it is right again.
        counts: Attempts by how they ended: ``taken``, ``refused``, ``mismatch`` (taken, and shown wrong).
        last_taken: Seconds since the epoch of the last swap; of the start before the first.
        trouble: What is wrong now; None when nothing is.
    """

    tls: TlsConfig
    strict: bool
    store: CertificateStore
    host: str | None
    clock: IReactorTime
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    check: Callable[[Sequence[Facts]], Deferred[list[str]]]
    taken: list[Callable[[Sequence[Facts]], None]] = field(factory=list)
    alarm: list[Callable[[str | None], None]] = field(factory=list)
    counts: Counter[str] = field(init=False, factory=Counter)
    last_taken: float = field(init=False)
    trouble: str | None = field(init=False, default=None)
    _files: FileWatch[_Loaded] = field(init=False)
    _keys_at: float = field(init=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        now = self.clock.seconds()
        self.last_taken, self._keys_at = now, now + _TICKET_KEY_SECONDS
        self._files = FileWatch(
            files=served_files(self.tls),
            load=lambda: load_served(self.tls, self.clock.seconds(), strict=self.strict),
            take=self._take,
            told=self._told,
            in_thread=self.in_thread,
            clock=self.clock,
        )

    def reload(self) -> Deferred[Outcome]:
        """Read everything again now, changed or not."""
        return self._files.force()

    def tick(self) -> None:
        """Look at the files, and at the age of keys. Called a few times a second."""
        self._files.tick()
        if self.clock.seconds() >= self._keys_at:
            self._keys_at = self.clock.seconds() + _TICKET_KEY_SECONDS
            self.store.renew_keys()

    def _take(self, loaded: _Loaded) -> None:
        materials, policy = loaded
        self.store.swap(materials, policy, self.host)

    def _told(self, outcome: Outcome) -> None:
        self.counts["taken" if outcome.taken else "refused"] += 1
        if not outcome.taken:
            self._log.error(
                "the certificates in service stay, those on disk are refused: {reason}", reason=outcome.problem
            )
            self._raise_alarm(outcome.problem)
            return
        self.last_taken = self.clock.seconds()
        leaves = self.store.leaves
        self._log.info(
            "certificates were read again, generation {generation}: {names}",
            generation=self.store.generation,
            names="; ".join(f"{leaf.subject} {leaf.fingerprint[:16]}…" for leaf in leaves),
        )
        for warning in self.store.warnings:
            self._log.warn("{text}", text=warning)
        self._raise_alarm(None)
        for listener in self.taken:
            listener(leaves)
        generation = self.store.generation
        self.check(leaves).addCallback(self._checked, generation).addErrback(
            lambda failure: self._log.failure("the daemon could not check what it shows", failure)
        )

    def _checked(self, differences: list[str], generation: int) -> None:
        # A newer one is in service already, and is checked for itself.
        if differences and generation == self.store.generation:
            self.counts["mismatch"] += 1
            text = "\n".join(differences)
            self._log.error("what clients are shown is not what was put in service: {reason}", reason=text)
            self._raise_alarm(text)

    def _raise_alarm(self, trouble: str | None) -> None:
        before, self.trouble = self.trouble, trouble
        if trouble != before:
            for listener in self.alarm:
                listener(trouble)
