"""What opens an encrypted private key: the first line of a file, or of what a command prints."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from mcptunnel.config.schema import CertificatePair
from mcptunnel.core.errors import CertificateError
from mcptunnel.tls.pem import read_file

__all__ = ["passphrase_for"]

# A command that asks a vault over the network needs one or two.
_SECONDS: Final = 10.0
# PBKDF2 takes any length; nobody remembers this one.
_MOST: Final = 1024


def passphrase_for(pair: CertificatePair) -> bytes | None:
    """The passphrase of ``pair``, or None when none is configured. Blocks while a command runs.

    Raises:
        CertificateError: It cannot be had. The message never holds what a file or a command said.
    """
    if pair.key_passphrase_file is not None:
        try:
            content = read_file(pair.key_passphrase_file)
        except OSError as error:
            raise CertificateError(f"{pair.key_passphrase_file}: cannot be read: {error.strerror or error}") from error
        return _first_line(content, pair.key_passphrase_file)
    if pair.key_passphrase_command is not None:
        return _first_line(_output(pair.key_passphrase_command), pair.key_passphrase_command[0])
    return None


def _first_line(content: bytes, source: str) -> bytes:
    line = content.partition(b"\n")[0].removesuffix(b"\r")
    if not line or len(line) > _MOST:
        raise CertificateError(f"{source}: its first line is no passphrase: it is empty, or longer than {_MOST} bytes")
    return line


def _output(argv: Sequence[str]) -> bytes:
    """What a command prints, in a process group that is ended as a whole when it takes too long."""
    try:
        # The operator's own command, without a shell; nothing of it comes from the network.
        process = subprocess.Popen(  # noqa: S603
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise CertificateError(f"{argv[0]}: cannot be run for the passphrase: {error.strerror or error}") from error
    try:
        output, _ = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise CertificateError(f"{argv[0]}: gave no passphrase in {_SECONDS:g} s (key_passphrase_command)") from None
    finally:
        _end(process)
    if process.returncode != 0:
        raise CertificateError(f"{argv[0]}: ended with status {process.returncode} instead of a passphrase")
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
