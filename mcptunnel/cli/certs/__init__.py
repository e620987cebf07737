"""``mcptunnel certs``: the certificates in play, what a client sees, and some for development."""

from __future__ import annotations

import argparse
from typing import Any

from mcptunnel.cli.certs import dev

__all__ = ["add"]


def add(subparsers: Any) -> None:
    """Declare the command and those below it."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "certs",
        help="show every certificate in play, look at a server's, or make some for development",
        allow_abbrev=False,
    )
    below = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    dev.add(below)
