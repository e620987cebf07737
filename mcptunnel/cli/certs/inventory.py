"""Every certificate that a configuration puts in play, from the files that it names.

Nothing stops at the first problem: what can be read is shown, what cannot be is said, each with its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeVar

from attrs import define, evolve, field, frozen

from mcptunnel.config.schema import CertificatePair, Config, UpstreamConfig
from mcptunnel.core.certificates import Facts, Role
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import chain_facts, facts_of
from mcptunnel.tls.material import load, strict_keys
from mcptunnel.tls.pem import read_chain, read_crls, read_file, read_key
from mcptunnel.tls.trust import list_facts

__all__ = ["Entry", "Inventory", "Problem", "take"]

T = TypeVar("T")

# A bundle of authorities that somebody has put together for himself is smaller, the system's larger.
_LARGE: Final = 10


@frozen(kw_only=True)
class Problem:
    """Something that could not be done.

    Attributes:
        kind: ``warning``: it can be used, and should be better. ``invalid``: it was read and may not be used.
            ``unknown``: it could not be read or reached.
    """

    kind: Literal["warning", "invalid", "unknown"]
    says: str


@frozen(kw_only=True)
class Entry:
    """One certificate in play.

    Attributes:
        facts: It.
        key: The configuration's key that put it there, such as ``server.tls.certificates[0]``.
        more: How many others are in a large bundle of authorities, of which this one lives the longest. That some of a
            hundred have ended is no event: nobody is refused for it but their own clients.
        names: Of a certificate of ours: the names for which clients get it, in SNI.
        default: Clients that name nothing, or something unknown, get it.
        served: What the listener really serves in its place: ``yes`` for this one, ``other``, ``not running``; None
            when nobody has looked.
        instead: SHA-256 of what is served instead of it, when that is something else.
    """

    facts: Facts
    key: str
    more: int = 0
    names: tuple[str, ...] = ()
    default: bool = False
    served: Literal["yes", "other", "not running"] | None = None
    instead: str | None = None


@define(eq=False)
class Inventory:
    """What was found.

    Attributes:
        entries: In the order of the configuration, each leaf followed by what vouches for it.
        problems: What could not be found.
    """

    entries: list[Entry] = field(factory=list)
    problems: list[Problem] = field(factory=list)

    def read(self, file: str, key: str, parse: Callable[[bytes], T]) -> T | None:
        """Read and parse ``file``; None, and a problem noted, where that fails."""
        try:
            return parse(read_file(file))
        except OSError as error:
            self.note("unknown", f"{file}: cannot be read: {error.strerror or error} ({key})")
        except CertificateError as error:
            self.note("invalid", f"{file}: {error} ({key})")
        return None

    def add(self, facts: Iterable[Facts], key: str) -> None:
        """Note certificates that ``key`` names."""
        self.entries += [Entry(facts=one, key=key) for one in facts]

    def note(self, kind: Literal["warning", "invalid", "unknown"], says: str) -> None:
        """Note a problem, once: two keys may well name one file."""
        problem = Problem(kind=kind, says=says)
        if problem not in self.problems:
            self.problems.append(problem)

    def pair(self, pair: CertificatePair, key: str, now: float, *, strict: bool) -> tuple[Facts, ...]:
        """The facts of a chain; why it may not be used is the flaw of its first certificate, and a problem.

        Args:
            pair: Its files.
            key: The configuration's key for it.
            now: Seconds since the epoch.
            strict: A key that other users can read may not be used.
        """
        chain = self.read(pair.cert_file, f"{key}.cert_file", read_chain)
        readable = self.read(pair.key_file, f"{key}.key_file", lambda content: content) is not None
        if chain is None:
            return ()
        facts = chain_facts(pair.cert_file, chain)
        if not readable:
            return facts
        lines = []
        try:
            for warning in load(pair, now).warnings:
                if strict and warning.startswith(f"{pair.key_file}: "):
                    lines.append(warning)
                else:
                    self.note("warning", warning)
        except CertificateError as error:
            lines += str(error).splitlines()
        for line in lines:
            self.note("invalid", line)
        return (evolve(facts[0], flaw="; ".join(lines) or None), *facts[1:])


def take(config: Config, now: float) -> Inventory:
    """Read every file with certificates that is in play.

    Args:
        config: The configuration.
        now: Seconds since the epoch.
    """
    found = Inventory()
    tls = config.server.tls
    if tls.mode in ("application", "auto"):
        _take_ours(config, found, now)
        if tls.ca_file is not None and tls.client_auth != "none":
            _take_bundle(found, tls.ca_file, "server.tls.ca_file", "client_ca")
            if tls.crl_file is not None:
                _take_lists(found, tls.crl_file)
    bundles: set[str] = set()
    for upstream in config.servers.values():
        if upstream.enabled and upstream.url is not None and upstream.url.startswith(("https:", "wss:")):
            _take_upstream(upstream, found, bundles)
    return found


def _take_ours(config: Config, found: Inventory, now: float) -> None:
    """The pairs that we serve; of two certificates for a name the first one counts, and the first is the default."""
    tls = config.server.tls
    strict = strict_keys(config.server)
    taken: set[str] = set()
    first = 1 if tls.cert_file is not None and tls.key_file is not None else 0
    for at, pair in enumerate(tls.pairs):
        key = "server.tls" if at < first else f"server.tls.certificates[{at - first}]"
        facts = found.pair(pair, key, now, strict=strict)
        for one in facts[:1]:
            names = tuple(name for name in one.names if name not in taken)
            taken.update(names)
            found.entries.append(Entry(facts=one, key=key, names=names, default=at == 0))
        found.add(facts[1:], key)


def _take_upstream(upstream: UpstreamConfig, found: Inventory, bundles: set[str]) -> None:
    key = f"mcpServers.{upstream.name}"
    if upstream.ca_file is not None and upstream.ca_file not in bundles:
        bundles.add(upstream.ca_file)
        _take_bundle(found, upstream.ca_file, f"{key}.ca_file", "upstream_ca")
    if upstream.cert_file is not None and upstream.key_file is not None:
        # Not checked as a pair that we serve, which must have names.
        chain = found.read(upstream.cert_file, f"{key}.cert_file", read_chain) or ()
        found.read(upstream.key_file, f"{key}.key_file", read_key)
        found.add((facts_of(upstream.cert_file, one, "upstream_client") for one in chain[:1]), key)
        found.add((facts_of(upstream.cert_file, one, "intermediate") for one in chain[1:]), key)


def _take_bundle(found: Inventory, file: str, key: str, role: Role) -> None:
    chain = found.read(file, key, read_chain) or ()
    facts = [facts_of(file, one, role) for one in chain]
    if len(facts) > _LARGE:
        longest = max(facts, key=lambda one: one.not_after)
        found.entries.append(Entry(facts=longest, key=key, more=len(facts) - 1))
    else:
        found.add(facts, key)


def _take_lists(found: Inventory, file: str) -> None:
    """The revocation lists of the client authorities that were found."""
    lists = found.read(file, "server.tls.crl_file", read_crls)
    if lists is None:
        return
    authorities = [entry.facts.subject for entry in found.entries if entry.facts.role == "client_ca"]
    for one in lists:
        found.add(list_facts(file, one), "server.tls.crl_file")
    for missing in sorted(set(authorities) - {one.issuer.rfc4514_string() for one in lists}):
        found.note("invalid", f"{file}: holds no list of {missing}, so that every client of it is refused; add it")
