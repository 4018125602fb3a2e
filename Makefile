# Everything needed to run and to test, from a machine with python3, gcc and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help run test bench lint format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## set up, then serve the demo on 127.0.0.1:8317 (ARGS='--port 9000' to change)
	$(BIN)/cpa serve --demo $(ARGS)

test: $(VENV)/.dev ## set up, then run every test on all cores (ARGS='-k name' to choose, ARGS='-n0 --pdb' to debug)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

bench: $(VENV)/.dev ## ratios against baselines of the same run, into bench/results.json
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy, as continuous integration runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the sources in the one format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## renew both lock files (needs a package index)
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra build --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra dev --output-file requirements-dev.lock pyproject.toml

clean: ## remove what the targets above made
	rm -rf $(VENV) build *.egg-info cpa/abi/_native*.so cpa/abi/cpa-plugin-worker

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "CPA needs Python 3.11 or newer; found " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made: install your system's package for Python's venv module (Debian: python3-venv)" >&2; exit 1; }

# The packages come first and by hash, the project itself last and without its dependencies: nothing unlocked gets in.
NATIVE := setup.py $(wildcard cpa/abi/*.c cpa/abi/*.h cpa/abi/_build.py)

$(VENV)/.run: $(BIN)/python requirements.lock pyproject.toml $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python requirements-dev.lock pyproject.toml $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run
