"""What ``server.tls.acme_webroot`` changes: a directory that is served, and the rules that make way for it."""

from __future__ import annotations

import os

from twisted.web.resource import Resource

from mcptunnel.config.schema import TlsConfig
from mcptunnel.core.acme import exempting
from mcptunnel.core.plaintext import Decide
from mcptunnel.web.challenges import Challenges
from mcptunnel.web.tree import Nothing

__all__ = ["beside_challenges", "elsewhere", "unready"]


def elsewhere(tls: TlsConfig) -> Resource:
    """What lies at addresses that are no routes."""
    nothing = Nothing()  # type: ignore[no-untyped-call]
    return nothing if tls.acme_webroot is None else Challenges(tls.acme_webroot, nothing)


def beside_challenges(tls: TlsConfig, decide: Decide) -> Decide:
    """``decide``, for everything but the challenges that are answered."""
    return decide if tls.acme_webroot is None else exempting(decide)


def unready(tls: TlsConfig) -> list[str]:
    """What the operator should hear. The directory is looked at when a challenge comes: it may still be made."""
    if tls.acme_webroot is None or os.path.isdir(tls.acme_webroot):
        return []
    return [
        f"server.tls.acme_webroot: there is no directory {tls.acme_webroot}, so no challenge can be answered; make it, "
        "or name the one that the ACME client writes to"
    ]
