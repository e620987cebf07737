"""What is wrong with what a server presents, each in a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from mcptunnel.cli.certs.connect import DialError
from mcptunnel.cli.certs.dial import Seen
from mcptunnel.core.certificates import Facts, covers
from mcptunnel.tls.chain import check_life, check_links, describe

__all__ = ["advice", "distrust", "flaws", "notes"]

# How OpenSSL says that nobody it trusts vouches for a chain, and what is said better elsewhere.
_LIFE: Final = ("certificate has expired", "certificate is not yet valid")
_ALONE: Final = "self-signed certificate"
_ROOT: Final = "self-signed certificate in certificate chain"
_NOBODY: Final = (
    "unable to get local issuer certificate",
    "unable to get issuer certificate",
    "unable to verify the first certificate",
)
_ADVICE: Final = {
    "unresolved": "correct the name, or add it to DNS",
    "refused": "start the server, or correct the port",
    "unreachable": "look at the network in between",
    "timeout": "look at firewalls, or allow more with --timeout",
    "http": "correct the port, or let it serve TLS (server.tls.mode: application or auto)",
    "not_tls": "correct the port",
    "closed": "see the server's log; it may expect a PROXY header, or serve no TLS there",
    "proxy": "look at the proxy",
}
_ALERTS: Final = {
    "unrecognized_name": "it has no certificate for this name; ask for one that it has with --name, or add one to it",
    "protocol_version": "it speaks no version of TLS from 1.2 on; let it",
    "handshake_failure": "nothing in common in cipher suites and key exchanges, or it has no certificate; see its log",
    "insufficient_security": "nothing in common in cipher suites and key exchanges; see its log",
    "no_application_protocol": "it speaks none of the protocols offered",
    "certificate_required": "it asks for a client certificate, and this command has none",
    "internal_error": "it has a problem of its own, often that it has no certificate; see its log",
}


def flaws(seen: Seen, facts: tuple[Facts, ...], name: str, ca_file: str | None, now: float) -> Iterator[str]:
    """Why a client would refuse the server.

    Args:
        seen: What it presents.
        facts: Of its chain.
        name: What the client calls it.
        ca_file: Whom the client trusts; None for whom the system trusts.
        now: Seconds since the epoch.
    """
    yield from check_life(facts, now)
    if not covers(facts[0], name):
        names = ", ".join(facts[0].names) or "no name at all"
        yield f"the certificate is not for {name}, but for {names}; get one that names it, or use one of its names"
    yield from distrust(seen, ca_file)


def notes(seen: Seen) -> Iterator[str]:
    """What is worth knowing, and refuses no client by itself."""
    presented = seen.presented
    yield from check_links(presented.chain)
    if presented.failure is not None:
        yield f"it breaks off after its certificate, as servers do that miss a client certificate: {presented.failure}"
    elif seen.hung_up:
        yield "it hangs up right after the handshake, as servers do that miss a client certificate"


def advice(error: DialError, name: str) -> str:
    """Why no certificate was seen, and what to do about it."""
    if error.kind == "alert":
        return f"{error}; {_ALERTS.get(error.alert, 'see its log')} (asked for: {name})"
    return f"{error}; {_ADVICE[error.kind]}"


def distrust(seen: Seen, ca_file: str | None, setting: str = "--ca-file") -> Iterator[str]:
    """Why nobody whom the client trusts vouches for it: one sentence for all the ways in which OpenSSL says the same.

    Args:
        seen: What it presents.
        ca_file: Whom the client trusts; None for whom the system trusts.
        setting: Where a file of authorities can be named.
    """
    presented = seen.presented
    chain, whom = presented.chain, ca_file or "this system"
    noted = [flaw for flaw in presented.flaws if not flaw.startswith(_LIFE)]
    if _ALONE in noted:
        yield f"it is self-signed and {whom} does not trust it; get one from an authority, or name it with {setting}"
    elif _ROOT in noted:
        yield (
            f"its chain ends with {describe(chain[-1])}, which {whom} does not trust; if that is your own authority, "
            f"name its certificate with {setting}"
        )
    elif any(flaw in noted for flaw in _NOBODY):
        yield _unvouched(chain, whom, setting)
    for flaw in noted:
        if flaw not in (_ALONE, _ROOT, *_NOBODY):
            yield f"clients refuse it: {flaw}; get another certificate"


def _unvouched(chain: tuple[x509.Certificate, ...], whom: str, setting: str) -> str:
    last = chain[-1]
    issuer = last.issuer.rfc4514_string()
    missing = f"{whom} does not know {issuer}, which issued {describe(last)}, and the server does not send it"
    mend = "serve the whole chain (often called fullchain.pem)"
    url = _issuer_url(last)
    if url is not None:
        return f"an intermediate certificate is missing: {missing}; {mend}; the missing one is at {url}"
    return f"{missing}; {mend}, or, if that is your own authority, name its certificate with {setting}"


def _issuer_url(certificate: x509.Certificate) -> str | None:
    """Where the issuer's certificate is to be had, if the certificate says so (RFC 5280 §4.2.2.1)."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    for description in access:
        place = description.access_location
        if description.access_method == AuthorityInformationAccessOID.CA_ISSUERS and isinstance(
            place, x509.UniformResourceIdentifier
        ):
            return "".join(c if c.isprintable() else "?" for c in place.value[:200])
    return None
