"""The certificates in service: which context a connection gets, and how all of them change at once.

Invariant: a connection sees one generation from its first byte to its last. :meth:`CertificateStore.swap` builds a
whole new generation beside the old one and then makes a single assignment; connections that are open keep what they
have, the next one gets the new.

Twisted's own ``contextForServerName`` is not used: it selects the context but leaves the verify mode of the first one
in force, reloads by itself, and looks at no expiry date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.certificates import Facts, covers, wildcard_of
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.context import build, rehearse
from mcptunnel.tls.material import Material, load_all
from mcptunnel.tls.policy import Policy

__all__ = ["CertificateStore", "Generation"]


@frozen(kw_only=True, eq=False)
class Generation:
    """One immutable set of contexts.

    Attributes:
        number: 1 for the first, one more at each swap.
        default: Context for clients that name no host, or one we have no certificate for.
        by_name: Contexts by exact name or ``*.parent``; of two certificates for a name the first one counts.
        materials: What they were built from, the default one first.
    """

    number: int
    default: SSL.Context
    by_name: Mapping[str, SSL.Context]
    materials: tuple[Material, ...]

    @classmethod
    def of(cls, number: int, materials: Sequence[Material], policy: Policy) -> Generation:
        """Build and rehearse every context.

        Raises:
            CertificateError: One cannot be served; one line for each reason.
        """
        contexts: list[SSL.Context] = []
        problems: list[str] = []
        by_name: dict[str, SSL.Context] = {}
        for material in materials:
            try:
                context = build(material, policy)
            except CertificateError as error:
                problems.append(str(error))
                continue
            contexts.append(context)
            for name in material.leaf.names:
                by_name.setdefault(name, context)
        if problems:
            raise CertificateError("\n".join(problems))
        generation = cls(number=number, default=contexts[0], by_name=by_name, materials=tuple(materials))
        if len(contexts) > 1:
            contexts[0].set_tlsext_servername_callback(generation.choose)
        # Only now: a context that has shaken hands once cannot be changed any more.
        for context, material in zip(contexts, materials, strict=True):
            try:
                rehearse(context, material, policy)
            except CertificateError as error:
                problems.append(str(error))
        if problems:
            raise CertificateError("\n".join(problems))
        return generation

    def choose(self, connection: SSL.Connection) -> None:
        """OpenSSL calls this when the client has named a host."""
        context = self.context_for(connection.get_servername())
        if context is not self.default:
            connection.set_context(context)
            # set_context brings certificate, key and ALPN along, but not the verify mode.
            connection.set_verify(context.get_verify_mode(), None)

    def context_for(self, server_name: bytes | None) -> SSL.Context:
        """The context for the name in the handshake: exact, then wildcard for one label, then the default.

        RFC 6066 §3: the name is ASCII, without a trailing dot; case does not count.
        """
        if not server_name:
            return self.default
        name = server_name.decode("ascii", "replace").lower().removesuffix(".")
        found = self.by_name.get(name)
        if found is None and (wildcard := wildcard_of(name)) is not None:
            found = self.by_name.get(wildcard)
        return self.default if found is None else found


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False, kw_only=True)
class CertificateStore:
    """The certificates in service.

    Attributes:
        policy: Holds for every certificate and every generation.
        warnings: What the operator should hear about policy and files.
    """

    policy: Policy
    _current: Generation = field(alias="current")

    @classmethod
    def from_config(cls, tls: TlsConfig, now: float) -> CertificateStore:
        """Load everything that ``server.tls`` names.

        Args:
            tls: A mode that speaks TLS, with at least one pair.
            now: Seconds since the epoch.

        Raises:
            ConfigError: The policy is refused.
            CertificateError: A file is refused; one line for each reason, of all files.
        """
        return cls.of(load_all(tls.pairs, now), Policy.from_config(tls))

    @classmethod
    def of(cls, materials: Sequence[Material], policy: Policy) -> CertificateStore:
        """From what is loaded already; the first is the default.

        Raises:
            CertificateError: One cannot be served, or there is none.
        """
        if not materials:
            raise CertificateError("no certificate is configured; set server.tls.cert_file and server.tls.key_file")
        return cls(policy=policy, current=Generation.of(1, materials, policy))

    @property
    def generation(self) -> int:
        """How often certificates were put in service, from 1."""
        return self._current.number

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should hear about the policy and the files in service."""
        return (*self.policy.warnings, *(line for material in self._current.materials for line in material.warnings))

    def facts(self) -> tuple[Facts, ...]:
        """Every certificate in service now: from memory, not from disk, which may hold something else by now."""
        return tuple(fact for material in self._current.materials for fact in material.facts)

    def covers(self, host: str) -> bool:
        """Whether a client that calls us ``host`` accepts one of the certificates in service for it."""
        return any(covers(material.leaf, host) for material in self._current.materials)

    def swap(self, materials: Sequence[Material]) -> None:
        """Put other certificates in service for every connection from now on.

        Raises:
            CertificateError: One cannot be served, or there is none. What was in service stays.
        """
        if not materials:
            raise CertificateError("there is no certificate to put in service")
        self._current = Generation.of(self._current.number + 1, materials, self.policy)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._current.default, None)
        connection.set_accept_state()
        return connection
