"""What single values look like: addresses, networks, URLs, names, header fields.

Each function takes the text of one value and returns it as the daemon will use it, or raises ``FormatError``. Names are
not resolved and files are not looked at.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cryptography import x509

from mcptunnel.config.units import FormatError
from mcptunnel.core import profiles
from mcptunnel.core.addresses import Trust
from mcptunnel.core.hosts import normal_origin, split_host
from mcptunnel.core.profiles import KNOWN_GROUPS
from mcptunnel.core.suites import KNOWN_SUITES
from mcptunnel.core.suites import parse as parse_suites

__all__ = [
    "allow_pattern",
    "allowed_host",
    "allowed_origin",
    "bind_host",
    "cipher",
    "command",
    "env_name",
    "free_text",
    "group",
    "header_name",
    "header_value",
    "is_loopback",
    "network",
    "own_tool",
    "proxy_url",
    "public_url",
    "seal_key",
    "secret",
    "server_name",
    "sha256",
    "subject",
    "token_name",
    "tool_name",
    "upstream_url",
    "web_url",
]

# RFC 9110 §5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# RFC 9110 §5.5, without obs-text.
_FIELD_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?", re.ASCII)
_HOST_PORT: Final = re.compile(r"[^:/]*:[0-9]*|\[.*\]:[0-9]*", re.ASCII)
_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)
_TOOL: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_CIPHER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def free_text(value: str) -> str:
    """Any text but an empty one."""
    if not value:
        raise FormatError("is empty; write a text or remove the key")
    return value


def _host(value: str) -> str:
    """A host name, an IPv4 address, or an IPv6 address with or without brackets; comes back without.

    Raises:
        ValueError: It is none of these.
    """
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    if ":" in value:
        return str(IPv6Address(value))
    name, port = split_host(value)
    if port is not None:
        raise ValueError("a port")
    return name


def bind_host(value: str) -> str:
    """``server.host`` and ``admin.host``."""
    if value == "unix" or value.startswith("unix:"):
        if not value[5:]:
            raise FormatError("names no socket; write unix:/path")
        return value
    if value == "systemd" or value.startswith("systemd:"):
        if not re.fullmatch(r"[0-9]{1,3}", value[8:], re.ASCII):
            raise FormatError("names no passed socket; write systemd:0 for the first one")
        return value
    try:
        return _host(value)
    except ValueError:
        pass
    if value == "*":
        raise FormatError("is not an address; write 0.0.0.0 for every IPv4 address or :: for every address")
    if "://" in value:
        raise FormatError("is a URL; write the address or name only, and the URL as server.public_url")
    if _HOST_PORT.fullmatch(value):
        raise FormatError("holds a port; write the address here and the port as the key port")
    raise FormatError("is neither an address nor a host name; write such as 127.0.0.1, ::1, unix:/path or systemd:0")


def is_loopback(host: str) -> bool:
    """Whether a listener on ``host`` can be reached from this machine only."""
    if host.startswith("unix:"):
        return True
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def network(value: str) -> str:
    """A CIDR network, an address, or ``unix``: a rule of ``trusted_proxies``."""
    if "%" in value:
        raise FormatError("names an interface; write the address without the % part")
    try:
        return Trust((value,)).rules[0]
    except ValueError:
        pass
    address, _, length = value.partition("/")
    try:
        whole = ip_network(value, strict=False)
    except ValueError:
        whole = None
    if whole is None or not length.isdecimal():
        raise FormatError(
            "is neither a network nor an address; names are not resolved here, "
            "write such as 10.0.0.0/8, 192.0.2.7, 2001:db8::/32 or unix"
        )
    raise FormatError("has bits set beyond its prefix; write the network or the one address", f": {whole} or {address}")


def _url(value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """An absolute URL without credentials and fragment, all ASCII."""
    if not _VISIBLE.fullmatch(value):
        raise FormatError(f"is not a URL (blank or non-ASCII characters); write such as {example}")
    try:
        parts = urlsplit(value)
        port = parts.port
        host = parts.hostname or ""
        if parts.scheme not in schemes or not host or port == 0 or "\\" in value:
            raise ValueError
        split_host(parts.netloc.rpartition("@")[2])
    except ValueError:
        raise FormatError(f"is not an absolute {' or '.join(schemes)} URL; write such as {example}") from None
    if "@" in parts.netloc:
        raise FormatError("holds a user name or password; remove them from the URL")
    if "#" in value:
        raise FormatError("holds a fragment; remove everything from the # on")
    return parts


def public_url(value: str) -> str:
    """``server.public_url``."""
    parts = _url(value, ("https", "http"), "https://mcp.example.com")
    if "?" in value:
        raise FormatError("holds a query; remove everything from the ? on")
    if "//" in parts.path or any(step in (".", "..") for step in parts.path.split("/")):
        raise FormatError("holds //, . or .. in its path; write the path plainly")
    return value


def web_url(value: str) -> str:
    """An http or https URL of somebody else."""
    _url(value, ("https", "http"), "https://login.example.com/keys")
    return value


def upstream_url(value: str) -> str:
    """The address of an MCP server."""
    _url(value, ("https", "http", "wss", "ws"), "https://docs.example.com/mcp")
    return value


def proxy_url(value: str) -> str:
    """The address of an HTTP proxy, with or without ``user:password@``; or ``none``."""
    if value == "none":
        return value
    example = "http://proxy.example.com:3128"
    scheme, mark, rest = value.partition("://")
    user, _, place = rest.rpartition("@")
    parts = _url(f"{scheme}{mark}{place}", ("http",), example)
    if parts.path not in ("", "/") or "?" in place or "/" in user or (user and not _VISIBLE.fullmatch(user)):
        raise FormatError(f"is not the URL of a proxy; write such as {example} or http://user:password@host:3128")
    return value


def tool_name(value: str) -> str:
    """The name of a tool as clients see it (MCP 2025-11-25, "Tool Names")."""
    if not _TOOL.fullmatch(value):
        raise FormatError("is not a name for a tool; write 1 to 128 letters, digits, dots, _ and -")
    return value


def own_tool(value: str) -> str:
    """The name of a tool as its server says it, which may be any text."""
    if not value:
        raise FormatError("is empty; write the name by which the server knows the tool")
    return value


def allowed_host(value: str) -> str:
    """``host``, ``host:port`` or ``*``."""
    try:
        if value != "*":
            split_host(value)
    except ValueError:
        more = "; wildcards within a name are not supported, list each host" if "*" in value else ""
        raise FormatError(f"is not host or host:port{more}; write such as mcp.example.com or [::1]:3000") from None
    return value


def allowed_origin(value: str) -> str:
    """``scheme://host[:port]``, in its one spelling, or ``null``."""
    if value == "*":
        raise FormatError("would let every web page in; list each origin, such as https://app.example.com")
    if "://" in value and value.endswith("/"):
        raise FormatError("is no origin; remove the slash at the end")
    try:
        return value if value == "null" else normal_origin(value)
    except ValueError:
        raise FormatError("is no origin; write scheme://host or scheme://host:port, without a path") from None


