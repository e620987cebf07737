"""What leaves the daemon for a client to bring back: sealed, so that it can be neither read, altered nor lent.

Three things do: ids of sessions, ``requestState`` (2026-07-28) and the cursors of lists of several servers. Each is
bound to its purpose and to the principal that got it. The cipher is for :mod:`mcptunnel.services.sealing`; here is what
is sealed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, Literal, Protocol

import msgspec
from attrs import frozen

from mcptunnel.core.errors import INVALID_PARAMS, RpcError
from mcptunnel.core.jsonrpc import Message, Span
from mcptunnel.core.principal import Principal

__all__ = ["Open", "Purpose", "Seal", "State", "open_state", "seal_state"]

Purpose = Literal["session", "state", "cursor"]
_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder().decode


@frozen
class Open:
    """What a seal has kept.

    Attributes:
        text: As it was sealed.
        ours: It was sealed in this life of the daemon.
    """

    text: bytes
    ours: bool


class Seal(Protocol):
    """Authenticated encryption under the keys of ``security.seal_keys``."""

    def close(self, purpose: Purpose, holder: str, text: bytes) -> str:
        """Seal ``text`` for ``holder``, a principal's name; visible ASCII that needs no escaping in a URI."""

    def open(self, purpose: Purpose, holder: str, sealed: str) -> Open | None:
        """The inverse; None for whatever this daemon has not sealed for that purpose and holder."""


@frozen
class State:
    """What a ``requestState`` of ours stands for.

    Attributes:
        kind: ``parked``: a call that waits here; ``again``: nothing, the call is made anew; ``theirs``: the state of
            the server itself.
        value: Number of the parked call in this life of the daemon, or the server's state as raw JSON.
    """

    kind: Literal["parked", "again", "theirs"]
    value: str


def _digest(message: Message) -> str:
    """What a retry must repeat: the method, and the parameters as values, since clients write them anew."""
    again = {
        name: _value(message, span)
        for name, span in message.params.items()
        if name not in ("_meta", "requestState", "inputResponses")
    }
    return sha256(_encode([message.method, again])).hexdigest()


def _value(message: Message, span: Span) -> Any:
    try:
        return message.at(span)
    except RpcError:
        # Such as 1e999: it counts as it is written. Nobody could be told here that it cannot be read.
        return message.raw[span[0] : span[1]].decode()


def seal_state(seal: Seal, message: Message, principal: Principal, state: State, until: float) -> str:
    """A ``requestState`` for the answer to ``message``, good for its repetition by ``principal`` until ``until``."""
    return seal.close("state", principal.name, _encode([int(until), _digest(message), state.kind, state.value]))


def open_state(seal: Seal, message: Message, principal: Principal, now: float) -> State:
    """What the ``requestState`` of ``message`` stands for.

    Raises:
        RpcError: It is not ours, not this principal's, not for this request, or too old: they read the same.
    """
    sealed = message.param("requestState")
    found = seal.open("state", principal.name, sealed) if isinstance(sealed, str) else None
    if found is not None:
        until, digest, kind, value = _state(found.text)
        if now <= until and digest == _digest(message) and (kind != "parked" or found.ours):
            return State(kind, value)
    raise RpcError(
        INVALID_PARAMS,
        "params.requestState: not a state of this request, or it has expired; make the call anew",
        reason="invalid_state",
    )


def _state(text: bytes) -> tuple[int, str, Literal["parked", "again", "theirs"], str]:
    until, digest, kind, value = _decode(text)
    result: Any = (until, digest, kind, value)
    return result  # type: ignore[no-any-return]  # we have sealed it
