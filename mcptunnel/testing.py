"""Fakes for whoever writes tests: servers, wires and sinks in memory, without a reactor.

They are public and verified: :class:`FakeUpstream` passes the same tests as the real transports
(``mcptunnel/test/upstream/contract.py``). A fake is strict where the real thing is lenient: a second reply, or a
message after the reply, is an error here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec
from attrs import define, field

from mcptunnel.core.commons import Commons
from mcptunnel.core.eras import Eras
from mcptunnel.core.errors import RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.hubs import Hubs
from mcptunnel.core.jsonrpc import decode
from mcptunnel.core.link import Link
from mcptunnel.core.mcp import CAPABILITIES_KEY, VERSION_KEY, Era
from mcptunnel.core.parked import Parked
from mcptunnel.core.principal import ANONYMOUS, Principal
from mcptunnel.core.record import Record
from mcptunnel.core.rules import Rules
from mcptunnel.core.seal import Open, Purpose
from mcptunnel.core.session import Surroundings
from mcptunnel.core.wire import Upstream

__all__ = [
    "MODERN_META",
    "FakeSeal",
    "FakeUpstream",
    "FakeWire",
    "RecordingSink",
    "Sent",
    "know_both_eras",
    "make_exchange",
    "notification",
    "request",
    "response",
    "surroundings",
]

# The envelope that every modern request carries.
MODERN_META: Final[Mapping[str, Any]] = {VERSION_KEY: "2026-07-28", CAPABILITIES_KEY: {}}

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def request(
    method: str, id_: int | str = 1, /, params: Mapping[str, Any] | None = None, *, modern: bool = False
) -> bytes:
    """A JSON-RPC request as bytes; ``modern`` adds the envelope of 2026-07-28."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": id_, "method": method}
    if modern:
        params = {**(params or {}), "_meta": {**MODERN_META, **(params or {}).get("_meta", {})}}
    if params is not None:
        body["params"] = params
    return _encode(body)


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A JSON-RPC notification as bytes."""
    return _encode({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))


def response(id_: int | str | None, result: Any = None, *, error: Mapping[str, Any] | None = None) -> bytes:
    """A JSON-RPC response as bytes: ``error`` if there is one, else ``result``."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": id_}
    return _encode(body | ({"result": {} if result is None else result} if error is None else {"error": error}))


@define(eq=False)
class RecordingSink:
    """A sink, also a standing one, that remembers what it was given.

    Attributes:
        messages: What came before the reply, as received.
        replies: At most one ``(raw, error, code)``.
        cancellations: How often it was told that there will be no reply.
        ended: The session said that it is over.
    """

    messages: list[bytes] = field(factory=list)
    replies: list[tuple[bytes, RpcError | None, int | None]] = field(factory=list)
    cancellations: int = 0
    ended: bool = False

    def message(self, raw: bytes) -> None:
        """Remember ``raw``.

        Raises:
            AssertionError: The reply has been there already.
        """
        if self.replies or self.ended:
            raise AssertionError(f"a message after the end: {raw!r}")
        self.messages.append(raw)

    def cancelled(self) -> None:
        """Count it.

        Raises:
            AssertionError: There was an end already.
        """
        if self.replies or self.cancellations:
            raise AssertionError("cancelled after the end")
        self.cancellations += 1

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        """Remember the reply.

        Raises:
            AssertionError: It is the second one.
        """
        if self.replies:
            raise AssertionError(f"a second reply: {raw!r}")
        self.replies.append((raw, error, code))

    def end(self) -> None:
        """Remember that the session has ended."""
        self.ended = True

    @property
    def heard(self) -> list[Any]:
        """The messages, decoded."""
        return [_decode(raw) for raw in self.messages]

    @property
    def answered(self) -> bool:
        """Whether there has been a reply."""
        return bool(self.replies)

    @property
    def answer(self) -> Any:
        """The reply, decoded.

        Raises:
            AssertionError: There is none yet.
        """
        if not self.replies:
            raise AssertionError("no reply yet")
        return _decode(self.replies[0][0])


def make_exchange(
    raw: bytes,
    *,
    sink: RecordingSink | None = None,
    era: Era = "legacy",
    principal: Principal = ANONYMOUS,
    params_headers: Sequence[tuple[bytes, bytes]] | None = None,
) -> tuple[Exchange, RecordingSink]:
    """An exchange for the request ``raw``, and the sink that takes its answers."""
    sink = RecordingSink() if sink is None else sink
    exchange = Exchange(
        message=decode(raw),
        principal=principal,
        era=era,
        sink=sink,
        record=Record(),
        params_headers=None if params_headers is None else tuple(params_headers),
    )
    return exchange, sink


@define(eq=False)
class Sent:
    """One message that went up a wire.

    Attributes:
        raw: Its bytes.
        number: The call it is, None for notifications and responses.
        exchange: Whose call.
    """

    raw: bytes
    number: int | None
    exchange: Exchange | None

    @property
    def body(self) -> Any:
        """The message, decoded."""
        return _decode(self.raw)


