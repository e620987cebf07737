"""From ``server.host`` and ``server.port`` to what Twisted listens on.

Always a plain stream endpoint, also where TLS is spoken: an SSL4ServerEndpoint would begin with the handshake, and the
front has to see what comes before it, a PROXY header or a client that speaks plaintext. TLS starts in
:mod:`mcptunnel.tls.front`, on the same connection, when the first bytes say so.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.unix import Port as UnixPort
from zope.interface import implementer

from mcptunnel.core.errors import ListenError

__all__ = ["BACKLOG", "Inherited", "LocalSocket", "describe", "endpoint_for", "explain"]

# Connections that the kernel completes before we take them. Twisted's 50 makes a burst of 2000 clients wait 34 s for
# retransmitted SYNs; the kernel cuts it to net.core.somaxconn.
BACKLOG: Final = 1024
# Who may connect to the socket: the daemon's user, and its group, which is the front server's.
_SOCKET_MODE: Final = 0o660
# sd_listen_fds(3): the first descriptor that systemd passes.
_FIRST_PASSED: Final = 3


def endpoint_for(reactor: Any, host: str, port: int, environ: Mapping[str, str] | None = None) -> IStreamServerEndpoint:
    """The endpoint for ``server.host`` and ``server.port``.

    Args:
        reactor: Where it will listen.
        host: IPv4 or IPv6 address (``::`` takes IPv4 as well), host name, ``unix:/path``, or ``systemd:N``.
        port: Only for addresses and names; 0 for any.
        environ: For ``systemd:N``; None for the one that this process was started with.

    Raises:
        ListenError: systemd has passed no such socket.
    """
    scheme, _, rest = host.partition(":")
    if scheme == "unix":
        return LocalSocket(reactor=reactor, path=rest)
    if scheme == "systemd":
        return Inherited(reactor=reactor, fileno=_passed(rest, _at_start() if environ is None else environ))
    bare = host.removeprefix("[").removesuffix("]")
    try:
        version = ip_address(bare).version
    except ValueError:
        # A name: resolved as an IPv4 address when it is bound, as every server does with localhost.
        version = 4
    build = TCP6ServerEndpoint if version == 6 else TCP4ServerEndpoint
    return build(reactor, port, backlog=BACKLOG, interface=bare)


def describe(host: str, port: int) -> str:
    """How an operator would write the address."""
    if host.startswith(("unix:", "systemd:")):
        return host
    return f"[{host}]:{port}" if ":" in host.strip("[]") and not host.startswith("[") else f"{host}:{port}"


def explain(host: str, port: int, error: BaseException, section: str = "server") -> ListenError:
    """Why ``host`` and ``port``, which are those of ``section``, cannot be listened on, and what to do about it."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    code = cause.errno if isinstance(cause, OSError) and not isinstance(cause, socket.gaierror) else None
    why = {
        errno.EADDRINUSE: f"another process listens there; stop it or change {section}.port",
        errno.EADDRNOTAVAIL: f"this machine has no such address; change {section}.host",
        errno.EACCES: "this user may not; ports below 1024 need CAP_NET_BIND_SERVICE or a socket passed by systemd",
        errno.ENOENT: "the directory does not exist",
        errno.EAFNOSUPPORT: f"this machine has no IPv6; change {section}.host",
    }.get(code or 0, f"{cause}; change {section}.host")
    return ListenError(f"cannot listen on {describe(host, port)}: {why}")


@implementer(IStreamServerEndpoint)
@frozen(kw_only=True)
class LocalSocket:
    """A UNIX socket; one that a dead process has left behind is replaced, one that is in use is not.

    Attributes:
        path: Absolute or relative path.
    """

    reactor: Any
    path: str

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        self._clear()
        port: IListeningPort = self.reactor.listenUNIX(self.path, factory, backlog=BACKLOG, mode=_SOCKET_MODE)
        return port

    def _clear(self) -> None:
        try:
            if not stat.S_ISSOCK(os.stat(self.path).st_mode):
                return
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)
            except OSError:
                # Alive with a full backlog, or not ours to look at: binding will say it.
                return


@implementer(IStreamServerEndpoint)
@frozen(kw_only=True)
class Inherited:
    """A listening socket that systemd has opened and keeps: TCP or UNIX.

    Attributes:
        fileno: Its descriptor, which is ours to close.
    """

    reactor: Any
    fileno: int

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._adopt, protocolFactory)

    def _adopt(self, factory: IProtocolFactory) -> IListeningPort:
        with socket.socket(fileno=os.dup(self.fileno)) as passed:
            passed.setblocking(False)
            family = passed.family
            os.set_inheritable(self.fileno, False)
            if family == socket.AF_UNIX:
                port: Any = _PassedUnixPort.adopt(self.reactor, passed.fileno(), factory)
            else:
                port = self.reactor.adoptStreamPort(passed.fileno(), family, factory)
        os.close(self.fileno)
        listening: IListeningPort = port
        return listening


class _PassedUnixPort(UnixPort):
    """Leaves the path alone: Twisted would make the socket writable to everybody, and remove it when it stops."""

    @classmethod
    def adopt(cls, reactor: Any, fileno: int, factory: IProtocolFactory) -> Any:
        adopt: Any = cls._fromListeningDescriptor
        port: Any = adopt(reactor, fileno, factory)
        # A name in the abstract name space is one that Twisted neither changes nor removes.
        port._bindPath = b"\0passed"
        port.startListening()
        return port


def _at_start() -> Mapping[str, str]:
    """The environment that this process was started with.

    Not ``os.environ``: twisted.internet.endpoints removes systemd's variables from it when it is imported, and then
    forgets the sockets if they have no names, as those of systemd-socket-activate.
    """
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return os.environ
    return dict(os.fsdecode(entry).partition("=")[::2] for entry in entries)


def _passed(number: str, environ: Mapping[str, str]) -> int:
    """The descriptor of the N-th passed socket, sd_listen_fds(3)."""
    mine = environ.get("LISTEN_PID") == str(os.getpid())
    count = int(environ.get("LISTEN_FDS", "0")) if mine and environ.get("LISTEN_FDS", "0").isdigit() else 0
    if not number.isdigit() or int(number) >= count:
        raise ListenError(
            f"cannot listen on systemd:{number}: systemd has passed {count} sockets to this process, counted from 0; "
            "start it by its socket unit"
        )
    return _FIRST_PASSED + int(number)
