"""The files that a configuration names: whether they are there, can be read, and hold anything."""

from __future__ import annotations

import os
from typing import Final

from mcptunnel.config.interpolate import FileError, read_small_file
from mcptunnel.config.report import FileUse, Report
from mcptunnel.config.schema import Config
from mcptunnel.config.secrets import WEAK_ADVICE, check_same, is_weak, secret_in
from mcptunnel.config.syntax import secret
from mcptunnel.config.units import FormatError

__all__ = ["check_files", "read_file"]

# Largest PEM or token file: a bundle of every public CA is a quarter of this.
_MAX_NAMED: Final = 1 << 20


def read_file(path: str, limit: int) -> bytes:
    """All bytes of the configuration file ``path``, which may also be a pipe such as ``/dev/stdin``.

    Raises:
        FileError: It cannot be read, or is larger than ``limit`` bytes.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise FileError("does not exist") from None
    except IsADirectoryError:
        raise FileError("is a directory") from None
    except PermissionError:
        raise FileError(f"may not be read by user {os.geteuid()}") from None
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read ({getattr(error, 'strerror', None) or 'not a path'})") from None
    if len(content) > limit:
        raise FileError(f"is larger than {limit} bytes")
    return content


def check_files(config: Config | None, report: Report) -> None:
    """Look at every file that was named while reading; what is wrong goes into ``report``.

    Args:
        config: What was read, for rules that need the files; None when nothing could be.
        report: Holds the names.
    """
    for use in report.files:
        try:
            content = read_small_file(use.path, _MAX_NAMED)
        except FileError as error:
            message = f"the {use.what} file {use.shown} {error}; correct the path, or the file and its permissions"
            report.error(use.key, message, use.place)
            continue
        if not content.strip():
            report.error(use.key, f"the {use.what} file {use.shown} is empty; write the {use.what} into it", use.place)
        elif use.what == "token":
            _check_token(use, content, report)
    if config is not None and report.sound("auth.tokens"):
        check_same(config.auth.tokens, report, files=True)


def _check_token(use: FileUse, content: bytes, report: Report) -> None:
    try:
        value = secret(secret_in(content))
    except FormatError as wrong:
        report.error(use.key, f"the first line of {use.shown} {wrong.says}", use.place)
        return
    if is_weak(value):
        report.warn(use.key, f"the secret in {use.shown} is short; {WEAK_ADVICE}", use.place)
