"""The gate in front of every resource: which host, which page, which credential. Decided once, before the body.

WebSocket handshakes are requests and pass here too, before their 101.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mcptunnel.core.acme import challenged
from mcptunnel.core.errors import RequestError
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.principal import ANONYMOUS, Keyring, Principal
from mcptunnel.web.request import Request

__all__ = ["Gate"]

# What probes may ask without a credential and under any name: they say up or down, nothing else.
_PROBES: Final = frozenset({b"/health", b"/health/live", b"/health/ready"})


class Gate:
    """Admits requests, or refuses them by raising.

    Args:
        hosts: The host and origin policy.
        keyring: Static bearer tokens.
        anonymous: Whether a request without a credential is let in.
        challenges: Whether answers to ACME challenges are served, which anybody may ask for under any name.
    """

    def __init__(self, hosts: HostPolicy, keyring: Keyring, *, anonymous: bool, challenges: bool = False) -> None:
        self._hosts: Final = hosts
        self._keyring: Final = keyring
        self._anonymous: Final = anonymous
        self._challenges: Final = challenges
        # Nearly all requests name one of a few hosts; the bound keeps strangers from filling memory with others.
        self._admits: Final = lru_cache(256)(lambda host, tls, vouched: hosts.admits(host, tls=tls, vouched=vouched))

    def __call__(self, request: Request) -> None:
        """Decide about ``request`` and write down who asks.

        Raises:
            RequestError: 421, 403 or 401.
        """
        if self._challenges and challenged(request.method, request.path):
            return
        if request.path not in _PROBES:
            self._check_host(request)
            self._authenticate(request)
        elif self._anonymous or request.header(b"authorization") is not None or _certified(request) is not None:
            self._authenticate(request)

    def _check_host(self, request: Request) -> None:
        identity = request.identity
        tls = identity.scheme == "https" and identity.verdict in ("direct", "stripped")
        vouched = identity.verdict in ("trusted", "forwarded")
        if not self._admits(identity.host, tls, vouched):
            raise RequestError(
                421,
                "host_not_allowed",
                f"The host {identity.host[:80]!r} is not one of ours. Set server.public_url or security.allowed_hosts.",
            )
        origin = request.header(b"origin")
        if origin is None:
            return
        text = origin.decode("latin-1")
        # A page of ours may call us; but a name that only a proxy's peer vouches for may be an attacker's own.
        ours = tls or self._hosts.host_allowed(identity.host)
        if not self._hosts.origin_allowed(text, f"{identity.scheme}://{identity.host}" if ours else None):
            raise RequestError(
                403,
                "origin_not_allowed",
                f"Pages of {text[:80]!r} may not call us. Set security.allowed_origins or server.public_url.",
            )

    def _authenticate(self, request: Request) -> None:
        credential = request.header(b"authorization")
        if credential is None:
            certified = _certified(request)
            if certified is None and not self._anonymous:
                raise _unauthorized("a bearer token is needed", b"Bearer")
            request.principal = certified or ANONYMOUS
        else:
            request.record.credential = True
            scheme, _, token = credential.partition(b" ")
            principal = self._keyring.find(token.strip()) if scheme.lower() == b"bearer" else None
            if principal is None:
                # RFC 6750 §3.1. A wrong credential is never taken for none.
                raise _unauthorized("the credential is not valid", b'Bearer error="invalid_token"')
            request.principal = principal
        request.record.principal = request.principal.name


def _certified(request: Request) -> Principal | None:
    """Whom the certificate of the connection stands for.

    Through a trusted proxy that speaks TLS to us, the certificate is the proxy's own and says nothing of the client.
    """
    channel = request.channel
    if channel is None or request.identity.verdict not in ("direct", "stripped"):
        return None
    return channel.certified


def _unauthorized(why: str, challenge: bytes) -> RequestError:
    return RequestError(
        401,
        "unauthenticated",
        f"Not authenticated: {why} (Authorization: Bearer …, see auth.tokens).",
        ((b"WWW-Authenticate", challenge),),
    )
