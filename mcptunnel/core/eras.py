"""What is known of the eras that each server speaks, and how that is found out.

A server of the client's own era is always preferred: then nothing has to be translated. So both questions are asked
for themselves: whether a server speaks 2026-07-28 is asked with ``server/discover`` before the first modern request
goes to it, and whether it speaks ``initialize`` shows when a client says that. What was found holds until the server
fails in a way that puts it in doubt (MCP 2026-07-28, Versioning, "Backward compatibility").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcptunnel import __version__
from mcptunnel.core.errors import HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION, RpcError
from mcptunnel.core.exchange import error_code
from mcptunnel.core.jsonrpc import Message, encode
from mcptunnel.core.mcp import CAPABILITIES_KEY, INFO_KEY, MODERN_VERSIONS, VERSION_KEY, Era
from mcptunnel.core.wire import Upstream

__all__ = ["DISCOVER", "PROBE_SECONDS", "Eras", "speaks_modern"]

# A server that says nothing at all for so long is taken for one that waits for `initialize`.
PROBE_SECONDS: Final = 10.0
DISCOVER: Final = b'{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{"_meta":%b}}' % encode(
    {
        VERSION_KEY: MODERN_VERSIONS[-1],
        CAPABILITIES_KEY: {},
        INFO_KEY: {"name": "mcptunnel", "version": __version__},
    }
)
# Errors that only 2026-07-28 has.
_MODERN_ERRORS: Final = (HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION)


class Eras:
    """The eras of each server, as far as they are known.

    Args:
        upstreams: The servers by name.
    """

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._known: Final[dict[Era, dict[str, bool]]] = {"legacy": {}, "modern": {}}
        # What the configuration says is not learned and not doubted.
        self._fixed: Final = frozenset(name for name, upstream in upstreams.items() if upstream.rules.era != "auto")
        for name in self._fixed:
            for era, known in self._known.items():
                known[name] = upstreams[name].rules.era == era

    def speaks(self, server: str, era: Era) -> bool | None:
        """Whether ``server`` speaks ``era``; None when that is not known."""
        return self._known[era].get(server)

    def learn(self, server: str, era: Era, speaks: bool) -> None:
        """It has shown that it does, or does not."""
        if server not in self._fixed:
            self._known[era][server] = speaks

    def doubt(self, server: str, era: Era) -> None:
        """It has failed in a way that it would not if what is known were still so."""
        if server not in self._fixed:
            self._known[era].pop(server, None)

    def known(self, server: str) -> dict[str, bool | None]:
        """Era to what is known, for people."""
        return {era: known.get(server) for era, known in self._known.items()}


def speaks_modern(reply: Message | None, error: RpcError | None) -> bool | None:
    """What the answer to :data:`DISCOVER` says; None when nobody has answered.

    Args:
        reply: The response.
        error: Our own error when that is what ``reply`` says.
    """
    if error is not None:
        # It said nothing, or would not answer in our words (a 4xx); any other error is of the way there.
        silent = error.reason == "upstream_timeout"
        return False if silent or (error.reason == "upstream_status" and error.legacy_status == 400) else None
    if reply is None:
        return None
    if reply.kind == "error":
        return error_code(reply) in _MODERN_ERRORS
    try:
        span = reply.inside(reply.spans["result"], "result").get("supportedVersions")
        versions = None if span is None else reply.at(span)
    except RpcError:
        return False
    return isinstance(versions, list) and any(version in versions for version in MODERN_VERSIONS)
