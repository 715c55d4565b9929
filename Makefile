# Each target sets up .venv if it is missing or the lock file has changed.

VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Tests start hundreds of processes, each of which would compile the project again.
unexport PYTHONDONTWRITEBYTECODE

# Material prints an announcement at every build unless this is set.
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo test test-fast lint check docs bench study-small clean

help:
	@echo "make demo       the whole workflow on real text, in about five minutes"
	@echo "make test       all tests"
	@echo "make test-fast  the quick tests of the library, the losses and the service"
	@echo "make lint       ruff, pyright, import-linter, spelling"
	@echo "make check      make lint, generated pages, the documentation site"
	@echo "make docs       the documentation site, in site/"
	@echo "make bench      all benchmarks; appends rows to data/bench/results.csv"
	@echo "make study-small   cross-entropy, label smoothing, and a bank with its control, from scratch; TEXT=FILE; 20 to 30 minutes"

# Python compiles a module when it is first imported; pip would compile all of them, of which most are never used.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "costbank needs Python 3.11 or newer; make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/costbank demo --store .demo/banks --work .demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests/unit tests/loss tests/golden tests/service

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell

check: lint
	$(BIN)/python -m docs.generators --check
	$(BIN)/mkdocs build --quiet --strict

docs: $(READY)
	$(BIN)/python -m docs.generators
	$(BIN)/mkdocs build --quiet --strict

bench: $(READY)
	$(BIN)/python -m benchmarks

# The text is a file with a document per line, or else the docstrings of Python's standard library. The rows go to a
# file of their own, because runs whose rows are in data/study would not be repeated; delete it to run everything again.
STUDY_ARMS := ce label-smoothing start-from-shuffled-recommended start-from-bank-recommended
study-small: $(READY)
	@mkdir -p .study
	$(if $(TEXT),,$(BIN)/python -m benchmarks.study.docstrings text .study/docstrings.txt)
	$(BIN)/python -m benchmarks.study small --text $(or $(TEXT),.study/docstrings.txt) --seeds 3 --split test --arms $(STUDY_ARMS) \
		--rows .study/rows.jsonl

clean:
	rm -rf $(VENV) .demo site
