# Epochal. Needs Python 3.11-3.13 and make; everything else is installed into .venv.
#   make demo       train YOLO26n on handwritten digits, here, now        make check   format, lint, types, house rules, docs
#   make test       the tests, under 15 minutes on 2 cores                make bench   measure against the peers
#   make test-all   every test, longer                                    make clean   remove .venv and caches
#   make test-oldest   the trainers' oldest supported versions, in .venv-oldest (Python 3.11)
#   make torture    kill -9 at random moments, 500 times, then compare the weights

PYTHON ?= $(shell tools/find-python)
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=
# Whole files on two processes of one thread each: so two cores are busy where one training would keep one waiting.
# What they import is compiled once, whatever the environment says: many tests start processes that import PyTorch.
PARALLEL := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
KILLS ?= 400
YOLO_KILLS ?= 100

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-oldest torture check bench constraints clean

help:
	@sed -n '2,6s/^# *//p' Makefile

demo: $(VENV)/.demo
	$(BIN)/epochal demo $(DEMO_ARGS)

test: $(VENV)/.dev  # the examples in src and docs are run by `make check`
	$(PARALLEL) -m "not slow" tests $(TEST_ARGS)

test-all: $(VENV)/.dev
	$(PARALLEL) $(TEST_ARGS)

test-oldest: $(VENV)-oldest/.oldest
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow" tests/contract tests/integrations --ignore=tests/contract/test_loggers.py $(TEST_ARGS)

torture: $(VENV)/.dev
	$(BIN)/python -m tests.faults.torture_loop --kills $(KILLS)
	$(BIN)/python -m tests.faults.test_kill_yolo --kills $(YOLO_KILLS)

check: $(VENV)/.dev
	$(BIN)/python tools/check.py

bench: $(VENV)/.dev $(VENV)/peers
	$(BIN)/python benchmarks/dispatch.py
	$(BIN)/python benchmarks/hooks.py
	$(BIN)/python benchmarks/pruning.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/trainers.py
	$(BIN)/python benchmarks/recording.py
	$(BIN)/python benchmarks/control.py
	$(BIN)/python benchmarks/dead_servers.py
	$(BIN)/python benchmarks/watchers.py
	$(BIN)/python -m benchmarks.page

# Pins what .venv has now, for every supported Python.
constraints: $(VENV)/.dev
	$(BIN)/python tools/constraints.py

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the package is built from: when it changes, the environment is made up to date, and the page with it.
BUILT_FROM := pyproject.toml constraints.txt hatch_build.py $(shell find src/epochal/dashboard/page -type f)

# One environment; the demo's packages are a part of the developers'.
$(VENV)/.demo: $(BUILT_FROM)
	tools/install "$(PYTHON)" $(VENV) demo

$(VENV)/.dev: $(BUILT_FROM)
	tools/install "$(PYTHON)" $(VENV) dev
	@touch $(VENV)/.demo

$(VENV)/peers: benchmarks/peers.txt $(VENV)/.dev
	rm -rf $@
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ --requirement $<

$(VENV)-oldest/.oldest: pyproject.toml
	tools/install "$(PYTHON)" $(VENV)-oldest oldest
