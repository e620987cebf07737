"""Clients of 2026-07-28 on a server of the legacy era: their requests, translated, in one session of ours.

The session belongs to a principal and a set of client capabilities, since a server may do what its client can. What the
server asks in the middle of a call becomes an ``input_required`` result; the call is parked until the client repeats
it with the answers (2026-07-28, "Multi round-trip requests").
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from mcptunnel.core.envelope import PARTS, complete, legacy_request, member
from mcptunnel.core.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hub import Hub
from mcptunnel.core.jsonrpc import Message, decode, encode, error_reply, result_reply, splice
from mcptunnel.core.link import unavailable
from mcptunnel.core.listening import Listening
from mcptunnel.core.mcp import LEVEL_KEY, LEVELS, MODERN_VERSIONS, SERVER_KEY
from mcptunnel.core.parked import Parked
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.seal import State

__all__ = ["ModernOnLegacy"]

# 2026-07-28 has removed these.
_REMOVED: Final = frozenset(
    {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
    | {f"tasks/{verb}" for verb in ("get", "result", "list", "cancel")}
)
# What a server may ask, and the capability with which a client says that it may.
_QUESTIONS: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
_KEPT: Final = ("tools", "prompts", "resources", "logging", "completions", "experimental", "extensions")
_OLD_MISSING: Final = -32002
_URL_REQUIRED: Final = -32042


class ModernOnLegacy:
    """What serves one principal with one set of capabilities; a member of the hub.

    Args:
        hub: The session with the server.
        capabilities: What the clients can do.
        parked: Where calls wait.
    """

    def __init__(self, hub: Hub, capabilities: dict[str, Any], parked: Parked) -> None:
        self.hub: Final = hub
        self.capabilities: Final = capabilities
        self.parked: Final = parked

    def request(self, exchange: Exchange) -> None:
        """Serve one request."""
        method = exchange.message.method or ""
        exchange.record.upstream = self.hub.link.server
        if method in _REMOVED:
            exchange.fail(RpcError(METHOD_NOT_FOUND, f"Method not found: {method}", reason="method_not_found"))
        elif method == "server/discover":
            self.hub.when_open(partial(self._discovered, exchange))
        elif method == "subscriptions/listen":
            self.hub.when_open(partial(self._listen, exchange))
        else:
            ParkableCall(self, exchange).start()

    def _discovered(self, exchange: Exchange, reply: Message | None, error: RpcError | None) -> None:
        if error is not None or reply is None or reply.kind == "error":
            exchange.fail(error or unavailable(self.hub.link.server, self.hub.link.why))
            return
        try:
            capabilities = member(reply, "capabilities")
            info, instructions = member(reply, "serverInfo"), member(reply, "instructions")
        except RpcError as e:
            exchange.fail(e)
            return
        offered = capabilities if isinstance(capabilities, dict) else {}
        result = {
            "resultType": "complete",
            "supportedVersions": list(MODERN_VERSIONS),
            "capabilities": {name: value for name, value in offered.items() if name in _KEPT},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {SERVER_KEY: info} if isinstance(info, dict) else {},
        }
        if isinstance(instructions, str):
            result["instructions"] = instructions
        exchange.finish(decode(result_reply(exchange.message.id_raw, encode(result))))

    def _listen(self, exchange: Exchange, reply: Message | None, error: RpcError | None) -> None:
        if error is not None or reply is None or reply.kind == "error":
            exchange.fail(error or unavailable(self.hub.link.server, self.hub.link.why))
        elif not exchange.done:
            Listening(self.hub, exchange).start()

    # --- member of the hub

    def heard(self, message: Message, exchange: Exchange | None = None) -> None:
        """A log line is for its call. Nothing else has a place in this era; subscriptions are members of their own."""
        if exchange is not None and message.method == "notifications/message":
            exchange.emit(message.raw)

    def asked(self, message: Message, exchange: Exchange) -> None:
        """The server asks something because of ``exchange``."""
        call = exchange.sink
        assert isinstance(call, ParkableCall)
        call.asked(message)

    def hub_lost(self, hub: Hub) -> None:
        """Every call has been told."""


class ParkableCall:
    """One call: the sink of what goes to the server, and the upstream side of what came from the client."""

    def __init__(self, bridge: ModernOnLegacy, exchange: Exchange) -> None:
        self._bridge: Final = bridge
        self._outer: Exchange | None = exchange
        self._method: Final = exchange.message.method or ""
        self._level: int | None = None
        # Key to the raw id under which the server has asked, and to what the client is shown of it.
        self._questions: Final[dict[str, tuple[bytes, bytes]]] = {}
        self._asked = 0
        self._answer: tuple[bytes, RpcError | None, int | None] | None = None
        self._inner: Final = Exchange(
            message=decode(legacy_request(exchange.message)),
            principal=exchange.principal,
            era="legacy",
            sink=self,
            record=Record(),
            patience=exchange.patience,
        )
        self._patience: Final = exchange.patience

    @property
    def principal(self) -> Principal:
        """Who made it."""
        return self._inner.principal

    def start(self) -> None:
        """Send it, once the server logs as much as the client wants."""
        outer = self._outer
        assert outer is not None
        outer.call = self
        span = outer.message.meta().get(LEVEL_KEY)
        wanted = None if span is None else outer.message.at(span)
        if wanted in LEVELS:
            self._level = LEVELS.index(wanted)
            # Not before the session is open is it known whether the server logs at all.
            self._inner.on_end(lambda _: self._bridge.hub.level(self, None))
            self._bridge.hub.when_open(lambda _reply, _error: self._tune())
        else:
            self._send()

    def _tune(self) -> None:
        # Who has left wants no level, and nobody would take it back.
        if not self._inner.done:
            self._bridge.hub.level(self, self._level, self._send)

    def _send(self) -> None:
        if not self._inner.done:
            self._bridge.hub.request(self._inner, self._bridge)

    # --- from the server (Sink)

    def message(self, raw: bytes) -> None:
        outer = self._outer
        message = decode(raw)
        if message.method == "notifications/progress":
            if outer is not None:
                outer.emit(raw)
        elif message.method == "notifications/message":
            if outer is not None and self._wanted(message):
                outer.emit(raw)
        else:
            # It came on this call's stream, and is about something else.
            self._bridge.hub.from_server(self._bridge.hub.link, message, None)

    def _wanted(self, message: Message) -> bool:
        """2026-07-28, Logging: from the level on that this request names, and nothing when it names none."""
        level = message.param("level")
        return self._level is not None and (level not in LEVELS or LEVELS.index(level) >= self._level)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        if self._outer is None:
            self._answer = raw, error, code
        else:
            self._finish(self._outer, raw, error, code)

    def cancelled(self) -> None:
        """The client was here first."""

    def asked(self, message: Message) -> None:
        """The server asks its client something in the middle of this call."""
        kind = _QUESTIONS.get(message.method or "")
        if kind is None or kind not in self._bridge.capabilities or self._method not in PARTS:
            self._tell(message.id_raw, RpcError(METHOD_NOT_FOUND, "the client cannot answer that", reason="client"))
            return
        self._asked += 1
        question = b'{"method":%b' % encode(message.method)
        if (params := message.value("params")) is not None:
            question += b',"params":%b' % params
        self._questions[f"{kind}-{self._asked}"] = message.id_raw, question + b"}"
        self._show()

    def _tell(self, id_raw: bytes, error: RpcError) -> None:
        self._bridge.hub.link.tell(error_reply(error, id_raw))

    # --- parked, and back

    def _show(self) -> None:
        """Show the client what the server wants to know, and wait for it."""
        outer = self._outer
        if outer is None or outer.seal is None:
            return
        try:
            number = self._bridge.parked.add(self)
        except RpcError as e:
            outer.fail(e)
            self.give_up()
            return
        self._outer = outer.call = None
        # Nobody expects a sign of life from a server that waits.
        self._inner.patience = 0
        _ask(outer, {key: shown for key, (_, shown) in self._questions.items()}, State("parked", number))

    def come_back(self, exchange: Exchange) -> None:
        """The client repeats the call with answers."""
        self._outer = exchange
        exchange.call = self
        exchange.record.upstream = self._bridge.hub.link.server
        inner, message = self._inner, exchange.message
        inner.patience = self._patience
        inner.touched = self._bridge.hub.used = self._bridge.hub.now()
        token = message.meta().get("progressToken")
        inner.token = None if token is None else message.raw[token[0] : token[1]]
        span = message.params.get("inputResponses")
        try:
            answers = {} if span is None else message.inside(span, "params.inputResponses")
        except RpcError as e:
            exchange.call = None
            exchange.fail(e)
            self.give_up()
            return
        for key, (start, end) in answers.items():
            id_raw, _ = self._questions.pop(key, (None, b""))
            if id_raw is not None:
                self._bridge.hub.link.tell(result_reply(id_raw, message.raw[start:end]))
        if self._answer is not None:
            self._finish(exchange, *self._answer)
        elif self._questions:
            self._show()

    def give_up(self) -> None:
        """The client does not come back: the server must not wait."""
        for id_raw, _ in self._questions.values():
            self._tell(id_raw, RpcError(METHOD_NOT_FOUND, "the client did not answer", reason="client_left"))
        self._questions.clear()
        self._inner.abandon(b'"the client did not come back"')

    # --- to the client

    def _finish(self, outer: Exchange, raw: bytes, error: RpcError | None, code: int | None) -> None:
        if error is not None:
            outer.fail(error)
            return
        # The reply has the id of the request that began the call; this one may repeat it under another.
        reply = decode(decode(raw).with_id(outer.message.id_raw))
        if code is None:
            welcome = self._bridge.hub.link.welcome
            info = None if welcome is None else _raw_member(welcome, "serverInfo")
            try:
                whole = complete(reply, self._method, info)
            except RpcError as e:
                outer.fail(e)
            else:
                outer.finish(decode(whole))
        elif code == _URL_REQUIRED:
            self._visit(outer, reply)
        else:
            outer.finish(_translated(reply, code))

    def _visit(self, outer: Exchange, reply: Message) -> None:
        """2025-11-25 fails a call for which a page has to be visited first; here the client is asked to visit it."""
        try:
            error = reply.at(reply.spans["error"])
        except RpcError:
            error = {}
        data = error.get("data") if isinstance(error, dict) else None
        pages = data.get("elicitations") if isinstance(data, dict) else None
        can = self._bridge.capabilities.get("elicitation")
        if isinstance(pages, list) and pages and isinstance(can, dict) and "url" in can and outer.seal is not None:
            shown = {
                f"elicitation-{n}": encode({"method": "elicitation/create", "params": page})
                for n, page in enumerate(pages, 1)
            }
            _ask(outer, shown, State("again", ""))
        else:
            outer.fail(RpcError(INVALID_PARAMS, "a page has to be visited first, which this client cannot show"))

    # --- from the client (Call)

    def cancel(self, reason: bytes | None) -> None:
        self._inner.abandon(reason)

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()


def _ask(outer: Exchange, questions: dict[str, bytes], state: State) -> None:
    assert outer.seal is not None
    shown = b",".join(b"%b:%b" % (encode(key), question) for key, question in questions.items())
    result = b'{"resultType":"input_required","inputRequests":{%b},"requestState":%b}' % (
        shown,
        encode(outer.seal(state)),
    )
    outer.finish(decode(result_reply(outer.message.id_raw, result)))


def _translated(reply: Message, code: int) -> Message:
    """The error in the codes of 2026-07-28, which has none for a missing resource."""
    if code != _OLD_MISSING:
        return reply
    span = reply.inside(reply.spans["error"], "error")["code"]
    return decode(splice(reply.raw, [(span, b"%d" % INVALID_PARAMS)]))


def _raw_member(reply: Message, name: str) -> bytes | None:
    if reply.kind != "result":
        return None
    try:
        span = reply.inside(reply.spans["result"], "result").get(name)
    except RpcError:
        return None
    return None if span is None else reply.raw[span[0] : span[1]]
