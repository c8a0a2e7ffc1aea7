# What a developer does with this repository; `make` alone lists it.

PYTHON ?= python3
VENV   ?= .venv

BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --quiet --disable-pip-version-check
NATIVE := $(shell find nnc_core/native -type f 2>/dev/null)
CXX_FILES := $(filter %.cpp %.hpp %.h,$(NATIVE))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint clean

help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## compress a digits classifier, restore it, compare the two (installs what it needs)
	$(BIN)/python examples/digits_demo.py

test: lint  ## lint, then all tests
	$(BIN)/pytest

lint: $(VENV)/.dev  ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy nnc_core
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))

clean:  ## remove the environment and everything built or cached
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps lie in the environment, so that both vanish together; native code is built anew when it changes.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP) install --editable '.[onnx]' onnxruntime scikit-learn
	@touch $@

$(VENV)/.dev: pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.demo
