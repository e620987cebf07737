"""What a plaintext request gets that must not reach the application: a redirect to https, or the reason why not.

A redirect is only ever sent where nothing secret can have been in the request. A redirected POST or bearer token would
work, and thereby hide from everybody that it crosses the network in the clear at every call; refusing shows the leak
on its first day. The redirect's host is one that the configuration names, never one that merely stood in ``Host``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from attrs import field, frozen

from mcptunnel.core.addresses import peer_address
from mcptunnel.core.errors import RequestError
from mcptunnel.core.hosts import HostPolicy, authority, split_host

__all__ = [
    "Decide",
    "Decision",
    "HttpsPolicy",
    "PlainRequest",
    "Redirect",
    "behind_proxy",
    "origin_path",
    "require_https",
    "tls_only",
]

# Headers whose presence means that a secret crossed the network in the clear.
_CREDENTIALS: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"mcp-session-id", b"x-api-key"})
# RFC 6750 §2.3: a bearer token may also travel in the query.
_QUERY_CREDENTIAL: Final = b"access_token="
# Neither dot segments nor percent-encoding: nothing that could be read as another path.
_HEALTH: Final = re.compile(rb"/health(?:/[a-z]+)?")


@frozen(kw_only=True)
class PlainRequest:
    """The head of a plaintext request, as far as the decision needs it.

    Attributes:
        method: As sent.
        target: Request target as sent.
        host: Value of the Host header, empty when there is none.
        headers: Names of all header lines, lower case.
        peer: Address of the peer (after a believed PROXY header), ``unix:`` on a UNIX socket.
        scheme: ``https`` if a listed proxy has said that its client came so.
    """

    method: bytes
    target: bytes
    host: bytes = b""
    headers: frozenset[bytes] = frozenset()
    peer: str = ""
    scheme: str = "http"

    @property
    def credential(self) -> bool:
        """Whether something came along that the network should not have seen."""
        return bool(self.headers & _CREDENTIALS) or _QUERY_CREDENTIAL in self.target.lower()


@frozen(kw_only=True)
class Redirect:
    """Send the client to ``location`` with 308, which keeps the method (RFC 9110 §15.4.9)."""

    location: bytes


# None: let it pass to the resource tree after all.
Decision = Redirect | RequestError | None

Decide = Callable[[PlainRequest], Decision]


@frozen(kw_only=True)
class HttpsPolicy:
    """Where https is served.

    Attributes:
        public: ``host`` or ``host:port`` of an https ``server.public_url``, or None.
        hosts: The names we have. Only those that are written down count here, not "any host" and "any address".
        port: Asked for the port that speaks TLS, or None while it has none; itself None where that is the very port
            that the request came to.
    """

    public: str | None = None
    hosts: HostPolicy = field(factory=HostPolicy)
    port: Callable[[], int | None] | None = None

    @classmethod
    def from_config(
        cls, public_url: str | None, hosts: HostPolicy, port: Callable[[], int | None] | None = None
    ) -> HttpsPolicy:
        """From ``server.public_url`` and the policy that ``security.allowed_hosts`` led to.

        Raises:
            ValueError: The URL's host is not one.
        """
        parts = urlsplit(public_url or "")
        public = authority(*split_host(parts.netloc), "https") if parts.scheme == "https" else None
        return cls(public=public, hosts=hosts, port=port)

    def authority(self, host: bytes) -> str | None:
        """The authority of the https URL for a client who asked for ``host``, or None if none is configured.

        Where this very port speaks TLS too, a name of ours keeps the port the client used. Where another one does, the
        public URL knows best what clients call it.
        """
        if self.port is not None and self.public is not None:
            return self.public
        try:
            name, port = split_host(host.decode("ascii"))
        except ValueError:
            return self.public
        if self.port is not None:
            port = self.port()
            ours = port is not None and any(name == known for known, _ in self.hosts.hosts)
        else:
            ours = (name, port) in self.hosts.hosts or (name, None) in self.hosts.hosts
        return authority(name, port, "https") if ours else self.public

    def hint(self) -> str:
        """Where https is spoken, if no name can be given."""
        port = None if self.port is None else self.port()
        if port is not None:
            return f"use https on port {port}"
        return "use https on this same port" if self.port is None else "use https"


def require_https(policy: HttpsPolicy) -> Decide:
    """308 for GET and HEAD without credentials, 403 for everything else.

    For untrusted plaintext in mode ``auto``, and for everything on the port of ``server.tls.redirect_http``.
    """

    def decide(request: PlainRequest) -> Decision:
        if request.scheme == "https":
            # A redirect would come back here, and so on without end.
            return RequestError(
                403, "wrong_port", f"a proxy brings its https clients to the port for http; let it {policy.hint()}"
            )
        place = policy.authority(request.host)
        path = origin_path(request.target)
        harmless = request.method in (b"GET", b"HEAD") and not request.credential
        if harmless and place is not None and path is not None:
            return Redirect(location=b"https://" + place.encode("ascii") + path)
        where = (path or b"/").partition(b"?")[0].decode("ascii")
        use = f"use https://{place}{where}" if place is not None else policy.hint()
        if harmless:
            return RequestError(403, "https_required", f"plaintext is not served to this peer; {use}")
        return RequestError(
            403,
            "https_required",
            f"this request came in plaintext and any credential in it was readable on its way; {use}",
        )

    return decide


def behind_proxy(loopback_health: bool) -> Decide:
    """Mode ``behind_proxy``, a peer that is not a listed proxy: 403.

    Args:
        loopback_health: Let ``GET /health…`` pass when the peer is on loopback (``server.tls.loopback_health``).
    """

    def decide(request: PlainRequest) -> Decision:
        path = request.target.partition(b"?")[0]
        if (
            loopback_health
            and _HEALTH.fullmatch(path)
            and request.method in (b"GET", b"HEAD")
            and _is_loopback(request.peer)
        ):
            return None
        return RequestError(
            403,
            "untrusted_peer",
            f"{request.peer} is not in server.tls.trusted_proxies, and mode behind_proxy serves listed proxies only",
        )

    return decide


def tls_only(request: PlainRequest) -> Decision:
    """Mode ``application``: a readable 400, as other servers give it."""
    return RequestError(400, "tls_required", "this port speaks TLS only (server.tls.mode application); use https://")


def _is_loopback(peer: str) -> bool:
    address = peer_address(peer)
    return address is not None and ip_address(address).is_loopback


def origin_path(target: bytes) -> bytes | None:
    """Path and query of a request target, or None where there is none that may be repeated in a header."""
    if not target.startswith(b"/"):
        # RFC 9112 §3.2.2: the absolute form; its authority is the client's claim and is not repeated.
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            return None
        slash = rest.find(b"/")
        target = rest[slash:] if slash >= 0 else b"/"
    return target if all(0x21 <= byte <= 0x7E for byte in target) else None
