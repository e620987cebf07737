"""``mcptunnel certs``: the certificates in play, what a client sees, and some for development."""

from __future__ import annotations

import argparse
from typing import Any

from mcptunnel.cli.certs import check, dev, listing
from mcptunnel.cli.certs.words import USAGE

__all__ = ["add"]


def add(subparsers: Any) -> None:
    """Declare the command and those below it."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "certs",
        help="show every certificate in play; look at a server's; make some for development",
        description="Show every certificate that a configuration puts in play: those that are served (and whether the "
        "running daemon serves them), authorities, revocation lists, what we show servers and what these present.",
        epilog=USAGE,
        usage="%(prog)s [-h] [--config FILE] [--json] [--no-upstreams] [COMMAND ...]",
        allow_abbrev=False,
    )
    listing.declare(parser)
    below = parser.add_subparsers(title="commands", metavar="COMMAND", required=False)
    check.add(below)
    dev.add(below)
