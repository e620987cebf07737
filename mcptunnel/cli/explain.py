"""``mcptunnel explain``: show whom the daemon would take a request to come from, and why.

It asks the same resolver that the daemon asks, built from the same configuration; nothing is decided here.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from mcptunnel.cli.paint import Paint, show
from mcptunnel.config.schema import Config
from mcptunnel.core.addresses import UNIX_PEER, canon, is_unix
from mcptunnel.core.errors import ForwardedError
from mcptunnel.core.forwarded import FAMILIES, FORWARDING, Identity, Resolver
from mcptunnel.core.hosts import authority, split_host
from mcptunnel.core.preface import Action, Kind, decide
from mcptunnel.services.identity import resolver_from

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add", "run"]

# Where the daemon looks as well when it is given no file.

# RFC 9110 §5.1 and §5.5: field-name and what a field-value may not hold.
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_VERDICTS: Final = {
    "direct": "the peer is not trusted and claims nothing",
    "stripped": "the peer is not trusted; its forwarding headers are deleted",
    "trusted": "the peer is trusted and claims nothing",
    "forwarded": "the peer is trusted and its headers are believed",
}

_CONNECTIONS: Final = {
    Action.SERVE_TLS: "served as TLS",
    Action.SERVE_PLAIN: "served as plaintext",
    Action.REFUSE_BAD_REQUEST: "refused with 400: only https is spoken here",
    Action.REFUSE_NOT_PROXY: "refused with 403: the peer is not in server.tls.trusted_proxies",
    Action.REFUSE_INSECURE: "refused with a redirect to https or 403: plaintext is only for trusted proxies",
    Action.CLOSE: "closed: TLS is not spoken here",
}


def add(subparsers: _Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "explain",
        help="show who a request comes from, and why",
        description="Show whom the daemon would take a request to come from, hop by hop, by which rule.",
        epilog="example: mcptunnel explain --config tunnel.yaml --peer 10.0.0.5 -H 'X-Forwarded-For: 203.0.113.7'",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="configuration; default: /etc/mcptunnel.yaml if it exists, else the defaults"
    )
    parser.add_argument(
        "--peer",
        metavar="ADDR",
        required=True,
        type=_peer,
        help="address of the socket's other end, or 'unix:' for a UNIX socket",
    )
    parser.add_argument("--tls", action="store_true", help="the peer speaks TLS to the daemon")
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        type=_header,
        help="a header line of the request, in wire order; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the decision. A refused request is a decision as well: the status is 0 either way."""
    config = _load(args.config)
    resolver = resolver_from(config)
    headers = list(args.headers)
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.insert(0, (b"Host", _own_host(config, args.tls).encode()))
    try:
        outcome: Identity | ForwardedError = resolver.resolve(args.peer, args.tls, headers)
    except ForwardedError as refusal:
        outcome = refusal
    show(
        args.json,
        lambda: _json(outcome),
        lambda paint: _text(config, resolver, args.peer, args.tls, headers, outcome, paint),
    )
    return 0


def _peer(text: str) -> str:
    if is_unix(text) or text == "unix":
        return UNIX_PEER
    try:
        return canon(text, peer=True)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an IP address without a port nor 'unix:'") from None


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is not 'Name: value'")
    if _CONTROL.search(value):
        raise argparse.ArgumentTypeError(f"{text!r} has a control character in its value")
    return name.encode("ascii"), os.fsencode(value.strip(" \t"))


def _load(path: str | None) -> Config:
    from mcptunnel.config.load import default_path, load_file  # noqa: PLC0415  # --help and --version need no YAML

    path = path or default_path()
    return Config() if path is None else load_file(path)


def _own_host(config: Config, tls: bool) -> str:
    """What a client that calls us directly would put into Host."""
    server = config.server
    if server.public_url is not None:
        return server.public_url.partition("://")[2].partition("/")[0]
    bound = server.host.strip("[]").partition("%")[0]
    if bound.startswith(("unix:", "systemd:")):
        return "localhost"
    if bound in ("", "*", "0.0.0.0", "::"):
        bound = "localhost"
    name, _ = split_host(f"[{bound}]" if ":" in bound else bound)
    return authority(name, server.port or None, "https" if tls else "http")


def _json(outcome: Identity | ForwardedError) -> dict[str, Any]:
    if isinstance(outcome, ForwardedError):
        return {"reject": outcome.status, "reason": outcome.reason}
    found: dict[str, Any] = {
        "client_ip": outcome.client_ip,
        "client_port": outcome.client_port,
        "opaque": outcome.opaque,
        "scheme": outcome.scheme,
        "host": outcome.host,
        "prefix": outcome.prefix,
        "verdict": outcome.verdict,
    }
    return {key: value for key, value in found.items() if value is not None or key == "client_ip"}


def _text(
    config: Config,
    resolver: Resolver,
    peer: str,
    tls: bool,
    headers: Sequence[tuple[bytes, bytes]],
    outcome: Identity | ForwardedError,
    paint: Paint,
) -> Iterator[str]:
    policy = resolver.policy
    rule = policy.trust.matching(peer)
    mode = config.server.tls.mode
    action = decide(mode, Kind.TLS if tls else Kind.HTTP, rule is not None)
    served = action in (Action.SERVE_TLS, Action.SERVE_PLAIN)
    yield f"connection  {paint(_CONNECTIONS[action], 'good' if served else 'bad')} (mode {mode})"
    if isinstance(outcome, ForwardedError):
        yield f"peer        {peer}: {_by(rule)}"
        yield f"refused     {paint(f'{outcome.status} {outcome.reason}', 'bad')}"
        yield f"            {outcome.message}"
        return
    width = max(len(hop.address) for hop in outcome.hops)
    source_width = max(len(hop.source) for hop in outcome.hops)
    for number, hop in enumerate(outcome.hops):
        label = "peer" if number == 0 else f"hop {number}"
        trusted = paint(_by(hop.trusted_by), "good" if hop.trusted_by else "warn")
        yield f"{label:<12}{hop.address:<{width}}  {hop.source:<{source_width}}  {trusted}"
    if outcome.unread:
        yield f"not read    {outcome.unread} further left in the chain: nobody vouches for what stands there"
    yield f"client      {paint(_client(outcome), 'strong')}"
    yield f"scheme      {paint(outcome.scheme, 'strong')}"
    yield f"host        {paint(outcome.host or '(none)', 'strong')}"
    if outcome.prefix:
        yield f"prefix      {paint(outcome.prefix, 'strong')}"
    yield f"verdict     {paint(outcome.verdict, 'strong')}: {_VERDICTS[outcome.verdict]}"
    believed = FAMILIES[policy.family] if rule is not None else frozenset()
    deleted = _deleted(headers, believed if policy.prefix else believed - {b"x-forwarded-prefix"})
    if deleted:
        yield f"deleted     {', '.join(deleted)}"


def _by(rule: str | None) -> str:
    return f"trusted by {rule}" if rule is not None else "not in trusted_proxies"


def _client(identity: Identity) -> str:
    if identity.client_ip is None:
        return f"unknown, called {identity.opaque} by the proxy" if identity.opaque else "unknown: a UNIX socket"
    return identity.client_ip if identity.client_port is None else f"{identity.client_ip} port {identity.client_port}"


def _deleted(headers: Sequence[tuple[bytes, bytes]], believed: frozenset[bytes]) -> list[str]:
    """The names of the header lines that the application never sees and that decided nothing, each once."""
    names = {
        name.decode(): None
        for name, _ in headers
        if b"_" in name or (name.lower() in FORWARDING and name.lower() not in believed)
    }
    return list(names)
