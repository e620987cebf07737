"""Bad input and the exact lines it gets; good input and the exact values it becomes."""

# The lines are quoted whole, as the operator reads them.
# ruff: noqa: E501

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import asdict, fields
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config import load as loader
from mcptunnel.config import schema
from mcptunnel.config.containers import Listed, Named, Section, Switched
from mcptunnel.config.load import ROOT, default_path, key_paths, load, load_checked, load_file, load_text
from mcptunnel.config.schema import (
    AggregateConfig,
    CertificatePair,
    Config,
    TokenConfig,
    ToolOverride,
    UpstreamConfig,
)
from mcptunnel.config.upstreams import ENTRY
from mcptunnel.core.errors import ConfigError

ENVIRON = {"PORT": "8080", "BAD": "s3cret-and-wrong", "TOKEN": "0123456789abcdef", "NETS": "10.0.0.5, 10.0.0.6"}


def lines(text: str) -> list[str]:
    """The findings for ``text``, none for a good one."""
    try:
        load_text(text, name="f", base=Path("/etc"), environ=ENVIRON)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def good(text: str) -> Config:
    return load_text(text, name="f", base=Path("/etc"), environ=ENVIRON)


# What stands in the file, and the lines the operator reads.
BAD: list[tuple[str, list[str]]] = [
    # The shape of the whole.
    (
        "just text",
        [
            "f:1: 'just text' stands where a mapping is expected; known keys: server, security, auth, "
            "mcpServers, include, aggregate, registry, admin, alerts, logging"
        ],
    ),
    (
        "- a",
        [
            "f:1: a list stands where a mapping is expected; known keys: server, security, auth, mcpServers, "
            "include, aggregate, registry, admin, alerts, logging"
        ],
    ),
    (
        "server: 5",
        [
            "f:1: server: '5' stands where a mapping is expected; known keys: host, port, public_url, workers, "
            "proxy_protocol, tls, limits"
        ],
    ),
    ("server:\n  host: [a]", ["f:2: server.host: a list stands where an address is expected"]),
    # Unknown keys.
    (
        "zzz: 1",
        [
            "f:1: zzz: unknown key; known here: server, security, auth, mcpServers, include, aggregate, registry, admin, alerts, logging"
        ],
    ),
    ("sever: {}", ["f:1: sever: unknown key; did you mean server?"]),
    ("mcp_servers: {}", ["f:1: mcp_servers: unknown key; did you mean mcpServers?"]),
    ("MCPServers: {}", ["f:1: MCPServers: unknown key; did you mean mcpServers?"]),
    ("tls: {mode: auto}", ["f:1: tls: unknown key here; did you mean server.tls?"]),
    (
        "port: 1",
        ["f:1: port: unknown key here; did you mean server.port or server.tls.redirect_http.port or admin.port?"],
    ),
    (
        "server: {tls: {mode: application, certificate: a, key: b}}",
        [
            "f:1: server.tls.certificate: unknown key; did you mean cert_file?",
            "f:1: server.tls.key: unknown key; did you mean key_file?",
        ],
    ),
    (
        "server: {cert: a}",
        [
            "f:1: server.cert: unknown key here; did you mean server.tls.cert_file or "
            "server.tls.certificates[].cert_file or mcpServers.NAME.cert_file?"
        ],
    ),
    (
        "server: {tls: {min-tls-version: 1.2}}",
        ["f:1: server.tls.min-tls-version: unknown key; did you mean min_tls_version?"],
    ),
    (
        '"a\\nb": 1',
        [
            "f:1: 'a\\nb': unknown key; known here: server, security, auth, mcpServers, include, aggregate, registry, "
            "admin, alerts, logging"
        ],
    ),
    # Numbers, durations, sizes, truth values.
    ("server: {port: 65536}", ["f:1: server.port: '65536' is out of range; write 0 to 65535"]),
    ("server: {port: 3e3}", ["f:1: server.port: '3e3' is not a whole number; write 0 to 65535 in plain digits"]),
    ("server: {port: 010}", ["f:1: server.port: '010' is not a whole number; write 0 to 65535 in plain digits"]),
    ("server: {port: 1:30}", ["f:1: server.port: '1:30' is not a whole number; write 0 to 65535 in plain digits"]),
    (
        "server: {port: true}",
        ["f:1: server.port: 'true' is a truth value in YAML where a whole number is expected; put it in quotes"],
    ),
    (
        "server:\n  port: ${env:BAD}",
        ["f:2: server.port: the value of '${env:BAD}' is not a whole number; write 0 to 65535 in plain digits"],
    ),
    ("server: {limits: {connections: 0}}", ["f:1: server.limits.connections: '0' is out of range; write 1 to 1000000"]),
    (
        "server: {limits: {idle_timeout: 0}}",
        ["f:1: server.limits.idle_timeout: '0' is out of range; write 0.001 to 86400 seconds"],
    ),
    (
        "server: {limits: {body_bytes: 2GiB}}",
        ["f:1: server.limits.body_bytes: '2GiB' is out of range; write 1024 to 1073741824 bytes"],
    ),
    (
        "server: {limits: {body_bytes: 4m}}",
        [
            "f:1: server.limits.body_bytes: '4m' is not a size; write bytes, or a number with kB, MB, GB (1000) or KiB, "
            "MiB, GiB (1024), such as 4096 or 4MiB; did you mean 4MiB or 4MB?"
        ],
    ),
    (
        "server: {tls: {hsts_enabled: 1}}",
        ["f:1: server.tls.hsts_enabled: '1' is not a truth value; write true or false"],
    ),
    (
        "server: {tls: {hsts_max_age: -1}}",
        [
            "f:1: server.tls.hsts_max_age: '-1' is not a duration; write seconds, or a number with ms, s, m, h, d or w, "
            "such as 30s, 250ms or 1h30m"
        ],
    ),
    # One of several words.
    (
        "server: {proxy_protocol: on}",
        ["f:1: server.proxy_protocol: 'on' is not known here; write off, optional or required"],
    ),
    (
        "server: {tls: {mode: behind-proxy}}",
        [
            "f:1: server.tls.mode: 'behind-proxy' is not known here; write disabled, application, behind_proxy or auto; "
            "did you mean behind_proxy?"
        ],
    ),
    (
        "server: {tls: {min_tls_version: 1.1}}",
        ["f:1: server.tls.min_tls_version: '1.1' is not offered, it is broken (RFC 8996); write 1.2 or 1.3"],
    ),
    ("logging: {access: yaml}", ["f:1: logging.access: 'yaml' is not known here; write text, json or off"]),
    # Addresses and URLs.
    (
        "server: {host: '127.0.0.1:3000'}",
        ["f:1: server.host: '127.0.0.1:3000' holds a port; write the address here and the port as the key port"],
    ),
    (
        "server: {host: '*'}",
        ["f:1: server.host: '*' is not an address; write 0.0.0.0 for every IPv4 address or :: for every address"],
    ),
    (
        "server: {host: 'http://a'}",
        ["f:1: server.host: 'http://a' is a URL; write the address or name only, and the URL as server.public_url"],
    ),
    ("server: {host: 'unix:'}", ["f:1: server.host: 'unix:' names no socket; write unix:/path"]),
    (
        "server: {host: 'systemd:x'}",
        ["f:1: server.host: 'systemd:x' names no passed socket; write systemd:0 for the first one"],
    ),
    (
        f"server: {{host: 'unix:/{'x' * 108}'}}",
        ["f:1: server.host: the path of the socket is longer than 107 bytes; choose a shorter one"],
    ),
    (
        "server: {host: 127.1}",
        [
            "f:1: server.host: '127.1' is neither an address nor a host name; write such as 127.0.0.1, ::1, unix:/path or "
            "systemd:0"
        ],
    ),
    (
        "server: {public_url: mcp.example.com}",
        [
            "f:1: server.public_url: 'mcp.example.com' is not an absolute https or http URL; write such as "
            "https://mcp.example.com"
        ],
    ),
    (
        "server: {public_url: 'https://u:p@a/'}",
        ["f:1: server.public_url: 'https://u:p@a/' holds a user name or password; remove them from the URL"],
    ),
    (
        "server: {public_url: 'https://a/?x'}",
        ["f:1: server.public_url: 'https://a/?x' holds a query; remove everything from the ? on"],
    ),
    (
        "server: {public_url: 'https://a/#x'}",
        ["f:1: server.public_url: 'https://a/#x' holds a fragment; remove everything from the # on"],
    ),
    (
        "server: {tls: {trusted_proxies: [10.0.0.1/8]}}",
        [
            "f:1: server.tls.trusted_proxies[0]: '10.0.0.1/8' has bits set beyond its prefix; write the network or the one "
            "address: 10.0.0.0/8 or 10.0.0.1"
        ],
    ),
    (
        "server:\n  tls:\n    trusted_proxies:\n      - 10.0.0.1\n      - nginx",
        [
            "f:5: server.tls.trusted_proxies[1]: 'nginx' is neither a network nor an address; names are not resolved here, "
            "write such as 10.0.0.0/8, 192.0.2.7, 2001:db8::/32 or unix"
        ],
    ),
    (
        "server: {tls: {trusted_proxies: ['fe80::1%eth0']}}",
        ["f:1: server.tls.trusted_proxies[0]: 'fe80::1%eth0' names an interface; write the address without the % part"],
    ),
    (
        "server:\n  tls:\n    trusted_proxies: ${env:BAD}",
        [
            "f:3: server.tls.trusted_proxies: the value of '${env:BAD}' holds something that cannot stand in a list of networks; correct it"
        ],
    ),
    (
        "security: {allowed_hosts: ['*.example.com']}",
        [
            "f:1: security.allowed_hosts[0]: '*.example.com' is not host or host:port; wildcards within a name are not "
            "supported, list each host; write such as mcp.example.com or [::1]:3000"
        ],
    ),
    (
        "security: {allowed_origins: ['*', 'https://a/', 'a.com']}",
        [
            "f:1: security.allowed_origins[0]: '*' would let every web page in; list each origin, such as "
            "https://app.example.com",
            "f:1: security.allowed_origins[1]: 'https://a/' is no origin; remove the slash at the end",
            "f:1: security.allowed_origins[2]: 'a.com' is no origin; write scheme://host or scheme://host:port, without a "
            "path",
        ],
    ),
    # TLS.
    (
        "server: {tls: {cipher_suites: []}}",
        ["f:1: server.tls.cipher_suites: the list is empty; name cipher suites or remove the key"],
    ),
    (
        "server: {tls: {cert_file: '', key_file: ~/k}}",
        [
            "f:1: server.tls.cert_file: '' is an empty path; name a file or remove the key",
            "f:1: server.tls.key_file: '~/k' starts with ~, which is not expanded; write ${env:HOME} or the whole path",
        ],
    ),
    (
        "server: {tls: {certificates: [{cert_file: a}]}}",
        ["f:1: server.tls.certificates[0]: key_file is missing; add it"],
    ),
    # Headers.
    (
        'security:\n  headers:\n    X A: b\n    X-B: "a\\nb"\n    Connection: close\n    X-C: 1\n    x-c: 2\n'
        "    Strict-Transport-Security: x",
        [
            "f:3: security.headers.'X A': 'X A' is not a header name; write letters, digits and dashes, without blanks or a "
            "colon",
            "f:4: security.headers.X-B: 'a\\nb' holds a line break, a control or a non-ASCII character; a header line "
            "cannot carry it",
            "f:5: security.headers.Connection: 'Connection' is set by the daemon itself; remove the entry",
            "f:7: security.headers.x-c: the name differs from 'X-C' only in case; remove one of the two",
            "f:8: security.headers.Strict-Transport-Security: 'Strict-Transport-Security' is set by "
            "server.tls.hsts_enabled and server.tls.hsts_max_age; use these",
        ],
    ),
    # Tokens: the secret is never shown.
    (
        "auth:\n  tokens:\n    - {token: hunter2hunter2hunter2}\n    - {name: a b, token: x y}\n    - {name: c, token: ''}\n"
        "    - {name: d, token_sha256: hunter2}\n    - {name: e, token: 12345}",
        [
            "f:3: auth.tokens[0]: name is missing; add it",
            "f:4: auth.tokens[1].name: 'a b' cannot be a name here; write 1 to 64 letters, digits, dots, _ or -",
            "f:4: auth.tokens[1].token: the value holds blanks or non-ASCII characters; a bearer token cannot",
            "f:5: auth.tokens[2].token: the value is empty; a token needs a secret, of 16 characters or more",
            "f:6: auth.tokens[3].token_sha256: the value is not a SHA-256; write 64 hexadecimal digits, as sha256sum "
            "prints them",
            "f:7: auth.tokens[4].token: the secret is a number or truth value to YAML; put it in quotes",
        ],
    ),
    (
        "auth: {tokens: [{name: a, token: '${env:NONE}'}]}",
        [
            "f:1: auth.tokens[0].token: the environment variable NONE is not set; set it for the daemon, or write "
            "${env:NONE:-default} for a default"
        ],
    ),
    (
        "auth: {tokens: [null, 5], jwt: {audience: a}, client_certificates: [{name: a, match: {}}]}",
        [
            "f:1: auth.tokens[0]: nothing stands where a mapping is expected; known keys: name, token, token_file, "
            "token_sha256, allow",
            "f:1: auth.tokens[1]: '5' stands where a mapping is expected; known keys: name, token, token_file, "
            "token_sha256, allow",
            "f:1: auth.jwt: issuer is missing; add it",
            "f:1: auth.client_certificates[0].match: matches every certificate; name san or subject",
        ],
    ),
    # Servers.
    (
        "mcpServers: [a]",
        ["f:1: mcpServers: mcpServers is a mapping of names to servers; write NAME: {command: …} or NAME: {url: …}"],
    ),
    (
        "mcpServers:\n  a__b: {command: x}\n  a_: {command: x}\n  a b: {command: x}",
        [
            f"f:{line}: mcpServers.{key}: '{name}' cannot name a server; write 1 to 64 letters, digits, _ or -, without __ "
            "and without _ at the end"
            for line, key, name in ((2, "a__b", "a__b"), (3, "a_", "a_"), (4, "'a b'", "a b"))
        ],
    ),
    (
        "mcpServers:\n  a:\n  b: x\n  c: {}\n  d: {command: x, url: 'http://x'}",
        [
            "f:2: mcpServers.a: an entry is a mapping with command or url; write NAME: {command: …} or NAME: {url: …}",
            "f:3: mcpServers.b: an entry is a mapping with command or url; write NAME: {command: …} or NAME: {url: …}",
            "f:4: mcpServers.c: names no server; add command (a program to run) or url (an address)",
            "f:5: mcpServers.d: command and url are both given; keep command for a program to run, or url for an address",
        ],
    ),
    (
        "mcpServers:\n  a: {command: uvx mcp-time}\n  b: {command: x, args: y}\n  c: {command: x, env: {A=B: c}}\n"
        "  d: {command: x, headers: {A: b}}\n  e: {url: 'http://x', args: [a], cwd: b}",
        [
            "f:2: mcpServers.a.command: 'uvx mcp-time' holds arguments; no shell splits it: write the program here and the "
            "rest as args: [a, b]",
            "f:3: mcpServers.b.args: 'y' stands where a list of arguments is expected; write [a, b]",
            "f:4: mcpServers.c.env.'A=B': 'A=B' cannot name an environment variable; write a name without =",
            "f:5: mcpServers.d.headers: means nothing beside command; remove it",
            "f:6: mcpServers.e.args: means nothing beside url; remove it",
            "f:6: mcpServers.e.cwd: means nothing beside url; remove it",
        ],
    ),
    (
        "mcpServers:\n  a: {type: http, url: 'wss://x/ws'}\n  b: {type: ws, url: 'http://x'}\n  c: {type: stdio, url: 'http://x'}\n"
        "  d: {url: 'http://secret@x'}\n  e: {url: x, headers: {A: 'b\\nc'}}\n  f: {url: 'http://x', headers: {Host: y}}",
        [
            "f:2: mcpServers.a.type: 'http' does not go with a WebSocket address; remove type, url says it already",
            "f:3: mcpServers.b.type: 'ws' does not go with an http address; write url: wss://… or ws://…, or remove type",
            "f:4: mcpServers.c.type: 'stdio' does not go with url; remove type, url says it already",
            "f:5: mcpServers.d.url: the value holds a user name or password; remove them from the URL",
            "f:6: mcpServers.e.url: the value is not an absolute https or http or wss or ws URL; write such as "
            "https://docs.example.com/mcp",
            "f:7: mcpServers.f.headers.Host: the daemon sets this header itself; remove the entry",
        ],
    ),
    (
        "mcpServers: {a: {command: x, timeout: 5, disabled: true, enabled: true}}",
        [
            "f:1: mcpServers.a.timeout: unknown key; did you mean request_timeout?",
            "f:1: mcpServers.a: enabled and disabled contradict each other; keep enabled",
        ],
    ),
    (
        "mcpServers:\n  a: {command: x, type: sse}\n  b: {command: x, proxy: none, cert_file: c}\n"
        "  c: {url: 'https://x', sharing: shared}\n  d: {url: 'https://x', key_file: k}\n"
        "  e: {url: 'ws://localhost', cert_file: c, key_file: k}\n  f: {command: x, era: old}\n",
        [
            "f:2: mcpServers.a.type: 'sse' does not go with command; remove type, command says it already",
            "f:3: mcpServers.b.cert_file: means nothing beside command; remove it",
            "f:3: mcpServers.b.proxy: means nothing beside command; remove it",
            "f:4: mcpServers.c.sharing: 'shared' means nothing for Streamable HTTP, where each session asks for itself; "
            "remove it",
            "f:5: mcpServers.d.key_file: key_file is given without cert_file; add cert_file beside it",
            "f:6: mcpServers.e.cert_file: there is no TLS to show a certificate in; write an https or wss url, or remove it",
            "f:7: mcpServers.f.era: 'old' is not known here; write auto, legacy or modern",
        ],
    ),
    (
        "mcpServers:\n  a: {url: 'http://x', proxy: 'https://u:geheim@p:1'}\n"
        "  b: {url: 'http://x', proxy: 'http://u:geheim@p:1/path'}\n"
        "  c: {command: x, tools: {a: {name: d}, b: {name: d, hidden: true}, c: {name: d}, d: {hidden: true}}}\n"
        "  d: {command: x, tools: {a: {name: 'a b', hidden: 3}}}\n",
        [
            "f:2: mcpServers.a.proxy: the value is not an absolute http URL; write such as http://proxy.example.com:3128",
            "f:3: mcpServers.b.proxy: the value is not the URL of a proxy; write such as http://proxy.example.com:3128 or "
            "http://user:password@host:3128",
            "f:4: mcpServers.c.tools.c: would be shown as 'd', as 'a' is; choose another name",
            "f:5: mcpServers.d.tools.a.name: 'a b' is not a name for a tool; write 1 to 128 letters, digits, dots, _ and -",
            "f:5: mcpServers.d.tools.a.hidden: '3' is not a truth value; write true or false",
        ],
    ),
    (
        "security: {seal_keys: [0123456789abcdef0123456789abcde, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, 5]}",
        [
            "f:1: security.seal_keys[0]: the value can be guessed; write 32 characters or more, as `openssl rand -hex 32` "
            "prints them",
            "f:1: security.seal_keys[1]: the value can be guessed; write 32 characters or more, as `openssl rand -hex 32` "
            "prints them",
            "f:1: security.seal_keys[2]: the secret is a number or truth value to YAML; put it in quotes",
        ],
    ),
    (
        "aggregate: {prefix: sometimes, timeout: 0}",
        [
            "f:1: aggregate.prefix: 'sometimes' is not known here; write always, never or on-collision",
            "f:1: aggregate.timeout: '0' is out of range; write 0.001 to 86400 seconds",
        ],
    ),
]


