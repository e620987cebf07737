"""One client on one connection that carries everything: many exchanges at once, of both eras.

What WebSocket and HTTP+SSE have in common. The connection is the session: there is at most one, and with the connection
ends all that is in flight. No headers go with a message, so each message says its era itself; and there is no stream of
one reply that could be closed, so cancelling is by notification in both eras.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from attrs import evolve

from mcptunnel.core.errors import INVALID_REQUEST, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Id, Message, error_reply
from mcptunnel.core.mcp import Era, check_headers, era_of_message
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.core.session import BACKLOG, Session

__all__ = ["Conversation", "Line"]


class Line(Protocol):
    """The way to the client."""

    def send(self, raw: bytes) -> None:
        """One message. Nothing happens when the client is gone."""

    def end(self) -> None:
        """The session has ended, and the connection with it."""


class Conversation:
    """What one client says on one connection, and what it hears. Also the standing sink of its session.

    Args:
        line: Where messages go.
        relay: Where requests go.
        target: What this connection shows.
        principal: Who is at the other end.
        report: Told of the record of each exchange that is over.

    Attributes:
        session: The legacy session, from ``initialize`` on.
    """

    def __init__(
        self, line: Line, relay: Relay, target: Target, principal: Principal, report: Callable[[Record], None]
    ) -> None:
        self.session: Session | None = None
        self._line: Final = line
        self._relay: Final = relay
        self._target: Final = target
        self._principal: Final = principal
        self._report: Final = report
        self._modern: Final[dict[Id, Exchange]] = {}
        self._paused = False
        # While the client reads slowly the oldest message makes room: none of these is a response.
        self._waiting: Final[deque[bytes]] = deque(maxlen=BACKLOG)

    # --- from the client

    def take(self, message: Message, record: Record) -> None:
        """Handle one message. Refusals are answered on the line, where there is somebody who waits for an answer.

        Args:
            message: As received.
            record: What is known of how it came; each exchange gets a copy.
        """
        try:
            if message.kind in ("result", "error"):
                if self.session is not None:
                    self.session.response(message)
            elif era_of_message(message) == "modern":
                self._take_modern(message, record)
            elif message.method == "notifications/cancelled" and self._means_modern(message):
                self._cancel(message)
            else:
                self._take_legacy(message, record)
        except RpcError as e:
            # JSON-RPC 2.0 §4.1 and §5: notifications and responses are never answered.
            if message.kind == "request":
                self._line.send(error_reply(e, message.id_raw))

    def _take_legacy(self, message: Message, record: Record) -> None:
        if message.method == "initialize":
            if self.session is not None:
                raise RpcError(INVALID_REQUEST, "this connection is initialized already", reason="second_initialize")
            self.session = self._relay.open(self._principal, self._target)
            self.session.attach(self)
        session = self.session
        if session is None:
            raise RpcError(INVALID_REQUEST, "initialize first", reason="no_session")
        if message.kind == "notification":
            session.notification(message)
        else:
            exchange = self._exchange(message, "legacy", record)
            session.request(exchange)
            self._brake(exchange)

    def _take_modern(self, message: Message, record: Record) -> None:
        check_headers(message, None)
        if message.kind == "notification":
            if message.method == "notifications/cancelled":
                self._cancel(message)
            return
        assert message.id is not None
        if message.id in self._modern:
            raise RpcError(INVALID_REQUEST, "a request with this id is still in progress", reason="duplicate_id")
        exchange = self._exchange(message, "modern", record)
        self._modern[message.id] = exchange
        self._relay.stateless(exchange, self._target)
        self._brake(exchange)

    def _means_modern(self, message: Message) -> bool:
        """Whether a cancellation without an envelope can only mean a request with one."""
        wanted = message.id_at(message.params.get("requestId"))
        return self.session is None or (wanted in self._modern and wanted not in self.session.active)

    def _cancel(self, message: Message) -> None:
        wanted = message.id_at(message.params.get("requestId"))
        exchange = None if wanted is None else self._modern.pop(wanted, None)
        if exchange is not None:
            span = message.params.get("reason")
            exchange.abandon(None if span is None else message.raw[span[0] : span[1]])

    # --- exchanges

    def _exchange(self, message: Message, era: Era, record: Record) -> Exchange:
        record = evolve(
            record,
            started=self._relay.clock(),
            era=era,
            method=message.method,
            received=len(message.raw),
            sent=0,
        )
        exchange = Exchange(
            message=message,
            principal=self._principal,
            era=era,
            sink=_LineSink(self._line, record),
            record=record,
        )
        exchange.on_end(self._ended)
        return exchange

    def _ended(self, exchange: Exchange) -> None:
        if exchange.era == "modern" and exchange.message.id is not None:
            self._modern.pop(exchange.message.id, None)
        record = exchange.record
        if record.method == "initialize" and record.code is not None and self.session is not None:
            # Refused: the client may try again on this connection.
            self._end_session()
        record.duration = self._relay.clock() - record.started
        self._report(record)

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.detach(self)
            session.close()

    # --- standing sink of the session

    def message(self, raw: bytes) -> None:
        """A message of the session that belongs to no exchange."""
        if self._paused:
            self._waiting.append(raw)
        else:
            self._line.send(raw)

    def end(self) -> None:
        """The session has ended."""
        self.session = None
        self._line.end()

    # --- backpressure

    def pause(self) -> None:
        """The client does not read: nothing more is to come for it."""
        self._paused = True
        for exchange in self._active():
            exchange.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        while self._waiting and not self._paused:
            self._line.send(self._waiting.popleft())
        for exchange in self._active():
            if self._paused:
                break
            exchange.resume()

    def _brake(self, exchange: Exchange) -> None:
        """A client that does not read gets no further replies either."""
        if self._paused:
            exchange.pause()

    def _active(self) -> list[Exchange]:
        legacy = [] if self.session is None else list(self.session.active.values())
        return [*legacy, *self._modern.values()]

    # --- the end

    def close(self) -> None:
        """The connection is gone: abandon what is in progress and end the session."""
        for exchange in self._active():
            exchange.abandon(b'"the client closed the connection"')
        self._waiting.clear()
        self._end_session()


class _LineSink:
    """Where the answers to one request go: the line, and the request's own record."""

    __slots__ = ("_line", "_record")

    def __init__(self, line: Line, record: Record) -> None:
        self._line: Final = line
        self._record: Final = record

    def message(self, raw: bytes) -> None:
        self._record.sent += len(raw)
        self._line.send(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self.message(raw)

    def cancelled(self) -> None:
        """Nothing is said: the client does not wait."""
