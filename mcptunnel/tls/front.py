"""The front of every connection: who is it, what does it speak, and who takes it from here.

It reads the first bytes only: a PROXY header where one is believed, then TLS or HTTP by the tables of
:mod:`mcptunnel.core.preface`. After that it is a thin thing between the socket and the protocol it chose: bytes that
come in take one call more, bytes that go out none, since the protocol gets the socket itself as its transport. It
stays because it has to hear of the end of the connection, which is counted.

Invariant: trust is judged on the socket's peer, and again on the address that a trusted peer's PROXY header names.
Nothing that a request says can change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from attrs import define, field
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core.addresses import Trust, peer_text
from mcptunnel.core.preface import Action, Kind, Mode, classify, decide
from mcptunnel.core.proxyheader import ProxyHeader, parse
from mcptunnel.liveness import keep_alive
from mcptunnel.tls.admission import Admission, client_key
from mcptunnel.tls.context import cause
from mcptunnel.tls.deadlines import Deadlines
from mcptunnel.tls.handshake import Handshake
from mcptunnel.tls.peer import PeerTransport, address_of
from mcptunnel.tls.store import CertificateStore

__all__ = ["Front", "FrontFactory"]

# Ends that an operator has to hear of once, since the other side sees a reset connection and nothing else.
_EXPLAINED: Final[Mapping[str, str]] = {
    "proxy_untrusted": "it sent a PROXY header but is not in server.tls.trusted_proxies",
    "proxy_missing": "server.proxy_protocol is required, and it sent no PROXY header",
    "proxy_malformed": "its PROXY header is malformed",
    "proxy_twice": "it sent two PROXY headers",
    "unexpected_proxy": "it sent a PROXY header, and server.proxy_protocol is off",
    "unexpected_tls": "it speaks TLS, and server.tls.mode serves plaintext only",
    "connections": "server.limits.connections is reached",
    "client_connections": "its share of connections, server.limits.client_connections, is reached",
}


class Front(ProtocolWrapper):
    """One connection, until it is decided and after.

    A ProtocolWrapper, since that is where autobahn looks for the place to put its own protocol when it takes a
    connection over from HTTP.

    Attributes:
        wrappedProtocol: Who takes the bytes; None while the connection is undecided.
    """

    factory: FrontFactory
    transport: Any
    wrappedProtocol: Any

    def __init__(self, factory: FrontFactory, peer: str, trusted: bool, client: str | None) -> None:
        self.factory = factory
        self.wrappedProtocol = None
        self._peer = peer
        self._socket_trusted = self._trusted = trusted
        self._client = client
        self._header: ProxyHeader | None = None
        self._buffer = b""
        self._ended: str | None = None

    def __repr__(self) -> str:
        return f"<Front of {self._peer}>"

    def makeConnection(self, transport: Any) -> None:
        self.connected = 1
        self.transport = transport
        # Events of a stream are small writes that must leave at once; a client that is gone without a word must not
        # hold a stream for ever. What it may refuse to read is for the channel to judge, hence the margin.
        keep_alive(transport, 2 * self.factory.limits.write_timeout)
        self.factory.undecided.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
        elif self._ended is None:
            self._buffer += data
            self._decide()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.gone(self, self._client)
        inner, self.wrappedProtocol = self.wrappedProtocol, None
        if inner is not None:
            inner.connectionLost(reason)
        elif self._ended is None:
            self.factory.note("silent", self._peer, "it closed before it was clear what it wanted")

    def end(self, reason: str) -> None:
        """Reset the connection, for a reason that is counted."""
        self._ended = reason
        self._buffer = b""
        self.factory.note(reason, self._peer, _EXPLAINED.get(reason, reason))
        self.transport.abortConnection()

    def _decide(self) -> None:
        kind = classify(self._buffer)
        if kind is Kind.PROXY and self.factory.proxy_protocol != "off":
            if self._header is None and not self._believe():
                return
            kind = classify(self._buffer)
            if kind is Kind.PROXY:
                self.end("proxy_twice")
                return
        if kind is None:
            return
        if self.factory.proxy_protocol == "required" and self._socket_trusted and self._header is None:
            self.end("proxy_missing")
            return
        self._act(kind, decide(self.factory.mode, kind, self._trusted))

    def _believe(self) -> bool:
        """Take a PROXY header off the buffer; False when it is incomplete, or has ended the connection."""
        if not self._socket_trusted:
            self.end("proxy_untrusted")
            return False
        try:
            header = parse(self._buffer)
        except ValueError:
            self.end("proxy_malformed")
            return False
        if header is None:
            return False
        self._header = header
        self._buffer = self._buffer[header.consumed :]
        if header.source is not None:
            # The load balancer's word goes as far as this address: whether that one may be believed is judged anew.
            self._peer = header.source
            self._trusted = self.factory.trust.holds(header.source)
            self._client = None if self._trusted else client_key(header.source)
            if self._client is not None and not self.factory.admission.enter_client(self._client):
                self._client = None
                self.end("client_connections")
                return False
        return True

    def _act(self, kind: Kind, action: Action) -> None:
        if action is Action.CLOSE:
            self.end(f"unexpected_{kind.name.lower()}")
            return
        self.factory.undecided.remove(self)
        self.factory.note(action.name.lower(), self._peer, self._why(kind) if self.factory.debug else "")
        transport = self.transport
        if self._header is not None and self._header.source is not None:
            transport = PeerTransport(transport, address_of(self._header.source, self._header.source_port or 0))
        inner: IProtocol | None
        if action is Action.SERVE_TLS:
            self.factory.handshaking.add(self)
            inner = self.factory.tls(Handshake(self._shaken, self._failed))
        else:
            inner = self.factory.plain(action).buildProtocol(transport.getPeer())
        if inner is None:
            self.end("unserved")
            return
        buffer, self._buffer = self._buffer, b""
        self.wrappedProtocol = inner
        inner.makeConnection(transport)
        inner.dataReceived(buffer)

    def _why(self, kind: Kind) -> str:
        trust = "in" if self._trusted else "not in"
        return f"{kind.name} in mode {self.factory.mode} from a peer that is {trust} server.tls.trusted_proxies"

    def _shaken(self, tls: Any) -> None:
        self.factory.handshaking.remove(self)
        connection: SSL.Connection = tls.getHandle()
        self.factory.handshakes[(connection.get_protocol_version_name(), connection.get_group_name() or "")] += 1
        channel = self.factory.site.buildProtocol(tls.getPeer())
        if channel is None:
            self.end("unserved")
            return
        tls.wrappedProtocol = channel
        channel.makeConnection(tls)

    def _failed(self, reason: BaseException) -> None:
        if self._ended is None:
            self.factory.note("handshake_failed", self._peer, cause(reason))


@define(eq=False, kw_only=True, slots=False)
class FrontFactory(Factory):
    """Builds the fronts of one listener and knows all connections that are not decided yet.

    Attributes:
        mode: ``server.tls.mode``.
        proxy_protocol: ``server.proxy_protocol``.
        trust: ``server.tls.trusted_proxies``.
        limits: ``server.limits``.
        clock: For the two deadlines, of which each needs one timer whatever the number of connections.
        site: Builds what serves a connection.
        refusals: Builds what answers and closes, for each REFUSE action that the mode can lead to.
        store: The certificates; None in the modes without TLS.
        debug: Log what becomes of every connection, and why. Off unless somebody asks: twistd's log shows every level.
        counts: How often connections came to each end or beginning.
        handshakes: Complete handshakes by (version, key exchange group).
    """

    mode: Mode
    proxy_protocol: Literal["off", "optional", "required"]
    trust: Trust
    limits: LimitsConfig
    clock: IReactorTime
    site: IProtocolFactory
    refusals: Mapping[Action, IProtocolFactory] = field(factory=dict)
    store: CertificateStore | None = None
    debug: bool = False
    admission: Admission = field(init=False)
    undecided: Deadlines[Front] = field(init=False)
    handshaking: Deadlines[Front] = field(init=False)
    counts: Counter[str] = field(init=False, factory=Counter)
    handshakes: Counter[tuple[str, str]] = field(init=False, factory=Counter)
    _tls: TLSMemoryBIOFactory | None = field(init=False, default=None)
    _said: set[str] = field(init=False, factory=set)

    noisy = False
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self.admission = Admission(self.limits.connections, self.limits.client_connections)
        self.undecided = Deadlines(self.clock, self.limits.preface_timeout, lambda front: front.end("preface_timeout"))
        self.handshaking = Deadlines(
            self.clock, self.limits.handshake_timeout, lambda front: front.end("handshake_timeout")
        )
        if self.store is not None:
            self._tls = TLSMemoryBIOFactory(self.store, False, self.site, self.clock)
        assert (self._tls is not None) == (self.mode in ("application", "auto")), "certificates and mode disagree"

    def tls(self, inner: IProtocol) -> IProtocol:
        """A TLS layer below ``inner``, with the certificates in service at this moment.

        Not the aggregating one that Twisted uses by default: it holds every write back for a turn of the reactor,
        while our channel writes whole responses and the events of a stream must leave at once.
        """
        assert self._tls is not None
        layer: Any = TLSMemoryBIOProtocol
        return cast(IProtocol, layer(self._tls, inner))

    def plain(self, action: Action) -> IProtocolFactory:
        """What takes a plaintext connection."""
        return self.site if action is Action.SERVE_PLAIN else self.refusals[action]

    def buildProtocol(self, addr: IAddress | None) -> Front | None:  # type: ignore[override]
        peer = peer_text(addr)
        trusted = self.trust.holds(peer)
        # A proxy brings the connections of many; with PROXY headers its clients are counted one by one.
        client = None if trusted else client_key(peer)
        # None closes the socket at once: the cheapest answer there is to a flood.
        if not self.admission.enter():
            self.note("connections", peer, _EXPLAINED["connections"])
            return None
        if client is not None and not self.admission.enter_client(client):
            self.admission.leave()
            self.note("client_connections", peer, _EXPLAINED["client_connections"])
            return None
        return Front(self, peer, trusted, client)

    def startFactory(self) -> None:
        for factory in {self.site, *self.refusals.values()}:
            factory.doStart()

    def stopFactory(self) -> None:
        """No more connections come: those that have said nothing yet are ended, the others are the site's to end."""
        for front in (*self.undecided.stop(), *self.handshaking.stop()):
            front.end("stopping")
        for factory in {self.site, *self.refusals.values()}:
            factory.doStop()

    def gone(self, front: Front, client: str | None) -> None:
        """A connection is over."""
        self.undecided.remove(front)
        self.handshaking.remove(front)
        self.admission.leave()
        if client is not None:
            self.admission.leave_client(client)

    def note(self, what: str, peer: str, why: str) -> None:
        """Count what became of a connection. What an operator has to know of is logged the first time it happens."""
        self.counts[what] += 1
        if what in _EXPLAINED and what not in self._said:
            self._said.add(what)
            self._log.warn(
                "connection of {peer} was reset ({what}): {why}; further ones are counted, not logged",
                what=what,
                peer=peer,
                why=why,
            )
        elif self.debug:
            self._log.debug("connection of {peer}: {what}: {why}", what=what, peer=peer, why=why)
