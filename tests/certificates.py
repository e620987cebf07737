"""Certificates for the outside tests: one authority per test run, leaves minted as they are needed."""

from __future__ import annotations

import ssl
import time
from functools import cache
from pathlib import Path
from typing import Any

from mcptunnel.config.schema import CertificatePair
from mcptunnel.test.tls.certs import Authority

__all__ = ["NAME", "authority", "client_context", "issue"]

# What clients call the daemon, whatever stands in front of it.
NAME = "mcp.example.com"


@cache
def authority() -> Authority:
    """The authority that every client of a test run trusts."""
    return Authority.root("mcptunnel outside tests")


@cache
def client_context() -> ssl.SSLContext:
    """Trusts :func:`authority` and nothing else, and checks names."""
    return ssl.create_default_context(cadata=authority().pem.decode())


def issue(place: Path, name: str = "server", **others: Any) -> CertificatePair:
    """A pair of files for :data:`NAME`, ``localhost`` and 127.0.0.1, good for 90 days from now."""
    names = (NAME, "localhost", "127.0.0.1")
    return authority().issue(*names, now=time.time(), **others).write(place, name)
