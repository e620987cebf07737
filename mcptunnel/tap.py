"""The twistd plugin: ``twistd -n mcptunnel --config FILE``."""

from __future__ import annotations

import signal
import sys
from typing import Any, Final

from twisted.application.service import IService
from twisted.python import usage

from mcptunnel.config.load import load
from mcptunnel.core.errors import TunnelError
from mcptunnel.observe.daemonlog import DaemonLog
from mcptunnel.services.root import build

__all__ = ["Options", "daemon_log", "makeService"]

# twistd takes the name of something to call without arguments, hence one for the process: the options tell it about
# files, makeService tells it the level, and twistd calls it after both.
daemon_log: Final = DaemonLog()


class Options(usage.Options):
    """Command line of the plugin."""

    synopsis = "[--config FILE]"
    longdesc = (
        "Put MCP servers behind one secure address. Without --config the file /etc/mcptunnel.yaml is read if it "
        "exists; otherwise plain HTTP is served on 127.0.0.1:3000."
    )
    optParameters = [["config", "c", None, "Configuration file (YAML)."]]  # noqa: RUF012  # twisted's interface

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}; the configuration is given with --config FILE")

    def postOptions(self) -> None:
        """Log in our own form and from the configured level on, unless the user asked for another logger."""
        twistd = self.parent
        if twistd is not None and not twistd.get("logger") and not twistd.get("syslog"):
            daemon_log.twistd = twistd
            twistd["logger"] = f"{__name__}.daemon_log"


def makeService(options: Options) -> IService:
    """Read the configuration and build the daemon. A configuration that is refused ends the process with status 1."""
    from twisted.internet import reactor  # noqa: PLC0415, TID251  # the only place: after twistd has chosen it

    try:
        return _service(options["config"], reactor)
    except TunnelError as e:
        for line in str(e).splitlines():
            print(f"mcptunnel: {line}", file=sys.stderr)
        raise SystemExit(1) from None


def _service(path: str | None, reactor: Any) -> IService:
    config = load(path)
    daemon_log.level, daemon_log.reactor = config.logging.level, reactor
    daemon = build(config, reactor)

    def install() -> None:
        # Without a handler SIGHUP would end the process.
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(daemon.reload))

    reactor.callWhenRunning(install)
    service: IService = daemon
    return service
