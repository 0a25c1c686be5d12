# `make` lists the targets. PYTHON=… chooses the interpreter that `make setup` uses.
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/.ready
PYTHON ?=
PYTEST_ARGS ?= -n 3 --dist worksteal

# Whoever installs this keeps compiled code: without it, each process would compile ours anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test lint types airflow bench million screenshots nightly env lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1|\2/' | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: $(READY) ## make .venv with the locked packages; again in an instant
	@:

$(READY): requirements.lock
	@PYTHON="$(PYTHON)" scripts/setup

demo: $(READY) ## migrate a sample of 3,000 checkpoints into a real PostgreSQL and go on there
	@$(BIN)/python scripts/demo.py

test: $(READY) lint types ## ruff, mypy --strict and all tests; some: PYTEST_ARGS="tests/unit -k name"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

airflow: $(READY) ## Airflow's user interface on localhost with the demo's databases; Ctrl-C ends it
	@exec $(BIN)/python scripts/demo_airflow.py

bench: $(READY) ## measure the migration against the loop that people share (CHECKPOINTS, THREADS, ROUNDS, WORKERS, DAG=1, OUT, PLOT)
	@$(BIN)/python benchmarks/run.py

million: $(READY) ## a nightly run: 1,000,000 small checkpoints on this machine (CHECKPOINTS, THREADS, WORKERS)
	@$(BIN)/python benchmarks/million.py

screenshots: $(READY) ## take the README's pictures of real runs in a real browser (needs chromium-driver)
	@$(BIN)/python scripts/screenshots.py

nightly: $(READY) ## the tests, with 10,000 examples for each property, and hours of faults (MINUTES, KILLS, MUTATIONS, SEED)
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest $(PYTEST_ARGS) --timeout=7200
	@$(BIN)/python -m tests.faults.nightly

env: ## make .env with fresh secrets for docker compose (SOURCE_FOLDER=the folder of the SQLite database)
	@SOURCE_FOLDER="$(SOURCE_FOLDER)" scripts/env

lock: $(READY) ## resolve the newest versions of requirements-dev.txt into requirements.lock
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/python -m uv pip compile --upgrade --universal --python-version 3.11 --no-emit-index-url \
	  --custom-compile-command "make lock" --quiet -o requirements.lock requirements-dev.txt

clean: ## stop the demo's server; remove .airflow, .venv and all caches
	@if [ -x $(BIN)/python ]; then $(BIN)/python scripts/postgres_server.py remove; fi
	rm -rf .airflow .venv .setup-lock .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
