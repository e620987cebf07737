"""The request: our own short way, twisted.web's contract, and autobahn's."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.filepath import FilePath
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.error import UnsupportedMethod
from twisted.web.iweb import IRequest
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory
from twisted.web.static import Data, File
from twisted.web.util import redirectTo
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcptunnel.core.errors import RequestError, RpcError
from mcptunnel.core.forwarded import FORWARDING, ForwardedPolicy
from mcptunnel.test.web.sites import Calling, Echo, Later, ask, get, serve, split, statuses

PROXY = IPv4Address("TCP", "10.0.0.9", 4711)


class OutcomeTests(SynchronousTestCase):
    """What render may return or raise."""

    def test_a_coroutine_is_driven(self) -> None:
        """Its bytes are the reply, its RequestError the refusal, its other errors a 500."""
        waiting: list[Deferred[bytes]] = []

        async def render(request: Any) -> bytes:
            waiting.append(Deferred())
            return await waiting[-1]

        connection = serve(Calling(render)).connect()
        self.assertEqual(connection.send(get()), b"")
        waiting[0].callback(b"abc")
        self.assertEqual(split(connection.received())[2], b"abc")
        connection.send(get())
        waiting[1].errback(RequestError(418, "teapot", "No coffee.", ((b"X-Pot", b"tea"),)))
        first, headers, body = split(connection.received())
        self.assertEqual((first[:12], headers[b"x-pot"]), (b"HTTP/1.1 418", b"tea"))
        self.assertIn(b'"reason":"teapot"', body)
        connection.send(get())
        waiting[2].errback(ZeroDivisionError())
        self.assertEqual(statuses(connection.received()), [500])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_coroutine_that_goes_on_without_its_client_is_ignored(self) -> None:
        """It may not want to be cancelled."""
        waiting: Deferred[bytes] = Deferred(lambda _: None)

        async def render(request: Any) -> bytes:
            try:
                return await waiting
            except BaseException:
                return b"late"

        connection = serve(Calling(render)).connect()
        connection.send(get())
        connection.lose()
        self.assertEqual(connection.received(), b"")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_coroutine_is_cancelled_with_its_client(self) -> None:
        """Silently."""
        cancelled: list[Any] = []

        async def render(request: Any) -> bytes:
            return await Deferred(cancelled.append)

        connection = serve(Calling(render)).connect()
        connection.send(get())
        connection.lose()
        self.assertEqual(len(cancelled), 1)

    def test_a_coroutine_that_forgets_to_answer_does_not_hang_the_client(self) -> None:
        """500; one that has answered may return nothing."""

        async def forgets(request: Any) -> None:
            return None

        async def answers(request: Any) -> None:
            request.respond(200, b"a/b", b"x")

        self.assertEqual(ask(forgets)[0][:12], b"HTTP/1.1 500")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(ask(answers)[0][:12], b"HTTP/1.1 200")

    def test_text_is_no_reply(self) -> None:
        """500, as twisted.web has it, but without the HTML."""
        self.assertEqual(ask(lambda _: "text")[0][:12], b"HTTP/1.1 500")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_refusal_may_be_raised(self) -> None:
        """Its record has the reason, and the JSON-RPC code if there is one."""

        def render(request: Any) -> bytes:
            request.setHeader(b"X-Prepared", b"1")
            request.write(b"half")
            raise RpcError(-32602, "No.", reason="bad_params", status=400)

        served = serve(Calling(render))
        first, headers, body = split(served.connect().send(get()))
        self.assertEqual(first, b"HTTP/1.1 400 Bad Request")
        self.assertNotIn(b"x-prepared", headers)
        self.assertNotIn(b"half", body)
        self.assertEqual([(r.error, r.code, r.status) for r in served.records], [("bad_params", -32602, 400)])

    def test_a_method_that_a_resource_lacks(self) -> None:
        """405 with Allow, as problem+json."""

        class OnlyPut(Resource):
            isLeaf = True

            def render_PUT(self, request: Any) -> bytes:
                return b""

        first, headers, _ = split(serve(OnlyPut()).connect().send(get()))
        self.assertEqual((first[:12], headers[b"allow"]), (b"HTTP/1.1 405", b"HEAD, PUT"))
        self.assertEqual(headers[b"content-type"], b"application/problem+json")

    def test_head_is_get_without_a_body(self) -> None:
        """Even where a resource has only GET of its own."""

        class OnlyGet(Resource):
            isLeaf = True

            def render(self, request: Any) -> Any:
                if request.method != b"GET":
                    raise UnsupportedMethod([b"GET"])
                return b"abc"

        first, headers, body = split(serve(OnlyGet()).connect().send(get(method=b"HEAD")))
        self.assertEqual((first, headers[b"content-length"], body), (b"HTTP/1.1 200 OK", b"3", b""))


class TwistedWebTests(SynchronousTestCase):
    """Resources of twisted.web, unchanged."""

    def one(self, request: bytes = get(), **arguments: Any) -> Any:
        """The request as a resource sees it; it has not been answered."""
        later = Later()
        self.connection = serve(later, **arguments).connect(IPv4Address("TCP", "192.0.2.7", 1234))
        self.connection.send(request)
        return later.seen[0]

    def test_it_provides_the_interface(self) -> None:
        """Attributes and methods of IRequest."""
        self.assertTrue(verifyObject(IRequest, self.one()))

    def test_the_attributes_of_a_request(self) -> None:
        """Headers, arguments, content, cookies, addresses."""
        request = self.one(
            get(
                b"Cookie: a=1; b=2\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 7\r\n"
                b"Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nAuthorization: Basic dTpw\r\n",
                b"/x/y%20z?q=1&q=2&e=",
                b"POST",
            )
            + b"f=3&q=4"
        )
        self.assertEqual(request.args, {b"q": [b"4"], b"e": [b""], b"f": [b"3"]})
        self.assertEqual(request.content.read(), b"f=3&q=4")
        self.assertEqual((request.getCookie(b"b"), request.getCookie(b"c")), (b"2", None))
        self.assertEqual(request.requestHeaders.getRawHeaders(b"x-two"), [b"1", b"2"])
        self.assertEqual((request.getHeader("X-Two"), request.getAllHeaders()[b"x-two"]), ("2", b"2"))
        self.assertEqual((request.getUser(), request.getPassword()), (b"u", b"p"))
        self.assertEqual(request.getClientAddress(), IPv4Address("TCP", "192.0.2.7", 0))
        self.assertEqual((request.prepath, request.postpath), ([], [b"x", b"y z"]))
        self.assertEqual((request.isSecure(), request.getRequestHostname()), (False, b"localhost"))
        self.assertEqual(request.getHost().port, 8080)
        self.assertEqual(request.prePathURL(), b"http://localhost:8080/")
        self.assertIn("uri=/x/y%20z", repr(request))

    def test_arguments_are_bytes_whatever_they_spell(self) -> None:
        """Percent-encoded bytes that are no text in any encoding, too."""
        self.assertEqual(self.one(get(path=b"/?a=%ff&b=%C3%A9")).args, {b"a": [b"\xff"], b"b": [b"\xc3\xa9"]})

    def test_a_form_of_another_method_stays_where_it_is(self) -> None:
        """Only POST has arguments in its body."""
        request = self.one(
            get(b"Content-Length: 3\r\nContent-Type: application/x-www-form-urlencoded\r\n", method=b"PUT") + b"a=b"
        )
        self.assertEqual(request.args, {})

    def test_outgoing_headers_and_cookies(self) -> None:
        """Set ones appear, and never beside the common one of the same name."""

        def render(request: Any) -> bytes:
            request.setHeader(b"x-frame-options", b"SAMEORIGIN")
            request.setHeader(b"date", b"today")
            request.addCookie(b"a", b"b", httpOnly=True)
            request.setLastModified(0)
            request.setETag(b'"x"')
            return b"abc"

        connection = serve(Calling(render)).connect()
        reply = connection.send(get())
        _, headers, body = split(reply)
        self.assertEqual(headers[b"x-frame-options"], b"SAMEORIGIN")
        self.assertEqual(headers[b"date"], b"today")
        self.assertEqual(headers[b"set-cookie"], b"a=b; HttpOnly")
        self.assertEqual(headers[b"last-modified"], b"Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertEqual((headers[b"etag"], body), (b'"x"', b"abc"))
        self.assertEqual(reply.lower().count(b"x-frame-options"), 1)
        self.assertEqual(reply.lower().count(b"\r\ndate"), 1)

    def test_an_etag_answers_a_condition(self) -> None:
        """304 without a body."""

        def render(request: Any) -> bytes:
            return b"" if request.setETag(b'"x"') else b"abc"

        first, headers, body = ask(render, get(b'If-None-Match: "x"\r\n'))
        self.assertEqual((first, headers[b"etag"], body), (b"HTTP/1.1 304 Not Modified", b'"x"', b""))

    def test_redirects(self) -> None:
        """redirectTo and Request.redirect."""
        first, headers, body = ask(lambda request: redirectTo(b"/there", request))
        self.assertEqual((first, headers[b"location"]), (b"HTTP/1.1 302 Found", b"/there"))
        self.assertIn(b"/there", body)

    def test_trees_are_walked(self) -> None:
        """Static children, dynamic children, the missing one."""

        class Dynamic(Resource):
            def getChild(self, path: bytes, request: Any) -> Any:
                return Data(b"<%b|%b>" % (path, request.prePathURL()), "text/plain")

        root = Resource()
        root.putChild(b"", Data(b"index", "text/plain"))
        root.putChild(b"dyn", Dynamic())
        connection = serve(root).connect()
        self.assertEqual(split(connection.send(get()))[2], b"index")
        self.assertEqual(split(connection.send(get(path=b"/dyn/a%2Fb")))[2], b"<a/b|http://localhost:8080/dyn/a%2Fb>")
        self.assertEqual(statuses(connection.send(get(path=b"/none"))), [404])
        self.assertEqual(statuses(connection.send(get(path=b"*", method=b"OPTIONS"))), [200])

    def test_files_with_ranges(self) -> None:
        """twisted.web.static.File, which is a pull producer."""
        directory = FilePath(self.mktemp())
        directory.makedirs()
        directory.child("f.txt").setContent(b"0123456789" * 20_000)
        for extra, status, want in (
            (b"", 200, b"0123456789" * 20_000),
            (b"Range: bytes=5-7\r\n", 206, b"567"),
            (b"Range: bytes=-3\r\n", 206, b"789"),
            (b"Range: bytes=900000-\r\n", 416, b""),
        ):
            connection = serve(File(directory.path)).connect()
            received = connection.send(get(extra, b"/f.txt"))
            while not connection.transport.streaming:
                connection.transport.producer.resumeProducing()
                received += connection.received()
            first, headers, body = split(received)
            self.assertEqual((int(first[9:12]), body), (status, want), extra)
            self.assertEqual(headers[b"content-length"], b"%d" % len(want))
        connection = serve(File(directory.path)).connect()
        _, headers, body = split(connection.send(get(path=b"/f.txt", method=b"HEAD")))
        self.assertEqual((headers[b"content-length"], body), (b"200000", b""))
        self.assertEqual(statuses(connection.send(get(path=b"/../../etc/passwd"))), [404])

    def test_encoders(self) -> None:
        """EncodingResourceWrapper with gzip."""
        root = Resource()
        root.putChild(b"", EncodingResourceWrapper(Data(b"abc" * 100, "text/plain"), [GzipEncoderFactory()]))
        _, headers, body = split(serve(root).connect().send(get(b"Accept-Encoding: gzip\r\n")))
        self.assertEqual(headers[b"content-encoding"], b"gzip")
        data = b""
        while body and not body.startswith(b"0\r\n"):
            size, _, body = body.partition(b"\r\n")
            data, body = data + body[: int(size, 16)], body[int(size, 16) + 2 :]
        self.assertEqual(gzip.decompress(data), b"abc" * 100)

    def test_sessions(self) -> None:
        """A cookie, the same session with it, and no more of them than the limit."""
        seen: list[Any] = []

        def render(request: Any) -> bytes:
            seen.append(request.getSession())
            return b"x"

        connection = serve(Calling(render)).connect()
        _, headers, _ = split(connection.send(get()))
        cookie = headers[b"set-cookie"].partition(b";")[0]
        connection.send(get(b"Cookie: " + cookie + b"\r\n"))
        self.assertIs(seen[0], seen[1])
        connection.wait(901)
        self.assertEqual(connection.site.sessions, {})

    def test_set_host_is_believed(self) -> None:
        """The old way to sit behind a proxy still works for those who use it."""
        request = self.one()
        request.setHost(b"example.com", 443, True)
        self.assertTrue(request.isSecure())
        self.assertEqual(request.prePathURL(), b"https://example.com/")


class IdentityTests(SynchronousTestCase):
    """Forwarded headers count from trusted peers, and are gone afterwards."""

    forwarded = b"X-Forwarded-For: 203.0.113.5:999\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: api.example\r\n"

    def one(self, request: bytes, peer: Any, **arguments: Any) -> Any:
        echo = Echo()
        self.served = serve(echo, trusted=("10.0.0.0/8", "unix"), **arguments)
        self.connection = self.served.connect(peer)
        self.reply = self.connection.send(request)
        return echo.seen[-1] if echo.seen else None

    def test_a_trusted_proxy_speaks_for_its_client(self) -> None:
        """Address, scheme and host are the client's; so is the record."""
        request = self.one(get(self.forwarded), PROXY)
        self.assertEqual(request.identity.verdict, "forwarded")
        self.assertEqual(request.getClientAddress(), IPv4Address("TCP", "203.0.113.5", 999))
        self.assertTrue(request.isSecure())
        self.assertEqual(request.getRequestHostname(), b"api.example")
        self.assertEqual(request.getHost().port, 443)
        (record,) = self.served.records
        self.assertEqual(
            (record.peer, record.client, record.scheme, record.host, record.verdict),
            ("10.0.0.9", "203.0.113.5", "https", "api.example", "forwarded"),
        )

    def test_an_untrusted_peer_speaks_for_itself(self) -> None:
        """Whatever it claims."""
        request = self.one(get(self.forwarded), IPv4Address("TCP", "192.0.2.7", 1))
        self.assertEqual((request.identity.verdict, request.identity.client_ip), ("stripped", "192.0.2.7"))
        self.assertFalse(request.isSecure())
        self.assertEqual(request.getRequestHostname(), b"localhost")

    def test_no_resource_sees_a_forwarding_header(self) -> None:
        """Neither on the short way nor on twisted.web's, from whomever."""
        lines = b"".join(name + b": 1\r\n" for name in sorted(FORWARDING))
        for peer, policy in ((PROXY, ForwardedPolicy()), (IPv4Address("TCP", "192.0.2.7", 1), None)):
            request = self.one(get(lines + b"X-Kept: 1\r\n"), peer, policy=policy)
            names = {name for name, _ in request.lines}
            self.assertEqual(names, {b"host", b"x-kept"})
            self.assertIsNone(request.header(b"x-forwarded-for"))
            self.assertEqual({name.lower() for name, _ in request.requestHeaders.getAllRawHeaders()}, names)

    def test_a_claim_that_cannot_be_read_refuses_the_request_alone(self) -> None:
        """400; the proxy's connection carries other clients and goes on."""
        self.assertIsNone(self.one(get(b"X-Forwarded-For: nonsense\r\n"), PROXY))
        self.assertEqual(statuses(self.reply), [400])
        self.assertEqual([record.error for record in self.served.records], ["malformed_node"])
        self.assertEqual(statuses(self.connection.send(get(self.forwarded))), [200])

    def test_nominating_a_forwarding_header_is_refused(self) -> None:
        """Connection may not make the next hop drop what this one decided by."""
        self.assertIsNone(self.one(get(b"Connection: X-Forwarded-For\r\n"), PROXY))
        self.assertEqual(statuses(self.reply), [400])

    def test_each_request_has_its_own_identity(self) -> None:
        """A proxy's connection carries many clients, with equal and different heads."""
        echo = Echo()
        connection = serve(echo, trusted=("10.0.0.0/8",)).connect(PROXY)
        for client in (b"203.0.113.5", b"203.0.113.5", b"203.0.113.6", b"", b"203.0.113.5"):
            connection.send(get(b"X-Forwarded-For: " + client + b"\r\n" if client else b""))
        self.assertEqual(
            [request.identity.client_ip for request in echo.seen],
            ["203.0.113.5", "203.0.113.5", "203.0.113.6", "10.0.0.9", "203.0.113.5"],
        )

    def test_each_host_has_its_own_identity(self) -> None:
        """What is remembered of a connection depends on Host."""
        echo = Echo()
        connection = serve(echo).connect()
        for host in (b"a", b"b", b"a"):
            connection.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        self.assertEqual([request.identity.host for request in echo.seen], ["a", "b", "a"])

    def test_clients_without_an_address(self) -> None:
        """Opaque ones, and peers on UNIX sockets."""
        request = self.one(get(b"X-Forwarded-For: unknown\r\n"), PROXY)
        self.assertEqual(request.getClientAddress(), UNIXAddress(None))
        request = self.one(get(self.forwarded.replace(b"203.0.113.5:999", b"2001:db8::1")), UNIXAddress("/run/x"))
        self.assertEqual(request.getClientAddress(), IPv6Address("TCP", "2001:db8::1", 0))


