# `make` alone lists what there is. Each target sets up what it needs: a Python from 3.11 on and its
# pip are enough. VENV, PYTHON and WORKERS may be given: `make test WORKERS=8`.

VENV ?= .venv
# More than there are cores: half of a test's time it waits, for a lease to run out or a process to start.
WORKERS ?= 3
# A debugging aid: `make tests TESTS=tests/unit/core/test_retry.py`.
TESTS ?=

ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; \
	done)
endif
ifeq ($(PYTHON),)
$(error taskq needs Python 3.11 or newer, and none was found. Install one, or name it: make PYTHON=/path/to/python3)
endif

BIN := $(VENV)/bin
PARALLEL = -n $(WORKERS) --dist worksteal
VENVS := .venvs
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Twice quiet: errors only.
INSTALL := -m pip install -qq
# What a server of another version must pass every time (a minute each), and what another Python must.
# In full: make test-servers SERVER_TESTS="tests/broker tests/model tests/schedules tests/worker \
# tests/deferred tests/faults"
SERVER_TESTS ?= tests/broker tests/schedules tests/model
PYTHON_TESTS ?= tests/unit tests/broker

.PHONY: help demo fmt check lint types layers budget test tests docs docs-release wheel-test bench bench-short \
	test-versions test-fastapi test-servers test-acl chaos soak clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Debian's python3 comes without the means to put pip into a virtual environment; its own pip can.
define make_venv
test -x $(2)/bin/python || $(1) -m venv $(2) >/dev/null 2>&1 || { \
	rm -rf $(2) && $(1) -m venv --without-pip $(2) && \
	$(1) -m pip --python $(2)/bin/python install -qq pip; }
endef

# ------------------------------------------------------------------------------- environments

