# The targets of this file, with `make help` as their list. PYTHON chooses the interpreter that .venv is made from.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup quick test test-report test-slurm lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## create .venv with every dependency at its pinned version

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; choose another with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

quick: setup ## train the suite `quick` (minutes), then tables and figures in results/quick/
	$(BIN)/snakemake --cores $(CORES) --config suite=quick
	@echo && cat results/quick/tables/final_scores.md

test: setup lint ## linters, types and all tests
	$(BIN)/python -m pytest --numprocesses $(CORES) --dist worksteal --durations 30

test-report: setup ## the reports in headless Chromium, where there is one
	$(BIN)/python -m pytest -rs tests/report

test-slurm: setup ## the pipeline on a SLURM of one node (as root, with slurm-wlm and munge)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ".[slurm]"
	$(BIN)/python benchmarks/slurm.py

lint: setup ## ruff, mypy and snakefmt
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile

clean: ## remove .venv and caches; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .snakemake build *.egg-info
