"""The certificates that https servers behind us present: a handshake with each, and nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mcptunnel.core.certificates import Facts, covers
from mcptunnel.core.errors import UnseenError
from mcptunnel.services.certwatch import Source
from mcptunnel.services.ways import Way
from mcptunnel.tls.chain import facts_of
from mcptunnel.tls.probe import Presented, Probe, ProbeError
from mcptunnel.tls.probing import look

__all__ = ["sources_of"]

# From the connection to the end of the handshake, and how many are made at a time.
SECONDS: Final = 10.0
AT_A_TIME: Final = 4


def sources_of(ways: Mapping[str, Way], clock: IReactorTime) -> list[Source]:
    """One source for each server of ``ways``, by name, that is spoken to over TLS."""
    secure = {name: way for name, way in ways.items() if way.secure}
    turns = DeferredSemaphore(AT_A_TIME)
    patience = SECONDS * (ceil(len(secure) / AT_A_TIME) + 1)

    def source(name: str, way: Way) -> Source:
        def facts() -> Deferred[Sequence[Facts]]:
            return turns.run(_look, name, way, clock)

        return Source(name=f"mcpServers.{name}", facts=facts, cheap=False, patience=patience)

    return [source(name, way) for name, way in secure.items()]


def _look(name: str, way: Way, clock: IReactorTime) -> Deferred[Sequence[Facts]]:
    """What the server presents, leaf first; with the first flaw, if any, said of the leaf.

    Cancelling it closes the connection. Fails with UnseenError when no certificate was seen.
    """

    def found(presented: Presented) -> Sequence[Facts]:
        return _facts(f"mcpServers.{name}", way.name, presented)

    return look(way.plain(), Probe(way.name, way.terms.anchors), clock, SECONDS).addCallbacks(found, _unseen)


def _facts(file: str, host: str, presented: Presented) -> tuple[Facts, ...]:
    leaf, *others = (facts_of(file, one, "upstream") for one in presented.chain)
    flaw = next(iter(presented.flaws), None)
    if flaw is None and not covers(leaf, host):
        flaw = f"it does not name {host}, but {', '.join(leaf.names) or 'nothing'}"
    return (evolve(leaf, flaw=flaw), *others)


def _unseen(failure: Failure) -> Any:
    if isinstance(failure.value, ProbeError):
        raise UnseenError(str(failure.value)) from None
    if isinstance(failure.value, TimeoutError):
        raise UnseenError(f"no answer within {SECONDS:g} s") from None
    raise UnseenError(f"cannot connect ({failure.getErrorMessage() or type(failure.value).__name__})") from None
