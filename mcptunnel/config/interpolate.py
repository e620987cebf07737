"""``${env:NAME}``, ``${env:NAME:-default}`` and ``${file:PATH}`` in values.

One pass from left to right; what comes out is never read again, so a variable cannot smuggle in another reference.
``$${`` is a literal ``${``. Messages name the reference, never what it stands for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen

from mcptunnel.config.positions import seen

__all__ = ["MAX_VALUE", "ExpandError", "FileError", "References", "expand", "read_small_file"]

# Longest value after expansion, and largest file that is read into one, in bytes.
MAX_VALUE: Final = 65_536

_REFERENCE: Final = re.compile(r"\$?\$\{([^}]*)(\})?")
# Files of other programs know no escape, and what is not a whole reference is text there.
_FOREIGN_REFERENCE: Final = re.compile(r"\$\{([^{}]*)(\})")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class ExpandError(ValueError):
    """A reference that cannot be expanded; the text is a whole sentence for the operator."""


class FileError(ValueError):
    """A file that cannot be read; the text is a predicate such as ``does not exist``."""


def read_small_file(path: str, limit: int) -> bytes:
    """All bytes of the regular file ``path``.

    Never waits: a named pipe or a device is refused, not read.

    Raises:
        FileError: It does not exist, is no regular file, may not be read, or is larger than ``limit`` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileError("does not exist") from None
    except PermissionError:
        raise FileError(f"may not be read by user {os.geteuid()}") from None
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise FileError("is a directory" if stat.S_ISDIR(mode) else "is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise FileError(f"cannot be read ({error.strerror})") from None
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise FileError(f"is larger than {limit} bytes")
    return content


@frozen(kw_only=True)
class References:
    """What references of a YAML file stand for. ``base`` is where relative paths start; None: the working directory."""

    environ: Mapping[str, str]
    base: str | None

    def __call__(self, inner: str) -> str:
        """The value of ``${inner}``.

        Raises:
            ExpandError: There is none.
        """
        scheme, colon, rest = inner.partition(":")
        if colon and scheme == "env":
            return self.variable(rest)
        if colon and scheme == "file":
            return self._file(rest)
        literal = "write $${ instead of ${ if the text itself is meant"
        if _NAME.fullmatch(inner):
            raise ExpandError(f"${{{inner}}} is not a reference; write ${{env:{inner}}} for the variable; {literal}")
        raise ExpandError(
            f"{seen(f'${{{inner}}}')} is not a reference; known are ${{env:NAME}}, ${{env:NAME:-default}} "
            f"and ${{file:PATH}}; {literal}"
        )

    def variable(self, rest: str) -> str:
        """The variable of ``NAME`` or ``NAME:-default``; the default also stands in for an empty one, as in a shell.

        Raises:
            ExpandError: It is not set, or no such name can be.
        """
        name, dash, default = rest.partition(":-")
        if not _NAME.fullmatch(name):
            raise ExpandError(f"{seen(name)} cannot be the name of a variable; write ${{env:NAME}}")
        value = self.environ.get(name)
        if dash and not value:
            return default
        if value is None:
            raise ExpandError(
                f"the environment variable {name} is not set; set it for the daemon, "
                f"or write ${{env:{name}:-default}} for a default"
            )
        return value

    def _file(self, path: str) -> str:
        if not path:
            raise ExpandError("${file:} names no file; write ${file:PATH}")
        try:
            content = read_small_file(os.path.join(self.base or "", path), MAX_VALUE)
        except FileError as error:
            raise ExpandError(
                f"the file of {seen(f'${{file:{path}}}')} {error}; correct the path or the file"
            ) from None
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ExpandError(f"the file of {seen(f'${{file:{path}}}')} is not UTF-8 text; name a text file") from None
        # Editors and `echo` end a file with a newline that is no part of the secret.
        return text.rstrip("\r\n")


def expand(text: str, resolve: Callable[[str], str | None], *, escapes: bool = True) -> str:
    """``text`` with every reference replaced.

    Args:
        text: The value as written.
        resolve: The value for what stands between ``${`` and ``}``; None leaves the reference as it is.
        escapes: Our own notation, where ``$${`` means a literal ``${`` and a reference without end is a mistake.

    Raises:
        ExpandError: From ``resolve``; a reference without end or within another; a result above ``MAX_VALUE``.
    """

    def replace(match: re.Match[str]) -> str:
        whole, inner = match[0], match[1]
        if escapes and whole.startswith("$$"):
            return whole[1:]
        if match[2] is None:
            raise ExpandError("a reference ${ has no closing brace; close it, or write $${ if the text itself is meant")
        if "${" in inner:
            raise ExpandError("a reference stands inside another; only one level is expanded")
        value = resolve(inner)
        return whole if value is None else value

    result = (_REFERENCE if escapes else _FOREIGN_REFERENCE).sub(replace, text)
    if len(result) > MAX_VALUE and result != text:
        raise ExpandError(f"the expanded value is longer than {MAX_VALUE} characters; shorten it")
    return result
