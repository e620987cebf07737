"""The front of every connection: who is it, what does it speak, and who takes it from here.

It reads the first bytes only: a PROXY header where one is believed, then TLS or HTTP by the tables of
:mod:`mcptunnel.core.preface`. After that it is a thin thing between the socket and the protocol it chose: bytes that
come in take one call more, bytes that go out none, since the protocol gets the socket itself as its transport. It
stays because it has to hear of the end of the connection, which is counted.

Invariant: trust is judged on the socket's peer, and again on the address that a trusted peer's PROXY header names.
Nothing that a request says can change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

from attrs import define, field
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from mcptunnel.config.schema import LimitsConfig
from mcptunnel.core import clienthello
from mcptunnel.core.addresses import Trust, peer_text
from mcptunnel.core.handshakes import CLOSED, HINTS, PLAIN_HTTP, TIMEOUT, UNKNOWN_NAME, Cause
from mcptunnel.core.handshakes import explain as explain_failure
from mcptunnel.core.preface import Action, Kind, Mode, classify, decide
from mcptunnel.core.principal import Principal
from mcptunnel.core.proxyheader import ProxyHeader, parse
from mcptunnel.liveness import hand_on, keep_alive
from mcptunnel.tls.admission import Admission, client_key
from mcptunnel.tls.context import cause, resumed, verify_error
from mcptunnel.tls.deadlines import Deadlines
from mcptunnel.tls.eager import write_eagerly
from mcptunnel.tls.handshake import Creator, Handshake
from mcptunnel.tls.layer import Layer
from mcptunnel.tls.peer import PeerTransport, address_of
from mcptunnel.tls.store import CertificateStore
from mcptunnel.tls.tally import EXPLAINED, HandshakeKey, Tally

__all__ = ["Front", "FrontFactory"]

# RFC 8446 §6: a fatal alert unrecognized_name, as the only record of a connection.
_UNRECOGNIZED_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"


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
        # Of a ClientHello that is awaited: what has come since the last look, and how much must come before the next.
        self._pieces: list[bytes] | None = None
        self._missing = 0
        self._ended: str | None = None

    def __repr__(self) -> str:
        return f"<Front of {self._peer}>"

    def makeConnection(self, transport: Any) -> None:
        self.connected = 1
        self.transport = transport
        if not self.factory.handed_on:
            keep_alive(transport, self.factory.patience)
        self.factory.undecided.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
        elif self._ended is None:
            if self._pieces is None:
                self._buffer += data
                self._decide()
                return
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing <= 0:
                self._buffer, self._pieces = b"".join((self._buffer, *self._pieces)), None
                self._choose()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.gone(self, self._client)
        inner, self.wrappedProtocol = self.wrappedProtocol, None
        if inner is not None:
            inner.connectionLost(reason)
        elif self._ended is not None:
            return
        elif self._pieces is not None:
            self.factory.tally.failed(Cause(CLOSED, HINTS[CLOSED]), self._peer)
        else:
            self.factory.tally.note("silent", self._peer, "it closed before it was clear what it wanted")

    def end(self, reason: str) -> None:
        """Reset the connection, for a reason that is counted."""
        self._ended = reason
        self._buffer = b""
        self.factory.tally.note(reason, self._peer, EXPLAINED.get(reason, reason))
        self.transport.abortConnection()

    def late(self) -> None:
        """The handshake takes too long."""
        self._ended = TIMEOUT
        self._buffer = b""
        self.factory.tally.failed(Cause(TIMEOUT, HINTS[TIMEOUT]), self._peer)
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
        tally = self.factory.tally
        self.factory.undecided.remove(self)
        tally.note(action.name.lower(), self._peer, self._why(kind) if tally.debug else "")
        if action is Action.SERVE_TLS:
            self.factory.handshaking.add(self)
            self._choose()
            return
        if action is Action.REFUSE_BAD_REQUEST:
            tally.failed(Cause(PLAIN_HTTP, HINTS[PLAIN_HTTP]), self._peer)
        transport = self._seen()
        inner = self.factory.plain(action).buildProtocol(transport.getPeer())
        if inner is None:
            self.end("unserved")
            return
        self._hand_over(transport, inner)

    def _choose(self) -> None:
        """Begin TLS with the context for the name that the client asks for, as soon as that can be read."""
        try:
            hello = clienthello.read(self._buffer)
        except ValueError:
            # OpenSSL says what is wrong with it, to the client and to us.
            hello = clienthello.Hello(None)
        if isinstance(hello, int):
            if hello <= clienthello.LARGEST:
                self._pieces, self._missing = [], hello - len(self._buffer)
                return
            hello = clienthello.Hello(None)
        context = self.factory.context_for(hello.name)
        if context is None:
            self._ended = UNKNOWN_NAME
            self.factory.tally.failed(Cause(UNKNOWN_NAME, HINTS[UNKNOWN_NAME]), self._peer)
            self._buffer = b""
            self.transport.write(_UNRECOGNIZED_NAME)
            self.transport.loseConnection()
            return
        self._hand_over(self._seen(), self.factory.tls(Handshake(context, self._shaken, self._failed)))

    def _seen(self) -> Any:
        """The transport, with the peer that a PROXY header has named."""
        if self._header is None or self._header.source is None:
            return self.transport
        return PeerTransport(self.transport, address_of(self._header.source, self._header.source_port or 0))

    def _hand_over(self, transport: Any, inner: IProtocol) -> None:
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
        key = HandshakeKey(
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            connection.get_group_name() or "",
            resumed(connection),
        )
        self.factory.tally.handshakes[key] += 1
        channel: Any = self.factory.site.buildProtocol(tls.getPeer())
        if channel is None:
            self.end("unserved")
            return
        if self.factory.recognize is not None:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            channel.certified = None if certificate is None else self.factory.recognize(certificate)
        tls.wrappedProtocol = channel
        channel.makeConnection(tls)

    def _failed(self, tls: Any, reason: BaseException) -> None:
        if self._ended is None and not self.factory.ours(self.transport.getPeer()):
            self.factory.tally.failed(explain_failure(cause(reason), verify_error(tls.getHandle())), self._peer)


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
        recognize: Whom a client certificate that was verified stands for; None to ask nobody.
        ours: Whether a peer is ourselves, who have no certificate to show where one is required.
        tally: What became of connections.
        handed_on: Connections have their socket's options from the port, see :meth:`listens`.
    """

    mode: Mode
    proxy_protocol: Literal["off", "optional", "required"]
    trust: Trust
    limits: LimitsConfig
    clock: IReactorTime
    site: IProtocolFactory
    refusals: Mapping[Action, IProtocolFactory] = field(factory=dict)
    store: CertificateStore | None = None
    recognize: Callable[[x509.Certificate], Principal | None] | None = None
    ours: Callable[[IAddress], bool] = lambda _: False
    tally: Tally = field(factory=Tally)
    admission: Admission = field(init=False)
    undecided: Deadlines[Front] = field(init=False)
    handshaking: Deadlines[Front] = field(init=False)
    handed_on: bool = field(init=False, default=False)
    _tls: TLSMemoryBIOFactory | None = field(init=False, default=None)

    noisy = False

    def __attrs_post_init__(self) -> None:
        self.admission = Admission(self.limits.connections, self.limits.client_connections)
        self.undecided = Deadlines(self.clock, self.limits.preface_timeout, lambda front: front.end("preface_timeout"))
        self.handshaking = Deadlines(self.clock, self.limits.handshake_timeout, Front.late)
        if self.store is not None:
            self._tls = TLSMemoryBIOFactory(Creator(), False, self.site, self.clock)
        assert (self._tls is not None) == (self.mode in ("application", "auto")), "certificates and mode disagree"

    @property
    def patience(self) -> float:
        """How long the kernel bears a client that reads nothing: longer than the channel, which judges first."""
        return 2 * self.limits.write_timeout

    def listens(self, port: IListeningPort) -> None:
        """Let the connections that ``port`` accepts be fast, and let the dead ones be found.

        Events of a stream are small writes that must leave at once; a client that is gone without a word must not hold
        a stream for ever.
        """
        write_eagerly(port)
        self.handed_on = hand_on(port, self.patience)

    def context_for(self, name: str | None) -> SSL.Context | None:
        """What a client gets that asks for ``name``; None when it is to be refused."""
        assert self.store is not None
        return self.store.context_for(name)

    def tls(self, inner: Handshake) -> IProtocol:
        """A TLS layer below ``inner``, with the context that ``inner`` has brought along.

        Not the aggregating one that Twisted uses by default: it holds every write back for a turn of the reactor,
        while our channel writes whole responses and the events of a stream must leave at once.
        """
        assert self._tls is not None
        layer: Any = Layer
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
            self.tally.note("connections", peer, EXPLAINED["connections"])
            return None
        if client is not None and not self.admission.enter_client(client):
            self.admission.leave()
            self.tally.note("client_connections", peer, EXPLAINED["client_connections"])
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
