"""One MCP client on a pair of pipes: the stdio transport of MCP, from the server's side.

One JSON-RPC message a line, UTF-8, in both directions (MCP, "Transports", stdio). The connection is the session, see
:mod:`mcptunnel.core.conversation`.

While the client does not read, nothing is read from it either: neither its requests nor their answers pile up here.
What follows ``initialize`` waits for its answer: on pipes anything can be sent ahead, and over HTTP a server refuses
what comes without its session.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcptunnel.core.conversation import Conversation
from mcptunnel.core.errors import RpcError
from mcptunnel.core.jsonrpc import Message, decode, error_reply
from mcptunnel.core.principal import Principal
from mcptunnel.core.record import Record
from mcptunnel.core.relay import Relay
from mcptunnel.core.routing import Target
from mcptunnel.pipe.lines import Lines

__all__ = ["OPERATOR", "McpPipe", "writer_gone"]

# Whoever could start us could start the servers as well.
OPERATOR: Final = Principal(name="stdio")

_INPUT_OVER: Final = "the client has closed our standard input"


@implementer(IHalfCloseableProtocol, IPushProducer)
class McpPipe(Protocol):
    """The line of its conversation, and the brake on it.

    Args:
        relay: Where requests go.
        target: What the client sees.
        limit: Longest message of the client, in bytes.
        path: The daemon's address for ``target``, for the records.
        report: Told of the record of each exchange that is over.
        clock: For what is to happen next, and not now.
        on_end: Told once why no more will be heard: in words, and whether that is a failure.

    Attributes:
        paused_at: Since when the client does not read, on the daemon's clock; None while it does.
        gone: Nothing that is sent can arrive any more.
    """

    _log = Logger()

    transport: Any

    def __init__(
        self,
        relay: Relay,
        target: Target,
        limit: int,
        path: str,
        report: Callable[[Record], None],
        clock: IReactorTime,
        on_end: Callable[[str, bool], None],
    ) -> None:
        self.paused_at: float | None = None
        self.gone = False
        self._relay: Final = relay
        self._conversation: Final = Conversation(self, relay, target, OPERATOR, self._ended)
        self._record: Final = Record(protocol="stdio", peer="stdio", principal=OPERATOR.name, scheme="stdio", path=path)
        self._limit: Final = limit
        self._lines: Final = Lines(limit)
        self._report: Final = report
        self._clock: Final = clock
        self._on_end: Final = on_end
        self._opening = False
        self._input_over = False
        self._heard_all = False
        self._said_all = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    # --- from the client

    def dataReceived(self, data: bytes) -> None:
        self._lines.feed(data)
        self._work()
        if self._opening and len(self._lines) > self._limit:
            self.transport.pauseProducing()

    def _work(self) -> None:
        """Take messages for as long as the client reads what comes of them."""
        while self.paused_at is None and not (self._opening or self._heard_all):
            try:
                line = self._lines.next()
                if line is not None:
                    self._take(decode(line))
                elif self._input_over:
                    self._over(_INPUT_OVER)
                else:
                    return
            except RpcError as e:
                # It could not be read, and so neither could its id.
                self.send(error_reply(e, None))
            except Exception:
                self._log.failure("a message could not be handled")
                self._over("a message could not be handled", failed=True)

    def _take(self, message: Message) -> None:
        before = self._conversation.session
        self._conversation.take(message, self._record)
        opened, session = before is None, self._conversation.session
        self._opening = opened and session is not None and message.id in session.active

    def _ended(self, record: Record) -> None:
        self._report(record)
        if self._opening and record.method == "initialize":
            # Once whoever else is told of the end of this exchange has been told, too.
            self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._opening = False
        self._work()
        self._read_on()

    def _read_on(self) -> None:
        if self.paused_at is None and not (self._opening or self._heard_all or self._input_over):
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """The client has said all it will say; what it has asked may still be answered."""
        self._lines.finish()
        self._input_over = True
        if len(self._lines):
            self._work()
        else:
            self._over(_INPUT_OVER)

    def writeConnectionLost(self) -> None:
        """The client does not listen any more."""
        self._lost()
        self._over("the client has closed our standard output")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost()
        self._over("the client is gone")

    def _lost(self) -> None:
        self.gone = True
        self._said_all = True
        self._conversation.close()

    def _over(self, why: str, *, failed: bool = False) -> None:
        if not self._heard_all:
            self._heard_all = True
            self.transport.pauseProducing()
            self._on_end(why, failed)

    # --- line of the conversation

    def send(self, raw: bytes) -> None:
        if self._said_all:
            return
        # MCP, stdio: no embedded newlines. In JSON they occur between tokens only, where a space does as well.
        if b"\n" in raw or b"\r" in raw:
            raw = raw.replace(b"\n", b" ").replace(b"\r", b" ")
        self.transport.write(raw + b"\n")

    def end(self) -> None:
        if not self._relay.closing:
            self._over("the session has ended", failed=True)

    def deafen(self) -> None:
        """Take no more messages: we are stopping."""
        self._heard_all = True
        self.transport.pauseProducing()

    def leave(self) -> None:
        """Say nothing more; once the client has read what was said, the pipes are closed."""
        if not self._said_all:
            self._conversation.close()
            self._said_all = True
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    # --- backpressure

    def pauseProducing(self) -> None:
        self.paused_at = self._relay.clock()
        self._conversation.pause()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused_at = None
        self._conversation.resume()
        self._work()
        self._read_on()

    def stopProducing(self) -> None:
        """The pipe is going down; writeConnectionLost or connectionLost follows."""


def writer_gone(number: int) -> bool:
    """Whether the other end of the pipe or socket ``number`` is closed, although there may be more to read from it.

    The reactor would tell at the end only of what we read, and we may have a reason not to read.
    """
    if not (stat.S_ISFIFO(mode := os.fstat(number).st_mode) or stat.S_ISSOCK(mode)):
        return False
    poll = select.poll()
    # Node.js gives its children sockets, of which it closes one direction.
    gone = select.POLLHUP | getattr(select, "POLLRDHUP", 0)
    poll.register(number, gone)
    return any(events & gone for _, events in poll.poll(0))