class SecurityHeaderTests(SynchronousTestCase):
    """With every reply, and HSTS where it means something."""

    def headers(self, extra: bytes = b"", peer: Any = None, tls: bool = False, **arguments: Any) -> dict[bytes, bytes]:
        connection = serve(trusted=("10.0.0.0/8",), **arguments).connect(peer, tls=tls)
        return split(connection.send(b"GET / HTTP/1.1\r\n" + extra + b"\r\n"))[1]

    def test_hsts_goes_with_https_and_a_name(self) -> None:
        """Over TLS, or when a trusted proxy says https; not over http, not for an address."""
        name, v4, v6 = b"Host: localhost\r\n", b"Host: 127.0.0.1\r\n", b"Host: [::1]:8443\r\n"
        proto = b"X-Forwarded-Proto: https\r\n"
        for extra, peer, tls, want in (
            (name, None, True, True),
            (name, None, False, False),
            (v4, None, True, False),
            (v6, None, True, False),
            (name + proto, PROXY, False, True),
            (name + b"X-Forwarded-Proto: http\r\n", PROXY, True, False),
            (name + proto, None, False, False),
            (b"", None, True, True),
        ):
            got = self.headers(extra, peer, tls).get(b"strict-transport-security")
            self.assertEqual(got, b"max-age=63072000" if want else None, (extra, tls))

    def test_hsts_may_be_off_or_zero(self) -> None:
        """None leaves it out, 0 tells browsers to forget."""
        name = b"Host: localhost\r\n"
        self.assertNotIn(b"strict-transport-security", self.headers(name, tls=True, hsts=None))
        got = self.headers(name, tls=True, hsts="max-age=0")
        self.assertEqual(got[b"strict-transport-security"], b"max-age=0")

    def test_the_configuration_overrides(self) -> None:
        """Replaced, added, removed, in any case."""
        got = self.headers(
            b"Host: localhost\r\n",
            headers={"x-frame-options": "SAMEORIGIN", "Referrer-Policy": None, "X-Mine": "1"},
        )
        self.assertEqual((got[b"x-frame-options"], got[b"x-mine"]), (b"SAMEORIGIN", b"1"))
        self.assertNotIn(b"referrer-policy", got)
        self.assertEqual(got[b"cache-control"], b"no-store")

    def test_a_header_that_is_none_is_refused_at_once(self) -> None:
        """Not with the first reply."""
        self.assertRaises(ValueError, serve, headers={"X": "a\r\nb"})
        self.assertRaises(ValueError, serve, headers={"X Y": "a"})


