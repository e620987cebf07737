"""From a file to a :class:`~mcptunnel.config.schema.Config`, or to one ``ConfigError`` with everything that is wrong.

No other exception comes out of here, whatever the file holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from mcptunnel.config import checks, desktop, files, sections
from mcptunnel.config.containers import Listed, Named, Section, Switched
from mcptunnel.config.fields import RefusedError, note
from mcptunnel.config.interpolate import FileError, References, expand
from mcptunnel.config.positions import MapNode, Place, ScalarNode
from mcptunnel.config.reader import MAX_FILE, decode, read_yaml
from mcptunnel.config.report import At, Report, Scope
from mcptunnel.config.schema import Config, UpstreamConfig
from mcptunnel.config.upstreams import ENTRY, read_servers

__all__ = ["DEFAULT_PATH", "default_path", "key_paths", "load", "load_checked", "load_file", "load_text"]

# Read when no file is named and this one exists.
DEFAULT_PATH: Final = "/etc/mcptunnel.yaml"


def default_path() -> str | None:
    """``/etc/mcptunnel.yaml`` if it is there; None: the built-in defaults hold."""
    return DEFAULT_PATH if os.path.exists(DEFAULT_PATH) else None


def load(path: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration a daemon starts with: :func:`load_checked` of ``path``, or of :func:`default_path`.

    Raises:
        ConfigError: It is refused.
    """
    path = path or default_path()
    return Config() if path is None else load_checked(path, environ)


def load_file(path: str, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in the file ``path``; certificates and keys that it names need not exist.

    Args:
        path: The file. Relative paths in it start at its directory.
        environ: Variables for ``${env:NAME}``; None: the process's own.

    Raises:
        ConfigError: It is refused; ``findings`` has every reason.
    """
    return _from_file(path, environ, check=False)


def load_checked(path: str, environ: Mapping[str, str] | None = None) -> Config:
    """As :func:`load_file`, but every file that the configuration names must be there and readable.

    Raises:
        ConfigError: It is refused; ``findings`` has every reason, of both kinds.
    """
    return _from_file(path, environ, check=True)


def load_text(
    text: str, *, name: str = "<string>", base: Path | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration in ``text``, as :func:`load_file` would read it.

    Args:
        text: YAML.
        name: Stands for the file in findings.
        base: Where relative paths start; None: the working directory.
        environ: Variables for ``${env:NAME}``; None: the process's own.

    Raises:
        ConfigError: It is refused.
    """
    report = Report(name=name)
    config = None
    if len(text.encode("utf-8", "replace")) > MAX_FILE:
        report.error("", f"the text is larger than {MAX_FILE} bytes; shorten it")
    else:
        config = _read(text, report, None if base is None else str(base), environ)
    return _finish(config, report)


def _from_file(path: str, environ: Mapping[str, str] | None, *, check: bool) -> Config:
    report = Report(name=path)
    config = None
    try:
        content = files.read_file(path, MAX_FILE)
    except FileError as error:
        report.error("", f"the configuration file {error}; name a readable YAML file")
    else:
        text = decode(content, report, path)
        if text is not None:
            # Absolute, because a daemon may change its working directory later.
            config = _read(text, report, os.path.dirname(os.path.abspath(path)), environ)
    if check:
        files.check_files(config, report)
    return _finish(config, report)


def _finish(config: Config | None, report: Report) -> Config:
    warnings = report.done()
    assert config is not None
    return evolve(config, warnings=warnings)


def _read(text: str, report: Report, base: str | None, environ: Mapping[str, str] | None) -> Config | None:
    """The configuration, as far as it could be read; None when it is not even a mapping."""
    environ = os.environ if environ is None else environ
    start = Place(file=report.name, line=1)
    tree = read_yaml(text, report, report.name)
    if tree is None and report.findings:
        return None
    if tree is None or (isinstance(tree, ScalarNode) and tree.kind == "null"):
        tree = MapNode(place=start, entries=())
    references = References(environ=environ, base=base)
    scope = Scope(
        report=report,
        expand=lambda value: expand(value, references),
        base=base,
        elsewhere=_elsewhere,
    )
    at = At(key="", place=start, scope=scope)
    try:
        parts = ROOT(tree, at)
    except RefusedError as refused:
        note(at, refused)
        return None
    servers: dict[str, tuple[UpstreamConfig, Place]] = parts.pop("mcpServers", {})
    desktop.include(parts.pop("include", ()), environ, servers)
    config = Config(servers={name: server for name, (server, _) in servers.items()}, **parts)
    return checks.check(config, report)


ROOT: Final[Section[dict[str, Any]]] = Section(
    build=dict,
    fields={
        "server": sections.SERVER,
        "security": sections.SECURITY,
        "auth": sections.AUTH,
        "mcpServers": read_servers,
        "include": Listed(item=desktop.pattern, expected="JSON files", single=True),
        "aggregate": sections.AGGREGATE,
        "registry": sections.REGISTRY,
        "admin": sections.ADMIN,
        "alerts": sections.ALERTS,
        "logging": sections.LOGGING,
    },
    synonyms={
        "mcp_servers": "mcpServers",
        "servers": "mcpServers",
        "includes": "include",
        "log": "logging",
        "alert": "alerts",
    },
)


def key_paths() -> tuple[str, ...]:
    """Every key there is, as a path: ``server.tls.mode``, ``auth.tokens[].name``, ``mcpServers.NAME.command``."""
    return tuple(path for path, _ in _walk(ROOT, ""))


def _walk(section: Section[Any], above: str) -> Iterator[tuple[str, Section[Any]]]:
    """Each key path below ``section``, with the section that holds the key."""
    for name, read in section.fields.items():
        path = f"{above}.{name}" if above else name
        yield path, section
        if read is read_servers:
            yield from _walk(ENTRY, f"{path}.NAME")
        elif isinstance(read, Section):
            yield from _walk(read, path)
        elif isinstance(read, Switched):
            yield from _walk(read.section, path)
        elif isinstance(read, Listed) and isinstance(read.item, Section):
            yield from _walk(read.item, f"{path}[]")
        elif isinstance(read, Named) and isinstance(read.item, Section):
            yield from _walk(read.item, f"{path}.NAME")


# Beyond three places, a list of them explains nothing.
_MOST_PLACES: Final = 3


def _elsewhere(name: str) -> tuple[str, ...]:
    """The key paths that end in ``name``, or in what people write ``name`` for."""
    exact = tuple(path for path in key_paths() if path.rpartition(".")[2] == name)
    meant = exact or tuple(
        path for path, section in _walk(ROOT, "") if section.synonyms.get(name) == path.rpartition(".")[2]
    )
    return meant if len(meant) <= _MOST_PLACES else ()
