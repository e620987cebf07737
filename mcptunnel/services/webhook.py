"""An alert as an HTTP request: POST, JSON, no redirect, and nobody reads the answer but for its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from mcptunnel import __version__
from mcptunnel.core.errors import DeliveryError
from mcptunnel.services.ways import Way
from mcptunnel.tls.context import cause

__all__ = ["Webhook", "agent_on"]

# From the connection to the head of the answer.
SECONDS: Final = 15.0
_REASON: Final = 200


def agent_on(way: Way, reactor: Any) -> IAgent:
    """An agent whose connections are made on ``way``, a new one for each request."""
    pool = HTTPConnectionPool(reactor, persistent=False)  # type: ignore[no-untyped-call]
    made: IAgent = Agent.usingEndpointFactory(reactor, _OnTheWay(way), pool)  # type: ignore[no-untyped-call]
    return made


class Webhook:
    """A URL that takes documents.

    Args:
        url: http or https; may hold secrets.
        headers: Lines of the request; secret.
        agent: Makes requests and follows no redirect.
        clock: Ends those that take too long.
    """

    def __init__(self, url: str, headers: Mapping[str, str], agent: IAgent, clock: IReactorTime) -> None:
        self._url: Final = url.encode("ascii")
        lines = {"Content-Type": "application/json", "User-Agent": f"mcptunnel/{__version__}"}
        self._headers: Final = Headers({name: [value] for name, value in lines.items()})
        for name, value in headers.items():
            self._headers.setRawHeaders(name, [value])
        self._agent: Final = agent
        self._clock: Final = clock

    def send(self, document: bytes) -> Deferred[None]:
        """POST it. Fails with DeliveryError unless the answer is 2xx; cancelling it closes the connection."""
        return Deferred.fromCoroutine(self._post(document)).addTimeout(SECONDS, self._clock, _late)

    async def _post(self, document: bytes) -> None:
        try:
            response: Any = await self._agent.request(b"POST", self._url, self._headers, _Body(document))
        except CancelledError:
            raise
        except Exception as error:
            raise DeliveryError(_why(error)) from None
        response.deliverBody(_Unread(self._clock))
        if not 200 <= response.code < 300:
            raise DeliveryError(f"it answered {response.code}")


@implementer(IAgentEndpointFactory)
class _OnTheWay:
    def __init__(self, way: Way) -> None:
        self._way: Final = way

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._way.endpoint()


@implementer(IBodyProducer)
class _Body:
    """A few hundred bytes, written at once."""

    def __init__(self, content: bytes) -> None:
        self.length: Final = len(content)
        self._content: Final = content

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All is written already."""

    def resumeProducing(self) -> None:
        """All is written already."""

    def stopProducing(self) -> None:
        """All is written already."""


class _Unread(Protocol):
    """The body of the answer may be endless: the connection ends with its head."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock: Final = clock

    def connectionMade(self) -> None:
        assert self.transport is not None
        # Not at once: whoever calls us is about to let the transport read on.
        self._clock.callLater(0, self.transport.loseConnection)


def _late(_: Any, seconds: float) -> Any:
    raise DeliveryError(f"no answer within {seconds:g} s")


def _why(error: Exception) -> str:
    reasons = error.reasons if isinstance(error, ResponseNeverReceived) else ()
    value = reasons[0].value if reasons else error
    text = cause(value) if isinstance(value, SSL.Error) else str(value)
    # What is no HTTP is quoted by whoever could not read it.
    return f"no answer ({text[:_REASON] or type(value).__name__})"
