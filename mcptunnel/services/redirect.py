"""The second port, on which http is spoken beside https: ``server.tls.redirect_http``.

It has the front of the first one: the same trust, PROXY headers, deadlines, and one count of connections for both. What
it serves is decided by ``action``: the way to https, or everything, while clients move.
"""

from __future__ import annotations

from typing import Any, Final

from mcptunnel.config.schema import Config
from mcptunnel.core.hosts import HostPolicy
from mcptunnel.core.plaintext import HttpsPolicy, require_https
from mcptunnel.services.acme import beside_challenges
from mcptunnel.services.listener import Listener
from mcptunnel.tls.endpoints import endpoint_for
from mcptunnel.tls.front import FrontFactory
from mcptunnel.tls.tally import Tally
from mcptunnel.web.site import Site

__all__ = ["redirect_listener"]

_SETTING: Final = "server.tls.redirect_http"


def redirect_listener(
    config: Config, reactor: Any, site: Site, hosts: HostPolicy, front: FrontFactory, https: Listener
) -> Listener | None:
    """The listener for http, with a :class:`~mcptunnel.tls.front.FrontFactory` as its factory, or None without one.

    Args:
        config: What it is built from.
        reactor: Where it will listen.
        site: What ``action: serve`` serves.
        hosts: The names we have.
        front: Of the first port.
        https: The first port: where it listens is known once it does.

    Raises:
        ListenError: systemd has passed no such socket.
    """
    redirect = config.server.tls.redirect_http
    if redirect is None:
        return None
    # Plaintext is taken from everybody, and TLS is closed: the first port is where that is spoken.
    second = FrontFactory(
        mode="disabled",
        proxy_protocol=front.proxy_protocol,
        trust=front.trust,
        limits=front.limits,
        clock=front.clock,
        site=site if redirect.action == "serve" else _refusing(config, site, hosts, https),
        tally=Tally(debug=front.tally.debug),
    )
    # What one client may hold open, and all together, does not grow with the number of ports.
    second.admission = front.admission
    host = redirect.host or config.server.host
    return Listener(
        endpoint=endpoint_for(reactor, host, redirect.port),
        factory=second,
        host=host,
        port=redirect.port,
        section=_SETTING,
    )


def _refusing(config: Config, site: Site, hosts: HostPolicy, https: Listener) -> Any:
    decide = require_https(HttpsPolicy.from_config(config.server.public_url, hosts, lambda: https.inet_port))
    return site.refusing(beside_challenges(config.server.tls, decide))
