# The README's commands. `make export` and `make test` set up all they need in .venv; nothing else on the machine changes.
# Which tests run first, and which of a file apart from the others: tests/order.py.
# torch comes from pip as it is configured, or else from TORCH_INDEX; constraints.txt refuses CUDA builds in both.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import venv' 2>/dev/null && echo $$name && break; done)
# PyTorch's own index of CPU builds, as its install page gives it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# There are no builds of coremltools and litert-torch that could lower on ARM64 Linux.
TARGET := $(if $(filter Linux-aarch64,$(shell uname -s)-$(shell uname -m)),onnx,coreml)

.PHONY: export test lint bench setup clean

export: $(VENV)/.export
	$(BIN)/cocorr-export scn --target $(TARGET)

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
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "error: Python 3.11 to 3.13 is needed; say where it is: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "setting up $(VENV), about 3 GB: torch, then the converters and runtimes; this takes some minutes"
	$(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH) 2>$(VENV)/torch.log \
		|| { echo "pip as it is configured has no CPU build of $(TORCH); trying $(TORCH_INDEX)"; \
		$(PIP) --index-url $(TORCH_INDEX) $(TORCH); } \
		|| { echo "error: no CPU build of $(TORCH) in reach; name an index that has one: make TORCH_INDEX=URL"; exit 2; }
	@touch $@

$(VENV)/.export: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[all,dev]'
	@touch $@ $(VENV)/.export
