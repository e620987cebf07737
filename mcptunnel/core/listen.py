"""One subscription to several servers (2026-07-28, ``subscriptions/listen``): theirs are many, the client's is one.

Every server is asked for its part. When all have acknowledged theirs, or have been given up, the client gets one
acknowledgement of what they honour together, and from then on what each of them says. A server that is lost costs its
part; the subscription ends when the last one has ended.
"""

from __future__ import annotations

from typing import Any, Final

from mcptunnel.core.directory import Directory
from mcptunnel.core.dispatch import Links, unknown
from mcptunnel.core.errors import INVALID_PARAMS, RpcError
from mcptunnel.core.exchange import Exchange
from mcptunnel.core.fanout import part_of
from mcptunnel.core.jsonrpc import Message, decode, encode, result_reply, splice
from mcptunnel.core.link import unavailable
from mcptunnel.core.mcp import SUBSCRIPTION_KEY, subscription_span
from mcptunnel.core.principal import permits

__all__ = ["HELD", "listen"]

_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_URIS: Final = "resourceSubscriptions"
# Messages kept until every server has acknowledged; with so many the client is told at once.
HELD: Final = 1000


def listen(links: Links, exchange: Exchange, servers: list[str], patience: float, directory: Directory) -> None:
    """Subscribe at all of ``servers``, for resources at the one that owns them or at all when nobody is known to.

    Raises:
        RpcError: The request cannot be read, or asks for nothing that the caller may know of.
    """
    message = exchange.message
    asked = message.param("notifications")
    if not isinstance(asked, dict):
        raise RpcError(INVALID_PARAMS, "params.notifications: expected an object", reason="invalid_params")
    uris = asked.get(_URIS) or []
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise RpcError(INVALID_PARAMS, f"params.notifications.{_URIS}: expected strings", reason="invalid_params")
    questions: dict[str, bytes] = {}
    for server in servers:
        theirs = [
            uri
            for uri in uris
            if ((owner := directory.owner(uri)) == server or owner not in servers)
            and permits(exchange.principal, server, uri)
        ]
        if theirs or not uris or any(value for kind, value in asked.items() if kind != _URIS):
            questions[server] = message.raw if theirs == uris else _narrowed(message, theirs)
    if not questions:
        raise unknown("resources/read", ", ".join(uris))
    _Subscription(exchange, asked, directory).open(links, questions, patience)


def _narrowed(message: Message, uris: list[str]) -> bytes:
    """The request for fewer resources."""
    span = message.inside(message.params["notifications"], "params.notifications")[_URIS]
    return splice(message.raw, [(span, encode(uris))])


class _Part:
    """One server's part, as the sink of what it says."""

    __slots__ = ("_whole", "exchange", "server")

    exchange: Exchange

    def __init__(self, whole: _Subscription, server: str) -> None:
        self._whole: Final = whole
        self.server: Final = server

    def message(self, raw: bytes) -> None:
        self._whole.said(self, raw)

    def reply(self, raw: bytes, error: RpcError | None, code: int | None) -> None:
        self._whole.ended(self, raw, error, code)

    def cancelled(self) -> None:
        """The server has ended it, if the whole was not cancelled, which says so itself."""
        self._whole.torn_down(self)


