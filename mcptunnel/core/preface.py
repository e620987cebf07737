"""What a connection is, by its first bytes, and what becomes of it: two tables, and nothing else.

Not here: reading the PROXY header (:mod:`mcptunnel.core.proxyheader`), timeouts, and the answers themselves. Invariant:
once the bytes allow a decision, more bytes never change it, and no more than 12 are ever needed.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Literal, TypeAlias

from mcptunnel.core.proxyheader import V1_SIGNATURE, V2_SIGNATURE

__all__ = ["Action", "Kind", "Mode", "classify", "decide"]

Mode: TypeAlias = Literal["disabled", "application", "behind_proxy", "auto"]

# RFC 9113 §3.4: the client's connection preface; HTTP/2 is not spoken in plaintext here.
_H2_PREFACE: Final = b"PRI * HTTP/2"
_SIGNATURES: Final = (V1_SIGNATURE, V2_SIGNATURE, _H2_PREFACE)


class Kind(Enum):
    """What the first bytes are the beginning of."""

    TLS = auto()
    HTTP = auto()
    PROXY = auto()
    H2C = auto()
    SSL2 = auto()
    GARBAGE = auto()


class Action(Enum):
    """What to do with a connection.

    Attributes:
        SERVE_TLS: Start TLS and serve.
        SERVE_PLAIN: Serve plaintext HTTP.
        REFUSE_BAD_REQUEST: Answer 400 saying that https is spoken here, and close.
        REFUSE_NOT_PROXY: Answer 403 saying that the peer is not a listed proxy, and close.
        REFUSE_INSECURE: Answer 308 or 403 naming the https address, and close.
        CLOSE: Close without a word.
    """

    SERVE_TLS = auto()
    SERVE_PLAIN = auto()
    REFUSE_BAD_REQUEST = auto()
    REFUSE_NOT_PROXY = auto()
    REFUSE_INSECURE = auto()
    CLOSE = auto()


def classify(buffer: bytes) -> Kind | None:
    """Tell what ``buffer``, the first bytes of a connection, begins; None while that is open.

    HTTP is decided on the first byte wherever no signature begins with it: whether a line that starts with a capital
    letter is a request is for the HTTP parser to say.
    """
    if not buffer:
        return None
    first = buffer[0]
    if first == 0x16:
        return _tls(buffer)
    if first & 0x80:
        # SSL 2.0 CLIENT-HELLO: two bytes of length with the high bit set, then message type 1.
        if len(buffer) < 3:
            return None
        return Kind.SSL2 if buffer[2] == 1 else Kind.GARBAGE
    for signature in _SIGNATURES:
        if buffer.startswith(signature):
            return Kind.H2C if signature is _H2_PREFACE else Kind.PROXY
    if any(signature.startswith(buffer) for signature in _SIGNATURES):
        return None
    return Kind.HTTP if 0x41 <= first <= 0x5A else Kind.GARBAGE


def _tls(buffer: bytes) -> Kind | None:
    """RFC 8446 §5.1: ContentType handshake(22), then a legacy_record_version.

    RFC 5246 §E.1: a server must accept any {03,XX} there. Which versions are spoken is said inside.
    """
    if len(buffer) < 2:
        return None
    return Kind.TLS if buffer[1] == 3 else Kind.GARBAGE


# (served or refused when the peer is not trusted, when it is), by mode.
_PLAINTEXT: Final[dict[Mode, tuple[Action, Action]]] = {
    "disabled": (Action.SERVE_PLAIN, Action.SERVE_PLAIN),
    "application": (Action.REFUSE_BAD_REQUEST, Action.REFUSE_BAD_REQUEST),
    "behind_proxy": (Action.REFUSE_NOT_PROXY, Action.SERVE_PLAIN),
    "auto": (Action.REFUSE_INSECURE, Action.SERVE_PLAIN),
}


def decide(mode: Mode, kind: Kind, trusted: bool) -> Action:
    """What becomes of a connection.

    Args:
        mode: ``server.tls.mode``.
        kind: By :func:`classify`, of the bytes after a PROXY header that was believed. A PROXY header that reaches this
            place is one nobody asked for, or a second one.
        trusted: Whether the effective peer (after that header) is in ``server.tls.trusted_proxies``.
    """
    if kind is Kind.TLS:
        return Action.SERVE_TLS if mode in ("application", "auto") else Action.CLOSE
    if kind is Kind.HTTP:
        return _PLAINTEXT[mode][trusted]
    if kind is Kind.GARBAGE and mode == "disabled":
        # Where only HTTP is spoken, and to everyone, what is no request gets the HTTP parser's readable 400.
        return Action.SERVE_PLAIN
    return Action.CLOSE
