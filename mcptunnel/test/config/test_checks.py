"""Rules that look at several keys: what is refused, what is only said, and that the allowed passes in silence."""

# The lines are quoted whole, as the operator reads them.
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import load_text
from mcptunnel.config.schema import Config
from mcptunnel.core.errors import ConfigError

PAIR = "cert_file: c, key_file: k"
SERVER = "\nmcpServers: {a: {command: x}}"
TOKENS = "\nauth: {tokens: [{name: a, token: 0123456789abcdefx}]}"


def load(text: str) -> Config:
    return load_text(text, name="f", base=Path("/etc"), environ={"ANY": "0.0.0.0/0", "SAME": "twin"})


def lines(text: str) -> list[str]:
    try:
        load(text)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def tls(inner: str) -> str:
    return f"server: {{tls: {{{inner}}}}}"


REFUSED: list[tuple[str, list[str]]] = [
    # mode and behind_proxy.
    (
        tls(f"mode: auto, behind_proxy: true, {PAIR}"),
        [
            "f:1: server.tls.behind_proxy: true contradicts mode: auto; remove behind_proxy, or write mode: "
            "behind_proxy to serve listed proxies only"
        ],
    ),
    (
        tls("mode: disabled, behind_proxy: true"),
        [
            "f:1: server.tls.behind_proxy: true contradicts mode: disabled; remove behind_proxy, or write mode: "
            "behind_proxy to serve listed proxies only"
        ],
    ),
    (
        tls("mode: behind_proxy, behind_proxy: false, trusted_proxies: [10.0.0.1]"),
        [
            "f:1: server.tls.behind_proxy: false contradicts mode: behind_proxy; remove behind_proxy, or choose "
            "another mode"
        ],
    ),
    # Certificates.
    (
        tls("mode: application"),
        [
            "f:1: server.tls.mode: application serves https and has no certificate; add cert_file and key_file",
        ],
    ),
    (
        tls("mode: auto, trusted_proxies: [10.0.0.1]"),
        [
            "f:1: server.tls.mode: auto serves https to whoever is not a listed proxy, and has no certificate; add "
            "cert_file and key_file, or write mode: behind_proxy to serve listed proxies only"
        ],
    ),
    (
        tls("mode: application, cert_file: c"),
        ["f:1: server.tls.cert_file: cert_file is given without key_file; add key_file beside it"],
    ),
    (
        tls("key_file: k"),
        ["f:1: server.tls.key_file: key_file is given without cert_file; add cert_file beside it"],
    ),
    # Client certificates.
    (
        tls(f"mode: application, client_auth: required, {PAIR}"),
        [
            "f:1: server.tls.client_auth: 'required' has nothing to check certificates against; add ca_file",
        ],
    ),
    (
        tls("mode: behind_proxy, trusted_proxies: [10.0.0.1], client_auth: optional, ca_file: a"),
        [
            "f:1: server.tls.client_auth: 'optional' asks for client certificates, and mode behind_proxy has no TLS to "
            "ask in; write client_auth: none, or mode: application or auto"
        ],
    ),
    # The operator's listener.
    (
        "admin: {host: 0.0.0.0}",
        [
            "f:1: admin.host: other machines can reach '0.0.0.0', and no token is asked for; add token_file, or write "
            "host: 127.0.0.1 or unix:/path"
        ],
    ),
    (
        "admin: {token: 0123456789abcdefx, token_file: t}",
        ["f:1: admin.token: token and token_file are both given; keep one"],
    ),
    # Versions, and what a profile says of them.
    (
        tls("profile: modern, min_tls_version: 1.2"),
        ["f:1: server.tls.min_tls_version: 1.2 contradicts profile: modern, which begins at 1.3; remove one"],
    ),
    (
        tls("groups: [X25519, secp160r1]"),
        [
            "f:1: server.tls.groups[1]: 'secp160r1' is not a key exchange group that may be used; known are "
            "X25519MLKEM768, SecP256r1MLKEM768, SecP384r1MLKEM1024, X25519, P-256, P-384, P-521, X448"
        ],
    ),
    # Passphrases.
    (
        tls(f"mode: application, {PAIR}, key_passphrase_file: p, key_passphrase_command: [a]"),
        [
            "f:1: server.tls.key_passphrase_command: key_passphrase_file and key_passphrase_command are both given; "
            "keep one"
        ],
    ),
    (
        tls("key_passphrase_file: p"),
        ["f:1: server.tls.key_passphrase_file: opens no key; add key_file beside it"],
    ),
    (
        tls("cert_file: credential:a/b, key_file: credential:key"),
        [
            "f:1: server.tls.cert_file: 'credential:a/b' names no credential; write credential: and a name without "
            "slashes, as in LoadCredential=",
            "f:1: server.tls.key_file: 'credential:key' is a systemd credential, and systemd has passed none; add "
            "LoadCredential=key:/path/of/the/file to the [Service] section of the unit",
        ],
    ),
    # Sessions, revocation.
    (
        tls(f"mode: application, {PAIR}, session_resumption: true, client_auth: optional, ca_file: a"),
        [
            "f:1: server.tls.session_resumption: a resumed session shows no client certificate, so one that was "
            "revoked would go on; remove it, or client_auth: optional"
        ],
    ),
    (
        tls(f"mode: application, {PAIR}, crl_file: r"),
        ["f:1: server.tls.crl_file: revokes certificates of authorities that are not named; add ca_file"],
    ),
    # The promise of https.
    (
        tls(f"mode: application, {PAIR}, hsts_enabled: false, hsts_preload: true"),
        ["f:1: server.tls.hsts_preload: promises https while hsts_enabled is false; remove one of the two"],
    ),
    (
        tls("mode: behind_proxy, trusted_proxies: [10.0.0.1], hsts_ramp: true"),
        [
            "f:1: server.tls.hsts_ramp: grows with renewals of a certificate, and none is served; add cert_file and "
            "key_file"
        ],
    ),
    (
        tls(f"mode: application, {PAIR}, hsts_ramp: {{steps: [1d, 5m]}}"),
        ["f:1: server.tls.hsts_ramp: steps have to grow, and to end below hsts_max_age; put them in order"],
    ),
    (
        tls(f"mode: application, {PAIR}, hsts_preload: true"),
        ["f:1: server.tls.hsts_preload: browsers ask for hsts_max_age: 365d or more and hsts_include_subdomains: true"],
    ),
    (
        tls(f"mode: application, {PAIR}, hsts_preload: true, hsts_include_subdomains: true"),
        ["f:1: server.tls.hsts_preload: browsers ask for a redirect from http; add redirect_http: {port: 80}"],
    ),
    (
        tls(f"mode: application, {PAIR}, hsts_preload: true, hsts_include_subdomains: true, hsts_ramp: true"),
        [
            "f:1: server.tls.hsts_preload: browsers build in a promise that is whole, not one that grows; remove "
            "hsts_ramp"
        ],
    ),
    # The second port.
    (
        tls("redirect_http: {port: 80}"),
        [
            "f:1: server.tls.redirect_http: leads to https, and mode disabled serves none; write mode: application or "
            "auto"
        ],
    ),
    (
        tls(f"mode: application, {PAIR}, redirect_http: {{port: 3000}}"),
        ["f:1: server.tls.redirect_http: the port is that of server; give http a port of its own, such as 80"],
    ),
    (
        f"server: {{host: 'unix:/s', tls: {{mode: application, {PAIR}, redirect_http: {{port: 80}}}}}}",
        ["f:1: server.tls.redirect_http: server.host is no address that a second port could be opened on; add host"],
    ),
    # Alerts.
    (
        "alerts: [{least: critical}]",
        ["f:1: alerts[0]: names nobody to tell; add webhook (a URL) or command (a program)"],
    ),
    (
        "alerts: [{webhook: 'https://a', command: [b]}]",
        ["f:1: alerts[0]: webhook and command are both given; keep one"],
    ),
    (
        "alerts: [{command: [b], headers: {A: b}}]",
        ["f:1: alerts[0].headers: headers go with a webhook; remove them"],
    ),
    # Rules for client certificates.
    (
        "auth: {client_certificates: [{name: a, match: {subject: 'no name'}}]}",
        [
            "f:1: auth.client_certificates[0].match.subject: 'no name' is no distinguished name; write it as "
            "CN=name,O=organization"
        ],
    ),
    # Suites.
    (
        tls("min_tls_version: 1.3, cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256]"),
        [
            "f:1: server.tls.cipher_suites: no suite of TLS 1.3 is named but min_tls_version is 1.3; add one of "
            "TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, TLS_AES_128_CCM_SHA256"
        ],
    ),
    (
        tls("cipher_suites: [TLS_AES_128_GCM_SHA256, tls_aes_128_gcm_sha256]"),
        ["f:1: server.tls.cipher_suites[1]: is named twice; remove one"],
    ),
    # Trust.
    (
        "server:\n  tls:\n    trusted_proxies:\n      - 0.0.0.0/0\n      - ::/0\n      - ::ffff:0:0/96",
        [
            f"f:{line}: server.tls.trusted_proxies[{i}]: '{rule}' trusts everybody, so any client could claim any "
            "address; list the networks of the proxies, or write trust_any_peer: true if nobody else can reach this "
            "port"
            for i, (line, rule) in enumerate(((4, "0.0.0.0/0"), (5, "::/0"), (6, "::ffff:0:0/96")))
        ],
    ),
    (
        "server:\n  tls:\n    trusted_proxies: ${env:ANY}",
        [
            "f:3: server.tls.trusted_proxies[0]: the value trusts everybody, so any client could claim any address; "
            "list the networks of the proxies, or write trust_any_peer: true if nobody else can reach this port"
        ],
    ),
    (
        tls("behind_proxy: true"),
        [
            "f:1: server.tls.behind_proxy: behind_proxy serves listed proxies only and none is listed, so nobody could "
            "connect; add trusted_proxies: [address or network of the proxy]"
        ],
    ),
    (
        "server: {host: 'unix:/s', tls: {mode: behind_proxy, trusted_proxies: [10.0.0.1]}}",
        [
            "f:1: server.tls.trusted_proxies: nobody could connect: whoever connects to a UNIX socket has no address; "
            "add unix"
        ],
    ),
    (
        "server: {proxy_protocol: required}",
        ["f:1: server.proxy_protocol: no PROXY header would ever be believed; add server.tls.trusted_proxies"],
    ),
    # Order.
    (
        tls("expiry_warning: 1d, expiry_critical: 2d"),
        [
            "f:1: server.tls.expiry_critical: expiry_critical is above expiry_warning; a certificate is warned about "
            "first, lower it"
        ],
    ),
    # Addresses.
    (
        "server: {port: 4000}\nadmin: {port: 4000}",
        ["f:2: admin: host and port are those of server; give the admin listener a port of its own"],
    ),
    # Tokens.
    (
        "auth:\n  tokens:\n    - name: a\n    - {name: a, token: 0123456789abcdefx, token_file: t}",
        [
            "f:3: auth.tokens[0]: has no secret; add token_file, token_sha256 or token",
            "f:4: auth.tokens[1]: has several secrets (token, token_file); keep one",
            "f:4: auth.tokens[1].name: 'a' is used already, at f:3; choose another name",
        ],
    ),
    (
        "auth:\n  tokens:\n    - {name: a, token: 0123456789abcdefx}\n    - {name: b, token: 0123456789abcdefx}",
        ["f:4: auth.tokens[1]: has the same secret as a; give each its own"],
    ),
    # The open door.
    (
        f"server: {{host: 0.0.0.0, tls: {{mode: auto, {PAIR}, trusted_proxies: [10.0.0.1]}}}}{SERVER}",
        [
            "f:1: auth: other machines can reach server.host (f:1), there are servers to use, and no credential is "
            "asked for; add auth.tokens, or write auth.anonymous: true to let everybody in, or server.host: 127.0.0.1"
        ],
    ),
    (
        "server:\n  host: mcp.internal\nauth: {jwt: {issuer: 'https://x'}}" + SERVER,
        [
            "f:3: auth: other machines can reach server.host (f:2), there are servers to use, and no credential is "
            "asked for; add auth.tokens, or write auth.anonymous: true to let everybody in, or server.host: 127.0.0.1"
        ],
    ),
]

