"""The files of an https server of ``mcpServers`` are followed too: whom we trust there, and what we show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.services.filewatch import FileWatch, Outcome
from mcptunnel.services.ways import Terms, Way, files_of, terms_of

__all__ = ["ServerFiles", "server_files"]


@define(eq=False, kw_only=True)
class ServerFiles:
    """Keeps the terms of one way the same as its files.

    Attributes:
        entry: Names them.
        way: What is to follow.
        in_thread: Runs what blocks.
        clock: For pauses.
        alarm: Called with what is wrong, and with None when it is right again.
        trouble: What is wrong now; None when nothing is.
    """

    entry: UpstreamConfig
    way: Way
    in_thread: Callable[[Callable[[], Terms]], Deferred[Terms]]
    clock: IReactorTime
    alarm: Callable[[str | None], None]
    trouble: str | None = field(init=False, default=None)
    _files: FileWatch[Terms] = field(init=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._files = FileWatch(
            files=files_of(self.entry),
            load=lambda: terms_of(self.entry),
            take=self.way.take,
            told=self._told,
            in_thread=self.in_thread,
            clock=self.clock,
        )

    def tick(self) -> None:
        """Look at them. Called a few times a second."""
        self._files.tick()

    def reload(self) -> Deferred[Outcome]:
        """Read them again now, changed or not."""
        return self._files.force()

    def _told(self, outcome: Outcome) -> None:
        key = f"mcpServers.{self.entry.name}"
        if outcome.taken:
            self._log.info("{key}: certificates were read again; new connections use them", key=key)
        else:
            self._log.error(
                "{key}: what was read before stays in force, the files are refused: {reason}",
                key=key,
                reason=outcome.problem,
            )
        before, self.trouble = self.trouble, outcome.problem or None
        if self.trouble != before:
            self.alarm(self.trouble)


def server_files(
    config: Config,
    ways: Mapping[str, Way],
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
    clock: IReactorTime,
    alarm: Callable[[str | None], None],
) -> list[ServerFiles]:
    """One for each server over TLS that has files.

    Args:
        config: Names them.
        ways: By the server's name.
        in_thread: Runs what blocks.
        clock: For pauses.
        alarm: See :class:`ServerFiles`.
    """
    return [
        ServerFiles(entry=config.servers[name], way=way, in_thread=in_thread, clock=clock, alarm=alarm)
        for name, way in ways.items()
        if way.secure and files_of(config.servers[name])
    ]
