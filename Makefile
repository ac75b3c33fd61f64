# make help lists the targets. Python 3.11 and a package index are all that is needed.
PYTHON ?= python3.11
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
TORCH ?= torch==2.13.0
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
DEMO_ARGS ?=
EXTRAS ?= test
TEST_ARGS ?= -n 2 --dist loadfile
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(TEST_ARGS)
CORE := networks inputs answers decomposition composition storage

.DEFAULT_GOAL := help
.PHONY: help install demo ui test test-fast test-faults test-stores lint format docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: resolved together with the rest, another build of it may be taken.
$(VENV)/.torch: $(CONSTRAINTS) | $(VENV)/bin/python
	$(PIP) '$(TORCH)'
	@touch $@

$(VENV)/.demo: setup.cfg pyproject.toml $(VENV)/.torch
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml $(VENV)/.torch
	$(PIP) -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.demo

$(VENV)/.stores: $(VENV)/.test
	$(PIP) -e '.[stores]'
	@touch $@

$(VENV)/.docs: setup.cfg pyproject.toml $(VENV)/.torch
	$(PIP) -e '.[docs]'
	@touch $@

install: $(VENV)/.demo  ## make .venv and install the package with all that the demo needs

demo: install  ## train, decompose, compose, reuse, add, replace, load: under 3 minutes
	$(VENV)/bin/python examples/quickstart.py $(DEMO_ARGS)

ui:  ## look at what the demo logged
	$(VENV)/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db

test: $(VENV)/.test  ## install what the tests need and run them
	$(PYTEST) -m 'not faults'

test-fast: $(VENV)/.test  ## the core's tests alone: floors 1 to 4 and the packaging, in about a minute
	$(PYTEST) -m 'not slow' $(wildcard $(CORE:%=tests/%) tests/contract $(CORE:%=mlflow_rnnmod/%)) \
		tests/test_packaging.py tests/test_public_face.py tests/test_requirements.py

test-faults: $(VENV)/.test  ## the campaign of faults and hostile files: about 10 minutes
	$(PYTEST) -m faults tests/faults

test-stores: $(VENV)/.stores  ## faults over PostgreSQL and an S3 stand-in: needs Debian's postgresql; by hand
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.faults --stores

lint: $(VENV)/.test  ## ruff check, ruff format --check, mypy over the package
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.test  ## let ruff put things right
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.docs  ## build the documentation into build/site
	@rm -rf build/site build/pages && mkdir -p build/pages
	$(VENV)/bin/python -m sphinx -q -W --keep-going -c docs build/pages build/site

clean:  ## remove the environment, caches and what the demo logged
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	rm -rf mlflow.db mlruns mlartifacts lightning_logs checkpoints
