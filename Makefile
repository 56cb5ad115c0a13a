# make demo   set up .venv, and run DDO end to end on small digits
# make test   set up .venv, and run the tests; tests that need a checkout of an upstream are skipped if it is missing
# make test-all   all tests, also those marked `thorough`; ARGS=--last-failed runs those that failed
# make bench   measure ratios of times on the CPU; fails if one is off by a wide margin (docs/performance.md)
# make gpu-kit   pack what a GPU machine without network needs into .gpu-kit (docs/gpu.md)
# make patch UPSTREAM=edm CHECKOUT=path   write patches/edm.patch and patches/edm.json from the lines inserted in a checkout (for maintainers)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test test-all lint bench gpu-kit patch

demo: $(VENV)/.installed
	$(BIN)/ddo demo

test: $(VENV)/.installed
	$(PYTEST) -m "not thorough"

test-all: $(VENV)/.installed
	$(PYTEST) $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

gpu-kit: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu.pack

patch: $(VENV)/.installed
	$(BIN)/python -m ddo_plugin.checkouts.patching.make $(CHECKOUT) patches/$(UPSTREAM).patch

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
