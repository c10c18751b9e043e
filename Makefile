# Everything runs in .venv, made with the first Python of 3.11 or later found here (or PYTHON=...), from PyPI alone.
# Each stamp in .venv says what is installed; it is remade when pyproject.toml changes.

PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))
TORCH ?= torch==2.13.0

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Sources that are checked; examples and benchmarks are read by people too.
CODE := $(wildcard src tests examples benchmarks)

.PHONY: help demo test lint types format clean

help:
	@echo "make demo    run a real kernel on the simulated chip"
	@echo "make test    run the tests"
	@echo "make lint    check style (make format mends most of it)"
	@echo "make types   check types"
	@echo "make clean   remove .venv and caches"

demo: .venv/demo
	$(BIN)/trn run examples/attention.py

test: .venv/dev
	$(BIN)/python -m pytest -n auto

lint: .venv/dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: .venv/dev
	$(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "OpenTrn needs Python 3.11 or later on the PATH (or give PYTHON=...)." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml | .venv/bin/python
	$(PIP) "$(TORCH)" --editable .
	@touch $@

.venv/dev: pyproject.toml .venv/demo
	$(PIP) --editable ".[dev]"
	@touch $@
