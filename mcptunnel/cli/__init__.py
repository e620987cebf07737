"""The operator's command: ``mcptunnel COMMAND …``.

Each command is a module of this package with ``add(subparsers)``, which declares its arguments and sets ``run`` as
the parser's default, and ``run(args)``, which returns the exit status: 0 done, 1 refused or a problem, 2 wrong usage.
Errors go to standard error, each line beginning with ``mcptunnel: ``; what was asked for goes to standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from mcptunnel import __version__
from mcptunnel.cli import certs, connect, explain, reload, stdio
from mcptunnel.core.errors import TunnelError

__all__ = ["COMMANDS", "main"]

# The modules behind the commands, in the order in which the help lists them.
COMMANDS: Final = (stdio, connect, explain, reload, certs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` is without the program's name, None for the process's own."""
    parser = argparse.ArgumentParser(
        prog="mcptunnel",
        description="Put MCP servers behind one secure address. The daemon that does it is started with: "
        "twistd -n mcptunnel --config FILE. These commands serve a program that starts its MCP servers itself, and "
        "show what the daemon would decide.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mcptunnel {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(subparsers)
    try:
        args = parser.parse_args(argv)
        status = args.run(args)
        assert isinstance(status, int)
        return status
    except SystemExit as finished:
        # argparse has printed the help, the version or its complaint.
        return finished.code if isinstance(finished.code, int) else 2
    except TunnelError as error:
        for line in str(error).splitlines():
            print(f"mcptunnel: {line}", file=sys.stderr)
        return 1
