"""Whom a verified client certificate stands for: the rules of ``auth.client_certificates``, first match first."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from mcptunnel.core.principal import Principal

__all__ = ["ClientNames", "ClientRule", "recognize"]


@frozen(kw_only=True)
class ClientNames:
    """What a certificate says of its holder.

    Attributes:
        san: DNS names (lower case), URIs, addresses and mail addresses of the subject alternative name.
        subject: (object identifier, value) of each attribute of the subject.
    """

    san: tuple[str, ...]
    subject: frozenset[tuple[str, str]]


@frozen(kw_only=True)
class ClientRule:
    """One rule. What is None is not looked at; with nothing to look at it matches nobody.

    Attributes:
        principal: Whom a match stands for.
        san: Pattern (``*``, ``?``, ``[…]``) that one of the alternative names must match.
        subject: Attributes that the subject must have, all of them; it may have more.
    """

    principal: Principal
    san: str | None = None
    subject: frozenset[tuple[str, str]] | None = None

    def matches(self, names: ClientNames) -> bool:
        """Whether the certificate with these names is meant."""
        if self.san is None and not self.subject:
            return False
        if self.san is not None and not any(fnmatchcase(name, self.san) for name in names.san):
            return False
        return self.subject is None or self.subject <= names.subject


def recognize(rules: Sequence[ClientRule], names: ClientNames) -> Principal | None:
    """The principal of the first rule that matches, or None."""
    return next((rule.principal for rule in rules if rule.matches(names)), None)
