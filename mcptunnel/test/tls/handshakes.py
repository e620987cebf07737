"""TLS clients in memory: one end of a handshake, driven by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from OpenSSL import SSL

from mcptunnel.core.clienthello import Hello, read
from mcptunnel.test.tls.certs import Issued
from mcptunnel.tls.context import cause
from mcptunnel.tls.store import CertificateStore


def client(
    *,
    name: bytes | None = None,
    version: int | None = None,
    ciphers: bytes | None = None,
    groups: bytes | None = None,
    alpn: Sequence[bytes] = (),
    identity: Issued | None = None,
) -> SSL.Connection:
    """A client that takes any certificate. ``version`` is the only one it speaks."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if ciphers is not None:
        context.set_cipher_list(ciphers)
    if groups is not None:
        library: Any = vars(SSL)["_lib"]
        assert library.SSL_CTX_set1_curves_list(context._context, groups) == 1
    if alpn:
        context.set_alpn_protos(list(alpn))
    if identity is not None:
        context.use_certificate(identity.certificate)
        for issuer in identity.issuers:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(identity.key)
    connection = SSL.Connection(context, None)
    if name is not None:
        connection.set_tlsext_host_name(name)
    connection.set_connect_state()
    return connection


def server_for(store: CertificateStore, name: bytes | None = None) -> SSL.Connection:
    """What the front makes for a client that asks for ``name``."""
    hello = read(step(client(name=name)))
    assert isinstance(hello, Hello)
    context = store.context_for(hello.name)
    assert context is not None
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def outgoing(connection: SSL.Connection) -> bytes:
    """What it has to say now."""
    try:
        return connection.bio_read(1 << 20)
    except SSL.WantReadError:
        return b""


def step(connection: SSL.Connection, incoming: bytes = b"") -> bytes:
    """Let it read ``incoming`` and go on with its handshake; what it says."""
    if incoming:
        connection.bio_write(incoming)
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return outgoing(connection)


def shake(mine: SSL.Connection, theirs: Callable[[bytes], bytes]) -> None:
    """Drive a client against anything that answers bytes with bytes.

    Raises:
        SSL.Error: The client is refused.
    """
    incoming = b""
    for _ in range(6):
        said = step(mine, incoming)
        incoming = theirs(said) if said else b""
        if not incoming:
            break
    # What has come last decides whether a TLS 1.3 client was refused after its own last flight.
    with contextlib.suppress(SSL.WantReadError):
        mine.recv(1)


def shake_with(mine: SSL.Connection, server: SSL.Connection) -> SSL.Connection:
    """Both ends in memory; the server's errors are raised, as they are the ones that say why.

    Raises:
        SSL.Error: Either end refuses.
    """
    shake(mine, lambda said: step(server, said))
    return server


def refusal(mine: SSL.Connection, server: SSL.Connection) -> str | None:
    """The reason why the server refuses, in OpenSSL's words; None when it does not."""
    try:
        shake_with(mine, server)
    except SSL.Error as error:
        return cause(error)
    return None


def alert_after(mine: SSL.Connection, server: SSL.Connection) -> bytes:
    """The bytes of the alert that a server which refuses sends."""
    said = step(mine)
    with contextlib.suppress(SSL.Error):
        step(server, said)
    return outgoing(server)
