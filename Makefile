# Everything needed to run and to test, from a machine with python3, gcc and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
AGENTS ?= .agents
PEERS  ?= .peers
PANEL  := cpa/server/panel
# As pip does for packages, also where Python is told to leave no bytecode (PYTHONDONTWRITEBYTECODE): without it a start
# takes twice as long. Says nothing and takes a tenth of a second when there is nothing to do.
COMPILE = -@$(BIN)/python -m compileall -q cpa

.PHONY: help run examples plugins panel panel-if-possible test test-agents bench bench-peers bench-report lint format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run examples panel-if-possible ## set up, then serve the demo on 127.0.0.1:8317 (ARGS='--port 9000' to change)
	$(COMPILE)
	$(BIN)/cpa serve --demo $(ARGS)

examples: ## the example plugins in C into examples/plugin/bin (LANGUAGES='c go rust' for more)
	@$(MAKE) --no-print-directory -C examples/plugin build LANGUAGES="$(or $(LANGUAGES),c)"

plugins: ## the plugins that CPA ships into plugins/ (needs go)
	@$(MAKE) --no-print-directory -C plugins build

panel: $(PANEL)/.built ## the control panel into cpa/server/panel, which wheels contain (needs node 18 or newer, npm)

panel-if-possible:
	@if command -v npm >/dev/null && command -v node >/dev/null; then \
		$(MAKE) --no-print-directory panel || echo "the control panel could not be built (see above); everything else works without it" >&2; \
	else echo "no npm on this machine: /management.html will say how to build the control panel; everything else works" >&2; fi

test: $(VENV)/.dev panel-if-possible ## set up, then run every test on all cores (ARGS='-k name' to choose, ARGS='-n0 --pdb' to debug)
	$(COMPILE)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-agents: $(AGENTS)/.installed $(VENV)/.dev ## install published coding agents, then run them through the proxy
	CPA_TEST_AGENTS=$(abspath $(AGENTS)) $(BIN)/python -m pytest tests/agents $(ARGS)

bench: $(VENV)/.dev ## ratios against baselines of the same run, into bench/results.json
	$(COMPILE)
	$(BIN)/python -m tests.bench --environment $(PEERS) $(ARGS)

bench-peers: $(PEERS)/.installed $(VENV)/.dev ## the same beside LiteLLM's proxy, which is installed in an environment of its own
	$(BIN)/python -m tests.bench.peers --environment $(PEERS) $(ARGS)

bench-report: $(VENV)/.dev ## tables and charts of bench/results.json into docs/performance.md
	$(BIN)/python -m tests.bench.report $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy, as continuous integration runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the sources in the one format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## renew the lock files of Python packages (needs a package index)
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra build --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra dev --output-file requirements-dev.lock pyproject.toml
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file tests/bench/peers.lock tests/bench/peers.in

clean: ## remove what the targets above made
	@$(MAKE) --no-print-directory -C examples/plugin clean
	@$(MAKE) --no-print-directory -C plugins clean
	rm -rf $(VENV) $(AGENTS) $(PEERS) $(PANEL) panel/node_modules build *.egg-info cpa/abi/_native*.so cpa/abi/cpa-plugin-worker cpa/formats/_scan*.so

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "CPA needs Python 3.11 or newer; found " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made: install your system's package for Python's venv module (Debian: python3-venv)" >&2; exit 1; }

# The packages come first and by hash, the project itself last and without its dependencies: nothing unlocked gets in.
NATIVE := setup.py $(wildcard cpa/abi/*.c cpa/abi/*.h cpa/abi/_build.py cpa/formats/*.c)

$(VENV)/.run: $(BIN)/python requirements.lock pyproject.toml $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python requirements-dev.lock pyproject.toml $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run

$(PEERS)/.installed: tests/bench/peers.lock
	@$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/bench/peers.lock
	@touch $@

# Agents are not Python: npm installs exactly what the lock file says, checked by its digests, and nothing else.
AGENTS_LOCK := tests/agents/package.json tests/agents/package-lock.json tests/agents/.npmrc

$(AGENTS)/.installed: $(AGENTS_LOCK)
	@command -v npm >/dev/null && command -v node >/dev/null || { echo "make test-agents needs node (20 or newer) and npm, which are not installed; everything else works without them" >&2; exit 1; }
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' || { echo "make test-agents needs node 20 or newer; found $$(node --version)" >&2; exit 1; }
	@mkdir -p $(AGENTS)
	@cp $(AGENTS_LOCK) $(AGENTS)/
	npm ci --prefix $(AGENTS) --loglevel=error
	@touch $@

# The panel's packages are installed as its lock file says, digests checked; its sources are built with them.
PANEL_LOCK    := panel/package.json panel/package-lock.json panel/.npmrc
PANEL_SOURCES := panel/management.html panel/tsconfig.json panel/vite.config.js $(shell find panel/src -type f)

panel/node_modules/.installed: $(PANEL_LOCK)
	@command -v npm >/dev/null && command -v node >/dev/null || { echo "make panel needs node (18 or newer) and npm, which are not installed; everything else works without them" >&2; exit 1; }
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' || { echo "make panel needs node 18 or newer; found $$(node --version)" >&2; exit 1; }
	cd panel && npm ci --loglevel=error
	@touch $@

$(PANEL)/.built: panel/node_modules/.installed $(PANEL_SOURCES)
	cd panel && npm run --silent build
	@touch $@
