"""The TLS policy of a listener: what the configuration says, checked and in OpenSSL's words.

One policy holds for every certificate of a listener. OpenSSL carries over neither the verify mode nor the versions when
the name in the handshake selects another context, so a policy per certificate would be one that silently does not hold.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import field, frozen
from cryptography import x509

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.errors import CertificateError, ConfigError, Finding
from mcptunnel.core.suites import DEFAULT_SUITES, Suites, parse
from mcptunnel.tls.pem import read_file

__all__ = ["DEFAULT_GROUPS", "Policy"]

# Mozilla guidelines 6.0, "intermediate". Named one by one: with the keyword DEFAULT, OpenSSL 3.5 and 3.6 could pick a
# group against the server's preference (CVE-2026-2673).
DEFAULT_GROUPS: Final = ("X25519MLKEM768", "X25519", "P-256", "P-384")


@frozen(kw_only=True)
class Policy:
    """Versions, suites, groups and client certificates.

    Attributes:
        suites: Cipher suites; an empty tuple for a version switches it off.
        min_version: Lowest version the operator permits; the suites may raise it.
        groups: Key exchange groups, in OpenSSL's names.
        alpn: Protocols we speak. A client that offers others only is refused (ALPACA, RFC 7301 §3.2).
        client_auth: Whether client certificates are asked for.
        client_cas: Certificates that client certificates must chain to.
        warnings: What the operator should hear at every start.
    """

    suites: Suites = DEFAULT_SUITES
    min_version: Literal["1.2", "1.3"] = "1.2"
    groups: tuple[str, ...] = DEFAULT_GROUPS
    alpn: tuple[bytes, ...] = (b"http/1.1",)
    client_auth: Literal["none", "optional", "required"] = "none"
    client_cas: tuple[x509.Certificate, ...] = field(default=(), repr=False)
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
    def from_config(cls, tls: TlsConfig) -> Policy:
        """The policy that ``server.tls`` describes.

        Raises:
            ConfigError: A suite is unknown or unfit, or ``client_auth`` lacks its ``ca_file``.
            CertificateError: ``ca_file`` cannot be read or holds no certificate.
        """
        suites, warnings = DEFAULT_SUITES, []
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
        return cls(
            suites=suites,
            min_version=tls.min_tls_version,
            client_auth=tls.client_auth,
            client_cas=load_cas(tls.ca_file) if tls.ca_file is not None else (),
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


def _finding(key: str, index: int, message: str) -> Finding:
    return Finding(
        file="configuration",
        line=None,
        key=f"server.tls.{key}" if index < 0 else f"server.tls.{key}[{index}]",
        message=message,
    )
