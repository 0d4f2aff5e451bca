# Every target sets up what it needs; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard csrc/*.h) $(wildcard esnode/_fast/*.p*)

.DEFAULT_GOAL := help
.PHONY: help run test lint bench soak golden docs docs-check asan ci clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of dependencies; a changed source builds the extensions again.
$(VENV)/.run: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.run

run: $(VENV)/.run  ## Start the agent on port 9100; flags in ARGS
	$(BIN)/esnode-core $(ARGS)

test: $(VENV)/.dev  ## Run the tests; pytest's options in ARGS
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev  ## ruff, mypy and the stubs against the extensions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest esnode._fast

bench: $(VENV)/.dev  ## Measure, with the baselines beside the results
	$(BIN)/python -m benchmarks.scenario $(ARGS)

soak: $(VENV)/.dev  ## The long form of the endurance tests
	ESNODE_SOAK=1 $(BIN)/python -m pytest tests/test_soak.py $(ARGS)

golden: $(VENV)/.dev  ## Write the golden pages anew; look at the diff
	$(BIN)/python -m tests.golden

docs: $(VENV)/.dev  ## Write the generated pages anew
	$(BIN)/python -m esnode.catalog docs

docs-check: $(VENV)/.dev  ## Fail where a generated page is not what `make docs` writes
	$(BIN)/python -m esnode.catalog --check docs

asan:  ## Run the parsers' tests under the address and undefined-behaviour sanitizers
	$(MAKE) VENV=.venv-asan .venv-asan/.dev ESNODE_SANITIZE=address,undefined
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
	  .venv-asan/bin/python -m pytest -p no:cacheprovider tests/fast $(ARGS)

ci: lint test docs-check  ## What CI runs

clean:  ## Remove what the other targets made
	rm -rf .venv .venv-asan build esnode/_fast/*.so