class WebSocketEcho(WebSocketServerProtocol):
    """autobahn's side of the server."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload[::-1], isBinary)


class WebSocketAsker(WebSocketClientProtocol):
    """autobahn's client: asks once, remembers the answer."""

    def onOpen(self) -> None:
        self.sendMessage(b"abc", True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.answers.append(payload)
        self.sendClose()


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class Memory:
    """TLS with a certificate of this minute."""

    def __init__(self, *, server: bool) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        if server:
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
            builder = x509.CertificateBuilder(name, name, key.public_key(), 1, *self.validity())
            self.context.use_certificate(builder.sign(key, hashes.SHA256()))
            self.context.use_privatekey(key)

    @staticmethod
    def validity() -> tuple[datetime, datetime]:
        now = datetime.now(UTC)
        return now - timedelta(hours=1), now + timedelta(hours=1)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)

    clientConnectionForTLS = serverConnectionForTLS


def pump_until_quiet(ours: Any, theirs: Any, clock: Clock) -> None:
    """Carry bytes to and fro for two seconds of ``clock``; TLS gathers small writes until its next turn."""
    pump = connect(ours, FakeTransport(ours, True), theirs, FakeTransport(theirs, False))
    for _ in range(20):
        clock.advance(0.1)
        pump.flush()


