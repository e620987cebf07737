# `make run` and `make test` set up everything themselves, in .venv. Python ≥ 3.11 is all they need: make PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Our plugin lies in twisted/plugins of this tree, which twistd finds only on its path.
export PYTHONPATH := .
export MCPTUNNEL_PYTHON := $(abspath $(BIN))/python

.PHONY: help run test unit outside lint format bench wheel docs clean

help:
	@echo "make run      start the demo: https and http on one port, two demo MCP servers behind it"
	@echo "make test     all tests: trial mcptunnel (unit), trial tests (real processes)"
	@echo "make lint     ruff and mypy"
	@echo "make bench    measure against twisted.web, uvicorn, asyncio and nginx"
	@echo "make docs     build the guides into docs/_build/html"
	@echo "make wheel    build dist/mcptunnel-*.whl"

$(VENV)/.run: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, not " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# The shell becomes twistd, so that both demo helpers, which watch their parent, end with the daemon.
run: $(VENV)/.run
	@$(BIN)/mcptunnel certs dev .dev
	@$(BIN)/python -m mcptunnel.demo http 3002 & $(BIN)/python -m mcptunnel.demo hints https://localhost:3000 & \
	exec $(BIN)/twistd --pidfile= -n mcptunnel --config etc/demo.yaml

test: unit outside

unit: $(VENV)/.test
	$(BIN)/trial mcptunnel

outside: $(VENV)/.test
	$(BIN)/trial tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p mcptunnel

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test
	$(BIN)/python -m bench http
	$(BIN)/python -m bench tls

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) .dev build dist _trial_temp* .mypy_cache .ruff_cache .hypothesis *.egg-info
