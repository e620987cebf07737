"""The certificates in service: which context a connection gets, and how all of them change at once.

Invariant: a connection sees one generation from its first byte to its last. :meth:`CertificateStore.swap` builds a
whole new generation beside the old one and then makes a single assignment; connections that are open keep what they
have, the next one gets the new.

The name is known before the connection object is made (:mod:`mcptunnel.core.clienthello`), so each connection begins
with the right context. Choosing later, in OpenSSL's callback, would leave versions, the verify mode and the keys of
tickets of the first context in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen
from OpenSSL import SSL

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.certificates import Facts, covers, wildcard_of
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.context import build, rehearse
from mcptunnel.tls.material import Material, load_all
from mcptunnel.tls.policy import Policy

__all__ = ["CertificateStore", "Generation", "load_served"]


@frozen(kw_only=True, eq=False)
class Generation:
    """One set of contexts.

    Attributes:
        number: 1 for the first, one more at each swap.
        policy: What holds for all of them.
        materials: What they were built from, the default one first.
        contexts: One for each material.
        by_name: Position of the material for an exact name or ``*.parent``; of two for a name the first one counts.
        resumable: Contexts whose sessions may be resumed, by the one exact name that each is for; made when first
            asked for, since a certificate may have a hundred names.
    """

    number: int
    policy: Policy
    materials: tuple[Material, ...]
    contexts: tuple[SSL.Context, ...]
    by_name: Mapping[str, int]
    resumable: dict[str, SSL.Context] = field(init=False, factory=dict)

    @classmethod
    def of(cls, number: int, materials: Sequence[Material], policy: Policy) -> Generation:
        """Build and rehearse every context.

        Raises:
            CertificateError: One cannot be served; one line for each reason.
        """
        contexts: list[SSL.Context] = []
        problems: list[str] = []
        by_name: dict[str, int] = {}
        for position, material in enumerate(materials):
            try:
                context = build(material, policy)
                rehearse(context, material, policy)
            except CertificateError as error:
                problems.append(str(error))
                continue
            contexts.append(context)
            for name in material.leaf.names:
                by_name.setdefault(name, position)
        if problems:
            raise CertificateError("\n".join(problems))
        return cls(number=number, policy=policy, materials=tuple(materials), contexts=tuple(contexts), by_name=by_name)

    def context_for(self, name: str | None) -> SSL.Context | None:
        """The context for the name that a client asks for: exact, then wildcard for one label, then the default.

        Args:
            name: Lower case, without a final dot (RFC 6066 §3); None when the client asks for none.

        Returns:
            None when the client is to be refused.
        """
        if name is None:
            return self.contexts[0]
        position = self.by_name.get(name)
        if position is not None:
            return self._resumable(name, position) if self.policy.resumption else self.contexts[position]
        wildcard = wildcard_of(name)
        position = self.by_name.get(wildcard) if wildcard is not None else None
        if position is None and self.policy.refuse_unknown:
            return None
        return self.contexts[position or 0]

    def _resumable(self, name: str, position: int) -> SSL.Context:
        context = self.resumable.get(name)
        if context is None:
            context = self.resumable[name] = build(self.materials[position], self.policy, name)
        return context


def load_served(tls: TlsConfig, now: float, *, strict: bool) -> tuple[tuple[Material, ...], Policy]:
    """Everything that ``server.tls`` names, as it is on disk now: certificates, trust anchors, revocation lists.

    Args:
        tls: Names the files.
        now: Seconds since the epoch.
        strict: Refuse keys that other users can read, instead of warning.

    Raises:
        ConfigError: The policy is refused.
        CertificateError: A file is refused; one line for each reason, of all files.
    """
    problems: list[str] = []
    materials: tuple[Material, ...] = ()
    policy = None
    try:
        materials = load_all(tls.pairs, now, strict=strict)
    except CertificateError as error:
        problems.append(str(error))
    try:
        policy = Policy.from_config(tls, now)
    except CertificateError as error:
        problems.append(str(error))
    if problems or policy is None:
        raise CertificateError("\n".join(problems))
    return materials, policy


@define(eq=False, kw_only=True)
class CertificateStore:
    """The certificates in service."""

    _current: Generation = field(alias="current")

    @classmethod
    def from_config(cls, tls: TlsConfig, now: float, *, strict: bool = False) -> CertificateStore:
        """Load everything that ``server.tls`` names.

        Args:
            tls: A mode that speaks TLS, with at least one pair.
            now: Seconds since the epoch.
            strict: Refuse keys that other users can read, instead of warning.

        Raises:
            ConfigError: The policy is refused.
            CertificateError: A file is refused; one line for each reason, of all files.
        """
        return cls.of(*load_served(tls, now, strict=strict))

    @classmethod
    def of(cls, materials: Sequence[Material], policy: Policy) -> CertificateStore:
        """From what is loaded already; the first is the default.

        Raises:
            CertificateError: One cannot be served, or there is none.
        """
        if not materials:
            raise CertificateError("no certificate is configured; set server.tls.cert_file and server.tls.key_file")
        return cls(current=Generation.of(1, materials, policy))

    @property
    def policy(self) -> Policy:
        """What holds for every certificate in service."""
        return self._current.policy

    @property
    def generation(self) -> int:
        """How often certificates were put in service, from 1."""
        return self._current.number

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should hear about the policy and the files in service."""
        return (*self.policy.warnings, *(line for material in self._current.materials for line in material.warnings))

    @property
    def leaves(self) -> tuple[Facts, ...]:
        """The server's own certificates in service now, the default one first."""
        return tuple(material.leaf for material in self._current.materials)

    def facts(self) -> tuple[Facts, ...]:
        """Every certificate in service now: from memory, not from disk, which may hold something else by now."""
        return tuple(fact for material in self._current.materials for fact in material.facts)

    def covers(self, host: str) -> bool:
        """Whether a client that calls us ``host`` accepts one of the certificates in service for it."""
        return any(covers(leaf, host) for leaf in self.leaves)

    def context_for(self, name: str | None) -> SSL.Context | None:
        """See :meth:`Generation.context_for`."""
        return self._current.context_for(name)

    def swap(self, materials: Sequence[Material], policy: Policy | None = None, host: str | None = None) -> None:
        """Put other certificates in service for every connection from now on.

        Args:
            materials: The default one first.
            policy: With other trust anchors and revocation lists; None for the one that holds now.
            host: What clients call us; when it is covered now, it has to stay so.

        Raises:
            CertificateError: One cannot be served, there is none, or none for ``host``. What was in service stays.
        """
        if not materials:
            raise CertificateError("there is no certificate to put in service")
        if host is not None and self.covers(host) and not any(covers(one.leaf, host) for one in materials):
            raise CertificateError(
                f"{materials[0].file}: no certificate names {host} any more, the host of server.public_url, which the "
                "ones in service do"
            )
        self._current = Generation.of(self._current.number + 1, materials, policy or self.policy)

    def renew_keys(self) -> None:
        """Make the keys of tickets anew: who learns them opens no session from now on. The generation stays."""
        self._current.resumable.clear()
