# make demo    sets everything up and shows the main job on real bots
# make test    sets everything up and runs every check and test
# make check   lint, types, import contracts (under 30 s)
# make bench   the figures, beside the physical floor of the same run
# make bench-storage  200 bots of one template on disk, beside what copies would cost
# make faults  kills, stops and crash points, ROUNDS=1000 of them (docs/faults.md)
# make hostile crowds at the door, 100,000 malformed messages, orphans, in full (about 10 minutes)

PYTHON ?= python3
# Tests wait more than they work: one process more than there are processors.
WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 1) + 1)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench bench-storage faults hostile clean

help:
	@sed -n 's/^# //p' Makefile

# The stamp carries the dependency files: a changed pin sets up again, nothing else does.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "python3 (3.11 or newer) is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) -V). Try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/botctl demo

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: check
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

bench-storage: $(STAMP)
	@$(BIN)/python -m benchmarks.storage

# What a finding is told with goes in here as it stands.
FAULT_WORDS := ROUNDS SEED WHO BOTS FROM TO CONTAINMENT WITHOUT OUT FIGURES

faults: $(STAMP)
	@$(BIN)/python tests/faults/run.py $(foreach word,$(FAULT_WORDS),$(if $($(word)),$(word)=$($(word))))

hostile: $(STAMP)
	@BOTD_HOSTILE=long $(BIN)/python -m pytest -s $(addprefix tests/faults/test_,crowds.py descriptors.py fuzz.py orphans.py) tests/keeper/test_keeper_orphans.py tests/keeper/test_keeper_reuse.py tests/e2e/test_clocks.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
