"""Whatever the input, the loader returns a configuration or raises ``ConfigError``."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcptunnel.config.load import key_paths, load_checked, load_text
from mcptunnel.config.schema import Config
from mcptunnel.core.addresses import Trust
from mcptunnel.core.errors import ConfigError
from mcptunnel.core.hosts import HostPolicy

PATHS = [path.replace("[]", ".[]") for path in key_paths()]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.dates(),
    st.sampled_from(
        ["${env:A}", "${env:B:-x}", "${file:/dev/zero}", "${file:/etc}", "${", "$${x}", "unix", "unix:x", "10.0.0.0/8",
         "::ffff:0:0/96", "a.b", "https://a:99999", "https://[::1", "http://\u2100.com", "1" * 5000, "9" * 400 + "s",
         "*", "null", "systemd:0", "../x", "\ud800", "a\0b", "127.0.0.1:80", "[::1]", "\u0661", "1_", "1_000", "0x1f"]
    ),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)


def attempt(text: str, environ: dict[str, str] | None = None) -> Config | None:
    """The configuration, or None when it was refused properly."""
    try:
        config = load_text(
            text, name="f", base=Path("/nonexistent"), environ={"A": "1"} if environ is None else environ
        )
    except ConfigError as error:
        refused: ConfigError | None = error
    else:
        refused = None
    if refused is not None:
        assert refused.findings
        for line in map(str, refused.findings):
            line.encode("utf-8")
            assert line.isprintable(), line
        return None
    # What was accepted, the rest of the daemon can use.
    Trust(config.server.tls.trusted_proxies)
    HostPolicy.build(
        public_url=config.server.public_url,
        allowed_hosts=config.security.allowed_hosts,
        allowed_origins=config.security.allowed_origins,
        bound_host=config.server.host,
    )
    return config


def dump(value: Any) -> str:
    return yaml.dump(value, allow_unicode=False)


def nest(path: str, value: Any) -> Any:
    for key in reversed(path.split(".")):
        value = [value] if key == "[]" else {key: value}
    return value


def merge(one: Any, other: Any) -> Any:
    """Both trees in one, as far as that goes."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = set(one) & set(other)
        return {**one, **other, **{key: merge(one[key], other[key]) for key in both}}
    return other


class HostileTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=300))
    def test_any_text(self, text: str) -> None:
        """Not even YAML."""
        attempt(text)

    @settings(max_examples=60, deadline=None)
    @given(VALUES)
    def test_any_structure(self, value: Any) -> None:
        """YAML, but not ours."""
        attempt(dump(value))

    @settings(max_examples=250, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=4))
    def test_any_value_at_each_key(self, places: list[tuple[str, Any]]) -> None:
        """Our keys, with anything under them, several at once."""
        tree: Any = {}
        for path, value in places:
            tree = merge(tree, nest(path, value))
        attempt(dump(tree))

    def test_every_scalar_at_every_key(self) -> None:
        """The awkward values, one by one, so that none depends on luck."""
        awkward = ["", " ", "\n", "a\0b", "\ud800", "1" * 5000, "${env:A}", "${file:/etc}", "http://[", "::", "%",
                   "\u2028", "1_", -1, 0, 2**70, 1e400, float("nan"), True, [],
                   {}, [[]], {"": ""}, [None], {None: None}]  # fmt: skip
        for path in PATHS:
            for value in awkward:
                attempt(dump(nest(path, value)))

    @settings(max_examples=60, deadline=None)
    @given(st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=30))
    def test_any_value_of_a_variable(self, value: str) -> None:
        """What the environment holds is as foreign as the file."""
        for path in ("server.host", "server.port", "server.tls.trusted_proxies", "security.allowed_hosts", "include"):
            attempt(dump(nest(path, "${env:V}")), {"V": value})

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=100))
    def test_any_bytes_in_a_file_and_in_an_included_one(self, content: bytes) -> None:
        """With every check that touches files."""
        folder = self.mktemp()
        os.makedirs(folder)
        main, other = os.path.join(folder, "m.yaml"), os.path.join(folder, "o.json")
        for path, data in ((other, content), (main, content)):
            with open(path, "wb") as file:
                file.write(data)
        with contextlib.suppress(ConfigError):
            load_checked(main, {})
        with open(main, "wb") as file:
            file.write(b"include: [o.json]\nauth: {tokens: [{name: a, token_file: o.json}]}")
        with contextlib.suppress(ConfigError):
            load_checked(main, {})

    @settings(max_examples=60, deadline=None)
    @given(VALUES)
    def test_any_structure_in_an_included_file(self, value: Any) -> None:
        """Servers of another program, with anything in them."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "o.json"), "w") as file:
            file.write(_json({"mcpServers": {"a": value, "b": {"command": value, "env": value}, "c": {"url": value}}}))
        attempt(f"include: {folder}/o.json")


def _json(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [plain(inner) for inner in item]
        return item if isinstance(item, str | int | float | None) else str(item)

    return json.dumps(plain(value))
