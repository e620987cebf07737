"""Requests that a server sends on to another of its own addresses: 307 and 308, and never to another server.

A server that could send us elsewhere could have our credential sent elsewhere, or have us ask machines that only we
can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcptunnel.upstream.address import Address
from mcptunnel.upstream.client import Pool, Receiver, Transfer

__all__ = ["MAX_REDIRECTS", "follow", "location"]

MAX_REDIRECTS: Final = 3


def follow(pool: Pool, address: Address, make: Callable[[Address], bytes], receiver: Receiver) -> Transfer:
    """Send what ``make`` makes for ``address``, and again for each address that the server names instead.

    ``receiver`` gets the answer that is no redirect, or the first one that is not followed.
    """
    following = _Following(pool, address, make, receiver)
    following.transfer = pool.request(make(address), following)
    return following.transfer


def location(headers: list[tuple[bytes, bytes]]) -> str:
    """What a redirect names; empty when it names nothing."""
    return next((value.decode("latin-1") for name, value in headers if name == b"location"), "")


class _Following:
    """Takes the heads of answers; the first that is not followed hands everything to the real receiver."""

    transfer: Transfer

    def __init__(self, pool: Pool, address: Address, make: Callable[[Address], bytes], receiver: Receiver) -> None:
        self._pool: Final = pool
        self._address = address
        self._make: Final = make
        self._receiver: Final = receiver
        self._left = MAX_REDIRECTS

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if status in (307, 308) and self._left:
            try:
                self._address = self._address.at(location(headers))
            except ValueError:
                pass
            else:
                self._left -= 1
                return
        # From here on the real one is asked directly; nothing holds the request any more.
        self.transfer.receiver = self._receiver
        self._receiver.head(status, headers)

    def data(self, chunk: bytes) -> None:
        """The body of a redirect is for people."""

    def end(self) -> None:
        self._pool.again(self.transfer, self._make(self._address), self)

    def failed(self, why: str) -> None:
        self._receiver.failed(why)
