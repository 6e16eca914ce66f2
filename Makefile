# The project's front door. Every target sets up .venv first; PYTHON picks the interpreter (3.11 or 3.12).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
# More options for pytest, such as: make test PYTEST_ARGS="-k queue"
PYTEST_ARGS ?=
# Many tests wait (for leases, servers, killed processes) more than they compute: two processes halve the time.
PYTEST := -m pytest --strict-config -q -n 2 --dist loadgroup

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup demo lint format test test-all bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

setup: ## make or repair .venv (under 2 s when nothing changed)
	@PYTHON="$(PYTHON)" bash scripts/setup.sh

demo: setup ## the whole line, from text to a judged model, in demo/
	@bash scripts/demo.sh

lint: setup ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup ## the tests, integration ones included, without the slow ones (at most 20 minutes)
	$(BIN)/python $(PYTEST) -m "not slow" --durations=10 $(PYTEST_ARGS)

test-all: setup ## every test, the slow ones too
	$(BIN)/python $(PYTEST) --durations=20 $(PYTEST_ARGS)

bench: setup ## every benchmark in benchmarks/, one after another
	@for file in benchmarks/[!_]*.py; do echo "== $$file" >&2; $(BIN)/python "$$file"; done

clean: ## remove build outputs, caches and the demo's workspace; .venv stays
	rm -rf build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
