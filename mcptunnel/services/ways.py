"""How connections to an address are made: directly or through a proxy, with TLS or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from cryptography import x509
from OpenSSL import crypto
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from mcptunnel.config.schema import UpstreamConfig
from mcptunnel.core.errors import CertificateError, ConfigError, Finding
from mcptunnel.tls.pem import PrivateKey, read_chain, read_file, read_key
from mcptunnel.upstream.endpoints import Kept, Named, Tunnel
from mcptunnel.upstream.proxies import Proxy, ProxyError, proxy_for

__all__ = ["Terms", "Way", "files_of", "terms_of", "way_of", "way_to"]


@frozen(kw_only=True)
class Terms:
    """What TLS with a server is based on.

    Attributes:
        anchors: What its certificate must chain to; None: the system's.
        ours: What we show it, as arguments of CertificateOptions.
    """

    anchors: Sequence[x509.Certificate] | None = None
    ours: Mapping[str, Any] = field(factory=dict, repr=False)


@define(eq=False, kw_only=True)
class Way:
    """How connections to a server are made.

    Attributes:
        name: Of the host; an IPv6 address without brackets.
        secure: TLS is spoken on it.
        plain: Makes an endpoint without TLS.
        endpoint: Makes an endpoint, with TLS where it is secure.
        forwarding: The proxy that passes on single requests, if that is how the server is reached.
        terms: Whom we trust on it, and what we show.
        options: Twisted's connection creator by these terms; None where it is not secure.
    """

    name: str
    secure: bool
    plain: Callable[[], IStreamClientEndpoint]
    endpoint: Callable[[], IStreamClientEndpoint]
    forwarding: Proxy | None = None
    terms: Terms = Terms()
    options: Any = None

    def take(self, terms: Terms) -> None:
        """Let every connection from now on be made by ``terms``; those that are open stay."""
        self.options = _options_for(self.name, terms)
        self.terms = terms


def way_of(entry: UpstreamConfig, reactor: Any, environ: Mapping[str, str]) -> Way:
    """The way to the server ``entry``, which has a URL.

    Raises:
        CertificateError: A file that TLS needs cannot be used.
        ConfigError: The environment names a proxy that cannot be used.
    """
    url, key = entry.url or "", f"mcpServers.{entry.name}"
    if urlsplit(url).scheme not in ("https", "wss"):
        return way_to(url, reactor, environ, key=key, proxy=entry.proxy)
    return way_to(url, reactor, environ, key=key, proxy=entry.proxy, terms=terms_of(entry))


def files_of(entry: UpstreamConfig) -> tuple[str, ...]:
    """The files that :func:`terms_of` reads."""
    return tuple(file for file in (entry.ca_file, entry.cert_file, entry.key_file) if file is not None)


def terms_of(entry: UpstreamConfig) -> Terms:
    """What the files of ``entry`` say now.

    Raises:
        CertificateError: One cannot be used.
    """
    return Terms(anchors=None if entry.ca_file is None else _anchors(entry, entry.ca_file), ours=_ours(entry))


def way_to(
    url: str,
    reactor: Any,
    environ: Mapping[str, str],
    *,
    key: str,
    proxy: str | None = None,
    terms: Terms | None = None,
) -> Way:
    """The way to ``url``, http or WebSocket.

    The server's chain and its name are verified (RFC 6125, by service-identity).

    Args:
        url: Of the server.
        reactor: Connects.
        environ: Names a proxy, where ``proxy`` does not.
        key: The setting that wants to go there, for messages.
        proxy: As in ``mcpServers``.
        terms: What TLS is based on at first; None for the system's trust anchors and nothing to show.

    Raises:
        ConfigError: The environment names a proxy that cannot be used.
    """
    parts = urlsplit(url)
    name, secure = parts.hostname or "", parts.scheme in ("https", "wss")
    port = parts.port or (443 if secure else 80)
    try:
        through = proxy_for(url, proxy, environ)
    except ProxyError as e:
        raise ConfigError([Finding(file="environment", line=None, key=key, message=str(e))]) from None
    forwarding = through if parts.scheme == "http" else None

    def plain() -> IStreamClientEndpoint:
        if through is None:
            return Kept(HostnameEndpoint(reactor, name, port))
        there = Kept(HostnameEndpoint(reactor, through.host, through.port))
        return Named(there, through) if forwarding is not None else Tunnel(there, through, name, port)

    def endpoint() -> IStreamClientEndpoint:
        return wrapClientTLS(way.options, plain()) if secure else plain()

    way = Way(name=name, secure=secure, plain=plain, endpoint=endpoint, forwarding=forwarding)
    if secure:
        way.take(terms or way.terms)
    return way


def _options_for(name: str, terms: Terms) -> Any:
    trust = None
    if terms.anchors is not None:
        anchors = [Certificate(_openssl(one)) for one in terms.anchors]  # type: ignore[no-untyped-call]
        trust = trustRootFromCertificates(anchors)  # type: ignore[no-untyped-call]
    return optionsForClientTLS(name, trustRoot=trust, extraCertificateOptions=dict(terms.ours))


def _anchors(entry: UpstreamConfig, file: str) -> tuple[x509.Certificate, ...]:
    """The certificates of ``ca_file``."""
    try:
        return read_chain(read_file(file))
    except (OSError, CertificateError) as e:
        raise CertificateError(f"{file}: mcpServers.{entry.name}.ca_file: {e}") from None


def _ours(entry: UpstreamConfig) -> dict[str, Any]:
    """With ``cert_file`` we show that certificate, and what vouches for it, when the server asks."""
    if entry.cert_file is None or entry.key_file is None:
        return {}
    chain, key = _pair(entry, entry.cert_file, entry.key_file)
    return {
        "privateKey": crypto.PKey.from_cryptography_key(key),
        "certificate": _openssl(chain[0]),
        "extraCertChain": [_openssl(c) for c in chain[1:]],
    }


def _pair(entry: UpstreamConfig, cert_file: str, key_file: str) -> tuple[tuple[x509.Certificate, ...], PrivateKey]:
    """The certificate that we show a server, with its chain, and its key."""
    file, key_name = cert_file, "cert_file"
    try:
        chain = read_chain(read_file(cert_file))
        file, key_name = key_file, "key_file"
        key = read_key(read_file(key_file))
        if key.public_key() != chain[0].public_key():
            raise CertificateError(f"does not belong to the first certificate in {cert_file}")
    except (OSError, CertificateError) as e:
        raise CertificateError(f"{file}: mcpServers.{entry.name}.{key_name}: {e}") from None
    return chain, key


def _openssl(certificate: x509.Certificate) -> crypto.X509:
    return crypto.X509.from_cryptography(certificate)
