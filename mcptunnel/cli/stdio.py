"""``mcptunnel stdio``: what the daemon would serve at an address, for a program that starts its MCP servers itself."""

from __future__ import annotations

import argparse
from typing import Any

from mcptunnel.core.errors import TunnelError

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "stdio",
        help="serve the configured MCP servers to the program that runs this command",
        description="Serve the MCP servers of a configuration on standard input and output, one message a line, as "
        "desktop programs expect of a command. All servers are shown as one, as the daemon does at /mcp. No port is "
        "opened and no token is asked for. The log goes to standard error. It ends when its input ends.",
        epilog="example, an entry of claude_desktop_config.json: "
        '"tunnel": {"command": "mcptunnel", "args": ["stdio", "--config", "/home/ada/tunnel.yaml"]}',
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="configuration; default: /etc/mcptunnel.yaml if it exists")
    parser.add_argument(
        "--server",
        metavar="NAME",
        help="show this one of mcpServers alone, under its own names, as the daemon does at /servers/NAME/mcp",
    )
    parser.add_argument("--quiet", action="store_true", help="log errors only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the client leaves.

    Raises:
        TunnelError: The configuration is refused, or has no such server.
    """
    # --help and --version need neither YAML nor a reactor.
    from mcptunnel.cli.serving import serve  # noqa: PLC0415
    from mcptunnel.config.load import default_path, load_file  # noqa: PLC0415

    path = args.config or default_path()
    if path is None:
        raise TunnelError("there is no configuration: name one with --config FILE")
    # Certificates of the daemon's listener mean nothing here, and need not be readable for whoever runs this.
    return serve(load_file(path), args.server, quiet=args.quiet)