class _Subscription:
    """The client's subscription; also the upstream side (a ``Call``) of its exchange."""

    def __init__(self, exchange: Exchange, asked: dict[str, Any], directory: Directory) -> None:
        self._exchange: Final = exchange
        self._directory: Final = directory
        self._asked: Final = asked
        self._open: Final[list[_Part]] = []
        self._silent: Final[set[_Part]] = set()
        self._honoured: Final[list[dict[str, Any]]] = []
        # Each once: they say that something changed, not what.
        self._held: Final[dict[bytes, None]] = {}
        self._told = False
        self._graceful = False
        self._refusal: bytes | None = None
        self._error: RpcError | None = None

    def open(self, links: Links, questions: dict[str, bytes], patience: float) -> None:
        """Send each server its question."""
        exchange = self._exchange
        exchange.call = self
        for server, raw in questions.items():
            part = _Part(self, server)
            part.exchange = part_of(exchange, raw, part, patience)
            self._open.append(part)
        self._silent.update(self._open)
        for part in list(self._open):
            links.forward(part.server, part.exchange)

    # --- from the client (Call)

    def cancel(self, reason: bytes | None) -> None:
        """The client has left."""
        for part in list(self._open):
            part.exchange.abandon(reason)

    def pause(self) -> None:
        """The client does not keep up: no server is read."""
        for part in list(self._open):
            part.exchange.pause()

    def resume(self) -> None:
        """The client has caught up."""
        for part in list(self._open):
            part.exchange.resume()

    # --- from the servers

    def said(self, part: _Part, raw: bytes) -> None:
        """A message on ``part``."""
        message = decode(raw)
        if message.method == "notifications/cancelled":
            # Of this part alone; the others go on.
            return
        if message.method == _ACKNOWLEDGED:
            if part in self._silent:
                self._acknowledged(part, _notifications(message))
            return
        if part in self._silent and subscription_span(message) is not None:
            # The acknowledgement comes first or never ("subscriptions/listen", "Acknowledgment").
            self._acknowledged(part, {})
        self._directory.changed(part.server, message.method)
        if self._told:
            self._exchange.emit(raw)
            return
        self._held[raw] = None
        if len(self._held) >= HELD:
            self._tell()

    def _acknowledged(self, part: _Part, honoured: dict[str, Any]) -> None:
        self._silent.discard(part)
        # Silence is what a subscription is made of, from here on.
        part.exchange.patience = 0
        self._honoured.append(honoured)
        if not self._silent and not self._told:
            self._tell()

    def _tell(self) -> None:
        """Acknowledge to the client what the servers honour together, and say what has waited for that."""
        self._told = True
        self._exchange.emit(
            b'{"jsonrpc":"2.0","method":"%b","params":{"_meta":%b,"notifications":%b}}'
            % (_ACKNOWLEDGED.encode(), self._tag(), encode(self._union()))
        )
        for raw in self._held:
            self._exchange.emit(raw)
        self._held.clear()

    def _tag(self) -> bytes:
        return b'{"%b":%b}' % (SUBSCRIPTION_KEY.encode(), self._exchange.message.id_raw)

    def _union(self) -> dict[str, Any]:
        union: dict[str, Any] = {}
        for kind, asked in self._asked.items():
            found = [value for part in self._honoured if (value := part.get(kind))]
            if isinstance(asked, list):
                known = {one for value in found if isinstance(value, list) for one in value if isinstance(one, str)}
                if some := [one for one in asked if isinstance(one, str) and one in known]:
                    union[kind] = some
            elif found:
                union[kind] = found[0]
        return union

    def torn_down(self, part: _Part) -> None:
        """The server of ``part`` wants no more of it."""
        if not self._exchange.done:
            error = unavailable(part.server, "it has ended the subscription")
            self.ended(part, b"", error, error.code)

    def ended(self, part: _Part, raw: bytes, error: RpcError | None, code: int | None) -> None:
        """``part`` is over: gracefully with a result, else with an error of the server's or of ours."""
        self._open.remove(part)
        self._silent.discard(part)
        if code is None:
            self._graceful = True
        elif error is None:
            self._refusal = raw
        else:
            self._error = error
        if self._exchange.done:
            return
        if self._open:
            if not self._silent and not self._told:
                self._tell()
            return
        if not self._told and (self._graceful or self._honoured):
            self._tell()
        if self._graceful:
            result = b'{"resultType":"complete","_meta":%b}' % self._tag()
            self._exchange.finish(decode(result_reply(self._exchange.message.id_raw, result)))
        elif self._refusal is not None:
            self._exchange.finish(decode(self._refusal))
        elif self._error is not None:
            self._exchange.fail(self._error)


def _notifications(message: Message) -> dict[str, Any]:
    """What an acknowledgement honours; nothing when it cannot be read."""
    try:
        value = message.param("notifications")
    except RpcError:
        return {}
    return value if isinstance(value, dict) else {}
