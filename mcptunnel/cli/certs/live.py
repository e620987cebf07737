"""What is on the wire: whether our listener serves what the files hold, and what https servers behind us present."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from attrs import evolve
from cryptography import x509

from mcptunnel.cli.certs.connect import DialError, Way
from mcptunnel.cli.certs.dial import Seen, dial
from mcptunnel.cli.certs.flaws import advice, distrust
from mcptunnel.cli.certs.inventory import Entry, Inventory
from mcptunnel.cli.certs.target import Target
from mcptunnel.cli.certs.together import all_at_once
from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.core.addresses import Trust, local_way
from mcptunnel.core.certificates import covers
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.chain import facts_of, fingerprint
from mcptunnel.tls.pem import read_chain, read_file
from mcptunnel.upstream.proxies import ProxyError, proxy_for

__all__ = ["listener_way", "look_at_listener", "look_at_upstreams", "show_progress"]

_LISTENER_SECONDS: Final = 2.0
_UPSTREAM_SECONDS: Final = 10.0
# However many there are.
_ALL_SECONDS: Final = 60.0


def look_at_listener(config: Config, found: Inventory) -> None:
    """Shake hands with our own listener for each certificate, and compare; the answer goes into the entries.

    What it serves instead of a file's certificate becomes an entry of its own, because it is that which clients see.
    """
    way = listener_way(config)
    places = [
        at for at, entry in enumerate(found.entries) if entry.facts.role == "leaf" and (entry.names or entry.default)
    ]
    if way is None or not places:
        return
    jobs = [partial(_shake_hands, way, found.entries[at]) for at in places]
    results = all_at_once(jobs, _LISTENER_SECONDS * 2)
    # From the end, so that places stay right while entries come in between.
    for at, seen in reversed(list(zip(places, results, strict=True))):
        entry = found.entries[at]
        if not isinstance(seen, Seen):
            found.entries[at] = evolve(entry, served="not running")
        elif fingerprint(seen.presented.chain[0]) == entry.facts.fingerprint:
            found.entries[at] = evolve(entry, served="yes")
        else:
            now = facts_of(_listener(config), seen.presented.chain[0], "leaf")
            found.entries[at] = evolve(entry, served="other", instead=now.fingerprint)
            found.entries.insert(at + 1, Entry(facts=now, key="(in service)"))
            found.note(
                "warning",
                f"{entry.facts.file}: {_listener(config)} serves another certificate, SHA-256 {now.fingerprint[:16]}…; "
                "the daemon has refused this one, as its log says, or something else listens there",
            )


def listener_way(config: Config) -> Way | None:
    """The way to our own listener; None when it cannot be known."""
    server = config.server
    before = b""
    if server.proxy_protocol == "required":
        local = "::1" if ":" in server.host else "127.0.0.1"
        if Trust(server.tls.trusted_proxies).matching(local) is None:
            return None
        # For a health check of a load balancer: no address of a client.
        before = b"PROXY UNKNOWN\r\n"
    if server.host.startswith("unix:"):
        return Way(host=server.host.removeprefix("unix:"), port=None, before=before)
    if server.host.startswith("systemd:") or server.port == 0:
        return None
    return Way(host=local_way(server.host), port=server.port, before=before)


def look_at_upstreams(config: Config, found: Inventory, progress: Callable[[str], None]) -> None:
    """Add what every https and wss server behind us presents, all asked at once.

    Args:
        config: The configuration.
        found: Where it goes.
        progress: Told what is being waited for.
    """
    asked = [
        entry
        for entry in config.servers.values()
        if entry.enabled and entry.url is not None and urlsplit(entry.url).scheme in ("https", "wss")
    ]
    if not asked:
        return
    progress(f"asking {len(asked)} servers for their certificates…")
    results = all_at_once([partial(_ask, entry) for entry in asked], _ALL_SECONDS)
    progress("")
    for entry, seen in zip(asked, results, strict=True):
        key = f"mcpServers.{entry.name}"
        if isinstance(seen, Seen):
            _add_presented(entry, key, seen, found)
        else:
            says = advice(seen, _host(entry)) if isinstance(seen, DialError) else str(seen or "does not answer in time")
            found.note("unknown", f"{key}: {_target(entry)} {says}")


@contextmanager
def show_progress() -> Iterator[Callable[[str], None]]:
    """A line on standard error that comes and goes, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    def show(text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        show("")


def _shake_hands(way: Way, entry: Entry) -> Seen:
    name = next((name for name in entry.names if not Target(host=name, port=0).is_address), None)
    # A wildcard stands for one label, whichever.
    asked = None if name is None else name.replace("*", "any", 1)
    return dial(way, asked, (), seconds=_LISTENER_SECONDS)


def _listener(config: Config) -> str:
    server = config.server
    if server.host.startswith("unix:"):
        return server.host
    return str(Target(host=server.host.strip("[]"), port=server.port))


def _ask(entry: UpstreamConfig) -> Seen:
    target = _target(entry)
    try:
        trust = None if entry.ca_file is None else read_chain(read_file(entry.ca_file))
        proxy = proxy_for(entry.url or "", entry.proxy, os.environ)
    except (OSError, CertificateError):
        # Said already, of the file.
        trust, proxy = (), None
    except ProxyError as error:
        raise DialError("proxy", str(error)) from None
    name = None if target.is_address else target.host
    return dial(Way(host=target.host, port=target.port, proxy=proxy), name, trust, seconds=_UPSTREAM_SECONDS)


def _add_presented(entry: UpstreamConfig, key: str, seen: Seen, found: Inventory) -> None:
    chain: Sequence[x509.Certificate] = seen.presented.chain
    flaws = list(distrust(seen, entry.ca_file, f"{key}.ca_file"))
    if not covers(facts_of(key, chain[0], "upstream"), _host(entry)):
        flaws.append(f"it is not for {_host(entry)}")
    for at, one in enumerate(chain):
        # What is against the chain is said once, of its first certificate.
        found.entries.append(
            Entry(facts=facts_of(key, one, "upstream", "; ".join(flaws) or None if at == 0 else None), key=key)
        )


def _host(entry: UpstreamConfig) -> str:
    return urlsplit(entry.url or "").hostname or ""


def _target(entry: UpstreamConfig) -> Target:
    return Target(host=_host(entry), port=urlsplit(entry.url or "").port or 443)
