"""Calls that wait here for an answer of their client, and how a client finds its own again.

A legacy server asks its client in the middle of a call; a client of 2026-07-28 can only be asked by ending the request
and be given a ``requestState`` to come back with. In between the call is parked: it goes on at the server, belongs to
the principal who made it, and is given up when nobody comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from mcptunnel.core.errors import INVALID_PARAMS, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.principal import Principal

__all__ = ["Parkable", "Parked"]


class Parkable(Protocol):
    """A call that can wait."""

    @property
    def principal(self) -> Principal:
        """Who made it."""

    def come_back(self, exchange: Exchange) -> None:
        """The client is here again, with answers perhaps."""

    def give_up(self) -> None:
        """Nobody has come."""


class Parked:
    """Every parked call.

    Args:
        clock: Seconds.
        limit: How many there may be (``server.limits.parked``).
        patience: Seconds until a call is given up (``server.limits.input_timeout``).
    """

    def __init__(self, clock: Callable[[], float], limit: int, patience: float) -> None:
        self.patience: Final = patience
        self._clock: Final = clock
        self._limit: Final = limit
        self._calls: Final[dict[str, tuple[Parkable, float]]] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Parkable) -> str:
        """Keep ``call``; returns the number under which it is found.

        Raises:
            RpcError: There are too many.
        """
        if len(self._calls) >= self._limit:
            raise RpcError(
                -32000,
                f"too many calls wait for an answer of their client ({self._limit}, server.limits.parked)",
                reason="too_many_parked",
                status=503,
            )
        number = str(self._next)
        self._next += 1
        self._calls[number] = call, self._clock() + self.patience
        return number

    def take(self, number: str, principal: Principal) -> Parkable:
        """The call ``number``, which waits no longer.

        Raises:
            RpcError: There is none, or it is another principal's: they read the same.
        """
        call, _ = self._calls.get(number, (None, 0.0))
        if call is None or call.principal.name != principal.name:
            raise RpcError(
                INVALID_PARAMS,
                "params.requestState: the call no longer waits for this answer; make it anew",
                reason="invalid_state",
            )
        del self._calls[number]
        return call

    def sweep(self) -> None:
        """Give up what has waited too long. Called about once a second."""
        now = self._clock()
        for number, (call, until) in list(self._calls.items()):
            if now > until:
                del self._calls[number]
                call.give_up()

    def close(self) -> None:
        """Give up everything."""
        while self._calls:
            self._calls.popitem()[1][0].give_up()