$(VENV)/.stamp-demo: pyproject.toml
	@echo "Setting up $(VENV) ..."
	@$(call make_venv,$(PYTHON),$(VENV))
	@$(BIN)/python $(INSTALL) -e '.[embedded,fast,fastapi]' uvicorn
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml
	@echo "Setting up $(VENV) for development ..."
	@$(call make_venv,$(PYTHON),$(VENV))
	@$(BIN)/python $(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.stamp-demo

# ----------------------------------------------------------------------------------- for users

demo: $(VENV)/.stamp-demo ## Watch jobs go through a queue on this machine
	@$(BIN)/taskq demo

# ------------------------------------------------------------------------------ while you work

fmt: $(VENV)/.stamp-dev ## Format the code, fix what the linter can fix
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

check: lint types layers budget ## Lint, types, layers and size budget

lint: $(VENV)/.stamp-dev ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "lint: clean"

types: $(VENV)/.stamp-dev ## pyright: strict over taskq
	@$(BIN)/pyright --pythonpath $(BIN)/python

layers: $(VENV)/.stamp-dev ## import-linter: imports point downwards only
	@$(BIN)/lint-imports --no-logo --no-cache

budget: $(VENV)/.stamp-dev ## The size of modules, functions, classes and the package
	@$(BIN)/python scripts/budget.py

tests: $(VENV)/.stamp-dev ## The tests alone; TESTS=path picks some of them
	@$(BIN)/python -m pytest $(PARALLEL) -q $(TESTS)

# --------------------------------------------------------------------------------------- gates

test: check docs wheel-test bench-short ## Everything a change must pass
	@$(BIN)/coverage erase
	@$(BIN)/python -m pytest $(PARALLEL) -q --cov --durations=20 --durations-min=0.5

docs: $(VENV)/.stamp-dev ## Build the documentation; broken links fail
	@$(BIN)/zensical build --clean --strict

# REPOSITORY is the URL that every page links to; FOLDER is what a web server serves.
FOLDER ?= public
docs-release: $(VENV)/.stamp-dev ## Build the documentation of this version beside those of earlier ones
	@test -n "$(REPOSITORY)" || { echo "name the repository: make docs-release REPOSITORY=https://..."; exit 2; }
	@$(BIN)/python scripts/release_docs.py $(FOLDER) --repository $(REPOSITORY)

# The wheel is what users get: its scripts run where the checkout cannot be imported.
wheel-test: $(VENV)/.stamp-dev ## Build the wheel, install it elsewhere and run a job with it
	@rm -rf dist $(VENVS)/wheel && mkdir -p $(VENVS)
	@$(BIN)/python -m build --wheel --outdir dist . >/dev/null 2>$(VENVS)/build.log || { cat $(VENVS)/build.log; exit 1; }
	@$(call make_venv,$(PYTHON),$(VENVS)/wheel)
	@wheel=$$(ls dist/taskq_asyncio-*.whl) && $(VENVS)/wheel/bin/python $(INSTALL) "$$wheel[embedded]"
	@$(VENVS)/wheel/bin/python -I scripts/wheel_check.py

bench: $(VENV)/.stamp-dev ## The benchmarks, in full
	@$(BIN)/python -m benchmarks

bench-short: $(VENV)/.stamp-dev ## The benchmarks, as short as they can be: do they still run?
	@if test -f benchmarks/__main__.py; then $(BIN)/python -m benchmarks --short; \
	else echo "benchmarks: there are none yet"; fi

# Also those pyenv keeps without having them on the path.
test-versions: ## A short pass on every other Python found here (3.12, 3.13)
	@for version in 3.12 3.13; do \
		python=; \
		for name in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version*/bin/python$$version; do \
			$$name -c 'import venv' >/dev/null 2>&1 && python=$$name && break; \
		done; \
		if test -z "$$python"; then echo "Python $$version: not on this machine, left out"; continue; fi; \
		echo "Python $$version:"; \
		$(MAKE) --no-print-directory $(VENVS)/py$$version/.stamp-test VERSIONED=$$python || exit 1; \
		$(VENVS)/py$$version/bin/python -m pytest $(PARALLEL) -q $(PYTHON_TESTS) || exit 1; \
	done

$(VENVS)/py%/.stamp-test: pyproject.toml
	@mkdir -p $(VENVS)
	@$(call make_venv,$(VERSIONED),$(VENVS)/py$*)
	@$(VENVS)/py$*/bin/python $(INSTALL) -e '.[test]'
	@touch $@

# Where FastAPI changed how dependencies with `yield` end, and the oldest that `fastapi` installs.
FASTAPIS ?= 0.106.0 0.115.0 0.117.1 0.118.0 0.121.0
test-fastapi: $(VENV)/.stamp-dev ## What must hold with older versions of FastAPI
	@for version in $(FASTAPIS); do \
		venv=$(VENVS)/fastapi-$$version; \
		test -e $$venv/.stamp || { \
			$(BIN)/python -m venv $$venv && \
			$$venv/bin/python $(INSTALL) -e '.[embedded]' "fastapi==$$version" "pydantic>=2.8" "redis[hiredis]" \
				"httpx>=0.27" "pytest>=8.4" "pytest-asyncio>=1.1" "pytest-timeout>=2.3" "uvicorn>=0.30" && \
			touch $$venv/.stamp; } || exit 1; \
		echo "FastAPI $$version:"; \
		$$venv/bin/python -m pytest -q -p no:cacheprovider tests/fastapi/test_versions.py || exit 1; \
	done

test-servers: $(VENV)/.stamp-dev ## Broker, scheduler and model on Redis 6.2, 7.0 and 8.2
	@mkdir -p $(VENVS)
	@$(BIN)/python scripts/servers.py $(VENVS)/servers > $(VENVS)/servers.list
	@while read -r name path; do \
		echo "$$name:"; \
		TASKQ_TEST_SERVER=$$path $(BIN)/python -m pytest $(PARALLEL) -q $(SERVER_TESTS) \
			</dev/null || exit 1; \
	done < $(VENVS)/servers.list

# Every server of the tests makes the user of `taskq doctor --acl`, and taskq is that user. Left out are
# tests that make users themselves, or look at what the default user sees.
ACL_TESTS ?= tests/broker tests/worker tests/model

test-acl: $(VENV)/.stamp-dev ## The broker's and the worker's tests as a user with the least rights
	@TASKQ_TEST_ACL=1 TASKQ_MODEL_EXAMPLES=10 $(BIN)/python -m pytest $(PARALLEL) -q \
		-m 'not own_user' $(ACL_TESTS)

# SECONDS, JOBS, KILLS, PAUSE and SEED may be given: `make chaos SEED=7 SECONDS=600`.
CHAOS := $(foreach name,seed seconds jobs kills pause,$(if $($(shell echo $(name) | tr a-z A-Z)),--$(name) $($(shell echo $(name) | tr a-z A-Z))))

chaos: $(VENV)/.stamp-dev ## A minute of kills, stops and cuts, judged by a ledger
	@mkdir -p .cache
	@$(BIN)/python -m tests.faults.chaos --keep .cache/chaos $(CHAOS)

# How many times as much as in CI.
SOAK ?= 100

soak: $(VENV)/.stamp-dev ## The fault matrix in its long form (an hour)
	@TASKQ_SOAK=$(SOAK) $(BIN)/python -m pytest -q -m faults -o timeout=7200 $(TESTS)
	@TASKQ_MODEL_EXAMPLES=$$(($(SOAK) * 20)) $(BIN)/python -m pytest -q tests/model
	@TASKQ_FUZZ_EXAMPLES=$$(($(SOAK) * 200)) $(BIN)/python -m pytest -q -o timeout=7200 tests/fuzz
	@TASKQ_CONFORMANCE=$(SOAK) $(BIN)/python -m pytest -q tests/conformance/test_cron.py

clean: ## Remove what the targets made, environments included
	@rm -rf $(VENV) $(VENVS) dist build site .cache .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis
	@find taskq tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
