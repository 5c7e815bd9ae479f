# semel: every text is embedded once.   `make` or `make help` lists the commands.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := dev
TEST_PROCESSES ?= 4
FAST_PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-fast check chaos soak fuzz bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv with all dependencies (does nothing if it is up to date)

$(STAMP): pyproject.toml constraints.txt constraints.hashes.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "semel needs Python 3.11 or newer; choose one: make setup PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) (takes some minutes the first time, because torch is large)"
	@$(PYTHON) -m venv $(VENV)
	@# torch first and alone, because its pin decides which build is fetched
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --report $(VENV)/installed.json --editable '.[$(EXTRAS)]' 2>&1 | { grep -v '^WARNING: Location' || true; }
	@scripts/check-hashes $(VENV)/installed.json
	@$(BIN)/python -c 'import semel, torch, sentence_transformers, celery, fastapi'
	@touch $(STAMP)

demo: setup ## run the whole stack on real text, then stop it
	@$(BIN)/semel demo

up: setup ## run Redis, the API and the workers until Ctrl-C
	@$(BIN)/semel up

test: setup ## run all tests
	@# one file per process, slow ones first; more processes than cores, because most tests wait for other processes
	@scripts/with-chromium $(VENV)/chromium scripts/with-lavapipe $(VENV)/lavapipe \
		scripts/with-promtool $(VENV)/promtool $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-fast: setup ## run the fast tests: unit, contract and architecture, without services or models
	@# without plugins that these tests do not use: they take a tenth of the time
	@$(BIN)/pytest -n $(FAST_PROCESSES) -p no:schemathesis -p no:langsmith_plugin -p no:logging -m "not service and not model" tests/unit tests/contract

check: setup ## check style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 6
	@scripts/check-page

chaos: setup ## hurt a running semel at random: ROUNDS=20 SEED=1 DATABASE=sqlite
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),20) --seed $(or $(SEED),1) --database $(or $(DATABASE),sqlite)

soak: setup ## run a mixed load for MINUTES=60 and show what grows
	@$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),60)

fuzz: setup ## send damaged bodies to every route that reads one: MINUTES=10 SEED=1
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

bench: setup .venv-peers/ready ## measure semel against peers, and write docs/reference/benchmarks.md
	@$(BIN)/python -m benchmarks

# optimum-intel asks for torchvision, whose build for CPUs is not on PyPI; nothing here needs it.
.venv-peers/ready: benchmarks/peers.txt
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip install -q -r benchmarks/peers.txt
	@.venv-peers/bin/pip install -q --no-deps optimum-intel==2.2.0
	@touch $@

clean: ## delete .venv and the caches of the tools
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
