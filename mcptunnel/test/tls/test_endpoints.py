"""Tests for mcptunnel.tls.endpoints."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcptunnel.core.errors import ListenError
from mcptunnel.tls.endpoints import BACKLOG, Inherited, LocalSocket, describe, endpoint_for, explain


class AddressTests(SynchronousTestCase):
    """``server.host`` and ``server.port`` → what is bound."""

    def bound(self, host: str, port: int = 3000) -> tuple[Any, ...]:
        """(port, interface, backlog) that the reactor was asked for."""
        reactor = MemoryReactorClock()
        self.successResultOf(endpoint_for(reactor, host, port).listen(Factory.forProtocol(Protocol)))
        (asked,) = reactor.tcpServers
        return asked[0], asked[3], asked[2]

    def test_addresses_and_names(self) -> None:
        """With a backlog that holds a burst of clients."""
        for host, interface in (
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("localhost", "localhost"),
            ("::1", "::1"),
            ("::", "::"),
            ("[::1]", "::1"),
        ):
            self.assertEqual(self.bound(host), (3000, interface, BACKLOG))

    def test_the_family_follows_the_address(self) -> None:
        """Names are IPv4."""
        reactor: Any = object()
        for host, kind in (
            ("::", TCP6ServerEndpoint),
            ("127.0.0.1", TCP4ServerEndpoint),
            ("a.test", TCP4ServerEndpoint),
        ):
            self.assertIsInstance(endpoint_for(reactor, host, 1), kind)

    def test_every_endpoint_is_one(self) -> None:
        """For whoever composes them."""
        for endpoint in (LocalSocket(reactor=None, path="a"), Inherited(reactor=None, fileno=3)):
            self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))

    def test_how_an_operator_writes_it(self) -> None:
        """IPv6 in brackets."""
        self.assertEqual(describe("127.0.0.1", 80), "127.0.0.1:80")
        self.assertEqual(describe("::1", 80), "[::1]:80")
        self.assertEqual(describe("[::1]", 80), "[::1]:80")
        self.assertEqual(describe("unix:/run/a", 80), "unix:/run/a")
        self.assertEqual(describe("systemd:0", 80), "systemd:0")


class ExplainTests(SynchronousTestCase):
    """Why it cannot listen."""

    def test_the_usual_reasons_with_their_way_out(self) -> None:
        """Each names the address."""
        for code, words in (
            (errno.EADDRINUSE, "another process listens there"),
            (errno.EADDRNOTAVAIL, "no such address"),
            (errno.EACCES, "CAP_NET_BIND_SERVICE"),
            (errno.EINVAL, "Invalid argument"),
        ):
            error = explain("127.0.0.1", 80, CannotListenError("127.0.0.1", 80, OSError(code, os.strerror(code))))
            self.assertIsInstance(error, ListenError)
            self.assertIn("cannot listen on 127.0.0.1:80: ", str(error))
            self.assertIn(words, str(error))

    def test_a_name_that_does_not_resolve(self) -> None:
        """Its error numbers are not those of sockets."""
        error = explain("no.such.host.invalid", 80, CannotListenError("a", 80, socket.gaierror(-2, "not known")))
        self.assertIn("not known", str(error))


class _Reactor:
    """Listens on a real UNIX socket, without the rest of a reactor."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.modes: list[int] = []

    def close(self) -> None:
        for listening in self.sockets:
            listening.close()

    def listenUNIX(self, path: str, factory: Any, backlog: int, mode: int) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(path)
        except OSError as error:
            listening.close()
            raise CannotListenError(None, path, error) from error
        listening.listen(backlog)
        self.modes.append(mode)
        self.sockets.append(listening)
        return listening


class LocalSocketTests(SynchronousTestCase):
    """``unix:/path``."""

    def setUp(self) -> None:
        # The path of a UNIX socket holds 107 bytes, which trial's directories do not fit in.
        self.directory = mkdtemp(prefix="mcptunnel")
        self.addCleanup(os.rmdir, self.directory)
        self.path = str(Path(self.directory, "s"))
        self.addCleanup(Path(self.path).unlink, missing_ok=True)
        self.reactor = _Reactor()
        self.addCleanup(self.reactor.close)

    def listen(self) -> Any:
        endpoint = endpoint_for(self.reactor, f"unix:{self.path}", 0)
        return endpoint.listen(Factory.forProtocol(Protocol))

    def test_it_is_for_the_daemon_s_user_and_group(self) -> None:
        """Not for everybody, as Twisted has it."""
        self.successResultOf(self.listen())
        self.assertEqual(self.reactor.modes, [0o660])

    def test_a_dead_process_s_socket_is_replaced(self) -> None:
        """A daemon that was killed must start again."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.successResultOf(self.listen())

    def test_a_living_process_s_socket_is_not(self) -> None:
        """It is in use, and that is what is said."""
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(self.path)
            living.listen()
            failure = self.failureResultOf(self.listen(), CannotListenError)
            assert failure.value is not None
            self.assertIn("another process listens there", str(explain(f"unix:{self.path}", 0, failure.value)))
        self.assertTrue(stat.S_ISSOCK(os.stat(self.path).st_mode))

    def test_what_is_no_socket_is_left_alone(self) -> None:
        """A mistaken path destroys nothing."""
        Path(self.path).write_text("precious")
        self.failureResultOf(self.listen(), CannotListenError)
        self.assertEqual(Path(self.path).read_text(), "precious")

    def test_a_missing_directory_is_named(self) -> None:
        """By the reason for it."""
        failure = self.failureResultOf(
            endpoint_for(self.reactor, "unix:/no/such/s", 0).listen(Factory.forProtocol(Protocol)), CannotListenError
        )
        assert failure.value is not None
        self.assertIn("the directory does not exist", str(explain("unix:/no/such/s", 0, failure.value)))


class PassedTests(SynchronousTestCase):
    """``systemd:N``, sd_listen_fds(3)."""

    def test_the_nth_socket_counts_from_three(self) -> None:
        """When they are meant for this very process."""
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
        for number in (0, 1):
            endpoint = endpoint_for(None, f"systemd:{number}", 0, environ)
            self.assertEqual(endpoint, Inherited(reactor=None, fileno=3 + number))

    def test_what_was_not_passed_is_refused(self) -> None:
        """Too high a number, no number, another process's, none at all, nonsense."""
        mine = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        for number, environ in (
            ("1", mine),
            ("", mine),
            ("-1", mine),
            ("x", mine),
            ("0", {**mine, "LISTEN_PID": "1"}),
            ("0", {**mine, "LISTEN_FDS": "many"}),
            ("0", {}),
        ):
            error = self.assertRaises(ListenError, endpoint_for, None, f"systemd:{number}", 0, environ)
            self.assertIn(f"systemd:{number}", str(error))
