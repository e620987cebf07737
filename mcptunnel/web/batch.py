"""The reply to a JSON-RPC batch of revision 2025-03-26: one array of responses, or an event for each message.

Every message is served as if it had come alone, and accounted for in a record of its own.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message
from mcptunnel.core.session import Session
from mcptunnel.web.replies import JSON, Post, Streams
from mcptunnel.web.request import Request

__all__ = ["Batch"]


class Batch(Post):
    """Serves one batch and answers it.

    Args:
        request: The POST.
        streams: Keeps the reply alive.
        session: Whose batch it is.
    """

    def __init__(self, request: Request, streams: Streams, session: Session) -> None:
        super().__init__(request, streams, session)
        self._batching: Final = session
        self._answers: list[bytes] = []
        self._left = 0

    def serve(self, messages: list[Message]) -> None:
        """Dispatch every message, in order; requests are answered in whatever order servers answer."""
        session, request = self._batching, self._request
        # One more than there are: nothing is complete before everything has been dispatched.
        self._left = 1 + sum(message.kind == "request" for message in messages)
        for message in messages:
            if message.kind == "request":
                session.request(self._exchange(message, request))
            elif message.kind == "notification":
                try:
                    session.notification(message)
                except RpcError as e:
                    # JSON-RPC 2.0 §4.1: nobody can be told. The rest of the batch is served.
                    request.record.error = e.reason
            else:
                session.response(message)
        self.answered(None)

    def _exchange(self, message: Message, request: Request) -> Exchange:
        record = evolve(request.record, method=message.method, received=len(message.raw), status=200)
        site = request.site

        def ended(_: Exchange) -> None:
            record.duration = site.seconds() - record.started
            site.report(record)

        exchange = Exchange(message=message, principal=request.principal, era="legacy", sink=_Part(self), record=record)
        exchange.on_end(ended)
        self.exchanges.append(exchange)
        return exchange

    def say(self, raw: bytes) -> None:
        """A message of a server that belongs to one of the requests."""
        self._say(raw)

    def answered(self, raw: bytes | None) -> None:
        """One request is over, with or without a response."""
        self._left -= 1
        if raw is not None:
            if self._streaming:
                self._say(raw)
            else:
                self._answers.append(raw)
        if self._left:
            return
        self._streams.discard(self)
        if self._streaming:
            self._end()
        elif self._lost:
            self._answers.clear()
        elif self._answers:
            self._request.respond(200, JSON, b"[%b]" % b",".join(self._answers))
        else:
            self._request.respond(202, None, b"")

    def _begin(self) -> bytes:
        lead = super()._begin()
        answers, self._answers = self._answers, []
        for raw in answers:
            self._say(raw)
        return lead


class _Part:
    """The sink of one request."""

    __slots__ = ("_batch",)

    def __init__(self, batch: Batch) -> None:
        self._batch: Final = batch

    def message(self, raw: bytes) -> None:
        self._batch.say(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._batch.answered(raw)

    def cancelled(self) -> None:
        self._batch.answered(None)
