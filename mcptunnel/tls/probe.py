"""What a TLS server presents to a client: its certificates, and what is wrong with them.

The handshake is driven by whoever has the connection: bytes in, bytes out. A client that checks certificates would stop
at the first flaw and never see the rest; this one takes note and goes on to the end.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from typing import Final

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto

from mcptunnel.tls.chain import describe
from mcptunnel.tls.context import cause

__all__ = ["Presented", "Probe", "ProbeError"]

_MOST: Final = 65_536


class ProbeError(Exception):
    """No certificate was seen; says why."""


@frozen(kw_only=True)
class Presented:
    """What a server showed.

    Attributes:
        chain: As it was sent, the server's own certificate first; never empty.
        version: Such as ``TLSv1.3``.
        cipher: OpenSSL's name of the suite.
        group: Of the key exchange; empty when it is not known.
        flaws: What a client with these trust anchors would refuse it for, each once, in OpenSSL's words, followed by
            the subject where it is not the server's own certificate. Not whether the name fits.
        failure: Why the handshake did not come to an end after the certificates were seen; None when it did.
    """

    chain: tuple[x509.Certificate, ...]
    version: str
    cipher: str
    group: str
    flaws: tuple[str, ...] = ()
    failure: str | None = None


class Probe:
    """One handshake.

    Args:
        name: What is asked for in SNI; None, or an address, asks for nothing (RFC 6066 §3).
        trust: Trust anchors; None for the system's.
    """

    def __init__(self, name: str | None, trust: Sequence[x509.Certificate] | None = None) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._flaws: Final[dict[str, None]] = {}
        context.set_verify(SSL.VERIFY_PEER, self._note)
        if trust is None:
            context.set_default_verify_paths()
        else:
            store = context.get_cert_store()
            assert store is not None
            for anchor in trust:
                store.add_cert(crypto.X509.from_cryptography(anchor))
        self._tls: Final = SSL.Connection(context, None)
        self._tls.set_connect_state()
        if name is not None and not _is_address(name):
            self._tls.set_tlsext_host_name(name.encode("ascii"))
        self.result: Presented | None = None

    def start(self) -> bytes:
        """The first bytes to send."""
        return self.receive(b"")

    def receive(self, data: bytes) -> bytes:
        """Take what the server sent; returns what is to be sent. Afterwards :attr:`result` may be there.

        Raises:
            ProbeError: The handshake failed before a certificate was seen.
        """
        view = memoryview(data)
        while self.result is None:
            if view:
                view = view[self._tls.bio_write(bytes(view[:_MOST])) :]
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                if view:
                    continue
            except SSL.Error as error:
                self._finish(cause(error))
            else:
                self._finish(None)
            break
        return self._pending()

    def lost(self) -> None:
        """The connection is over.

        Raises:
            ProbeError: No certificate was seen.
        """
        if self.result is None:
            self._finish("the connection was closed during the handshake")

    def leave(self) -> bytes:
        """What is to be sent at the end: servers log who breaks off (RFC 8446 §6.1, close_notify)."""
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()
        return self._pending()

    def _finish(self, failure: str | None) -> None:
        chain = self._tls.get_peer_cert_chain(as_cryptography=True)
        if not chain:
            raise ProbeError(failure or "the server showed no certificate")
        self.result = Presented(
            chain=tuple(chain),
            version=self._tls.get_protocol_version_name(),
            cipher=self._tls.get_cipher_name() or "",
            group=self._tls.get_group_name() or "",
            flaws=tuple(self._flaws),
            failure=failure,
        )

    def _pending(self) -> bytes:
        pending = b""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                pending += self._tls.bio_read(_MOST)
        return pending

    def _note(self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
        if not ok:
            whose = "" if depth == 0 else f" ({describe(certificate.to_cryptography())})"
            self._flaws[_why(code) + whose] = None
        return True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _why(code: int) -> str:
    text = SSL._ffi.string(SSL._lib.X509_verify_cert_error_string(code))  # type: ignore[attr-defined]
    return str(text.decode("ascii"))
