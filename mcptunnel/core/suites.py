"""Which cipher suites may be configured, under which names, and what a list of them means.

A suite that is not in the tables below is unknown or not fit for use (no forward secrecy, no authenticated encryption,
a truncated tag); both are refused, never skipped. A configured list is the whole list: a TLS version none of whose
suites is named is not offered.

The defaults are the "intermediate" profile of Mozilla's server side TLS guidelines 6.0 (2026-04-06).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

__all__ = ["DEFAULT_SUITES", "KNOWN_SUITES", "Suites", "parse"]

# OpenSSL's name → IANA's name, TLS 1.2, in the order of the guidelines; CCM at the end is sound but not a default.
_TLS12: Final[Mapping[str, str]] = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-CCM": "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
    "ECDHE-ECDSA-AES256-CCM": "TLS_ECDHE_ECDSA_WITH_AES_256_CCM",
}
_TLS13: Final = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
)

KNOWN_SUITES: Final = (*_TLS13, *_TLS12)

# Upper-cased spelling → (version, OpenSSL's name). The TLS13_ prefix is how rustls writes the TLS 1.3 suites.
_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    **{name: ("1.3", name) for name in _TLS13},
    **{"TLS13_" + name.removeprefix("TLS_"): ("1.3", name) for name in _TLS13},
    **{openssl: ("1.2", openssl) for openssl in _TLS12},
    **{iana: ("1.2", openssl) for openssl, iana in _TLS12.items()},
}


@frozen(kw_only=True)
class Suites:
    """The suites that are offered, in OpenSSL's names; an empty tuple switches its TLS version off."""

    tls12: tuple[str, ...]
    tls13: tuple[str, ...]


DEFAULT_SUITES: Final = Suites(tls12=tuple(_TLS12)[:6], tls13=_TLS13[:3])


def parse(names: Sequence[str], min_version: str) -> tuple[Suites, tuple[tuple[int, str], ...]]:
    """Read ``server.tls.cipher_suites``.

    Args:
        names: OpenSSL's or IANA's names, in any case.
        min_version: ``1.2`` or ``1.3``, from ``server.tls.min_tls_version``.

    Returns:
        The suites, and what is wrong with the list: (index, message) pairs, index -1 for the list as a whole.
        The suites may be used only when nothing is wrong.
    """
    chosen: dict[str, list[str]] = {"1.2": [], "1.3": []}
    wrong: list[tuple[int, str]] = []
    for index, name in enumerate(names):
        known = _NAMES.get(name.strip().upper())
        if known is None:
            wrong.append(
                (index, f"{name!r} is not a cipher suite that may be used; known are {', '.join(KNOWN_SUITES)}")
            )
        elif known[1] in chosen[known[0]]:
            wrong.append((index, f"{name!r} is named twice; remove one"))
        else:
            chosen[known[0]].append(known[1])
    if not wrong and not names:
        wrong.append((-1, "the list is empty; name at least one suite, or leave it out for the built-in list"))
    elif not wrong and min_version == "1.3" and not chosen["1.3"]:
        wrong.append((-1, f"no suite of TLS 1.3 is named but min_tls_version is 1.3; add one of {', '.join(_TLS13)}"))
    return Suites(tls12=tuple(chosen["1.2"]), tls13=tuple(chosen["1.3"])), tuple(wrong)
