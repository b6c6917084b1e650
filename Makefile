# The README's commands. `make export` and `make test` set up all they need in .venv; nothing else on the machine changes.
# Which tests run first, and which of a file apart from the others: tests/order.py.
# TORCH_INDEX: the index URL that PyTorch's install page shows for its CPU builds. Needed on Linux, see README.md.

PYTHON ?= $(or $(shell command -v python3.11),python3)
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: export test lint bench setup clean

export: $(VENV)/.export
	$(BIN)/cocorr-export scn --target coreml

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/command_times.py

setup: $(VENV)/.dev

clean:
	rm -rf $(VENV)

$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "error: Python 3.11 is needed; say where it is: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "setting up $(VENV), about 3 GB: torch, then the converters and runtimes; this takes some minutes"
	$(PYTHON) -m venv $(VENV)
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0 \
		|| { echo "error: no CPU build of torch 2.13.0 in reach; see 'The CPU build of torch' in README.md, then: make TORCH_INDEX=URL"; exit 2; }
	@touch $@

$(VENV)/.export: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[all,dev]'
	@touch $@ $(VENV)/.export
