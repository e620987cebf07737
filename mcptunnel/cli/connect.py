"""``mcptunnel connect``: a remote MCP address, for a program that can only start commands.

The arguments become a configuration with one server, and are checked by the rules for configuration files.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from mcptunnel.core.errors import CertificateError, ConfigError, Finding

if TYPE_CHECKING:
    from mcptunnel.config.schema import Config

__all__ = ["add", "configuration", "run"]

# The one server's name, which logs and errors show.
NAME: Final = "remote"
# Key of the server's entry to the option it comes from; the key `headers` has one more step.
_OPTIONS: Final = {
    "url": "URL",
    "ca_file": "--ca-file",
    "cert_file": "--cert-file",
    "key_file": "--key-file",
    "era": "--era",
    "type": "--type",
}
_FILES: Final = ("ca_file", "cert_file", "key_file")
# Far above every bundle of certificates.
_LARGEST_FILE: Final = 16 * 1024 * 1024
_TIMEOUT: Final = "server.limits.request_timeout"
_HEADER_KEY: Final = re.compile(rf"mcpServers\.{NAME}\.headers\.(.+)")


def add(subparsers: Any) -> None:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "connect",
        help="bring one remote MCP server to the program that runs this command",
        description="Bridge standard input and output to the MCP server at URL, for programs that can only start a "
        "command. Nothing is connected before the program speaks. The log goes to standard error. It ends when its "
        "input ends.",
        epilog="example: mcptunnel connect https://mcp.example.com/mcp --header 'Authorization: Bearer ${env:TOKEN}'; "
        "${env:NAME} and ${file:PATH} in a value are replaced here, so that no secret shows in the list of processes; "
        "write $${ for a literal ${.",
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="address of the server: http, https, ws or wss")
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        type=_header,
        help="a header sent with every request; may be repeated",
    )
    parser.add_argument("--ca-file", metavar="FILE", help="CA certificates to trust instead of the system's")
    parser.add_argument("--cert-file", metavar="FILE", help="our certificate, where the server asks for one")
    parser.add_argument("--key-file", metavar="FILE", help="its key")
    parser.add_argument(
        "--era",
        choices=("auto", "legacy", "modern"),
        help="the protocol that the server speaks: with sessions, or stateless since 2026-07-28 (default: found out)",
    )
    parser.add_argument(
        "--type", choices=("http", "sse", "ws"), help="the transport that the server speaks (default: by its URL)"
    )
    parser.add_argument(
        "--timeout", metavar="TIME", help="silence of the server after which a call fails, such as 30s (default: 2m)"
    )
    parser.add_argument("--quiet", action="store_true", help="log errors only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Bridge until the client leaves.

    Raises:
        TunnelError: An argument is refused.
    """
    # --help and --version need no reactor.
    from mcptunnel.cli.serving import serve  # noqa: PLC0415

    try:
        return serve(configuration(args), NAME, quiet=args.quiet)
    except CertificateError as e:
        raise CertificateError(_in_options(str(e))) from None


def configuration(args: argparse.Namespace, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration that the arguments mean.

    Args:
        args: Of the command.
        environ: Variables for ``${env:NAME}``; None: the process's own.

    Raises:
        ConfigError: One of them cannot be used; the findings name options.
    """
    from mcptunnel.config.interpolate import FileError, read_small_file  # noqa: PLC0415
    from mcptunnel.config.load import load_text  # noqa: PLC0415

    refusals: list[tuple[str, str]] = []
    names = [name.lower() for name, _ in args.headers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        refusals.append((f"--header {name}", "it is given twice; keep one"))
    for key in _FILES:
        try:
            if (path := getattr(args, key)) is not None:
                read_small_file(path, _LARGEST_FILE)
        except FileError as error:
            refusals.append((_OPTIONS[key], f"the file {path!r} {error}"))
    entry = {key: value for key in _OPTIONS if (value := getattr(args, key)) is not None}
    if args.headers:
        entry["headers"] = dict({name.lower(): (name, value) for name, value in args.headers}.values())
    whole: dict[str, Any] = {"mcpServers": {NAME: entry}, "logging": {"access": "off"}}
    if args.timeout is not None:
        whole["server"] = {"limits": {"request_timeout": args.timeout}}
    try:
        # JSON is YAML.
        config = load_text(json.dumps(whole), name="connect", environ=environ)
    except ConfigError as refused:
        refusals += [(option(finding.key), _in_options(finding.message)) for finding in refused.findings]
    if refusals:
        raise ConfigError([Finding(file="connect", line=None, key=key, message=says) for key, says in refusals])
    return evolve(config, warnings=tuple(_in_options(warning) for warning in config.warnings))


def option(key: str) -> str:
    """The option that becomes ``key`` of the configuration; ``key`` itself where there is none."""
    if key == _TIMEOUT:
        return "--timeout"
    if header := _HEADER_KEY.fullmatch(key):
        return f"--header {header[1]}"
    prefix = f"mcpServers.{NAME}."
    return _OPTIONS.get(key.removeprefix(prefix), key) if key.startswith(prefix) else key


def _in_options(text: str) -> str:
    """A text of the loader, which knows keys only, for somebody who knows options only."""
    text = text.removeprefix("connect:1: ").replace("the daemon", "mcptunnel")
    # The rules call keys by their last word, too.
    for key in _FILES:
        text = re.sub(rf"(?<![.\w]){key}\b", _OPTIONS[key], text)
    return re.sub(r"(?:mcpServers|server)\.[\w.\-]+", lambda key: option(key[0]), text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # Not shown: the whole of it may be a secret.
        raise argparse.ArgumentTypeError("expected 'Name: value'")
    return name.strip(), value.strip(" \t")
