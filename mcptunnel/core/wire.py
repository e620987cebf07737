"""What lies below a link and above it: the wire that moves its bytes, and the lane that a session sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.principal import Principal
from mcptunnel.core.rules import Rules

if TYPE_CHECKING:
    from mcptunnel.core.link import Link

__all__ = ["Lane", "Upstream", "Wire"]


class Wire(Protocol):
    """Moves the bytes of one link."""

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        """Send one message; ``number`` and ``exchange`` name the call when it is a request of a client."""

    def drop(self, number: int) -> bool:
        """Forget a call. True when that alone tells the server (2026-07-28 over HTTP: closing is cancelling)."""

    def pause(self, number: int) -> None:
        """Stop reading what call ``number`` produces."""

    def resume(self, number: int) -> None:
        """Read on."""

    def listen(self) -> None:
        """Open the way for messages that belong to no call, where the transport needs one (GET of Streamable HTTP)."""

    def close(self) -> None:
        """End the connection and the upstream session."""


class Upstream(Protocol):
    """One configured server."""

    @property
    def name(self) -> str:
        """Its key in ``mcpServers``."""

    @property
    def rules(self) -> Rules:
        """How it is to be spoken to."""

    def connect(self, link: Link) -> Wire:
        """A wire for ``link``. Errors of connecting are told to the link later, not raised."""


class Lane(Protocol):
    """What carries the requests of a session to one server: a link in the client's own era, or a bridge to the other.

    Attributes:
        closed: It is gone.
        introduced: We, not the client, have said ``initialize`` on it.
    """

    closed: bool
    introduced: bool

    @property
    def server(self) -> str:
        """The server's name."""

    @property
    def calls(self) -> Mapping[int, Exchange]:
        """What is in flight and may be why the server asks something, where it does not say."""

    def introduce(self, hello: bytes, principal: Principal, ready: Callable[[], None]) -> None:
        """Open the server's session in the words that the client has said to an earlier lane.

        Args:
            hello: The client's ``initialize`` request.
            principal: Whose it is.
            ready: Called when the server knows all that it says, before anything else is sent.
        """

    def request(self, exchange: Exchange) -> None:
        """Send a request of the client."""

    def tell(self, raw: bytes) -> None:
        """Send a notification, or the client's response to a request of the server."""

    def listen(self) -> None:
        """Open the way for messages that belong to no call."""

    def close(self) -> None:
        """End it from our side. Calls in flight are abandoned in silence: their owner ends them."""
