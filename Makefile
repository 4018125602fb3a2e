# Everything needed to run and to test, from a machine with python3, gcc and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
AGENTS ?= .agents

.PHONY: help run examples test test-agents bench lint format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run examples ## set up, then serve the demo on 127.0.0.1:8317 (ARGS='--port 9000' to change)
	$(BIN)/cpa serve --demo $(ARGS)

examples: ## the example plugins in C into examples/plugin/bin (LANGUAGES='c go rust' for more)
	@$(MAKE) --no-print-directory -C examples/plugin build LANGUAGES="$(or $(LANGUAGES),c)"

test: $(VENV)/.dev ## set up, then run every test on all cores (ARGS='-k name' to choose, ARGS='-n0 --pdb' to debug)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-agents: $(AGENTS)/.installed $(VENV)/.dev ## install published coding agents, then run them through the proxy
	CPA_TEST_AGENTS=$(abspath $(AGENTS)) $(BIN)/python -m pytest tests/agents $(ARGS)

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
	@$(MAKE) --no-print-directory -C examples/plugin clean
	rm -rf $(VENV) $(AGENTS) build *.egg-info cpa/abi/_native*.so cpa/abi/cpa-plugin-worker

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

# Agents are not Python: npm installs exactly what the lock file says, checked by its digests, and nothing else.
AGENTS_LOCK := tests/agents/package.json tests/agents/package-lock.json tests/agents/.npmrc

$(AGENTS)/.installed: $(AGENTS_LOCK)
	@command -v npm >/dev/null && command -v node >/dev/null || { echo "make test-agents needs node (20 or newer) and npm, which are not installed; everything else works without them" >&2; exit 1; }
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' || { echo "make test-agents needs node 20 or newer; found $$(node --version)" >&2; exit 1; }
	@mkdir -p $(AGENTS)
	@cp $(AGENTS_LOCK) $(AGENTS)/
	npm ci --prefix $(AGENTS) --loglevel=error
	@touch $@
