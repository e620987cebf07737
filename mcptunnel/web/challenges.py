"""``/.well-known/acme-challenge/TOKEN``: what an ACME client has put into its webroot for the authority to see."""

from __future__ import annotations

import os
import stat
from typing import Final

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mcptunnel.core.acme import PREFIX, token
from mcptunnel.core.errors import RequestError
from mcptunnel.web.request import Request

__all__ = ["Challenges"]

# A key authorization (RFC 8555 §8.1) is a token, a dot and 43 characters.
_MOST_BYTES: Final = 8192
_DIRECTORY: Final = os.fsdecode(PREFIX.strip(b"/"))


class Challenges(Resource):
    """The one directory of a webroot that is served, file by file.

    Args:
        webroot: ``server.tls.acme_webroot``.
        otherwise: Renders what lies at any other address.
    """

    isLeaf = True

    def __init__(self, webroot: str, otherwise: Resource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._directory: Final = os.path.join(webroot, _DIRECTORY)
        self._otherwise: Final = otherwise

    def render(self, request: Request) -> int:
        """Answer with the file of that name.

        Raises:
            RequestError: 404, there is none that may be shown; 405.
        """
        if not request.path.startswith(PREFIX):
            return self._otherwise.render(request)  # type: ignore[no-any-return, no-untyped-call]
        if request.method not in (b"GET", b"HEAD"):
            raise RequestError(405, "method_not_allowed", "Only GET can be served here.", ((b"Allow", b"GET, HEAD"),))
        name = token(request.path)
        content = None if name is None else _read(os.path.join(self._directory, name))
        if content is None:
            raise RequestError(
                404, "no_challenge", "There is no answer to such a challenge in server.tls.acme_webroot."
            )
        request.respond(200, b"text/plain", content)
        return NOT_DONE_YET


def _read(path: str) -> bytes | None:
    """A regular file that is small, and is no link to somewhere else; None for whatever is not."""
    try:
        # Not blocking: what has that name might be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = os.read(descriptor, _MOST_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content if len(content) <= _MOST_BYTES else None
