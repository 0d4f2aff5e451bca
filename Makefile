# Every target sets up what it needs; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files at a time: most of them wait for something.
JOBS ?= 3
# Of fuzzing, all targets together.
SECONDS ?= 60
TARGET ?= all
# The same bytes each time; 0: others.
SEED ?= 0
SOURCES := pyproject.toml setup.py $(wildcard csrc/*.h) $(wildcard esnode/_fast/*.p*)

.DEFAULT_GOAL := help
.PHONY: help run test hardware lint bench soak golden docs docs-check asan fuzz sanitize ci clean

# $(call sanitized,NAME,MORE): the extensions with sanitizers, and the tests, in build/NAME.
COMMA := ,
sanitized = ESNODE_SANITIZE=address,undefined,float-cast-overflow$(2) $(BIN)/python setup.py --quiet \
	  build --build-lib build/$(1) --build-temp build/$(1).tmp build_ext --parallel 2 && \
	rm -rf build/$(1)/tests && cp -r csrc tests pyproject.toml build/$(1)

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(BIN)/python:
	@$(PYTHON) scripts/needs.py
	$(PYTHON) -m venv $(VENV)
	@echo "The first time takes a minute or two: dependencies by pip, extensions by the C compiler"

# One stamp for each set of dependencies; a changed source builds the extensions again.
$(VENV)/.run: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.run

run: $(VENV)/.run  ## Start the agent on port 9100; flags in ARGS
	$(BIN)/esnode-core $(ARGS)

test: $(VENV)/.dev  ## Run the tests, some files at a time; pytest's options in ARGS
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

hardware: $(VENV)/.dev  ## The tests that need an NVIDIA GPU; they skip without one
	$(BIN)/python -m pytest tests/hardware $(ARGS)

lint: $(VENV)/.dev  ## ruff, mypy and the stubs against the extensions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	LD_LIBRARY_PATH=build/stub $(BIN)/stubtest esnode._fast  # where there is no driver

bench: $(VENV)/.dev  ## Measure, with the baselines beside the results
	$(BIN)/python -m benchmarks.scenario $(ARGS)

soak: $(VENV)/.dev  ## The long form of the endurance tests, and ten minutes of fuzzing
	ESNODE_SOAK=1 $(BIN)/python -m pytest tests/test_soak.py tests/test_page_browser.py tests/tsdb tests/http/test_export.py tests/http/test_events.py $(ARGS)
	$(MAKE) sanitize SECONDS=600

golden: $(VENV)/.dev  ## Write the golden pages anew; look at the diff
	$(BIN)/python -m tests.golden

docs: $(VENV)/.dev  ## Write the generated pages anew
	$(BIN)/python -m esnode.catalog docs
	$(BIN)/python -m esnode.cli.reference docs

docs-check: $(VENV)/.dev  ## Fail where a generated page is not what `make docs` writes
	$(BIN)/python -m esnode.catalog --check docs
	$(BIN)/python -m esnode.cli.reference --check docs

asan: TESTS ?= tests/fast tests/fuzz
asan: $(VENV)/.dev  ## The extensions' tests under the address and undefined-behaviour sanitizers
	rm -rf build/asan
	$(call sanitized,asan)
	if [ -d ../shared ]; then ln -sfn ../../shared build/shared; fi
	cd build/asan && LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  "$(CURDIR)"/$(BIN)/python -m pytest -p no:cacheprovider --capture=sys $(TESTS) $(ARGS)

$(VENV)/.fuzz: $(VENV)/.dev
	command -v clang >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 'atheris>=2.3'
	touch $@

fuzz: $(VENV)/.fuzz  ## Feed the readers with odd bytes for SECONDS, or one TARGET of tests/fuzz; needs clang
	CC=clang LDSHARED="clang -shared" $(call sanitized,fuzz,$(COMMA)fuzzer-no-link)
	cd build/fuzz && "$(CURDIR)"/$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(SECONDS) --seed $(SEED) $(FILES)

sanitize:  ## `make fuzz`; where that cannot be done, the tests with made-up input under gcc's sanitizers
	@if $(MAKE) --no-print-directory $(VENV)/.fuzz; then $(MAKE) --no-print-directory fuzz; \
	else echo "Without clang or atheris nothing is fuzzed: Hypothesis feeds the readers instead"; \
	$(MAKE) --no-print-directory asan ARGS="-k 'fuzz or oracle or num or encode'"; fi

ci: export SEED = 1
ci: lint test docs-check sanitize  ## What CI runs

clean:  ## Remove what the other targets made
	rm -rf .venv build esnode/_fast/*.so *.egg-info .*_cache .hypothesis .benchmarks
