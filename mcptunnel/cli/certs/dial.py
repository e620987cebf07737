"""One handshake with a TLS server, to see what it presents: :class:`mcptunnel.tls.probe.Probe` on a blocking socket.

What comes instead of certificates is recognised: plain HTTP, another protocol, an
alert, silence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from attrs import frozen
from cryptography import x509

from mcptunnel.cli.certs.connect import Connection, DialError, Way
from mcptunnel.tls.probe import Presented, Probe, ProbeError

__all__ = ["Seen", "dial"]

_MOST: Final = 65_536
# Of bytes that are no TLS, in a message.
_SHOWN: Final = 40
# RFC 8446 §5.1: what the first byte of a record can be here.
_ALERT, _HANDSHAKE = 0x15, 0x16
# RFC 8446 §6.2, what a server says instead of showing a certificate.
_ALERTS: Final = {
    10: "unexpected_message",
    40: "handshake_failure",
    47: "illegal_parameter",
    50: "decode_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    109: "missing_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}


@frozen(kw_only=True)
class Seen:
    """What a server showed.

    Attributes:
        peer: The address that answered.
        presented: Its certificates and the rest of the handshake.
        hung_up: It closed the connection as soon as the handshake was over, as servers do that miss a client
            certificate (in TLS 1.3 they can only say so afterwards).
    """

    peer: str
    presented: Presented
    hung_up: bool


def dial(
    way: Way,
    name: str | None,
    trust: Sequence[x509.Certificate] | None,
    *,
    seconds: float,
    linger: float = 0.0,
) -> Seen:
    """Shake hands once.

    Args:
        way: To the server.
        name: What is asked for in SNI; None for nothing.
        trust: Trust anchors; None for the system's.
        seconds: For all of it, but for the resolution of names, which the system bounds.
        linger: Seconds to wait for the server to hang up after the handshake.

    Raises:
        DialError: No certificate was seen.
    """
    connection = Connection.to(way, seconds)
    with contextlib.closing(connection):
        try:
            connection.enter(way)
            probe = Probe(name, trust)
            presented = _shake_hands(connection, probe)
            hung_up = bool(linger) and connection.hangs_up(linger)
            with contextlib.suppress(OSError):
                connection.send(probe.leave())
            return Seen(peer=connection.peer, presented=presented, hung_up=hung_up)
        except TimeoutError:
            raise DialError("timeout", f"takes the connection and says nothing for {seconds:g} s") from None
        except OSError as error:
            raise DialError("closed", f"breaks the connection: {error.strerror or error}") from None


def _shake_hands(connection: Connection, probe: Probe) -> Presented:
    connection.send(probe.start())
    first = b""
    while probe.result is None:
        data = connection.receive(_MOST)
        first += data[: max(0, 4 * _SHOWN - len(first))]
        try:
            if not data:
                probe.lost()
                break
            _check_tls(first)
            answer = probe.receive(data)
        except ProbeError as error:
            raise _failure(first, str(error)) from None
        # A server that has heard enough is no reason not to tell what it has shown.
        with contextlib.suppress(OSError):
            connection.send(answer)
    assert probe.result is not None
    return probe.result


def _failure(first: bytes, says: str) -> DialError:
    # An alert in the clear is its own first record: type, version, length 2, level, description.
    if first[:1] == bytes([_ALERT]) and len(first) >= 7:
        alert = _ALERTS.get(first[6], f"number {first[6]}")
        return DialError("alert", f"refuses the handshake: {alert}", alert)
    if not first:
        return DialError("closed", "closes the connection without a word")
    return DialError("closed", f"gives up in the handshake: {says}")


def _check_tls(first: bytes) -> None:
    """Raise a DialError when a server's first bytes are no TLS."""
    if first[0] in (_ALERT, _HANDSHAKE):
        return
    # Old and simple servers answer what they do not understand without a status line.
    if first.lower().startswith((b"http/", b"<!doctype html", b"<html")):
        raise DialError("http", "speaks plain HTTP there, not TLS")
    line = first.splitlines()[0] if first.strip() else first
    shown = "".join(c if c.isprintable() else "." for c in line[:_SHOWN].decode("latin-1"))
    raise DialError("not_tls", f"speaks no TLS there; it says: {shown}")
