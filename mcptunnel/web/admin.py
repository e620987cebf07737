"""The operator's side: who may ask there, the page for Prometheus, and reading files again.

It is never part of the public site: a listener of its own, on loopback or a UNIX socket.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mcptunnel.core.addresses import is_unix
from mcptunnel.core.errors import RequestError
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.principal import Principal
from mcptunnel.web.request import Request

__all__ = ["AdminGate", "MetricsResource", "ReloadResource"]

# What may be looked at without a token, where only this machine can.
_READ_ONLY: Final = frozenset({b"/metrics"})
_OPERATOR: Final = Principal(name="admin")

_encode: Final = msgspec.json.Encoder().encode


class AdminGate:
    """Admits requests of the operator, or refuses them by raising.

    On a UNIX socket the file's permissions have decided already.

    Args:
        hosts: What the listener may be called: a page in a browser could ask under a name of its own.
        digest: SHA-256 of ``admin.token``; None when there is none, and nothing may be changed over TCP.
        local: Only this machine reaches the listener, so that looking needs no token.
    """

    def __init__(self, hosts: HostPolicy, digest: bytes | None, *, local: bool) -> None:
        self._hosts: Final = hosts
        self._digest: Final = digest
        self._local: Final = local

    def __call__(self, request: Request) -> None:
        """Decide about ``request``.

        Raises:
            RequestError: 421, 403 or 401.
        """
        channel = request.channel
        if channel is None or not is_unix(channel.peer):
            self._check(request)
        request.principal = _OPERATOR
        request.record.principal = _OPERATOR.name

    def _check(self, request: Request) -> None:
        if not self._hosts.host_allowed(request.identity.host):
            raise RequestError(421, "host_not_allowed", "The admin listener is not called so; use admin.host.")
        if request.header(b"origin") is not None:
            raise RequestError(403, "origin_not_allowed", "The admin listener is not for pages in a browser.")
        if self._local and request.path in _READ_ONLY:
            return
        if self._digest is None:
            raise RequestError(
                403,
                "admin_token_needed",
                "Nothing can be changed here without a token: set admin.token_file, or admin.host: unix:/path.",
            )
        scheme, _, token = (request.header(b"authorization") or b"").partition(b" ")
        given = sha256(token.strip()).digest()
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given, self._digest):
            raise RequestError(
                401,
                "unauthenticated",
                "The token of the admin listener is needed (Authorization: Bearer …, see admin.token).",
                ((b"WWW-Authenticate", b"Bearer"),),
            )


class MetricsResource(Resource):
    """``GET /metrics``.

    Args:
        page: Makes the page.
        content_type: Of the page.
    """

    isLeaf = True

    def __init__(self, page: Callable[[], bytes], content_type: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._page: Final = page
        self._content_type: Final = content_type

    def render(self, request: Request) -> int:
        """Answer GET and HEAD."""
        if request.method not in (b"GET", b"HEAD"):
            raise RequestError(405, "method_not_allowed", "Only GET can be served here.", ((b"Allow", b"GET, HEAD"),))
        request.respond(200, self._content_type, self._page())
        return NOT_DONE_YET


class ReloadResource(Resource):
    """``POST /admin/reload``: read the files of certificates again, and say what came of it.

    Args:
        reload: Does it; what it gives is sent as JSON, with 200 when its ``taken`` is true and 422 when it is not.
    """

    isLeaf = True

    def __init__(self, reload: Callable[[], Deferred[dict[str, Any]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reload: Final = reload

    def render(self, request: Request) -> Any:
        """Answer POST."""
        if request.method != b"POST":
            raise RequestError(405, "method_not_allowed", "Only POST can be served here.", ((b"Allow", b"POST"),))

        def done(outcome: dict[str, Any]) -> Any:
            request.respond(200 if outcome["taken"] else 422, b"application/json", _encode(outcome))
            return NOT_DONE_YET

        return self._reload().addCallback(done)
