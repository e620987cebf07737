"""``mcptunnel certs dev``: a local authority and a certificate by it, in one command, installed nowhere."""

from __future__ import annotations

import argparse
import sys
import time
from shlex import quote
from typing import Any

from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.devca import DEFAULT_DAYS, DEFAULT_NAMES, Outcome, ensure

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dev",
        help="make a local authority and a certificate for development",
        description=f"Make a local authority (ca.pem, ca-key.pem), which can vouch for the names given and nothing "
        f"else, and a certificate by it (cert.pem, key.pem) for {', '.join(DEFAULT_NAMES)} and the names given. What "
        "is still good is kept. Nothing is installed anywhere: the command prints how to do that.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", help="where to write the four files")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="one more DNS name or IP address; may be repeated; names given before stay",
    )
    parser.add_argument(
        "--days", type=_days, default=DEFAULT_DAYS, help="life of the certificate (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace whatever is there, the authority too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make, renew or keep the files.

    Raises:
        CertificateError: They cannot be made.
    """
    try:
        outcome = ensure(args.directory, args.name, args.days, time.time(), force=args.force)
    except OSError as error:
        raise CertificateError(f"{error.filename or args.directory}: {error.strerror or error}") from error
    if outcome.authority == "replaced":
        print(
            f"mcptunnel: {outcome.ca_file} is a NEW authority, since of the old one: {outcome.reason}. Whatever was "
            "told to trust the old one has to be told again, and should forget the old one",
            file=sys.stderr,
        )
    print(_text(outcome))
    return 0


def _text(outcome: Outcome) -> str:
    ca, cert, key = quote(outcome.ca_file), outcome.cert_file, outcome.key_file
    return f"""\
{outcome.authority:<8} {outcome.ca_file} (authority) and {outcome.ca_key_file} (its key)
{outcome.leaf:<8} {cert} (certificate) and {key} (its key)
names    {", ".join(outcome.names)}
SHA-256  {outcome.fingerprint} (authority)

Serve it:
  server.tls.cert_file: {cert}
  server.tls.key_file: {key}
The authority is installed nowhere. To trust it in one program:
  curl --cacert {ca} https://localhost:3000/health
  SSL_CERT_FILE={ca} python3 …
  NODE_EXTRA_CA_CERTS={ca} node …
  mcptunnel certs check localhost:3000 --ca-file {ca}
To trust it on this machine, which you may undo:
  Debian, Ubuntu   sudo cp {ca} /usr/local/share/ca-certificates/mcptunnel-dev.crt && sudo update-ca-certificates
  Fedora, RHEL     sudo trust anchor --store {ca}
  macOS            security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db {ca}
  Windows          certutil -user -addstore Root {ca}
  Chrome on Linux  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n mcptunnel-dev -i {ca}
  Firefox          Settings, Certificates, View Certificates, Authorities, Import: {outcome.ca_file}
It can vouch for these names and nothing else, so that its key is worth no more to a thief."""


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError("from 1 to 3650 days")
    return days
