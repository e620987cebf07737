"""An exchange: one client request and all that answers it. The unit everything passes around.

Downstream transports make one and give it a :class:`Sink`; the relay binds it to a call on a
:class:`~mcptunnel.core.link.Link`; answers come back through :meth:`Exchange.emit` and end with exactly one of
:meth:`Exchange.finish` and :meth:`Exchange.fail`. Whatever arrives after the end is swallowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, field

from mcptunnel.core.errors import RpcError
from mcptunnel.core.jsonrpc import Message, Span, decode, encode, error_reply, splice
from mcptunnel.core.mcp import Era
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.seal import State

__all__ = ["Call", "Exchange", "Sink"]

_STATE: Final = b'"requestState"'


class Sink(Protocol):
    """Where the answers to one client request go."""

    def message(self, raw: bytes) -> None:
        """A notification or a request from the server that belongs to this exchange."""

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        """The response; the last thing an exchange says.

        Args:
            raw: The JSON-RPC response under the client's id.
            error: Our own refusal or failure when that is what ``raw`` says, else None.
            code: The JSON-RPC error code, None for a result.
        """

    def cancelled(self) -> None:
        """The client has cancelled the request: there will be no response. In place of :meth:`reply`."""


class Call(Protocol):
    """The upstream side of an exchange."""

    def cancel(self, reason: bytes | None) -> None:
        """Stop the work and tell the server; ``reason`` is raw JSON text of the client's reason, if any."""

    def pause(self) -> None:
        """The client does not keep up: stop reading what this call produces."""

    def resume(self) -> None:
        """The client has caught up."""


@define(eq=False, kw_only=True)
class Exchange:
    """One client request and its answers.

    Attributes:
        message: The request as received.
        principal: Who asks.
        era: Under which rules.
        sink: Where answers go.
        record: What is remembered of it.
        params_headers: ``Mcp-Param-*`` lines of the request (2026-07-28), which travel with the body; None where the
            client's transport has no headers.
        patience: Seconds of upstream silence that are borne; None for the relay's own limit, 0 for ever.
        call: The upstream side, once there is one.
        rewrite: Applied to a successful response before it leaves (list filters, prefixes).
        token: The client's progress token in its own spelling, while another stands for it upstream.
        started: When it began, on the daemon's clock.
        touched: When the server last gave a sign of life for it.
        streamed: The server answers with an event stream of its own; a reply that has the choice is one, too.
        on_stream: Called when that stream has shown life without the response: more is to be waited for.
        on_break: Called when the server has ended that stream to go on with it on another connection.
        seal: Makes a ``requestState`` for the client that stands for something here (2026-07-28).
        sealing: The server's own ``requestState`` in a result must be sealed before it leaves.
        repeated: It has been sent a second time, to a server that had forgotten the session.
        paused: The client does not keep up.
    """

    message: Message
    principal: Principal
    era: Era
    sink: Sink
    record: Record
    params_headers: tuple[tuple[bytes, bytes], ...] | None = None
    patience: float | None = None
    call: Call | None = None
    rewrite: Callable[[Message], bytes] | None = None
    token: bytes | None = None
    started: float = 0.0
    touched: float = 0.0
    streamed: bool = False
    on_stream: Callable[[], None] | None = None
    on_break: Callable[[], None] | None = None
    seal: Callable[[State], str] | None = None
    sealing: bool = False
    repeated: bool = False
    done: bool = False
    paused: bool = False
    _ended: list[Callable[[Exchange], None]] = field(factory=list)

    def on_end(self, callback: Callable[[Exchange], None]) -> None:
        """Call ``callback`` once, when the exchange is over for whatever reason."""
        self._ended.append(callback)

    def emit(self, raw: bytes) -> None:
        """Pass on a message that belongs to this exchange."""
        if not self.done:
            self.sink.message(raw)

    def begin_stream(self) -> None:
        """The server's own stream lives, and the response is not there yet."""
        if self.on_stream is not None and not self.done:
            self.on_stream()

    def break_stream(self) -> None:
        """The server has sent its client away for a while; the response is still to come."""
        if self.on_break is not None and not self.done:
            self.on_break()

    def finish(self, reply: Message) -> None:
        """Pass on the server's response, which already carries the client's id."""
        if self.done:
            return
        raw, code = reply.raw, None
        if reply.kind == "error":
            code = error_code(reply)
        elif self.rewrite is not None or (self.sealing and _STATE in raw):
            try:
                if self.rewrite is not None:
                    raw = self.rewrite(reply)
                if self.sealing and self.seal is not None:
                    raw = _sealed(raw, self.seal)
            except RpcError as e:
                self.fail(e)
                return
        self._reply(raw, None, code)

    def fail(self, error: RpcError) -> None:
        """Answer with our own error."""
        if self.done:
            return
        self.record.error = error.reason
        self._reply(error_reply(error, self.message.id_raw), error, error.code)

    def abandon(self, reason: bytes | None = None) -> None:
        """The client no longer wants it: cancel upstream and say nothing more downstream."""
        if self.done:
            return
        self.done = True
        self.resume()
        if self.call is not None:
            self.call.cancel(reason)
        self.record.error = "cancelled"
        self.sink.cancelled()
        self._tell_end()

    def pause(self) -> None:
        """The client does not keep up."""
        if self.call is not None and not self.done and not self.paused:
            self.paused = True
            self.call.pause()

    def resume(self) -> None:
        """The client has caught up, or nothing more will come for it."""
        if self.call is not None and self.paused:
            self.paused = False
            self.call.resume()

    def _reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self.done = True
        self.resume()
        self.record.code = code
        self.sink.reply(raw, error, code)
        self._tell_end()

    def _tell_end(self) -> None:
        for callback in self._ended:
            callback(self)


def _sealed(raw: bytes, seal: Callable[[State], str]) -> bytes:
    """The response with the server's ``requestState``, if it has one, in a seal of ours."""
    reply = decode(raw)
    span = reply.inside(reply.spans["result"], "result").get("requestState")
    if span is None:
        return raw
    theirs = raw[span[0] : span[1]].decode()
    return splice(raw, [(span, encode(seal(State("theirs", theirs))))])


_CODE_LIMIT: Final = 1 << 31


def error_code(reply: Message) -> int:
    """The code of an error response; 0 when it has none that is an integer."""
    span: Span | None = reply.spans.get("error")
    if span is None:
        return 0
    try:
        inner = reply.inside(span, "error").get("code")
        value = None if inner is None else reply.id_at(inner)
    except RpcError:
        return 0
    return value if isinstance(value, int) and -_CODE_LIMIT < value < _CODE_LIMIT else 0