def header_name(value: str) -> str:
    """A header's name (RFC 9110 §5.1)."""
    if not _TOKEN.fullmatch(value):
        raise FormatError("is not a header name; write letters, digits and dashes, without blanks or a colon")
    return value


def header_value(value: str) -> str:
    """A header's value (RFC 9110 §5.5), of ASCII only."""
    stripped = value.strip(" \t")
    if not _FIELD_VALUE.fullmatch(stripped):
        raise FormatError("holds a line break, a control or a non-ASCII character; a header line cannot carry it")
    return stripped


def server_name(value: str) -> str:
    """A key of ``mcpServers``. ``__`` separates it from a tool's name, so it neither holds nor half-makes one."""
    if not _SERVER_NAME.fullmatch(value) or "__" in value or value.endswith("_"):
        raise FormatError(
            "cannot name a server; write 1 to 64 letters, digits, _ or -, without __ and without _ at the end"
        )
    return value


def token_name(value: str) -> str:
    """The name of a token or certificate rule."""
    if not _TOKEN_NAME.fullmatch(value):
        raise FormatError("cannot be a name here; write 1 to 64 letters, digits, dots, _ or -")
    return value


def secret(value: str) -> str:
    """A bearer token: what fits into one Authorization header (RFC 6750 §2.1, and whatever else is visible)."""
    if not value:
        raise FormatError("is empty; a token needs a secret, of 16 characters or more")
    if not _VISIBLE.fullmatch(value):
        raise FormatError("holds blanks or non-ASCII characters; a bearer token cannot")
    return value


def seal_key(value: str) -> str:
    """A secret from which a key is made: 32 characters or more, and no repetition of a few."""
    if len(value) < 32 or len(set(value)) < 8:
        raise FormatError("can be guessed; write 32 characters or more, as `openssl rand -hex 32` prints them")
    return value


def sha256(value: str) -> str:
    """A SHA-256 in hexadecimal, in lower case."""
    if not _SHA256.fullmatch(value):
        raise FormatError("is not a SHA-256; write 64 hexadecimal digits, as sha256sum prints them")
    return value.lower()


def allow_pattern(value: str) -> str:
    """A pattern over ``server__name``."""
    if not value or any(c.isspace() or not c.isprintable() for c in value):
        raise FormatError("is not a pattern; write such as weather__* without blanks")
    return value


def env_name(value: str) -> str:
    """The name of a variable for a child."""
    if not value or "=" in value or "\0" in value:
        raise FormatError("cannot name an environment variable; write a name without =")
    return value


def cipher(value: str) -> str:
    """The name of a cipher suite, OpenSSL's or IANA's."""
    if parse_suites((value,), "1.2")[1]:
        raise FormatError(f"is not a cipher suite that may be used; known are {', '.join(KNOWN_SUITES)}")
    return value


def group(value: str) -> str:
    """A key exchange group, in OpenSSL's name."""
    known = profiles.group(value)
    if known is None:
        raise FormatError(f"is not a key exchange group that may be used; known are {', '.join(KNOWN_GROUPS)}")
    return known


def subject(value: str) -> str:
    """A distinguished name or a part of one, RFC 4514."""
    try:
        x509.Name.from_rfc4514_string(value)
    except ValueError:
        raise FormatError("is no distinguished name; write it as CN=name,O=organization") from None
    return value


def command(value: str) -> str:
    """A program to run."""
    first, blank, _ = value.strip().partition(" ")
    if not first:
        raise FormatError("is empty; name the program to run")
    if blank and "/" not in first:
        raise FormatError("holds arguments; no shell splits it: write the program here and the rest as args: [a, b]")
    return value
