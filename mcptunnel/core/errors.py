"""Every error the daemon raises on purpose, and the one place that maps it to HTTP and JSON-RPC.

    TunnelError
    ├── ConfigError                 a configuration that is refused, with all its findings
    ├── CertificateError            a certificate or key that may not be served
    ├── UnseenError                 certificates that could not be looked at; nothing is known against them
    ├── DeliveryError               an alert that its target did not take
    ├── ListenError                 an address that cannot be listened on
    └── RequestError                a request that is refused; carries the HTTP status and a reason label
        ├── ForwardedError       forwarded headers that cannot be believed (400, 421)
        └── RpcError                refused after it was understood as JSON-RPC; carries the JSON-RPC code
            └── UpstreamError       the server behind us is down, slow or lying

A message says what was seen, why it was refused, and which setting decides it. It never holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

__all__ = [
    "HEADER_MISMATCH",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "MISSING_CAPABILITY",
    "PARSE_ERROR",
    "SESSION_NOT_FOUND",
    "UNSUPPORTED_VERSION",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_UNAVAILABLE",
    "CertificateError",
    "ConfigError",
    "DeliveryError",
    "Finding",
    "ForwardedError",
    "ListenError",
    "RequestError",
    "RpcError",
    "TunnelError",
    "UnseenError",
    "UpstreamError",
    "modern_status",
    "problem",
]

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
# MCP 2026-07-28, "Error codes": -32020..-32099 belong to the specification.
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
# -32000..-32019 are free for implementations; nothing may be concluded from them by a client.
SESSION_NOT_FOUND: Final = -32001
UPSTREAM_UNAVAILABLE: Final = -32010
UPSTREAM_TIMEOUT: Final = -32011

# MCP 2026-07-28, Streamable HTTP: the status that goes with a JSON-RPC error code; codes not listed go with 200.
_MODERN_STATUS: Final[Mapping[int, int]] = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}


class TunnelError(Exception):
    """Root of everything raised on purpose."""


@frozen(kw_only=True)
class Finding:
    """One thing wrong with a configuration.

    Attributes:
        file: The file's name as the operator gave it.
        line: 1-based line, or None where no line exists (a missing file).
        key: Dotted key path such as ``server.tls.mode`` or ``mcpServers.time.args[0]``; empty for the whole file.
        message: What was seen, what is expected, how to fix it.
    """

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(TunnelError):
    """The configuration is refused. ``findings`` holds every reason, in file order; ``str()`` is one per line."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings: Final = tuple(findings)
        super().__init__("\n".join(map(str, self.findings)))


class CertificateError(TunnelError):
    """A certificate, key or CA file may not be used. The message names the file and the reason."""


class UnseenError(TunnelError):
    """Certificates could not be looked at, such as those of a server that is not there. The message says why."""


class DeliveryError(TunnelError):
    """The target of an alert did not take it. The message says why."""


class ListenError(TunnelError):
    """An address cannot be listened on. The message names it and the reason."""


class RequestError(TunnelError):
    """A request is refused.

    Attributes:
        status: HTTP status that says so.
        reason: Short ``snake_case`` label for logs and metrics, and the ``reason`` member of the JSON body.
        headers: Response headers that the status calls for (``Allow``, ``WWW-Authenticate``, ``Retry-After``).
    """

    def __init__(self, status: int, reason: str, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status: Final = status
        self.reason: Final = reason
        self.message: Final = message
        self.headers: Final = tuple(headers)


class ForwardedError(RequestError):
    """Forwarded headers of a trusted peer that cannot be believed: 400, or 421 for a host we do not serve."""


class RpcError(RequestError):
    """A JSON-RPC request is refused.

    Attributes:
        code: JSON-RPC error code.
        data: The ``data`` member, or None for none.
        legacy_status: HTTP status in the legacy era, where a JSON-RPC error is a 200 unless it says otherwise.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "rpc_error",
        status: int | None = None,
        data: Any = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(modern_status(code) if status is None else status, reason, message, headers)
        self.code: Final = code
        self.data: Final = data
        self.legacy_status: Final = 200 if status is None else status


class UpstreamError(RpcError):
    """A server behind us did not do its part. The message names the server."""


def modern_status(code: int) -> int:
    """The HTTP status that goes with JSON-RPC error ``code`` in the modern era (MCP 2026-07-28)."""
    return _MODERN_STATUS.get(code, 200)


def problem(error: RequestError) -> dict[str, Any]:
    """The JSON body of a refusal outside JSON-RPC, in the members of RFC 9457 plus ``reason``."""
    return {"type": "about:blank", "status": error.status, "reason": error.reason, "detail": error.message}
