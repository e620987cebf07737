"""Endpoints to servers: connections that notice a dead peer, and ways through an HTTP proxy."""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mcptunnel.liveness import keep_alive
from mcptunnel.upstream.proxies import Proxy

__all__ = ["Kept", "Named", "Tunnel"]

# A proxy's answer to CONNECT.
MAX_HEAD: Final = 16_384
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([ -~]{0,100}))?")


def _refusal(why: str) -> ConnectError:
    return ConnectError(string=why)  # type: ignore[no-untyped-call]


@implementer(IStreamClientEndpoint)
class Kept:
    """A TCP endpoint whose connections are looked after by :func:`mcptunnel.liveness.keep_alive`."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint: Final = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        def connected(protocol: Any) -> Any:
            if protocol.transport is not None:
                keep_alive(protocol.transport)
            return protocol

        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(connected)


@implementer(IStreamClientEndpoint)
class Named:
    """An endpoint to a proxy: errors say that it is the proxy, not the server, that is not there."""

    def __init__(self, endpoint: IStreamClientEndpoint, proxy: Proxy) -> None:
        self._endpoint: Final = endpoint
        self._proxy: Final = proxy

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        def refused(failure: Failure) -> Any:
            if isinstance(failure.value, CancelledError):
                return failure
            why = failure.getErrorMessage() or type(failure.value).__name__
            raise _refusal(f"the proxy {self._proxy} cannot be reached: {why}")

        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(refused)


@implementer(IStreamClientEndpoint)
class Tunnel:
    """A connection to a server through a proxy (CONNECT, RFC 9110 §9.3.6).

    Args:
        endpoint: To the proxy.
        proxy: Which one.
        host: Of the server; an IPv6 address without brackets.
        port: Of the server.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, proxy: Proxy, host: str, port: int) -> None:
        self._endpoint: Final = Named(endpoint, proxy)
        self._proxy: Final = proxy
        self._there: Final = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        opening: list[_Opening] = []
        there = self._there.encode("ascii")
        request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (there, there, self._proxy.line)

        def cancel(_: Deferred[Any]) -> None:
            connecting.cancel()
            for one in opening:
                one.abort()

        def connected(protocol: Any) -> None:
            opening.append(protocol)

        def refused(failure: Failure) -> None:
            if not result.called:
                result.errback(failure)

        result: Deferred[Any] = Deferred(cancel)
        factory = Factory.forProtocol(lambda: _Opening(request, protocolFactory, result, str(self._proxy)))
        factory.noisy = False
        connecting = self._endpoint.connect(factory)
        connecting.addCallbacks(connected, refused)
        return result


class _Opening(Protocol):
    """Asks the proxy; then everything is the server's."""

    def __init__(self, request: bytes, factory: IProtocolFactory, result: Deferred[Any], proxy: str) -> None:
        self._request: Final = request
        self._factory: Final = factory
        self._result: Final = result
        self._proxy: Final = proxy
        self._head = b""
        self._inner: Any = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def abort(self) -> None:
        """Nobody waits any more."""
        if self._inner is None and self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # ITCPTransport has it

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > MAX_HEAD:
                self._refuse("sent no answer that could be read")
            return
        status = _STATUS.match(head)
        if status is None:
            self._refuse("sent no answer that could be read")
        elif status[1] == b"407":
            self._refuse("asks for a user name and password, or refuses those it got (407)")
        elif not status[1].startswith(b"2"):
            said = b" ".join(filter(None, status.groups())).decode("ascii")
            self._refuse(f"refuses to connect to the server ({said})")
        elif not self._result.called:
            self._head = b""
            self._inner = self._factory.buildProtocol(self.transport.getPeer())  # type: ignore[union-attr]
            self._inner.makeConnection(self.transport)
            self._result.callback(self._inner)
            if rest:
                self._inner.dataReceived(rest)

    def _refuse(self, why: str) -> None:
        if not self._result.called:
            self._result.errback(_refusal(f"the proxy {self._proxy} {why}"))
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self._result.called:
            self._result.errback(_refusal(f"the proxy {self._proxy} closed the connection"))
