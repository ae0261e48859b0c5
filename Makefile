.DEFAULT_GOAL := help
.PHONY: help demo test lint types layers docstrings fix check bench peers paper matrix docs faults fuzz clean
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Real data sets for tests and benchmarks, where they lie beside the checkout.
export SUBVOCAB_DATA ?= $(abspath $(wildcard ../shared/data))
export HF_HUB_OFFLINE ?= 1

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

demo: .venv/.demo  ## fine-tune a real model with and without PEMA, and compare the two
	$(BIN)/python examples/demo.py

test: .venv/.dev  ## run every test, on up to four cores
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

lint: .venv/.dev  ## check format, style and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: .venv/.dev  ## check types
	$(BIN)/mypy

layers: .venv/.dev  ## check that imports point downwards
	$(BIN)/lint-imports

docstrings: .venv/.dev  ## check that docstrings match their functions
	$(BIN)/pydoclint --quiet src

check: lint types layers docstrings test  ## everything CI runs, in CI's order

fix: .venv/.dev  ## format, and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev  ## measure speed and memory: a table, and benchmarks/results/*.csv
	$(BIN)/python -m benchmarks

peers: .venv/.dev  ## this library beside others, each in an environment of its own (REFERENCE=PATH for the paper's code)
	$(BIN)/python -m benchmarks.peers $(if $(REFERENCE),--reference $(REFERENCE))

paper: .venv/.dev  ## the paper's tables and figure, as far as the data at hand allow
	$(BIN)/python -m paper $(if $(SUBVOCAB_DATA),--data $(SUBVOCAB_DATA))

faults: .venv/.dev  ## kill, starve and fail everything that writes, at each file operation (FAULT_PLACES=N for some)
	$(BIN)/python -W ignore -m tests.faults $(if $(FAULT_PLACES),,--save)

fuzz: .venv/.dev  ## a million broken and lying files (FUZZ_FILES=N for another number)
	$(BIN)/python -W ignore -m tests.fuzz $(if $(FUZZ_FILES),,--save)

matrix: .venv/.dev  ## train every family, head, optimizer and precision both ways: benchmarks/results/matrix.csv
	$(BIN)/python -W ignore -m tests.matrix

docs: .venv/.dev  ## build the documentation site in build/site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove the environment and all that was built
	rm -rf .venv out build dist .*_cache .hypothesis

# One environment; the stamps tell what it holds.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (once; some minutes) ..."
	$(INSTALL) --editable '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (once; some minutes) ..."
	$(INSTALL) --editable '.[all,dev]'
	@touch $@ .venv/.demo
