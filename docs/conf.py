"""Sphinx: ``make docs``, or ``sphinx-build -W -b html docs docs/_build/html``."""

import re
from pathlib import Path

project = "mcptunnel"
author = "the mcptunnel authors"
project_copyright = author
# Read, not imported: the guides are built where the daemon's dependencies need not be installed.
release = version = re.findall(
    r'^__version__.*= "(.+)"$',
    Path(__file__).parent.parent.joinpath("mcptunnel", "__init__.py").read_text(),
    re.MULTILINE,
)[0]
exclude_patterns = ["_build"]
highlight_language = "text"
html_theme = "alabaster"
html_theme_options = {"description": "MCP servers behind one secure address", "page_width": "64em"}
nitpicky = True
