# make help says what there is. Every target starts from a bare clone: it sets up .venv first (at once when that is done).

PYTHON ?=
ARGS ?=
PYTEST_ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup sim test lint bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup:  ## create or refresh .venv: Python packages, ROS 2 where none is installed, interfaces, this package
	@command -v python3 >/dev/null || { echo "error: no python3; install Python 3.11 or 3.12" >&2; exit 2; }
	@PYTHON='$(PYTHON)' python3 tools/setup_venv.py

sim: setup  ## the learning robot in simulation; ARGS="headless:=true episodes:=150 seed:=0"
	@$(BIN)/llmagent launch sim.launch.xml $(ARGS)

test: lint  ## ruff, mypy and the tests; PYTEST_ARGS="test/test_x.py -k name"
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0 --durations=15 $(PYTEST_ARGS)

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: setup  ## the quick benchmarks
	@$(BIN)/llmagent bench $(or $(ARGS),quick)

clean:  ## remove .venv and everything built
	rm -rf .venv build install log .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
