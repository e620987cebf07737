"""One certificate and one policy become one OpenSSL context. Nothing else in the daemon builds a server context.

A context is built fresh for every generation of certificates and never changed afterwards: pyOpenSSL refuses that as
soon as the first connection has used it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, cast

from OpenSSL import SSL, crypto

from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.material import Material
from mcptunnel.tls.policy import Policy

__all__ = ["build", "cause", "rehearse", "resumed", "set_groups", "verify_error"]

# Compression leaks secrets by length (CRIME).
_OPTIONS: Final = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
# Mozilla leaves the choice of a suite to clients: those without AES in their hardware want ChaCha20. So it is with TLS
# 1.3 alone. Where TLS 1.2 is offered too, auditors ask for the order of the server: then ours counts, but a client that
# names ChaCha20 first gets it. pyOpenSSL has no name for SSL_OP_PRIORITIZE_CHACHA.
_ORDER: Final = SSL.OP_CIPHER_SERVER_PREFERENCE | 1 << 21
# RFC 8446 §4.6.1 permits a week; the keys of tickets do not live that long either.
_SESSION_SECONDS: Final = 7200

_VERIFY: Final = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


def build(material: Material, policy: Policy, resumable: str | None = None) -> SSL.Context:
    """A server context that presents ``material`` under ``policy``.

    Args:
        material: Certificate and key.
        policy: What holds for the listener.
        resumable: The only name under which sessions may be resumed. Tickets are sealed with keys that this context has
            made for itself, so that they open nowhere else: resumed under another name, a session would pass by what
            is asked of that one (CVE-2025-23419). None for no resumption.

    Raises:
        CertificateError: OpenSSL does not take the certificate, the key or the suites.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION if policy.offers_tls12 else SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION if policy.offers_tls13 else SSL.TLS1_2_VERSION)
    context.set_options(
        _OPTIONS | (_ORDER if policy.offers_tls12 else 0) | (0 if resumable is not None else SSL.OP_NO_TICKET)
    )
    # An idle connection gives its two record buffers back: tens of KiB for each of many thousand open streams.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets and has no name for: a write would end after one record, while
    # the memory that we write to is never full.
    context.clear_mode(1)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_timeout(_SESSION_SECONDS)
    context.set_session_id(sha256((resumable or "").encode()).digest())
    try:
        if policy.offers_tls12:
            context.set_cipher_list(":".join(policy.suites.tls12).encode("ascii"))
        if policy.offers_tls13:
            context.set_tls13_ciphersuites(":".join(policy.suites.tls13).encode("ascii"))
        context.use_certificate(material.chain[0])
        for certificate in material.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(material.key)
        context.check_privatekey()
    except SSL.Error as error:
        raise CertificateError(f"{material.file}: OpenSSL refuses it: {cause(error)}") from error
    if not set_groups(context, policy.groups):
        raise CertificateError(
            f"this OpenSSL knows none of the groups {', '.join(policy.groups)}; set server.tls.groups"
        )
    context.set_alpn_select_callback(_select(policy.alpn))
    _ask_for_client_certificate(context, policy)
    return context


def set_groups(context: SSL.Context, groups: Sequence[str]) -> bool:
    """Offer these key exchange groups only. It reaches below pyOpenSSL, which has no API for it.

    Groups that this OpenSSL lacks (X25519MLKEM768 before 3.5) are left out.

    Returns:
        False when nothing could be set, and the library's own list holds.
    """
    library = cast(Any, SSL)._lib
    setter: Any = getattr(library, "SSL_CTX_set1_curves_list", None)

    def set_to(names: Sequence[str]) -> bool:
        done: bool = setter(cast(Any, context)._context, ":".join(names).encode("ascii")) == 1
        if not done:
            library.ERR_clear_error()
        return done

    if setter is None or not groups:
        return False
    if set_to(groups):
        return True
    known = [name for name in groups if set_to([name])]
    return bool(known) and set_to(known)