# What loads, and the warnings that come with it.
WARNED: list[tuple[str, list[str]]] = [
    ("", []),
    (tls(f"mode: application, {PAIR}"), []),
    (tls("mode: application, certificates: [{cert_file: a, key_file: b}]"), []),
    (tls(f"mode: auto, {PAIR}, trusted_proxies: [10.0.0.0/16, 'fd00::/48', unix]"), []),
    (tls("behind_proxy: true, trusted_proxies: [10.0.0.1]"), []),
    (tls("behind_proxy: false"), []),
    (tls("mode: behind_proxy, behind_proxy: true, trusted_proxies: [10.0.0.1]"), []),
    (tls(f"mode: auto, client_auth: required, ca_file: a, {PAIR}, trusted_proxies: [10.0.0.1]"), []),
    (tls("trusted_proxies: [0.0.0.0/0], trust_any_peer: true"), []),
    ("server: {host: 'unix:/s', tls: {mode: behind_proxy, trusted_proxies: [unix]}}", []),
    ("server: {host: '::1'}" + SERVER, []),
    ("server: {host: localhost}" + SERVER, []),
    ("server: {host: 'unix:/s'}" + SERVER, []),
    ("server: {host: 'systemd:0'}" + SERVER + TOKENS, []),
    (f"server: {{host: '::', tls: {{mode: application, {PAIR}}}}}{SERVER}{TOKENS}", []),
    ("server: {tls: {trusted_proxies: [10.0.0.1]}}\nauth: {anonymous: true}" + SERVER, []),
    ("server: {port: 0}\nadmin: {port: 0}", []),
    (
        tls(f"mode: application, {PAIR}, redirect_http: {{port: 80}}"),
        [
            "f:1: server.tls.redirect_http: without server.public_url only this machine is redirected, others are told "
            "to use https; set it"
        ],
    ),
    (tls(f"mode: application, {PAIR}, redirect_http: {{port: 80}}") + "\nsecurity: {allowed_hosts: [a.test]}", []),
    (
        tls(PAIR),
        ["f:1: server.tls.cert_file: not used in mode disabled; write mode: auto or application to serve https"],
    ),
    (
        tls(f"mode: application, {PAIR}, ca_file: a"),
        [
            "f:1: server.tls.ca_file: not used while client_auth is none; write client_auth: required to ask for "
            "certificates"
        ],
    ),
    (
        tls(f"mode: auto, {PAIR}"),
        [
            "f:1: server.tls.mode: no proxy is listed, so auto serves https only; add trusted_proxies if there is a "
            "proxy"
        ],
    ),
    (
        tls("trusted_proxies: [10.0.0.0/8, 'fd00::/47']"),
        [
            f"f:1: server.tls.trusted_proxies[{i}]: '{rule}' is a wide network, and every host in it can claim any "
            "client address; list only the proxies"
            for i, rule in enumerate(("10.0.0.0/8", "fd00::/47"))
        ],
    ),
    (
        "server: {proxy_protocol: optional}",
        ["f:1: server.proxy_protocol: no PROXY header is ever believed; add server.tls.trusted_proxies"],
    ),
    (
        "server: {limits: {uri_bytes: 64KiB, request_timeout: 2h}}",
        [
            "f:1: server.limits.uri_bytes: uri_bytes is above header_bytes, which holds the URI as well and decides "
            "first",
            "f:1: server.limits.request_timeout: request_timeout is above request_max_time, which decides first",
        ],
    ),
    (
        "server: {host: 'systemd:0', port: 1}",
        ["f:1: server.port: not used: server.host names a socket that has no port or has it already"],
    ),
    (
        f"server: {{public_url: 'http://a', tls: {{mode: application, {PAIR}}}}}",
        ["f:1: server.public_url: says http, but mode application serves clients over https; write https://…"],
    ),
    (
        "server: {public_url: 'https://a'}",
        [
            "f:1: server.public_url: says https, but TLS is disabled and no proxy in front is listed; set tls.mode or "
            "tls.trusted_proxies"
        ],
    ),
    (
        "auth: {tokens: [{name: a, token: short, allow: []}]}",
        [
            "f:1: auth.tokens[0].token: the secret is short; one that cannot be guessed comes from "
            "`openssl rand -hex 32`",
            "f:1: auth.tokens[0].allow: the empty list allows nothing; remove allow to allow everything",
        ],
    ),
    # The open door, ajar.
    (
        "server: {host: 0.0.0.0}",
        [
            "f:1: auth: no credential is configured: as soon as mcpServers names a server, this address needs "
            "auth.tokens or auth.anonymous: true",
            "f:1: server.host: TLS is disabled: everything, tokens too, travels in the clear",
        ],
    ),
    (
        f"server: {{host: 0.0.0.0, tls: {{mode: application, {PAIR}}}}}\n"
        "mcpServers: {a: {command: x, enabled: false}}",
        [
            "f:1: auth: no credential is configured: as soon as mcpServers names a server, this address needs "
            "auth.tokens or auth.anonymous: true"
        ],
    ),
    (
        f"server: {{host: 0.0.0.0, tls: {{mode: application, {PAIR}}}}}{SERVER}\nauth: {{anonymous: true}}",
        ["f:3: auth.anonymous: whoever reaches this address may use every server without a credential"],
    ),
    (
        "server: {tls: {trusted_proxies: [10.0.0.1]}}" + SERVER,
        [
            "f:1: auth: clients that arrive through the trusted proxies are let in without a credential, wherever they "
            "are; add auth.tokens, or write auth.anonymous: true to say that this is meant"
        ],
    ),
    (
        "server: {host: 'systemd:0'}" + SERVER,
        [
            "f:1: auth: no credential is asked for on the socket that systemd passes; make sure that only this machine "
            "reaches it, or add auth.tokens"
        ],
    ),
    (
        "auth: {anonymous: true, tokens: [{name: a, token: 0123456789abcdefx}]}",
        ["f:1: auth.anonymous: callers without a credential are let in as well; remove it to demand one"],
    ),
    # Understood, but not yet acted on.
    (
        "server: {workers: 4}\nsecurity: {rate_limit: {burst: 1}}\nregistry: {paths: c/}\nadmin: {}\n"
        "auth: {jwt: {issuer: 'https://x'}, client_certificates: [{name: a, match: {san: b}}]}",
        [
            "f:5: auth.client_certificates: no client is ever asked for a certificate; write server.tls.client_auth: "
            "optional or required",
            "f:1: server.workers: not acted on by this version, which runs one process",
            "f:2: security.rate_limit: not enforced by this version",
            "f:5: auth.jwt: not enforced by this version: it lets nobody in",
            "f:3: registry.paths: not acted on by this version",
        ],
    ),
    (
        "mcpServers: {a: {url: 'http://10.0.0.1/mcp', headers: {A: b}}, b: {url: 'http://127.0.0.1/', headers: {A: b}}}",
        ["f:1: mcpServers.a.url: the headers travel unencrypted over http; use https if the server can"],
    ),
    (
        "mcpServers: {a: {url: 'ws://x', headers: {A: b}}, b: {url: '${env:X}', type: ws, sharing: shared, enabled: false}}",
        ["f:1: mcpServers.a.url: the headers travel unencrypted over ws; use wss if the server can"],
    ),
]


