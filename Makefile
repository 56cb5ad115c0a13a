# make demo   set up and run the main job on the embedded default
# make test   set up and run the tests
# make patch UPSTREAM=edm CHECKOUT=path   for maintainers: patches/edm.* from the lines inserted in a checkout
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench patch

demo: $(VENV)/.installed
	$(BIN)/ddo demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

patch: $(VENV)/.installed
	$(BIN)/python -m ddo_plugin.patching.make $(CHECKOUT) patches/$(UPSTREAM).patch

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