class AutobahnTests(SynchronousTestCase):
    """autobahn's WebSocketResource, unchanged."""

    def talk(self, tls: bool) -> list[bytes]:
        clock = Clock()
        factory = WebSocketServerFactory(reactor=clock)
        factory.protocol = WebSocketEcho
        self.served = serve(WebSocketResource(factory))
        server: Any = self.served.site
        client: Any = WebSocketClientFactory("ws://localhost:8080/", reactor=clock)
        client.protocol = WebSocketAsker
        client.answers = []
        asker = client
        if tls:
            server = TLSMemoryBIOFactory(Memory(server=True), False, server, clock)
            client = TLSMemoryBIOFactory(Memory(server=False), True, client, clock)
        pump_until_quiet(server.buildProtocol(None), client.buildProtocol(None), clock)
        answers: list[bytes] = asker.answers
        return answers

    def test_websockets_over_plain_tcp(self) -> None:
        """Handshake, message, answer; the connection is no longer the site's."""
        self.assertEqual(self.talk(tls=False), [b"cba"])
        self.assertEqual(self.served.site.connections, 0)
        self.assertEqual([(record.status, record.protocol) for record in self.served.records], [(101, "http")])

    def test_websockets_over_tls(self) -> None:
        """The same through TLSMemoryBIOProtocol."""
        self.assertEqual(self.talk(tls=True), [b"cba"])
        self.assertEqual(self.served.site.connections, 0)

    def test_requests_over_tls(self) -> None:
        """Ordinary ones, with keep-alive, HSTS, and a clean end."""

        class Asker(Protocol):
            received = b""
            lost = False

            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(get() + get(b"Connection: close\r\n"))

            def dataReceived(self, data: bytes) -> None:
                self.received += data

            def connectionLost(self, reason: object = None) -> None:
                self.lost = True

        served = serve(Echo())
        clock = Clock()
        server = TLSMemoryBIOFactory(Memory(server=True), False, served.site, clock)
        asker = Asker()
        client = TLSMemoryBIOFactory(Memory(server=False), True, Factory.forProtocol(lambda: asker), clock)
        pump_until_quiet(server.buildProtocol(None), client.buildProtocol(None), clock)
        self.assertEqual(statuses(asker.received), [200, 200])
        self.assertEqual(asker.received.count(b"Strict-Transport-Security: max-age=63072000\r\n"), 2)
        self.assertTrue(asker.lost)
        self.assertEqual(served.site.connections, 0)

    def test_what_is_sent_before_the_upgrade_is_answered_ends_the_connection(self) -> None:
        """Nobody knows in which protocol it is."""

        def take(request: Any) -> int:
            request.record.protocol = "ws"
            request.channel.transport = None
            return NOT_DONE_YET

        served = serve(Calling(take))
        connection = served.connect()
        connection.send(get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + b"\x81\x00")
        self.assertTrue(connection.aborted)
        self.assertEqual(served.records, [])