def resumed(connection: SSL.Connection) -> bool:
    """Whether the handshake resumed a session; below pyOpenSSL as well."""
    library = cast(Any, SSL)._lib
    return bool(library.SSL_session_reused(cast(Any, connection)._ssl))


def rehearse(context: SSL.Context, material: Material, policy: Policy) -> None:
    """Shake hands with ourselves in memory, once per version: what no client can use is found before clients find it.

    Raises:
        CertificateError: A handshake fails, such as when no configured suite goes with the kind of key.
    """
    versions = {
        "TLS 1.2": (policy.offers_tls12, SSL.TLS1_2_VERSION),
        "TLS 1.3": (policy.offers_tls13, SSL.TLS1_3_VERSION),
    }
    for name, (offered, version) in versions.items():
        if not offered:
            continue
        try:
            complete = _handshake(context, version)
            why = "it does not come to an end"
        except SSL.Error as error:
            complete, why = False, cause(error)
        if not complete:
            raise CertificateError(
                f"{material.file}: no {name} handshake is possible with this certificate and server.tls.cipher_suites: "
                f"{why}; name a suite that goes with its {material.kind} key, or leave {name} out"
            )


def verify_error(connection: SSL.Connection) -> int | None:
    """Why the other side's certificate was refused, an ``X509_V_ERR`` of OpenSSL; None when it was not."""
    code = connection.get_app_data()
    return code if isinstance(code, int) else None


def cause(error: BaseException) -> str:
    """The reasons in OpenSSL's error queue, in its own words, or the text of any other exception."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return ", ".join(str(entry[-1]) for entry in queue)
    return str(error) or type(error).__name__


def _handshake(context: SSL.Context, version: int) -> bool:
    """Whether a client that speaks ``version`` only, and takes any certificate, gets through."""
    server = SSL.Connection(context, None)
    server.set_accept_state()
    server.set_verify(SSL.VERIFY_NONE, None)
    theirs = SSL.Context(SSL.TLS_CLIENT_METHOD)
    theirs.set_min_proto_version(version)
    theirs.set_max_proto_version(version)
    client = SSL.Connection(theirs, None)
    client.set_connect_state()
    # Four rounds are more than the longest handshake takes (TLS 1.3 after a HelloRetryRequest).
    return any(_step(client, server) & _step(server, client) for _ in range(4))


def _step(side: SSL.Connection, other: SSL.Connection) -> bool:
    """Let one side do what it can and hand its bytes over; True once it is done."""
    try:
        side.do_handshake()
        done = True
    except SSL.WantReadError:
        done = False
    with contextlib.suppress(SSL.WantReadError):
        other.bio_write(side.bio_read(65_536))
    return done


def _select(ours: Sequence[bytes]) -> Any:
    def select(connection: SSL.Connection, offered: Sequence[bytes]) -> bytes:
        for protocol in ours:
            if protocol in offered:
                return protocol
        # RFC 7301 §3.2: the server SHALL send no_application_protocol. pyOpenSSL does so when the callback raises
        # SSL.Error; its documented NO_OVERLAPPING_PROTOCOLS would go on without a protocol.
        raise SSL.Error([("ALPN", "", "no application protocol in common")])

    return select


def _ask_for_client_certificate(context: SSL.Context, policy: Policy) -> None:
    context.set_verify(_VERIFY[policy.client_auth], _remember)
    if policy.client_auth == "none":
        return
    store = context.get_cert_store()
    assert store is not None
    for certificate in policy.client_cas:
        store.add_cert(crypto.X509.from_cryptography(certificate))
        # Tells the client which authorities we accept, so that it can pick the right one of its certificates.
        context.add_client_ca(certificate)
    for revoked in policy.crls:
        store.add_crl(revoked)
    if policy.crls:
        # Of every certificate on the way to the authority; where a list is missing, OpenSSL refuses.
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _remember(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
    """Keep why a client's certificate was refused: the error that ends the handshake no longer says it."""
    if not ok:
        connection.set_app_data(code)
    return bool(ok)
