"""Who the client is: one decision per request, from the socket's other end and, if that is trusted, its headers.

Rules, in this order. Every one of them fails closed: a claim that cannot be read refuses the request, it is never
skipped and never replaced by the proxy's own address, which is a privileged one.

1. A header whose name holds ``_`` does not exist: CGI-style servers fold it onto its twin with ``-``.
2. ``Connection`` that nominates a forwarding header is refused: the next hop would drop what this one decided by.
3. An untrusted peer is the client; whatever it claims is deleted.
4. A trusted peer is believed in *one* family of headers; the other families are what a client may have smuggled
   through a proxy that only knows its own.
5. The chain is walked from the right, from the peer on, as long as the walker stands on a trusted address. What is
   left of the place where it stops was written by somebody nobody vouches for: it is not even parsed.

Nothing downstream looks at a forwarding header again. Reasons of refusals are contract: ``too_long``,
``too_many_hops``, ``malformed_node``, ``malformed_forwarded``, ``multiple_x_real_ip``, ``bad_proto``, ``bad_host``,
``bad_port``, ``bad_prefix``, ``ambiguous_proto``, ``ambiguous_host``, ``ambiguous_port``, ``missing_proto``,
``connection_nominates_forwarded``, ``forwarded_from_untrusted`` (all 400) and ``host_not_allowed`` (421).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from attrs import evolve, field, frozen

from mcptunnel.core.addresses import UNIX_PEER, Node, Trust, is_unix, parse_node, peer_address
from mcptunnel.core.errors import ForwardedError
from mcptunnel.core.hosts import authority, split_host
from mcptunnel.core.rfc7239 import parse_forwarded

__all__ = ["FAMILIES", "FORWARDING", "ForwardedPolicy", "Hop", "Identity", "Resolver", "strip"]

# Every header by which some software somewhere learns who the client is, in lower case.
FORWARDING: Final = frozenset(
    b"""
    forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-server
    x-forwarded-ssl x-forwarded-scheme x-forwarded-protocol x-forwarded-by x-forwarded-uri x-forwarded-method
    x-forwarded-client-cert x-forwarded-tls-client-cert x-forwarded-tls-client-cert-info x-real-ip x-client-ip
    x-cluster-client-ip true-client-ip cf-connecting-ip client-ip x-scheme x-url-scheme front-end-https x-original-for
    x-original-forwarded-for x-original-host x-original-url x-rewrite-url x-host
    """.split()
)

Family: TypeAlias = Literal["xff", "forwarded", "x-real-ip", "none"]
Verdict: TypeAlias = Literal["direct", "stripped", "trusted", "forwarded"]

# The headers that each family consists of.
FAMILIES: Final[Mapping[str, frozenset[bytes]]] = {
    "xff": frozenset(
        {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix"}
    ),
    "forwarded": frozenset({b"forwarded"}),
    "x-real-ip": frozenset({b"x-real-ip"}),
    "none": frozenset(),
}

# What the decision depends on, and so the key under which it is remembered.
_RELEVANT: Final = FORWARDING | {b"connection", b"host"}
_REMEMBERED: Final = 4096
# Longer keys are decided anew each time, so that nobody fills the memory with them: 4096 x 1 KiB is the most it takes.
_REMEMBERED_BYTES: Final = 1024

# Traefik sends ws and wss on upgrades.
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
# RFC 3986 §3.3 pchar without the comma, which separates list members.
_PREFIX: Final = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+;=:@]|%[0-9A-Fa-f]{2})+)+/?")

_Lines: TypeAlias = Mapping[bytes, Sequence[bytes]]


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
class Identity:
    """Who a request comes from, and how it addressed us.

    Attributes:
        client_ip: Canonical address; None when nobody vouches for one, which no allow-list may match.
        client_port: The client's port if a proxy told it.
        opaque: What the last trusted proxy calls a client whose address it keeps to itself.
        scheme: ``http`` or ``https``, as the client used it.
        host: ``name[:port]`` as the client named us, lower case, default port left out; empty if it named nothing.
        prefix: Path under which a trusted proxy shows us, without a final slash; empty for none.
        verdict: ``direct`` (untrusted peer, claimed nothing), ``stripped`` (untrusted peer, its claims deleted),
            ``trusted`` (trusted peer, claimed nothing), ``forwarded`` (the claims of a trusted peer hold).
        peer: Canonical address of the socket's other end, or ``unix:``.
        hops: From the peer to the client.
        unread: Entries further left in the chain, which nobody vouches for.
    """

    client_ip: str | None
    client_port: int | None = None
    opaque: str | None = None
    scheme: str
    host: str
    prefix: str = ""
    verdict: Verdict
    peer: str
    hops: tuple[Hop, ...] = ()
    unread: int = 0


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
class _Claims:
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


class Resolver:
    """Decides identities by one policy, and remembers the latest decisions."""

    def __init__(self, policy: ForwardedPolicy) -> None:
        self.policy: Final = policy
        self._known: OrderedDict[object, Identity] = OrderedDict()

    def resolve(self, peer: str, tls: bool, headers: Sequence[tuple[bytes, bytes]]) -> Identity:
        """Decide who sent a request.

        Args:
            peer: The socket's other end, or the source address of a PROXY header that it was trusted to send.
            tls: Whether the peer's TLS ends here.
            headers: All header lines in wire order, ``Host`` included, names in any case.

        Raises:
            ForwardedError: The request must be refused with the error's status.
        """
        lines = [(low, value) for name, value in headers if (low := name.lower()) in _RELEVANT]
        key = (peer, tls, *lines)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        identity = self._decide(peer, tls, lines)
        if sum(len(value) for _, value in lines) <= _REMEMBERED_BYTES:
            self._known[key] = identity
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return identity

    def _decide(self, peer: str, tls: bool, headers: Sequence[tuple[bytes, bytes]]) -> Identity:
        lines: dict[bytes, list[bytes]] = {}
        for header, value in headers:
            lines.setdefault(header, []).append(value)
        _refuse_nomination(lines.get(b"connection", ()))
        address = peer_address(peer)
        name = address or (UNIX_PEER if is_unix(peer) else peer)
        socket = Hop(name, self.policy.trust.matching(peer), "socket")
        direct = Identity(
            client_ip=address,
            scheme="https" if tls else "http",
            host="",
            verdict="trusted" if socket.trusted_by is not None else "direct",
            peer=name,
            hops=(socket,),
        )
        if socket.trusted_by is not None:
            return self._believe(direct, lines)
        if not lines.keys() & FORWARDING:
            return evolve(direct, host=_own_host(lines, direct.scheme))
        if self.policy.on_untrusted == "reject":
            raise _refusal(
                "forwarded_from_untrusted",
                f"{name} sends forwarding headers but is not in server.tls.trusted_proxies, "
                "and server.tls.forwarded.on_untrusted is 'reject'",
            )
        return evolve(direct, host=_own_host(lines, direct.scheme), verdict="stripped")

    def _believe(self, direct: Identity, lines: _Lines) -> Identity:
        """Apply what a trusted peer claims to what the socket says."""
        policy = self.policy
        claims = _READERS[policy.family](policy, direct, lines)
        if claims.proto is None and policy.proto_required and policy.family in ("xff", "forwarded"):
            raise _refusal("missing_proto", f"{direct.peer} does not say whether the client used http or https")
        scheme = claims.proto or direct.scheme
        host = _own_host(lines, scheme, claims.port) if claims.host is None else self._named_host(claims, scheme)
        client = claims.client or Node(address=direct.client_ip)
        return evolve(
            direct,
            client_ip=client.address,
            client_port=client.port,
            opaque=client.opaque,
            scheme=scheme,
            host=host,
            prefix=claims.prefix or "",
            verdict="forwarded" if claims else "trusted",
            hops=direct.hops + claims.hops,
            unread=claims.unread,
        )

    def _named_host(self, claims: _Claims, scheme: str) -> str:
        assert claims.host is not None
        host = _host(claims.host, scheme, claims.port)
        if self.policy.allowed_hosts is not None and not self.policy.allowed_hosts(host):
            raise ForwardedError(
                421,
                "host_not_allowed",
                f"the proxy names host {host!r}, which is neither in security.allowed_hosts nor server.public_url",
            )
        return host


def strip(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The header lines without every forwarding header and every name that holds ``_``."""
    return [line for line in headers if b"_" not in line[0] and line[0].lower() not in FORWARDING]


