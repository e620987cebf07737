"""One client of the legacy era on a server of 2026-07-28: the lane that its session has to that server.

Every request gets the envelope that the session stands for: what the client can do, who it is, which log messages it
wants. What only the legacy era has is answered here. When the server wants to know something (``input_required``), its
questions become requests to the client, and the call is repeated with the answers. Changes come by one subscription.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mcptunnel.core.changes import Changes
from mcptunnel.core.dispatch import Links
from mcptunnel.core.envelope import member, modern_request, with_visit
from mcptunnel.core.eras import DISCOVER
from mcptunnel.core.errors import INVALID_PARAMS, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.jsonrpc import Message, decode, encode, result_reply
from mcptunnel.core.mcp import LATEST_LEGACY, LEGACY_VERSIONS, LEVELS, SERVER_KEY
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.rounds import Round, Speaker, answer

__all__ = ["LegacyOnModern"]

_CAPABILITIES: Final = ("tools", "prompts", "resources", "logging", "completions", "experimental", "extensions")


class LegacyOnModern:
    """A lane; see :class:`mcptunnel.core.wire.Lane`.

    Args:
        server: The server's name.
        links: The stateless links.
        speaker: Takes what the server wants to say to the client.
        principal: Whose session it is.
        clock: Seconds.
        patience: Seconds that a client has to answer a question.
    """

    def __init__(
        self,
        server: str,
        links: Links,
        speaker: Speaker,
        principal: Principal,
        clock: Callable[[], float],
        patience: float,
    ) -> None:
        self.server: Final = server
        self.closed = False
        self.introduced = False
        self.calls: Final[Mapping[int, Exchange]] = {}
        self.principal: Final = principal
        self.links: Final = links
        self.speaker: Final = speaker
        self.clock: Final = clock
        self._patience: Final = patience
        self._capabilities = b"{}"
        self._info: bytes | None = None
        self._level: bytes | None = None
        self._rounds: Final[set[Round]] = set()
        self._asked: Final[dict[int, tuple[Round, str]]] = {}
        self._next = 1
        self._changes: Final = Changes(self)

    # --- from the session (Lane)

    def introduce(self, hello: bytes, principal: Principal, ready: Callable[[], None]) -> None:
        """The client has said ``hello`` to somebody before us."""
        self.introduced = True
        self._learn(decode(hello))
        self._changes.wanted = True
        ready()

    def _learn(self, hello: Message) -> None:
        def raw(name: str) -> bytes | None:
            span = hello.params.get(name)
            return None if span is None else hello.raw[span[0] : span[1]]

        self._capabilities = raw("capabilities") or b"{}"
        self._info = raw("clientInfo")

    def request(self, exchange: Exchange) -> None:
        """Serve one request of the client."""
        message = exchange.message
        exchange.record.upstream = self.server
        try:
            if message.method == "initialize":
                self._initialize(exchange)
            elif message.method == "ping":
                answer(exchange)
            elif message.method == "logging/setLevel":
                self._set_level(exchange)
            elif message.method in ("resources/subscribe", "resources/unsubscribe"):
                self._changes.change(exchange, subscribe=message.method == "resources/subscribe")
            else:
                Round(self, exchange).send({})
        except RpcError as e:
            exchange.fail(e)

    def tell(self, raw: bytes) -> None:
        """A notification of the client, or its answer to a question of the server."""
        message = decode(raw)
        if message.method == "notifications/initialized":
            self._changes.wanted = True
            self._changes.open()
        elif message.kind in ("result", "error") and isinstance(message.id, int):
            round_, key = self._asked.pop(message.id, (None, ""))
            if round_ is not None:
                round_.answered(key, message)

    def listen(self) -> None:
        """The client listens: there is a way for changes."""
        self._changes.open()

    def close(self) -> None:
        """The session has ended."""
        self.closed = True
        self._changes.close()
        for round_ in list(self._rounds):
            round_.cancel(None)
        self._asked.clear()

    def tick(self) -> None:
        """Open a lost subscription again, give up questions that nobody answers. Called about once a second."""
        self._changes.tick()
        now = self.clock()
        for round_ in list(self._rounds):
            if round_.since is not None and now - round_.since > self._patience:
                round_.give_up(self._patience)

    # --- what is answered here

    def _initialize(self, exchange: Exchange) -> None:
        message = exchange.message
        wanted = message.param("protocolVersion")
        if not isinstance(wanted, str):
            raise RpcError(INVALID_PARAMS, "params.protocolVersion: expected a string", reason="invalid_params")
        self._learn(message)

        def discovered(reply: Message) -> None:
            capabilities, meta = member(reply, "capabilities"), member(reply, "_meta")
            info = member(reply, "serverInfo") or (meta.get(SERVER_KEY) if isinstance(meta, dict) else None)
            offered = capabilities if isinstance(capabilities, dict) else {}
            self._changes.learn(offered)
            result = {
                "protocolVersion": wanted if wanted in LEGACY_VERSIONS else LATEST_LEGACY,
                "capabilities": {name: value for name, value in offered.items() if name in _CAPABILITIES},
                "serverInfo": info if isinstance(info, dict) else {"name": self.server, "version": ""},
            }
            if isinstance(instructions := member(reply, "instructions"), str):
                result["instructions"] = instructions
            exchange.finish(decode(result_reply(message.id_raw, encode(result))))

        question = self.enveloped(decode(DISCOVER), {})
        self.ask(question, exchange, discovered)

    def _set_level(self, exchange: Exchange) -> None:
        span = exchange.message.params.get("level")
        if span is None or exchange.message.at(span) not in LEVELS:
            raise RpcError(INVALID_PARAMS, f"params.level: expected one of {', '.join(LEVELS)}", reason="level")
        self._level = exchange.message.raw[span[0] : span[1]]
        answer(exchange)

    # --- for calls and the subscription

    def enveloped(self, message: Message, more: Mapping[str, bytes]) -> bytes:
        """``message`` as the server wants it, with ``more`` raw parameters."""
        return modern_request(message, self._capabilities, self._info, self._level, more)

    def ask(self, raw: bytes, exchange: Exchange, done: Callable[[Message], None]) -> None:
        """Send ``raw`` on behalf of ``exchange``; ``done`` takes a result, errors end ``exchange``."""
        sink = _Once(exchange, done)
        inner = Exchange(
            message=decode(raw),
            principal=self.principal,
            era="modern",
            sink=sink,
            record=Record(),
            patience=exchange.patience,
        )
        exchange.call = _Through(inner)
        self.links.forward(self.server, inner)

    def enter(self, round_: Round) -> None:
        """A call is under way."""
        self._rounds.add(round_)

    def leave(self, round_: Round) -> None:
        """It is over."""
        self._rounds.discard(round_)
        for number in [number for number, (asking, _) in self._asked.items() if asking is round_]:
            del self._asked[number]

    def question(self, round_: Round, key: str, method: bytes, params: bytes | None) -> None:
        """Ask the client something because of ``round_``."""
        number = self._next
        self._next += 1
        self._asked[number] = round_, key
        tail = b"" if params is None else b',"params":%b' % with_visit(params, b'"%d"' % number)
        raw = b'{"jsonrpc":"2.0","id":%d,"method":%b%b}' % (number, method, tail)
        self.speaker.from_server(self, decode(raw), round_.exchange)


class _Through:
    """The upstream side of a client's request that is a request of ours."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Exchange) -> None:
        self._inner: Final = inner

    def cancel(self, reason: bytes | None) -> None:
        self._inner.abandon(reason)

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()


class _Once:
    """The sink of a question of ours: its messages are for the client, its result is not."""

    __slots__ = ("_done", "_exchange")

    def __init__(self, exchange: Exchange, done: Callable[[Message], None]) -> None:
        self._exchange: Final = exchange
        self._done: Final = done

    def message(self, raw: bytes) -> None:
        self._exchange.emit(raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        exchange = self._exchange
        if exchange.done:
            return
        try:
            if error is not None:
                exchange.fail(error)
            elif code is None:
                self._done(decode(raw))
            else:
                exchange.finish(decode(decode(raw).with_id(exchange.message.id_raw)))
        except RpcError as e:
            exchange.fail(e)

    def cancelled(self) -> None:
        """The client was here first."""