@define(eq=False)
class FakeWire:
    """A wire whose server is the test.

    Attributes:
        link: Whose wire it is.
        streams: Every call has a stream of its own, as over HTTP; False: one pipe for all, as to a child process.
        sent: What went up, in order.
        dropped: Calls that were forgotten.
        paused: Calls that are not read now.
        listening: How often the standing stream was asked for.
        closed: The link ended the connection.
    """

    link: Link
    streams: bool = True
    sent: list[Sent] = field(factory=list)
    dropped: list[int] = field(factory=list)
    paused: set[int] = field(factory=set)
    listening: int = 0
    closed: bool = False
    _waiting: list[tuple[bytes, int | None]] = field(factory=list)

    # --- what a link asks of a wire

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        """Remember ``raw``."""
        self.sent.append(Sent(raw, number, exchange))

    def drop(self, number: int) -> bool:
        """Forget a call; True where that tells the server: modern, with a stream per call."""
        self.dropped.append(number)
        self.resume(number)
        return self.streams and self.link.era == "modern"

    def pause(self, number: int) -> None:
        """Hold back what belongs to ``number``, or everything where there is one pipe."""
        self.paused.add(number)

    def resume(self, number: int) -> None:
        """Deliver what was held back."""
        self.paused.discard(number)
        waiting, self._waiting = self._waiting, []
        for raw, owner in waiting:
            self.say(raw, owner)

    def listen(self) -> None:
        """Count it."""
        self.listening += 1

    def close(self) -> None:
        """End the connection."""
        self.closed = True

    # --- what the test says as the server

    @property
    def bodies(self) -> list[Any]:
        """Everything that went up, decoded."""
        return [sent.body for sent in self.sent]

    @property
    def last(self) -> Sent:
        """The latest message that went up."""
        return self.sent[-1]

    def say(self, raw: bytes, number: int | None = None) -> None:
        """Say ``raw``, on the stream of call ``number`` where there are such streams."""
        if self.closed:
            return
        if self.paused if not self.streams else number in self.paused:
            self._waiting.append((raw, number))
        else:
            self.link.received(raw, number if self.streams else None)

    def answer(self, result: Any = None, *, error: Mapping[str, Any] | None = None, number: int | None = None) -> None:
        """Answer call ``number``, or the latest call that went up."""
        if number is None:
            number = next(sent.number for sent in reversed(self.sent) if sent.number is not None)
        self.say(response(number, result, error=error), number)

    def lose(self, why: str = "it has gone") -> None:
        """End the connection from the server's side."""
        self.link.lost(why)


@define(eq=False)
class FakeUpstream:
    """A server in memory.

    Attributes:
        name: Its key in ``mcpServers``.
        streams: See :class:`FakeWire`.
        rules: How it is to be spoken to; of both eras unless a test says otherwise.
        refuses: Why it cannot be started; None when it can.
        wires: One for each link, in order.
    """

    name: str = "fake"
    streams: bool = True
    rules: Rules = field(factory=Rules)
    refuses: str | None = None
    wires: list[FakeWire] = field(factory=list)

    def connect(self, link: Link) -> FakeWire:
        """A wire for ``link``."""
        wire = FakeWire(link, self.streams)
        self.wires.append(wire)
        if self.refuses is not None:
            link.lost(self.refuses)
        return wire

    @property
    def wire(self) -> FakeWire:
        """The latest wire."""
        return self.wires[-1]


@define(eq=False)
class FakeSeal:
    """A seal that keeps what it has sealed, and gives out names for it: ``session-1``, ``state-2``.

    Attributes:
        life: Number of this life of the daemon.
        kept: What has been sealed, in all lives: the life, the purpose, the holder and the text.
    """

    life: int = 1
    kept: dict[str, tuple[int, Purpose, str, bytes]] = field(factory=dict)

    def close(self, purpose: Purpose, holder: str, text: bytes) -> str:
        """Keep ``text``."""
        name = f"{purpose}-{len(self.kept) + 1}"
        self.kept[name] = self.life, purpose, holder, text
        return name

    def open(self, purpose: Purpose, holder: str, sealed: str) -> Open | None:
        """The inverse; None for whatever was not sealed for that purpose and holder."""
        life, for_what, whose, text = self.kept.get(sealed, (0, None, None, b""))
        return Open(text, life == self.life) if (for_what, whose) == (purpose, holder) else None


def know_both_eras(eras: Eras, servers: Iterable[str]) -> None:
    """Teach ``eras`` that each of ``servers`` speaks both, so that nothing has to be found out."""
    for server in servers:
        for era in get_args(Era):
            eras.learn(server, era, True)


def surroundings(upstreams: Mapping[str, Upstream], clock: Callable[[], float]) -> Surroundings:
    """What a session is in, with servers that are known to speak both eras."""
    eras = Eras(upstreams)
    know_both_eras(eras, upstreams)
    identity = {"name": "us", "version": "0"}
    hubs = Hubs(upstreams, eras, clock, identity, 60.0)
    return Surroundings(
        upstreams=upstreams,
        eras=eras,
        commons=Commons(upstreams, eras, hubs, Parked(clock, 100, 60.0), clock),
        hubs=hubs,
        identity=identity,
        clock=clock,
    )
