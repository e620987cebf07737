"""``mcptunnel devcert``: a self-signed certificate for this machine, in one command."""

from __future__ import annotations

import argparse
import time
from typing import Any

from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.devcert import DEFAULT_DAYS, DEFAULT_NAMES, ensure

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Register the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "devcert",
        help="make a self-signed certificate for development",
        description=f"Make DIR/cert.pem and DIR/key.pem for {', '.join(DEFAULT_NAMES)} and the names given. A pair "
        "that is still good is kept.",
    )
    parser.add_argument("directory", metavar="DIR", help="where to write cert.pem and key.pem")
    parser.add_argument("--name", action="append", default=[], help="one more DNS name or IP address; may be repeated")
    parser.add_argument(
        "--days", type=_days, default=DEFAULT_DAYS, help="life of the certificate (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace whatever is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make or keep the pair.

    Raises:
        CertificateError: It cannot be made.
    """
    try:
        outcome = ensure(args.directory, args.name, args.days, time.time(), force=args.force)
    except OSError as error:
        raise CertificateError(f"{error.filename or args.directory}: {error.strerror or error}") from error
    cert, key = outcome.cert_file, outcome.key_file
    print(f"{'made' if outcome.made else 'kept'} {cert} (certificate) and {key} (key)")
    print(
        f"""
Serve it:          server.tls.cert_file: {cert}
                   server.tls.key_file: {key}
Trust it, for one program at a time:
  curl             curl --cacert {cert} https://localhost:3000/health
  Python           SSL_CERT_FILE={cert}
  Node.js          NODE_EXTRA_CA_CERTS={cert}
It is for development: self-signed, and no authority, so that trusting it trusts nothing else."""
    )
    return 0


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError("from 1 to 3650 days")
    return days
