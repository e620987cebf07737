"""What the headers of a trusted peer claim: one reader for each family, lines in, claims out.

The readers select and bound; whether a claim holds is for :mod:`mcptunnel.core.forwarded`, which documents the rules
and the reasons of refusals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from attrs import evolve, field, frozen

from mcptunnel.core.addresses import Node, Trust, parse_node
from mcptunnel.core.errors import ForwardedError
from mcptunnel.core.rfc7239 import parse_forwarded

__all__ = ["READERS", "Claims", "Family", "ForwardedPolicy", "Hop", "Lines", "clip", "refusal"]

Family: TypeAlias = Literal["xff", "forwarded", "x-real-ip", "none"]
# Values of each header in wire order, names in lower case.
Lines: TypeAlias = Mapping[bytes, Sequence[bytes]]

# Traefik sends ws and wss on upgrades.
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
# RFC 3986 §3.3 pchar without the comma, which separates list members.
_PREFIX: Final = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+;=:@]|%[0-9A-Fa-f]{2})+)+/?")


@frozen
class Hop:
    """One party between us and the client, the client included.

    Attributes:
        address: Canonical address, ``unix:``, or an opaque identifier.
        trusted_by: The rule in ``trusted_proxies`` that holds it; None for one that is not trusted.
        source: Who says so: ``socket``, ``PROXY``, or the header's name.
    """

    address: str
    trusted_by: str | None
    source: str


@frozen(kw_only=True)
class ForwardedPolicy:
    """What the decision goes by; ``server.tls.trusted_proxies`` and ``server.tls.forwarded``.

    Attributes:
        trust: The peers that are believed.
        family: The one family in which they are.
        allowed_hosts: Judges a host that a proxy names; None allows any.
        max_entries: Longest list that is read, empty members not counted.
        max_bytes: Longest header that is read, all its lines together.
        prefix: Believe ``X-Forwarded-Prefix``.
        on_untrusted: What becomes of claims of an untrusted peer: they are deleted, or the request is refused.
        proto_required: Refuse a trusted peer that does not say which scheme the client used.
    """

    trust: Trust = field(factory=Trust)
    family: Family = "xff"
    allowed_hosts: Callable[[str], bool] | None = None
    max_entries: int = 32
    max_bytes: int = 4096
    prefix: bool = False
    on_untrusted: Literal["strip", "reject"] = "strip"
    proto_required: bool = False


@frozen(kw_only=True)
class Claims:
    """What a trusted peer's headers say, already selected but not yet judged. None stands for nothing said."""

    hops: tuple[Hop, ...] = ()
    client: Node | None = None
    unread: int = 0
    proto: str | None = None
    host: str | None = None
    port: str | None = None
    prefix: str | None = None

    def __bool__(self) -> bool:
        return any(claim is not None for claim in (self.client, self.proto, self.host, self.port, self.prefix))


# -- one reader per family: header lines in, claims out ------------------------------------------------------------


def _read_none(policy: ForwardedPolicy, peer: Hop, lines: Lines) -> Claims:
    return Claims()


def _read_xff(policy: ForwardedPolicy, peer: Hop, lines: Lines) -> Claims:
    chain = _list(policy, lines, b"x-forwarded-for")
    walked = _walk(policy, peer, chain, "X-Forwarded-For", _xff_node)

    def select(header: bytes, kind: str, clean: Callable[[str], str]) -> str | None:
        """One value, or all equal, or as many as the chain has entries and then the one beside the client."""
        values = [clean(value) for value in _list(policy, lines, header)]
        if len(set(values)) <= 1:
            return values[0] if values else None
        if len(values) == len(chain):
            return values[walked.unread]
        raise refusal(
            f"ambiguous_{kind}",
            f"{header.decode()} has {len(values)} different values for a chain of {len(chain)} entries",
        )

    return evolve(
        walked,
        proto=select(b"x-forwarded-proto", "proto", _scheme),
        host=select(b"x-forwarded-host", "host", str.lower),
        port=select(b"x-forwarded-port", "port", _port),
        prefix=_prefix(_list(policy, lines, b"x-forwarded-prefix")) if policy.prefix else None,
    )


