"""The TLS policy of a listener: what the configuration says, checked and in OpenSSL's words.

One policy holds for every certificate of a listener. OpenSSL carries over neither the verify mode nor the versions when
the name in the handshake selects another context, so a policy per certificate would be one that silently does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from attrs import field, frozen
from cryptography import x509

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.errors import CertificateError, ConfigError, Finding
from mcptunnel.core.profiles import PROFILES
from mcptunnel.core.suites import Suites, parse
from mcptunnel.tls.chain import describe
from mcptunnel.tls.pem import read_crls, read_file

__all__ = ["Policy", "load_cas"]

_DEFAULT: Final = PROFILES["intermediate"]


@frozen(kw_only=True)
class Policy:
    """Versions, suites, groups and client certificates.

    Attributes:
        suites: Cipher suites; an empty tuple for a version switches it off.
        min_version: Lowest version the operator permits; the suites may raise it.
        groups: Key exchange groups, in OpenSSL's names.
        alpn: Protocols we speak. A client that offers others only is refused (ALPACA, RFC 7301 §3.2).
        resumption: Whether a session may be resumed, by ticket and under the name it was made for.
        refuse_unknown: Whether a client is refused that asks for a name without a certificate.
        client_auth: Whether client certificates are asked for.
        client_cas: Certificates that client certificates must chain to.
        crls: Revocation lists, one for each of these; empty when nothing is revoked.
        warnings: What the operator should hear at every start.
    """

    suites: Suites = _DEFAULT.suites
    min_version: Literal["1.2", "1.3"] = _DEFAULT.min_version
    groups: tuple[str, ...] = _DEFAULT.groups
    alpn: tuple[bytes, ...] = (b"http/1.1",)
    resumption: bool = False
    refuse_unknown: bool = False
    client_auth: Literal["none", "optional", "required"] = "none"
    client_cas: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    crls: tuple[x509.CertificateRevocationList, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def offers_tls12(self) -> bool:
        """Whether a TLS 1.2 handshake can succeed."""
        return self.min_version == "1.2" and bool(self.suites.tls12)

    @property
    def offers_tls13(self) -> bool:
        """Whether a TLS 1.3 handshake can succeed."""
        return bool(self.suites.tls13)

    @classmethod
    def from_config(cls, tls: TlsConfig, now: float) -> Policy:
        """The policy that ``server.tls`` describes, with the files that it names as they are now.

        Raises:
            ConfigError: A suite is unknown or unfit, or ``client_auth`` lacks its ``ca_file``.
            CertificateError: ``ca_file`` or ``crl_file`` cannot be used; one line for each reason.
        """
        profile = PROFILES[tls.profile]
        suites, warnings = profile.suites, []
        if tls.cipher_suites is not None:
            suites, wrong = parse(tls.cipher_suites, tls.min_tls_version)
            if wrong:
                raise ConfigError([_finding("cipher_suites", index, message) for index, message in wrong])
            if not suites.tls13:
                warnings.append(
                    "server.tls.cipher_suites names no TLS 1.3 suite, so TLS 1.3 is not offered; "
                    "add TLS_AES_128_GCM_SHA256 to offer it"
                )
        if tls.client_auth != "none" and tls.ca_file is None:
            raise ConfigError(
                [_finding("client_auth", -1, f"{tls.client_auth!r} needs server.tls.ca_file to check against; set it")]
            )
        cas = load_cas(tls.ca_file) if tls.ca_file is not None else ()
        return cls(
            suites=suites,
            min_version=tls.min_tls_version,
            groups=tls.groups or profile.groups,
            resumption=tls.session_resumption,
            refuse_unknown=tls.unknown_name == "refuse",
            client_auth=tls.client_auth,
            client_cas=cas,
            crls=load_crls(tls.crl_file, cas, now) if tls.crl_file is not None else (),
            warnings=tuple(warnings),
        )


def load_cas(file: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file of certificate authorities.

    Raises:
        CertificateError: It cannot be read or parsed, or holds none.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(read_file(file)))
    except OSError as error:
        raise CertificateError(f"{file}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CertificateError(f"{file}: no PEM certificate that can be parsed: {error}") from error


def load_crls(
    file: str, authorities: Sequence[x509.Certificate], now: float
) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of ``authorities``. With one missing or too old, OpenSSL would refuse every client of it.

    Raises:
        CertificateError: One cannot be used, or is missing; one line for each reason.
    """
    try:
        lists = read_crls(read_file(file))
    except OSError as error:
        raise CertificateError(f"{file}: cannot be read: {error.strerror or error}") from error
    except CertificateError as error:
        raise CertificateError(f"{file}: {error}") from error
    problems = []
    for one in lists:
        issuer = one.issuer.rfc4514_string()
        signers = [ca for ca in authorities if ca.subject == one.issuer]
        if not any(one.is_signature_valid(ca.public_key()) for ca in signers):  # type: ignore[arg-type]
            problems.append(f"the list of {issuer} is not signed by an authority in server.tls.ca_file")
        if one.next_update_utc is not None and one.next_update_utc.timestamp() <= now:
            problems.append(f"the list of {issuer} ended at {one.next_update_utc:%Y-%m-%d %H:%M} UTC; fetch the next")
    problems.extend(
        f"holds no list of {describe(ca)}, so that every client of it would be refused; add it"
        for ca in authorities
        if ca.subject not in {one.issuer for one in lists}
    )
    if problems:
        raise CertificateError("\n".join(f"{file}: {problem}" for problem in problems))
    return lists


def _finding(key: str, index: int, message: str) -> Finding:
    return Finding(
        file="configuration",
        line=None,
        key=f"server.tls.{key}" if index < 0 else f"server.tls.{key}[{index}]",
        message=message,
    )
