"""``python -m bench SCENARIO``; see the package."""

from __future__ import annotations

import argparse
import importlib


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("scenario", nargs="?", default="http", help="http (default) or tls")
    parser.add_argument("--quick", action="store_true", help="short rounds: a look, not a measurement")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each program")
    parser.add_argument("--seconds", type=float, default=None, help="seconds of each round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", action="append", default=[], help="measure only programs with this in their name")
    arguments = parser.parse_args()
    importlib.import_module(f"bench.{arguments.scenario}").run(arguments)


if __name__ == "__main__":
    main()
