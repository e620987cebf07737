"""What ``mcptunnel stdio`` and ``mcptunnel connect`` share: one client on our standard input and output."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner

from mcptunnel.config.schema import Config
from mcptunnel.core.errors import TunnelError
from mcptunnel.observe.daemonlog import observer_for
from mcptunnel.observe.lossy import LossyText
from mcptunnel.pipe.protocol import writer_gone
from mcptunnel.services.piped import Piped, piped_from

__all__ = ["serve"]

# What an operator, a service manager and a terminal that goes away say.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(config: Config, server: str | None = None, *, quiet: bool = False) -> int:
    """Serve ``config`` on standard input and output; returns when the client has left and every child has ended.

    Args:
        config: What to serve.
        server: Show this server alone, None for all of them.
        quiet: Say nothing but errors, and write no access records to standard error.

    Returns:
        The exit status: 0 when the client or a signal has ended it, 1 when we have.

    Raises:
        TunnelError: A part of the configuration cannot be carried out.
    """
    from twisted.internet import reactor  # noqa: PLC0415, TID251  # here, where it is run; no other command needs one

    if quiet:
        access = config.logging.access if config.logging.access_file else "off"
        config = evolve(config, logging=evolve(config.logging, level="error", access=access))
    # What is logged from here on waits until somebody writes it.
    piped = piped_from(config, reactor, server)
    stdin, stdout = _take_standard_streams()
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    observer = observer_for(LossyText(2), config.logging.level, colour=colour)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    _run(piped, reactor, stdin, stdout)
    return 1 if piped.failed else 0


def _take_standard_streams() -> tuple[int, int]:
    """Standard input and output under numbers that only we know.

    What a library prints from now on goes to standard error: the client must see nothing but messages.
    """
    try:
        stdin, stdout = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
    except OSError as e:
        raise TunnelError(f"standard input, output and error must all be open: {e.strerror}") from None
    return stdin, stdout


def _run(piped: Piped, reactor: Any, stdin: int, stdout: int) -> None:
    def start() -> None:
        # After the reactor's own: these let calls finish first.
        for number in _SIGNALS:
            signal.signal(number, lambda *_: reactor.callFromThread(piped.leave))
        piped.startService()  # type: ignore[no-untyped-call]
        StandardIO(piped.pipe, stdin, stdout, reactor)  # type: ignore[no-untyped-call,call-arg]  # seen as Windows's

    piped.hung_up = partial(writer_gone, stdin)
    piped.over.addBoth(lambda _: reactor.stop())
    reactor.callWhenRunning(start)
    reactor.run()
