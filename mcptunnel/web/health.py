"""``/health/live``, ``/health/ready`` and ``/health``.

The first two answer anybody, in one word: they are for probes. The third tells details to whoever may use the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mcptunnel.core.errors import RequestError
from mcptunnel.web.request import Request

__all__ = ["Health"]

_encode: Final = msgspec.json.Encoder().encode


class Health(Resource):
    """One health address.

    Args:
        status: Reasons why the daemon should get no traffic; none when it is well.
        details: What else to tell a caller that the gate knows; None for an address that tells nothing else.
    """

    isLeaf = True

    def __init__(self, status: Callable[[], list[str]], details: Callable[[], Mapping[str, Any]] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._status: Final = status
        self._details: Final = details

    def render(self, request: Request) -> int:
        """Answer GET and HEAD: 200 when all is well, 503 when not."""
        if request.method not in (b"GET", b"HEAD"):
            raise RequestError(405, "method_not_allowed", "Only GET can be served here.", ((b"Allow", b"GET, HEAD"),))
        reasons = self._status()
        body: dict[str, Any] = {"status": "unavailable" if reasons else "ok"}
        if reasons:
            body["reasons"] = reasons
        if self._details is not None and request.record.principal is not None:
            body.update(self._details())
        request.respond(503 if reasons else 200, b"application/json", _encode(body))
        return NOT_DONE_YET
