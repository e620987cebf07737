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

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import evolve, frozen

from mcptunnel.core.addresses import UNIX_PEER, Node, is_unix, peer_address
from mcptunnel.core.claims import READERS, Claims, ForwardedPolicy, Hop, Lines, clip, refusal
from mcptunnel.core.errors import ForwardedError
from mcptunnel.core.hosts import authority, split_host

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
            raise refusal(
                "forwarded_from_untrusted",
                f"{name} sends forwarding headers but is not in server.tls.trusted_proxies, "
                "and server.tls.forwarded.on_untrusted is 'reject'",
            )
        return evolve(direct, host=_own_host(lines, direct.scheme), verdict="stripped")

    def _believe(self, direct: Identity, lines: Lines) -> Identity:
        """Apply what a trusted peer claims to what the socket says."""
        policy = self.policy
        claims = READERS[policy.family](policy, direct.hops[0], lines)
        if claims.proto is None and policy.proto_required and policy.family in ("xff", "forwarded"):
            raise refusal("missing_proto", f"{direct.peer} does not say whether the client used http or https")
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

    def _named_host(self, claims: Claims, scheme: str) -> str:
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


def _own_host(lines: Lines, scheme: str, port: str | None = None) -> str:
    values = lines.get(b"host", ())
    if len(values) > 1:
        # RFC 9112 §3.2: more than one Host is to be refused.
        raise refusal("bad_host", f"the request has {len(values)} Host lines")
    text = values[0].decode("latin-1").strip(" \t") if values else ""
    return _host(text, scheme, port) if text else ""


def _host(text: str, scheme: str, port: str | None) -> str:
    """The normal ``name[:port]``. A port beside the name is what the client wrote; ``port`` only fills its absence."""
    try:
        name, own_port = split_host(text)
    except ValueError as error:
        raise refusal("bad_host", f"the request names a host that is none: {clip(str(error))}") from None
    if own_port is None and port is not None:
        own_port = int(port)
    return authority(name, own_port, scheme)


def _refuse_nomination(connection: Sequence[bytes]) -> None:
    # RFC 9110 §7.6.1: what Connection lists is for this hop only. CVE-2024-45410, CVE-2022-31813.
    for line in connection:
        for option in line.lower().split(b","):
            if option.strip(b" \t") in FORWARDING:
                raise refusal(
                    "connection_nominates_forwarded",
                    f"Connection nominates {option.strip().decode()}, which would make the next hop drop it",
                )