class BadInputTests(SynchronousTestCase):
    maxDiff = None

    def test_every_bad_input_gets_exactly_its_lines(self) -> None:
        """The table above, entry by entry."""
        for text, expected in BAD:
            self.assertEqual(lines(text), expected, text)

    def test_all_mistakes_come_at_once_in_file_order(self) -> None:
        """Whatever order the checks run in."""
        text = "logging: {access: x}\nserver:\n  port: x\n  tls: {client_auth: required}\nauth: {anonymous: x}\n"
        self.assertEqual(
            [line.split(": ")[1] for line in lines(text)],
            ["logging.access", "server.port", "server.tls.client_auth", "auth.anonymous"],
        )

    def test_a_flood_of_mistakes_is_cut_with_a_count(self) -> None:
        """The first hundred are enough."""
        found = lines("".join(f"key{i}: 1\n" for i in range(150)))
        self.assertEqual(len(found), 101)
        self.assertEqual(found[-1], "f: 50 more findings are not shown")

    def test_no_expanded_value_and_no_secret_is_ever_shown(self) -> None:
        """A variable with a wrong value, put everywhere a text may stand."""
        spots = [path for path in key_paths() if "[]" not in path and "NAME" not in path]
        for path in spots:
            text = '"${env:BAD}"'
            for key in reversed(path.split(".")):
                text = f"{{{key}: {text}}}"
            self.assertNotIn(ENVIRON["BAD"], "\n".join(lines(text)), path)
        entry = "mcpServers: {a: {%s: {X: 'very-secret\\n'}, url: 'https://very-secret@x'}}"
        for key in ("headers", "env"):
            self.assertNotIn("very-secret", "\n".join(lines(entry % key)))


