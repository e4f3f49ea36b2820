# Everything here works from a fresh clone with only python3 (3.11 or later) and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all mutants check bench clean

demo: $(READY)
	$(BIN)/weft demo --out demo-out

test: $(READY)
	$(BIN)/python -m pytest -q -n 2

test-all: $(READY)
	$(BIN)/python -m pytest -q -n 2 -m ""

mutants: $(READY)
	$(BIN)/python -m tests.mutants

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 2 tests/pure tests/test_architecture.py

bench: $(READY)
	$(BIN)/weft bench all

# torch comes first and by its pin: left to the resolver, the transformers that comes with it may ask for another one.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -q -e ".[serve,plot,methods,dev]" -c constraints.txt
	touch $@

clean:
	rm -rf .venv demo-out .pytest_cache .ruff_cache .hypothesis .import_linter_cache
