"""An MCP server that is a child process speaking over its standard input and output (MCP, stdio).

One child per legacy session; one for all stateless calls of the modern era, whose ids and tokens the link keeps apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import Logger

from mcptunnel.core.exchange import Exchange
from mcptunnel.core.link import Link
from mcptunnel.core.rules import Rules
from mcptunnel.upstream.brake import Brake
from mcptunnel.upstream.children import Child, Children

__all__ = ["StdioUpstream"]

# A child that ends sooner than this after its start is not started again at once.
QUICK_SECONDS: Final = 5.0
# Waits before the next start after that, each longer than the one before. The first is none: a program may end because
# it is asked what it does not know, as a server of the other era is, and do well when it is asked something else.
BACKOFF: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


class StdioUpstream:
    """One server with a ``command``.

    Args:
        name: Its key in ``mcpServers``.
        argv: Command and arguments.
        env: Variables added to its environment; may be secret.
        cwd: Working directory, None for ours.
        children: Starts processes.
        max_bytes: Longest message it may send.
        rules: How it is to be spoken to.
    """

    def __init__(
        self,
        name: str,
        *,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        cwd: str | None,
        children: Children,
        max_bytes: int,
        rules: Rules = Rules(),  # noqa: B008  # frozen
    ) -> None:
        self.name: Final = name
        self.rules: Final = rules
        self.max_bytes: Final = max_bytes
        self._argv: Final = argv
        self._env: Final = env
        self._cwd: Final = cwd
        self._children: Final = children
        self._failures = 0
        self._how = ""
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<StdioUpstream {self.name}>"

    def connect(self, link: Link) -> StdioWire:
        """A child for ``link``. When it cannot be started, ``link`` is lost with the reason."""
        wire = StdioWire(self, link)
        wait = self._not_before - self._children.clock.seconds()
        if wait > 0:
            link.lost(f"it ends as soon as it is started ({self._how}); the next attempt is in {wait:.0f} s")
        else:
            wire.start(self.spawn)
        return wire

    def spawn(self, on_output: Callable[[bytes], None], on_exit: Callable[[str], None]) -> Child:
        """Start the process.

        Raises:
            OSError: It cannot be started.
        """
        return self._children.spawn(
            self.name, self._argv, env=self._env, cwd=self._cwd, on_output=on_output, on_exit=on_exit
        )

    def seconds(self) -> float:
        """The time."""
        return self._children.clock.seconds()

    def crashed(self, started: float, how: str) -> None:
        """A child has ended although nobody asked it to.

        Args:
            started: When it was started.
            how: How it has ended.
        """
        now = self.seconds()
        self._how = how
        if now - started < QUICK_SECONDS:
            self._not_before = now + BACKOFF[min(self._failures, len(BACKOFF) - 1)]
            self._failures += 1
        else:
            self._failures = 0


class StdioWire:
    """The wire of one link: one child. See :class:`mcptunnel.core.wire.Wire`."""

    log = Logger()

    def __init__(self, upstream: StdioUpstream, link: Link) -> None:
        self._upstream: Final = upstream
        self._link: Final = link
        self._child: Child | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._brake: Final = Brake(self._stop, self._go)
        self._started = 0.0
        self._closed = False

    def start(self, spawn: Callable[[Callable[[bytes], None], Callable[[str], None]], Child]) -> None:
        """Start the child; a failure loses the link."""
        self._started = self._upstream.seconds()
        try:
            self._child = spawn(self._output, self._exited)
        except OSError as e:
            self._link.lost(f"it cannot be started: {e}")

    def send(self, raw: bytes, number: int | None, exchange: Exchange | None) -> None:
        if exchange is not None:
            # A pipe is a stream: more than the response may come.
            exchange.streamed = True
        if self._child is not None:
            if number is not None and self._child.unread > self._upstream.max_bytes:
                self._link.failed(number, "it does not read its input")
                return
            # MCP, stdio: no embedded newlines. In JSON they occur between tokens only, where a space does as well.
            if b"\n" in raw or b"\r" in raw:
                raw = raw.replace(b"\n", b" ").replace(b"\r", b" ")
            if not self._child.write(raw + b"\n") and number is not None:
                self._link.failed(number, "it has closed its input")

    def _output(self, data: bytes) -> None:
        if self._closed:
            return
        *lines, rest = data.split(b"\n")
        if lines and self._parts:
            lines[0] = b"".join(self._parts) + lines[0]
            self._parts = []
            self._size = 0
        for line in lines:
            if line.strip():
                self._link.received(line)
        if rest:
            self._size += len(rest)
            if self._size > self._upstream.max_bytes:
                self._link.lost(
                    f"it wrote a line longer than {self._upstream.max_bytes} bytes (server.limits.message_bytes)"
                )
                self.close()
                return
            self._parts.append(rest)

    def _exited(self, how: str) -> None:
        self._child = None
        if not self._closed:
            self._closed = True
            self._upstream.crashed(self._started, how)
            self._link.lost(how)

    def drop(self, number: int) -> bool:
        self.resume(number)
        return False

    def pause(self, number: int) -> None:
        self._brake.pause(number)

    def resume(self, number: int) -> None:
        self._brake.resume(number)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.pause()

    def _go(self) -> None:
        if self._child is not None:
            self._child.resume()

    def listen(self) -> None:
        """Nothing to do: the child's output carries everything."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._child is not None:
                self._child.stop()
