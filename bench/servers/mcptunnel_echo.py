"""The edge with everything on: identity behind trusted proxies, admission by header, a record for each request."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - a program's main module
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mcptunnel.core.addresses import Trust
from mcptunnel.core.errors import RequestError
from mcptunnel.core.forwarded import ForwardedPolicy, Resolver
from mcptunnel.tls.eager import write_eagerly
from mcptunnel.web.site import Site


class Echo(Resource):
    isLeaf = True

    def render(self, request: Any) -> int:
        request.respond(200, b"application/json", request.body)
        return NOT_DONE_YET


class Account:
    """Who may ask, and how much has been asked."""

    exchanges = received = 0

    def admit(self, request: Any) -> None:
        if request.header(b"authorization") is not None:
            raise RequestError(403, "credentials", "Not here.")

    def record(self, record: Any) -> None:
        self.exchanges += 1
        self.received += record.received


account = Account()
echo = Echo()
site = Site(
    echo,
    Resolver(ForwardedPolicy(trust=Trust(("10.0.0.0/8",)))),
    reactor,
    admit=account.admit,
    on_record=account.record,
)
write_eagerly(reactor.listenTCP(int(sys.argv[1]), site, 1024, "127.0.0.1"))  # type: ignore[attr-defined]
reactor.run()
