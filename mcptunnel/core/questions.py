"""Requests of servers that wait for a client's response: sampling, elicitation, roots, ping.

Each gets an id of ours on its way down, so that a client can answer nothing but what it was asked, and no server can
take another's answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcptunnel.core.errors import INVALID_REQUEST, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, error_reply, splice
from mcptunnel.core.wire import Lane

__all__ = ["ASKED", "Questions"]

# Requests of servers that a client may leave unanswered.
ASKED: Final = 1000


class _Asked:
    """One of them."""

    __slots__ = ("exchange", "id_raw", "link", "token")

    def __init__(self, link: Lane, id_raw: bytes, token: bytes | None, exchange: Exchange | None) -> None:
        self.link: Final = link
        self.id_raw: Final = id_raw
        self.token: Final = token
        self.exchange: Final = exchange


class Questions:
    """What one client has been asked.

    Args:
        say: Sends a message that belongs to no request of the client.
        listening: Whether the client could still answer on a stream of its own.
    """

    def __init__(self, say: Callable[[bytes], None], listening: Callable[[], bool]) -> None:
        self._say: Final = say
        self._listening: Final = listening
        self._asked: Final[dict[int, _Asked]] = {}
        self._next = 1

    def ask(self, link: Lane, message: Message, exchange: Exchange | None) -> None:
        """Put a request of a server to the client, on the stream of ``exchange`` where it belongs to one."""
        if len(self._asked) >= ASKED:
            error = RpcError(INVALID_REQUEST, "too many requests wait for the client's answer", reason="unanswered")
            link.tell(error_reply(error, message.id_raw))
            return
        number = self._next
        self._next += 1
        ours = b"%d" % number
        edits = [(message.spans["id"], ours)]
        token = message.meta().get("progressToken") if "_meta" in message.params else None
        if token is not None:
            edits.append((token, ours))
        raw = splice(message.raw, edits)
        spelled = None if token is None else message.raw[token[0] : token[1]]
        self._asked[number] = _Asked(link, message.id_raw, spelled, exchange)
        if exchange is not None:
            exchange.on_end(lambda _: self._unanswered(number))
            exchange.emit(raw)
        else:
            self._say(raw)

    def answered(self, message: Message) -> None:
        """The client's response. One that nobody asked for is dropped."""
        asked = self._asked.pop(message.id, None) if isinstance(message.id, int) else None
        if asked is not None:
            asked.link.tell(message.with_id(asked.id_raw))

    def progress(self, message: Message) -> None:
        """The client's progress with an answer."""
        span = message.params.get("progressToken")
        number = message.id_at(span)
        asked = self._asked.get(number) if isinstance(number, int) else None
        if span is not None and asked is not None and asked.token is not None:
            asked.link.tell(splice(message.raw, [(span, asked.token)]))

    def withdrawn(self, link: Lane, message: Message) -> None:
        """A server no longer wants the answer to something it asked."""
        span = message.params.get("requestId")
        wanted = None if span is None else message.raw[span[0] : span[1]]
        for number, asked in self._asked.items():
            if span is not None and asked.link is link and asked.id_raw == wanted:
                raw = splice(message.raw, [(span, b"%d" % number)])
                del self._asked[number]
                if asked.exchange is not None and not asked.exchange.done:
                    asked.exchange.emit(raw)
                else:
                    self._say(raw)
                return

    def forget(self, link: Lane) -> None:
        """Nobody is there any more to hear the answers."""
        for number in [n for n, asked in self._asked.items() if asked.link is link]:
            del self._asked[number]

    def _unanswered(self, number: int) -> None:
        """The stream on which request ``number`` went out has ended: if nobody answers, the server must not wait."""
        asked = self._asked.get(number)
        if asked is not None and not self._listening():
            del self._asked[number]
            error = RpcError(METHOD_NOT_FOUND, "the client left without an answer", reason="client_left")
            asked.link.tell(error_reply(error, asked.id_raw))
