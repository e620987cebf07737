"""The edge as in ``mcptunnel_echo``, behind the front and its TLS: PORT CERT KEY BYTES [resume]."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - a program's main module
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mcptunnel.config.schema import LimitsConfig, TlsConfig
from mcptunnel.core.addresses import Trust
from mcptunnel.core.forwarded import ForwardedPolicy, Resolver
from mcptunnel.tls.front import FrontFactory
from mcptunnel.tls.store import CertificateStore
from mcptunnel.web.site import Site

port, cert_file, key_file, size, *resume = sys.argv[1:]
LARGE = b"x" * int(size)
# The bench opens all its connections from one address, and lets them idle for longer than clients would.
LIMITS = LimitsConfig(connections=20_000, client_connections=20_000, idle_timeout=900.0)


class Answers(Resource):
    """``/large`` is large, everything else is small."""

    isLeaf = True

    def render(self, request: Any) -> int:
        request.respond(200, b"application/octet-stream", LARGE if request.path == b"/large" else b"ok")
        return NOT_DONE_YET


def record(_: Any) -> None:
    """One for each request, as in the daemon."""


clock: Any = reactor
tls = TlsConfig(mode="application", cert_file=cert_file, key_file=key_file, session_resumption=bool(resume))
site = Site(Answers(), Resolver(ForwardedPolicy(trust=Trust(()))), clock, limits=LIMITS, on_record=record)
front = FrontFactory(
    mode="application",
    proxy_protocol="off",
    trust=Trust(()),
    limits=LIMITS,
    clock=clock,
    site=site,
    refusals={},
    store=CertificateStore.from_config(tls, clock.seconds()),
)
front.listens(clock.listenTCP(int(port), front, 1024, "127.0.0.1"))
clock.run()