class RuleTests(SynchronousTestCase):
    maxDiff = None

    def test_what_contradicts_itself_is_refused_with_the_reason(self) -> None:
        """The first table, entry by entry."""
        for text, expected in REFUSED:
            self.assertEqual(lines(text), expected, text)

    def test_what_is_doubtful_loads_with_a_warning_and_the_rest_in_silence(self) -> None:
        """The second table, entry by entry."""
        for text, expected in WARNED:
            self.assertEqual(list(load(text).warnings), expected, text)

    def test_behind_proxy_alone_settles_the_mode(self) -> None:
        """The specification's second way to say it; ``false`` settles nothing."""
        self.assertEqual(load(tls("behind_proxy: true, trusted_proxies: [10.0.0.1]")).server.tls.mode, "behind_proxy")
        self.assertEqual(load(tls("behind_proxy: false")).server.tls.mode, "disabled")

    def test_a_refused_key_does_not_make_others_look_wrong(self) -> None:
        """One mistake, one finding."""
        for text in (
            tls("mode: aplication, client_auth: required"),
            tls("mode: application, cert: c, key_file: k"),
            tls("mode: application, cert_file: '', key_file: k"),
            tls("mode: behind_proxy, trusted_proxies: [x]"),
            "server: {host: '*'}" + SERVER,
            "server: {host: 0.0.0.0}\nauth: {tokns: []}" + SERVER,
            "auth: {tokens: [{name: a, tokn: x}]}",
        ):
            found = lines(text)
            self.assertEqual(len(found), 1, found)
