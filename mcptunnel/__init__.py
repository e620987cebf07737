"""mcptunnel: one daemon that puts MCP servers, HTTP APIs and command lines behind one secure address."""

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0.dev0"
