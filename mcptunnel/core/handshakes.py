"""Why TLS handshakes fail: one label for metrics, and what to do about it, from what OpenSSL says.

OpenSSL's words change between its releases, in part: they are looked at for what has stayed. What is in no row is
``other``, and is logged in OpenSSL's own words.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = ["CLOSED", "HINTS", "PLAIN_HTTP", "TIMEOUT", "UNKNOWN_NAME", "Cause", "explain"]

CLOSED: Final = "closed"
PLAIN_HTTP: Final = "plain_http"
TIMEOUT: Final = "timeout"
UNKNOWN_NAME: Final = "unknown_name"

# Label → hint. The first four groups are settings of ours, the client's certificate, ours, and nobody's fault.
HINTS: Final = {
    "no_shared_version": "it speaks no TLS version that we offer (server.tls.min_tls_version, server.tls.profile)",
    "no_shared_cipher": "it has no cipher suite, group or signature in common with us (server.tls.cipher_suites, "
    "server.tls.groups, and the kind of our key)",
    "no_shared_protocol": "it asks in ALPN for protocols that are not spoken here; HTTP/1.1 is",
    UNKNOWN_NAME: "it asks for a name that no certificate has (server.tls.unknown_name: refuse)",
    "client_certificate_missing": "it shows no certificate, and server.tls.client_auth is required",
    "client_certificate_expired": "its certificate has expired, or is not valid yet",
    "client_certificate_revoked": "its certificate is on the revocation list (server.tls.crl_file)",
    "client_certificate_unknown_ca": "its certificate does not chain to an authority in server.tls.ca_file",
    "client_certificate_refused": "its certificate cannot be accepted",
    "unknown_ca": "it does not know the authority of our certificate: the chain in server.tls.cert_file is incomplete, "
    "or the client lacks the authority",
    "server_certificate_refused": "it refuses our certificate: expired, not for the name it asks for, or not trusted",
    PLAIN_HTTP: "it speaks plain HTTP where only TLS is spoken: it was told so; a second port for http is "
    "server.tls.redirect_http",
    "protocol_error": "what it sends is no proper TLS",
    CLOSED: "it closed the connection before the handshake was complete",
    TIMEOUT: "the handshake took longer than server.limits.handshake_timeout",
    "other": "for a reason of its own",
}

# X509_V_ERR_… of x509_vfy.h.
_VERIFY: Final = {
    2: "client_certificate_unknown_ca",
    9: "client_certificate_expired",
    10: "client_certificate_expired",
    18: "client_certificate_unknown_ca",
    19: "client_certificate_unknown_ca",
    20: "client_certificate_unknown_ca",
    21: "client_certificate_unknown_ca",
    23: "client_certificate_revoked",
}

# Part of OpenSSL's reason → label. The first row that fits counts; an "alert" is the client's word.
_REASONS: Final = (
    ("unsupported protocol", "no_shared_version"),
    ("version too low", "no_shared_version"),
    ("alert protocol version", "no_shared_version"),
    ("no shared cipher", "no_shared_cipher"),
    ("no suitable", "no_shared_cipher"),
    ("no shared", "no_shared_cipher"),
    ("no application protocol", "no_shared_protocol"),
    ("did not return a certificate", "client_certificate_missing"),
    ("alert unknown ca", "unknown_ca"),
    ("alert bad certificate", "server_certificate_refused"),
    ("alert certificate", "server_certificate_refused"),
    ("alert unsupported certificate", "server_certificate_refused"),
    ("unexpected eof", CLOSED),
    ("connection was closed", CLOSED),
    ("connection to the other side was lost", CLOSED),
    ("wrong version number", "protocol_error"),
    ("record", "protocol_error"),
    ("unexpected message", "protocol_error"),
    ("decode error", "protocol_error"),
    ("length", "protocol_error"),
    ("bad ", "protocol_error"),
)


@frozen
class Cause:
    """Why a handshake failed.

    Attributes:
        label: One of :data:`HINTS`.
        hint: In a sentence, with the setting that decides; OpenSSL's words where there is no better.
    """

    label: str
    hint: str


def explain(reason: str, verify_error: int | None = None) -> Cause:
    """The cause behind OpenSSL's ``reason``.

    Args:
        reason: Its words, or those of the transport's error.
        verify_error: An ``X509_V_ERR`` where the client's certificate was refused; None where it was not.
    """
    if verify_error is not None:
        label = _VERIFY.get(verify_error, "client_certificate_refused")
        return Cause(label, f"{HINTS[label]} ({reason})" if label == "client_certificate_refused" else HINTS[label])
    said = reason.lower()
    label = next((label for part, label in _REASONS if part in said), "other")
    return Cause(label, f"{HINTS[label]} ({reason})" if label in ("protocol_error", "other") else HINTS[label])
