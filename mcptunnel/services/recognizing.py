"""From ``auth.client_certificates`` to what asks a certificate for its principal."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509

from mcptunnel.config.schema import ClientCertificateConfig, Config
from mcptunnel.core.clients import ClientNames, ClientRule, recognize
from mcptunnel.core.principal import Principal

__all__ = ["names_in", "recognizer_from"]


def recognizer_from(config: Config) -> Callable[[x509.Certificate], Principal | None] | None:
    """Whom a certificate stands for that OpenSSL has verified; None where no client is asked for one.

    Raises:
        ValueError: A ``subject`` cannot be read; a configuration that was loaded has none of these.
    """
    if config.server.tls.client_auth == "none" or not config.auth.client_certificates:
        return None
    rules = tuple(_rule(entry) for entry in config.auth.client_certificates)

    def whom(certificate: x509.Certificate) -> Principal | None:
        try:
            return recognize(rules, names_in(certificate))
        except ValueError:
            # Names that OpenSSL lets pass and nobody can read stand for nobody.
            return None

    return whom


def names_in(certificate: x509.Certificate) -> ClientNames:
    """What ``certificate`` says of its holder. An extension that cannot be parsed says nothing."""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        names: tuple[str, ...] = ()
    else:
        names = (
            *(name.lower() for name in san.get_values_for_type(x509.DNSName)),
            *san.get_values_for_type(x509.UniformResourceIdentifier),
            *map(str, san.get_values_for_type(x509.IPAddress)),
            *san.get_values_for_type(x509.RFC822Name),
        )
    return ClientNames(san=names, subject=_attributes(certificate.subject))


def _rule(entry: ClientCertificateConfig) -> ClientRule:
    subject = entry.match.get("subject")
    return ClientRule(
        principal=Principal(name=entry.name, allow=entry.allow),
        san=entry.match.get("san"),
        subject=None if subject is None else _attributes(x509.Name.from_rfc4514_string(subject)),
    )


def _attributes(name: x509.Name) -> frozenset[tuple[str, str]]:
    return frozenset((one.oid.dotted_string, str(one.value)) for one in name)
