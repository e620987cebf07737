"""What Mozilla's server side TLS guidelines 6.0 (2026-04-06) recommend, and which key exchange groups there are.

``modern`` is for services whose clients all speak TLS 1.3, ``intermediate`` for everything else. The guidelines' third
profile, for clients of another time, is gone from them and is not offered here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from attrs import frozen

from mcptunnel.core.suites import DEFAULT_SUITES, Suites

__all__ = ["KNOWN_GROUPS", "PROFILES", "Profile", "ProfileName", "group"]

ProfileName = Literal["modern", "intermediate"]

# Named one by one: with the keyword DEFAULT, OpenSSL 3.5 and 3.6 could pick a group against the server's preference
# (CVE-2026-2673). The hybrid needs OpenSSL 3.5 and is left out where it is missing.
_GROUPS: Final = ("X25519MLKEM768", "X25519", "P-256", "P-384")

# OpenSSL's name → other spellings, in lower case: IANA's, and those of other servers' configurations.
_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "X25519MLKEM768": (),
    "SecP256r1MLKEM768": (),
    "SecP384r1MLKEM1024": (),
    "X25519": ("curve25519",),
    "P-256": ("p256", "prime256v1", "secp256r1"),
    "P-384": ("p384", "secp384r1"),
    "P-521": ("p521", "secp521r1"),
    "X448": ("curve448",),
}
KNOWN_GROUPS: Final = tuple(_SPELLINGS)

_NAMES: Final = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name.lower(), *others)}


@frozen(kw_only=True)
class Profile:
    """What holds where the configuration says nothing.

    Attributes:
        min_version: Lowest version.
        suites: Cipher suites in OpenSSL's names.
        groups: Key exchange groups in OpenSSL's names.
    """

    min_version: Literal["1.2", "1.3"]
    suites: Suites
    groups: tuple[str, ...]


PROFILES: Final[Mapping[ProfileName, Profile]] = {
    "modern": Profile(min_version="1.3", suites=Suites(tls12=(), tls13=DEFAULT_SUITES.tls13), groups=_GROUPS),
    "intermediate": Profile(min_version="1.2", suites=DEFAULT_SUITES, groups=_GROUPS),
}


def group(name: str) -> str | None:
    """OpenSSL's name of a key exchange group, or None for one that is unknown or not fit for use."""
    return _NAMES.get(name.strip().lower())
