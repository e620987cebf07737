"""``mcptunnel reload``: let the running daemon read the files of its certificates again, and say what came of it."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
from typing import Any, Final

from mcptunnel.config.load import default_path, load_file
from mcptunnel.config.schema import AdminConfig
from mcptunnel.config.secrets import secret_in
from mcptunnel.core.addresses import local_way
from mcptunnel.core.errors import TunnelError

__all__ = ["add", "run"]

# Reading files takes milliseconds; a command that gives a passphrase may take ten seconds.
_SECONDS: Final = 30.0


def add(subparsers: Any) -> None:
    """Register the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "reload",
        help="let the daemon read its certificates again",
        description="Let the running daemon read the files of its certificates, keys, trust anchors and revocation "
        "lists again, and say what came of it. It looks at them by itself as well, four times a second.",
        epilog="exit status: 0 taken, 1 refused, or the daemon could not be asked",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the daemon's configuration; default: /etc/mcptunnel.yaml if it exists"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask.

    Raises:
        TunnelError: The daemon cannot be asked.
    """
    path = args.config or default_path()
    admin = load_file(path).admin if path is not None else None
    if admin is None:
        raise TunnelError(
            f"{path or 'the configuration'}: there is no admin listener to ask; add admin: "
            '{host: "unix:/run/mcptunnel/admin.sock"}, or send the daemon SIGHUP (systemctl reload mcptunnel)'
        )
    status, document = _ask(admin)
    if "taken" not in document:
        raise TunnelError(f"the daemon refused to reload ({status}): {document.get('detail', 'it gave no reason')}")
    if args.json:
        print(json.dumps(document))
    else:
        _show(document)
    return 0 if document["taken"] else 1


def _show(document: dict[str, Any]) -> None:
    if not document["taken"]:
        print("refused: the certificates in service stay", file=sys.stderr)
        for problem in document["problems"]:
            print(f"  {problem}", file=sys.stderr)
    elif document["generation"] is None:
        print("nothing to read: the daemon serves no certificates")
    else:
        print(f"taken: generation {document['generation']}")
        for one in document["certificates"]:
            print(f"  {one['subject']}  {one['fingerprint'][:16]}…  {one['file']}")


def _ask(admin: AdminConfig) -> tuple[int, dict[str, Any]]:
    headers = {"Accept": "application/json"}
    token = _token(admin)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection = _Connection(admin)
    try:
        connection.request("POST", "/admin/reload", headers=headers)
        reply = connection.getresponse()
        document = json.loads(reply.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TunnelError(f"the daemon does not answer at {_place(admin)}: {why}; is it running?") from error
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise TunnelError(f"what answers at {_place(admin)} is not the daemon")
    return reply.status, document


def _place(admin: AdminConfig) -> str:
    return admin.host if admin.host.startswith("unix:") else f"{admin.host}:{admin.port}"


def _token(admin: AdminConfig) -> str | None:
    if admin.token_file is None:
        return admin.token
    try:
        with open(admin.token_file, "rb") as file:
            return secret_in(file.read(1 << 16))
    except OSError as error:
        raise TunnelError(f"{admin.token_file}: admin.token_file cannot be read: {error.strerror}") from error


class _Connection(http.client.HTTPConnection):
    """HTTP over TCP or a UNIX socket."""

    def __init__(self, admin: AdminConfig) -> None:
        host = "localhost" if admin.host.startswith("unix:") else local_way(admin.host)
        super().__init__(host, admin.port, timeout=_SECONDS)
        self._path = admin.host.removeprefix("unix:") if admin.host.startswith("unix:") else None

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)