# -- one reader per family: header lines in, claims out ------------------------------------------------------------


def _read_none(policy: ForwardedPolicy, direct: Identity, lines: _Lines) -> _Claims:
    return _Claims()


def _read_xff(policy: ForwardedPolicy, direct: Identity, lines: _Lines) -> _Claims:
    chain = _list(policy, lines, b"x-forwarded-for")
    walked = _walk(policy, direct.hops[0], chain, "X-Forwarded-For", _xff_node)

    def select(header: bytes, kind: str, clean: Callable[[str], str]) -> str | None:
        """One value, or all equal, or as many as the chain has entries and then the one beside the client."""
        values = [clean(value) for value in _list(policy, lines, header)]
        if len(set(values)) <= 1:
            return values[0] if values else None
        if len(values) == len(chain):
            return values[walked.unread]
        raise _refusal(
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


def _read_forwarded(policy: ForwardedPolicy, direct: Identity, lines: _Lines) -> _Claims:
    try:
        elements = parse_forwarded(_text(policy, lines, b"forwarded"))
    except ValueError as error:
        raise _refusal("malformed_forwarded", f"Forwarded is not by RFC 7239: {error}") from None
    _bound(policy, b"forwarded", len(elements))
    walked = _walk(policy, direct.hops[0], [element.get("for") for element in elements], "Forwarded", _rfc7239_node)

    def nearest(parameter: str) -> str | None:
        """The client's own element, else the nearest to its right: a proxy nearer to us, on the same request."""
        return next((element[parameter] for element in elements[walked.unread :] if parameter in element), None)

    proto = nearest("proto")
    return evolve(walked, proto=None if proto is None else _scheme(proto), host=nearest("host"))


def _read_x_real_ip(policy: ForwardedPolicy, direct: Identity, lines: _Lines) -> _Claims:
    text = _text(policy, lines, b"x-real-ip").strip(" \t")
    if "," in text:
        raise _refusal("multiple_x_real_ip", "X-Real-IP has more than one value; a proxy has to replace it, not to add")
    return _walk(policy, direct.hops[0], [text] if text else [], "X-Real-IP", _xff_node)


_READERS: Final[Mapping[Family, Callable[[ForwardedPolicy, Identity, _Lines], _Claims]]] = {
    "xff": _read_xff,
    "forwarded": _read_forwarded,
    "x-real-ip": _read_x_real_ip,
    "none": _read_none,
}


def _walk(
    policy: ForwardedPolicy, peer: Hop, chain: Sequence[str | None], source: str, read: Callable[[str], Node]
) -> _Claims:
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
            raise _refusal("malformed_node", f"{source} has an entry that names nobody: {_clip(str(error))}") from None
        rule = policy.trust.matching(client.address) if client.address is not None else None
        hops.append(Hop(client.address or client.opaque or "", rule, source))
        if rule is None:
            break
    return _Claims(hops=tuple(hops), client=client, unread=left)


def _xff_node(text: str) -> Node:
    return parse_node(text)


def _rfc7239_node(text: str) -> Node:
    return parse_node(text, rfc7239=True)


# -- values --------------------------------------------------------------------------------------------------------


def _text(policy: ForwardedPolicy, lines: _Lines, header: bytes) -> str:
    """All lines of a header as one (RFC 9110 §5.3)."""
    joined = b",".join(lines.get(header, ()))
    if len(joined) > policy.max_bytes:
        raise _refusal(
            "too_long",
            f"{header.decode()} has {len(joined)} bytes, server.tls.forwarded.max_bytes allows {policy.max_bytes}",
        )
    return joined.decode("latin-1")


def _list(policy: ForwardedPolicy, lines: _Lines, header: bytes) -> list[str]:
    """The members of a list header; empty ones are ignored (RFC 9110 §5.6.1.2)."""
    members = [member for part in _text(policy, lines, header).split(",") if (member := part.strip(" \t"))]
    _bound(policy, header, len(members))
    return members


def _bound(policy: ForwardedPolicy, header: bytes, count: int) -> None:
    if count > policy.max_entries:
        raise _refusal(
            "too_many_hops",
            f"{header.decode()} has {count} entries, server.tls.forwarded.max_entries allows {policy.max_entries}",
        )


def _scheme(text: str) -> str:
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise _refusal("bad_proto", f"the proxy names scheme {_clip(repr(text))}; http, https, ws and wss are known")
    return scheme


def _port(text: str) -> str:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise _refusal("bad_port", f"the proxy names port {_clip(repr(text))}, which is not within 1 to 65535")
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
        raise _refusal("bad_prefix", f"X-Forwarded-Prefix {_clip(repr(','.join(values)))} is not one absolute path")
    return values[0].removesuffix("/")


def _own_host(lines: _Lines, scheme: str, port: str | None = None) -> str:
    values = lines.get(b"host", ())
    if len(values) > 1:
        # RFC 9112 §3.2: more than one Host is to be refused.
        raise _refusal("bad_host", f"the request has {len(values)} Host lines")
    text = values[0].decode("latin-1").strip(" \t") if values else ""
    return _host(text, scheme, port) if text else ""


def _host(text: str, scheme: str, port: str | None) -> str:
    """The normal ``name[:port]``. A port beside the name is what the client wrote; ``port`` only fills its absence."""
    try:
        name, own_port = split_host(text)
    except ValueError as error:
        raise _refusal("bad_host", f"the request names a host that is none: {_clip(str(error))}") from None
    if own_port is None and port is not None:
        own_port = int(port)
    return authority(name, own_port, scheme)


def _refuse_nomination(connection: Sequence[bytes]) -> None:
    # RFC 9110 §7.6.1: what Connection lists is for this hop only. CVE-2024-45410, CVE-2022-31813.
    for line in connection:
        for option in line.lower().split(b","):
            if option.strip(b" \t") in FORWARDING:
                raise _refusal(
                    "connection_nominates_forwarded",
                    f"Connection nominates {option.strip().decode()}, which would make the next hop drop it",
                )


def _refusal(reason: str, message: str) -> ForwardedError:
    return ForwardedError(400, reason, message)


def _clip(text: str) -> str:
    """Enough of a stranger's text to recognise it."""
    return text if len(text) <= 100 else f"{text[:97]}..."
