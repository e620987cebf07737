"""What servers present, without servers; and what a command prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from typing import Any

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.cli import main
from mcptunnel.cli.certs.dial import Seen
from mcptunnel.tls.probe import Presented


class CommandCase(SynchronousTestCase):
    """Runs commands."""

    def run_command(self, *argv: str) -> tuple[int, str, str]:
        """Status, output, errors."""
        out, err = StringIO(), StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        return main(["certs", *argv]), out.getvalue(), err.getvalue()


def presenting(*chain: x509.Certificate, flaws: Sequence[str] = (), hung_up: bool = False, **others: Any) -> Seen:
    """A server that shows ``chain``, which OpenSSL finds ``flaws`` with."""
    presented = Presented(
        chain=chain,
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        group="X25519MLKEM768",
        flaws=tuple(flaws),
        **others,
    )
    return Seen(peer="192.0.2.1:443", presented=presented, hung_up=hung_up)