class GoodInputTests(SynchronousTestCase):
    def test_an_empty_file_is_the_defaults(self) -> None:
        """Also one of comments, of sections without content, and of nulls."""
        for text in ("", "# nothing\n", "---\n", "{}", "\ufeff", "server:\nauth:\n  tokens:\nmcpServers:\n"):
            self.assertEqual(good(text), Config(), text)

    def test_yaml_1_1_is_met_kindly(self) -> None:
        """Words and numbers that YAML turns into something else mean what was written."""
        config = good(
            "server: {limits: {sessions: 20_000}, proxy_protocol: off, port: '8080', tls: {min_tls_version: 1.3, hsts_enabled: off}}\n"
            "logging: {access: off}\n"
        )
        self.assertEqual(config.server.proxy_protocol, "off")
        self.assertEqual((config.server.port, config.server.limits.sessions), (8080, 20_000))
        self.assertEqual(config.server.tls.min_tls_version, "1.3")
        self.assertFalse(config.server.tls.hsts_enabled)
        self.assertEqual(config.logging.access, "off")

    def test_variables_may_hold_numbers_and_lists(self) -> None:
        """What the environment gives is text, whatever the key's type."""
        config = good(
            "server:\n  port: ${env:PORT}\n  tls:\n    trusted_proxies: ${env:NETS}\n"
            "    hsts_enabled: ${env:NO:-no}\n    cipher_suites: TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384"
        )
        self.assertEqual(config.server.port, 8080)
        self.assertEqual(config.server.tls.trusted_proxies, ("10.0.0.5", "10.0.0.6"))
        self.assertFalse(config.server.tls.hsts_enabled)
        self.assertEqual(config.server.tls.cipher_suites, ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"))

    def test_relative_paths_start_at_the_file(self) -> None:
        """Certificates, keys, authorities, tokens, sockets, working directories."""
        config = good(
            "server: {host: 'unix:run/s', tls: {mode: auto, cert_file: c.pem, key_file: /k.pem, ca_file: ca.pem,\n"
            "  certificates: [{cert_file: a, key_file: b}]}}\n"
            "auth: {tokens: [{name: a, token_file: t}]}\n"
            "mcpServers: {a: {command: ./x, cwd: w}, b: {url: 'https://x', ca_file: ca}}\n"
            "logging: {access_file: log}\n"
        )
        tls = config.server.tls
        self.assertEqual(config.server.host, "unix:/etc/run/s")
        self.assertEqual((tls.cert_file, tls.key_file, tls.ca_file), ("/etc/c.pem", "/k.pem", "/etc/ca.pem"))
        self.assertEqual(tls.certificates, (CertificatePair(cert_file="/etc/a", key_file="/etc/b"),))
        self.assertEqual(config.auth.tokens[0].token_file, "/etc/t")
        self.assertEqual((config.servers["a"].cwd, config.servers["b"].ca_file), ("/etc/w", "/etc/ca"))
        self.assertEqual(config.logging.access_file, "/etc/log")

    def test_servers_are_read_as_written_in_their_order(self) -> None:
        """Numbers and truth values among arguments and variables are text."""
        config = good(
            "mcpServers:\n  z: {type: stdio, command: uvx, args: [-p, 80, yes, 1.50, ''], env: {N: 1, T: '${env:TOKEN}'}}\n"
            "  a: {type: streamable-http, url: 'https://x/mcp?k=v', headers: {Authorization: 'Bearer ${env:TOKEN}'}}\n"
            "  off: {url: '${env:NONE}', headers: {A: '${env:NONE}'}, disabled: true}\n"
        )
        self.assertEqual(list(config.servers), ["z", "a", "off"])
        self.assertEqual(
            config.servers["z"],
            UpstreamConfig(
                name="z",
                type="stdio",
                command="uvx",
                args=("-p", "80", "yes", "1.50", ""),
                env={"N": "1", "T": "0123456789abcdef"},
            ),
        )
        self.assertEqual(config.servers["a"].headers, {"Authorization": "Bearer 0123456789abcdef"})
        self.assertFalse(config.servers["off"].enabled)
        self.assertEqual(config.servers["a"].url, "https://x/mcp?k=v")
        self.assertNotIn("k=v", repr(config))
        self.assertNotIn("0123456789abcdef", repr(config))

    def test_how_a_server_is_spoken_to(self) -> None:
        """A WebSocket address says its type; an http one may be either kind."""
        config = good(
            "mcpServers:\n  ws: {url: 'WSS://x/ws', sharing: shared}\n  old: {type: sse, url: 'http://x', sharing: shared}\n"
            "  any: {url: 'http://x'}\n  child: {command: x, sharing: shared, era: modern, request_timeout: 5s, request_max_time: 1m}\n"
        )
        servers = config.servers
        self.assertEqual([server.type for server in servers.values()], ["ws", "sse", None, None])
        self.assertEqual([server.sharing for server in servers.values()], ["shared", "shared", "session", "shared"])
        self.assertEqual((servers["any"].era, servers["child"].era), ("auto", "modern"))
        self.assertEqual((servers["any"].request_timeout, servers["any"].request_max_time), (None, None))
        self.assertEqual((servers["child"].request_timeout, servers["child"].request_max_time), (5.0, 60.0))

    def test_certificates_for_servers_and_proxies_on_the_way(self) -> None:
        """Nothing shows the password of a proxy."""
        config = good(
            "mcpServers:\n  a: {url: 'https://x', cert_file: c, key_file: /k, proxy: 'http://me:geheim@p.example:3128/'}\n"
            "  b: {url: 'https://x', proxy: none}\n  c: {url: 'https://x', proxy: 'http://[::1]:3128'}\n"
        )
        a, b, c = config.servers.values()
        self.assertEqual((a.cert_file, a.key_file), ("/etc/c", "/k"))
        self.assertEqual([a.proxy, b.proxy, c.proxy], ["http://me:geheim@p.example:3128/", "none", "http://[::1]:3128"])
        self.assertNotIn("geheim", repr(config))
        self.assertIn("http://…@p.example:3128/", repr(a))
        self.assertIn("'http://[::1]:3128'", repr(c))

    def test_tools_get_other_names_and_texts(self) -> None:
        """By the names that the server uses, which may be any text."""
        config = good(
            "mcpServers: {a: {command: x, tools: {'a tool': {name: b, description: yes}, c: {hidden: true}, d: {}, b: {name: a}}}}"
        )
        self.assertEqual(
            config.servers["a"].tools,
            {
                "a tool": ToolOverride(name="b", description="yes"),
                "c": ToolOverride(hidden=True),
                "d": ToolOverride(),
                "b": ToolOverride(name="a"),
            },
        )

    def test_all_servers_as_one(self) -> None:
        """Without a prefix the number of servers decides."""
        self.assertEqual(good("").aggregate, AggregateConfig(prefix=None, timeout=10.0))
        config = good("aggregate: {prefix: on-collision, timeout: 2s}")
        self.assertEqual(config.aggregate, AggregateConfig(prefix="on-collision", timeout=2.0))

    def test_keys_that_seal(self) -> None:
        """One or several; nothing shows them."""
        key, old = "0123456789abcdef" * 2, "fedcba9876543210" * 2
        self.assertEqual(good("").security.seal_keys, ())
        self.assertEqual(good("security: {seal_keys: '${env:TOKEN}${env:TOKEN}'}").security.seal_keys, (key,))
        config = good(f"security: {{seal_keys: ['{key}', {old}]}}")
        self.assertEqual(config.security.seal_keys, (key, old))
        self.assertNotIn(key, repr(config))

    def test_headers_may_be_removed_with_null(self) -> None:
        """An empty value means: do not send it."""
        config = good("security: {headers: {X-Frame-Options: null, Referrer-Policy: origin}}")
        self.assertEqual(config.security.headers, {"X-Frame-Options": None, "Referrer-Policy": "origin"})

    def test_tokens_in_their_three_forms(self) -> None:
        """And what they allow."""
        config = good(
            "auth:\n  tokens:\n    - {name: a, token: '${env:TOKEN}', allow: 'w__*'}\n    - {name: b, token_file: /t}\n"
            f"    - {{name: c, token_sha256: {'AB' * 32}}}\n"
        )
        self.assertEqual(
            config.auth.tokens,
            (
                TokenConfig(name="a", token="0123456789abcdef", allow=("w__*",)),
                TokenConfig(name="b", token_file="/t"),
                TokenConfig(name="c", token_sha256="ab" * 32),
            ),
        )
        self.assertNotIn("0123456789abcdef", repr(config))

    def test_units_reach_the_limits(self) -> None:
        """Durations are seconds, sizes bytes."""
        limits = good("server: {limits: {idle_timeout: 1h30m, body_bytes: 2MiB, request_timeout: 250ms}}").server.limits
        self.assertEqual((limits.idle_timeout, limits.body_bytes, limits.request_timeout), (5400.0, 2 << 20, 0.25))


class FileTests(SynchronousTestCase):
    def file(self, content: bytes) -> str:
        name: str = self.mktemp()
        with open(name, "wb") as file:
            file.write(content)
        return name

    def refused(self, path: str) -> str:
        return str(self.assertRaises(ConfigError, load_file, path))

    def test_a_file_is_read_relative_to_its_own_directory(self) -> None:
        """Absolutely, since a daemon changes its working directory."""
        path = self.file(b"server: {tls: {mode: application, cert_file: c, key_file: k}}")
        expected = os.path.join(os.path.dirname(os.path.abspath(path)), "c")
        self.assertEqual(load_file(path).server.tls.cert_file, expected)

    def test_what_cannot_be_read_is_explained(self) -> None:
        """Missing, directory, encoding, size, and what is no path at all."""
        self.assertEqual(
            self.refused("nope.yaml"), "nope.yaml: the configuration file does not exist; name a readable YAML file"
        )
        folder = self.mktemp()
        os.mkdir(folder)
        self.assertIn("the configuration file is a directory", self.refused(folder))
        self.assertIn("not a path", self.refused("a\0b"))
        self.assertIn(":2: byte 0xff is not UTF-8", self.refused(self.file(b"a: 1\n\xff")))
        self.assertIn("larger than 1048576 bytes", self.refused(self.file(b"#" * (1 << 20) + b"\n")))

    def test_files_that_are_named_must_exist_only_when_checked(self) -> None:
        """All at once, with everything else that is wrong."""
        path = self.file(
            b"server: {tls: {mode: application, cert_file: c, key_file: k}}\n"
            b"auth:\n  tokens: [{name: a, token_file: t}]\n"
        )
        load_file(path)
        folder = os.path.dirname(os.path.abspath(path))
        self.assertEqual(
            str(self.assertRaises(ConfigError, load_checked, path)).split("\n"),
            [
                f"{path}:{line}: {key}: the {what} file {self.shown(folder, name)} does not exist; correct the path, or "
                "the file and its permissions"
                for line, key, what, name in (
                    (1, "server.tls.cert_file", "certificate", "c"),
                    (1, "server.tls.key_file", "private key", "k"),
                    (3, "auth.tokens[0].token_file", "token", "t"),
                )
            ],
        )
        for name, content in (("c", b"x"), ("k", b"x"), ("t", b"0123456789abcdef\n")):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        self.assertEqual(load_checked(path), load_file(path))

    def shown(self, folder: str, name: str) -> str:
        whole = os.path.join(folder, name)
        return f"'{whole}'" if len(whole) <= 60 else f"'{whole[:59]}…'"

    def test_without_a_path_the_system_wide_file_or_the_defaults_hold(self) -> None:
        """The system-wide file counts as soon as it exists."""
        missing = self.mktemp()
        self.patch(loader, "DEFAULT_PATH", missing)
        self.assertEqual((default_path(), load()), (None, Config()))
        self.patch(loader, "DEFAULT_PATH", self.file(b"server: {port: 4000}"))
        self.assertEqual(default_path(), loader.DEFAULT_PATH)
        self.assertEqual(load().server.port, 4000)


class CredentialTests(SynchronousTestCase):
    """``credential:NAME``: what systemd has put into the unit's own directory."""

    TEXT = "server: {tls: {cert_file: c, key_file: 'credential:server-key'}}"

    def test_it_is_a_file_of_that_directory(self) -> None:
        """Absolute, wherever the configuration lies."""
        environ = {"CREDENTIALS_DIRECTORY": "/run/credentials/mcptunnel.service"}
        tls = load_text(self.TEXT, base=Path("/etc"), environ=environ).server.tls
        self.assertEqual(tls.key_file, "/run/credentials/mcptunnel.service/server-key")
        self.assertEqual(tls.cert_file, "/etc/c")

    def test_a_name_is_no_path(self) -> None:
        """It cannot lead out of the directory."""
        environ = {"CREDENTIALS_DIRECTORY": "/run"}
        for name in ("..", "a/b", "", "../x", "."):
            text = self.TEXT.replace("server-key", name)
            error = self.assertRaises(ConfigError, load_text, text, environ=environ)
            self.assertIn("names no credential", str(error))


class SchemaTests(SynchronousTestCase):
    def test_every_field_of_the_schema_has_a_key_and_no_key_is_without_one(self) -> None:
        """A field that cannot be configured, or a key that goes nowhere, is a mistake of ours."""

        def walk(section: Section[Any]) -> None:
            for read in section.fields.values():
                inner = read.item if isinstance(read, Listed | Named) else read
                inner = inner.section if isinstance(inner, Switched) else inner
                if isinstance(inner, Section):
                    walk(inner)
            if isinstance(section.build, type) and section.build is not dict:
                seen.add(section.build)
                self.assertEqual({field.name for field in fields(section.build)}, set(section.fields), section.build)

        seen: set[type] = set()
        walk(ROOT)
        walk(ENTRY)
        classes = {getattr(schema, name) for name in schema.__all__ if isinstance(getattr(schema, name), type)}
        self.assertEqual(classes - seen, {Config, UpstreamConfig})
        top = {field.name for field in fields(Config)} - {"servers", "warnings"}
        self.assertEqual(top | {"mcpServers", "include"}, set(ROOT.fields))
        entry = {path.split(".")[2] for path in key_paths() if path.startswith("mcpServers.NAME.")}
        self.assertEqual(entry - {"disabled"}, {field.name for field in fields(UpstreamConfig)} - {"name"})

    def test_the_defaults_lie_within_their_own_ranges(self) -> None:
        """What the loader would refuse cannot be a default."""
        config = asdict(Config())
        written = {
            f"server.{part}.{key}": value
            for part in ("limits", "tls")
            for key, value in config["server"][part].items()
            if isinstance(value, int | float | str) and not isinstance(value, bool)
        }
        for path, value in written.items():
            _, part, key = path.split(".")
            self.assertEqual(lines(f"server: {{{part}: {{{key}: {value}}}}}"), [], path)
