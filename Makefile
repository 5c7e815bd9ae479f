# semel: every text is embedded once.   `make` or `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := dev
TEST_PROCESSES ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-fast check bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it (quiet when that is done)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "semel needs Python 3.11 or newer; say which: make setup PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) (some minutes the first time, torch is large)"
	@$(PYTHON) -m venv $(VENV)
	@# torch first and alone: its pin decides which build is fetched
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]' 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(BIN)/python -c 'import semel, torch, sentence_transformers, celery, fastapi'
	@touch $(STAMP)

demo: setup ## embed real text on the whole stack, then stop it
	@$(BIN)/semel demo

up: setup ## run Redis, the API and the workers in the foreground
	@$(BIN)/semel up

test: setup ## run every test
	@# several at once, a file each, the slow ones first: most tests wait for processes, not for a core
	@scripts/with-chromium $(VENV)/chromium scripts/with-lavapipe $(VENV)/lavapipe \
		scripts/with-promtool $(VENV)/promtool $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-fast: setup ## unit, contract and architecture tests without services or models: the inner loop
	@$(BIN)/pytest -n auto -m "not service and not model" tests/unit tests/contract tests/architecture

check: setup ## types, style, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 6
	@scripts/check-page

bench: setup ## measure against peers; one file per question in benchmarks/
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

clean: ## delete .venv and what tools left behind
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