def _read_forwarded(policy: ForwardedPolicy, peer: Hop, lines: Lines) -> Claims:
    try:
        elements = parse_forwarded(_text(policy, lines, b"forwarded"))
    except ValueError as error:
        raise refusal("malformed_forwarded", f"Forwarded is not by RFC 7239: {error}") from None
    _bound(policy, b"forwarded", len(elements))
    walked = _walk(policy, peer, [element.get("for") for element in elements], "Forwarded", _rfc7239_node)

    def nearest(parameter: str) -> str | None:
        """The client's own element, else the nearest to its right: a proxy nearer to us, on the same request."""
        return next((element[parameter] for element in elements[walked.unread :] if parameter in element), None)

    proto = nearest("proto")
    return evolve(walked, proto=None if proto is None else _scheme(proto), host=nearest("host"))


def _read_x_real_ip(policy: ForwardedPolicy, peer: Hop, lines: Lines) -> Claims:
    text = _text(policy, lines, b"x-real-ip").strip(" \t")
    if "," in text:
        raise refusal("multiple_x_real_ip", "X-Real-IP has more than one value; a proxy has to replace it, not to add")
    return _walk(policy, peer, [text] if text else [], "X-Real-IP", _xff_node)


READERS: Final[Mapping[Family, Callable[[ForwardedPolicy, Hop, Lines], Claims]]] = {
    "xff": _read_xff,
    "forwarded": _read_forwarded,
    "x-real-ip": _read_x_real_ip,
    "none": _read_none,
}


def _walk(
    policy: ForwardedPolicy, peer: Hop, chain: Sequence[str | None], source: str, read: Callable[[str], Node]
) -> Claims:
    """Go from the trusted ``peer`` to the left until somebody untrusted, unnamed, or the end of the chain.

    None in ``chain`` is a proxy that says nothing of whom it serves (RFC 7239 §5.2 makes ``for`` optional): then it
    stands as the client itself, and nothing left of it counts.
    """
    hops: list[Hop] = []
    client = None
    left = len(chain)
    while left:
        left -= 1
        entry = chain[left]
        if entry is None:
            break
        try:
            client = read(entry)
        except ValueError as error:
            raise refusal("malformed_node", f"{source} has an entry that names nobody: {clip(str(error))}") from None
        rule = policy.trust.matching(client.address) if client.address is not None else None
        hops.append(Hop(client.address or client.opaque or "", rule, source))
        if rule is None:
            break
    return Claims(hops=tuple(hops), client=client, unread=left)


def _xff_node(text: str) -> Node:
    return parse_node(text)


def _rfc7239_node(text: str) -> Node:
    return parse_node(text, rfc7239=True)


# -- values --------------------------------------------------------------------------------------------------------


def _text(policy: ForwardedPolicy, lines: Lines, header: bytes) -> str:
    """All lines of a header as one (RFC 9110 §5.3)."""
    joined = b",".join(lines.get(header, ()))
    if len(joined) > policy.max_bytes:
        raise refusal(
            "too_long",
            f"{header.decode()} has {len(joined)} bytes, server.tls.forwarded.max_bytes allows {policy.max_bytes}",
        )
    return joined.decode("latin-1")


def _list(policy: ForwardedPolicy, lines: Lines, header: bytes) -> list[str]:
    """The members of a list header; empty ones are ignored (RFC 9110 §5.6.1.2)."""
    members = [member for part in _text(policy, lines, header).split(",") if (member := part.strip(" \t"))]
    _bound(policy, header, len(members))
    return members


def _bound(policy: ForwardedPolicy, header: bytes, count: int) -> None:
    if count > policy.max_entries:
        raise refusal(
            "too_many_hops",
            f"{header.decode()} has {count} entries, server.tls.forwarded.max_entries allows {policy.max_entries}",
        )


def _scheme(text: str) -> str:
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise refusal("bad_proto", f"the proxy names scheme {clip(repr(text))}; http, https, ws and wss are known")
    return scheme


def _port(text: str) -> str:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise refusal("bad_port", f"the proxy names port {clip(repr(text))}, which is not within 1 to 65535")
    return text


def _prefix(values: Sequence[str]) -> str | None:
    if not values:
        return None
    # unquote, because the next reader may: an encoded dot or slash is one after all.
    segments = [unquote(segment) for segment in values[0].split("/")]
    if (
        len(values) > 1
        or not _PREFIX.fullmatch(values[0])
        or any(segment in (".", "..") or "/" in segment or "\\" in segment for segment in segments)
    ):
        raise refusal("bad_prefix", f"X-Forwarded-Prefix {clip(repr(','.join(values)))} is not one absolute path")
    return values[0].removesuffix("/")


def refusal(reason: str, message: str) -> ForwardedError:
    return ForwardedError(400, reason, message)


def clip(text: str) -> str:
    """Enough of a stranger's text to recognise it."""
    return text if len(text) <= 100 else f"{text[:97]}..."
