# Everything happens in .venv, which each target makes where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make demo` runs: fashion-dit or emoji-sd-quick.
PRESET := fashion-dit
# Compiled code is kept, whatever the shell says: a process of ours starts in half the time.
unexport PYTHONDONTWRITEBYTECODE
STAMP := $(VENV)/.installed

.PHONY: help venv demo demo-fashion demo-emoji up test soak fresh-check check bench gpu-wheels clean

help:
	@echo "make demo   set up everything and distil the built-in teacher (about 5 minutes on 2 cores)"
	@echo "make demo-fashion, make demo-emoji  the same with the class-conditional and with the text-to-image teacher"
	@echo "make up     the GPU lab: Prefect server, UI and one worker, until Ctrl-C"
	@echo "make test   run the tests"
	@echo "make soak   the long forms of tests: every kill, every damage, many nights; hours"
	@echo "make check  lint and types"
	@echo "make fresh-check  the demo and the tests on a bare Debian made for it; root, Linux, before a release"
	@echo "make bench  measure speed (benchmarks/)"
	@echo "make gpu-wheels  what an offline GPU machine lacks, into .wheels/ (docs/gpu.md)"
	@echo "make venv   only set up .venv"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): about 2 minutes and 6 GB, most of it PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,dask,ray,metrics,emoji,webdataset,s3,dev]"
	@touch $@

up: $(STAMP)
	$(BIN)/agd up

demo: $(STAMP)
	$(BIN)/agd distill $(PRESET) --output outputs/demo

demo-fashion: $(STAMP)
	$(BIN)/agd distill fashion-dit --output outputs/demo-fashion

demo-emoji: $(STAMP)
	$(BIN)/agd distill emoji-sd-quick --output outputs/demo-emoji

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m soak

# As a new user with an empty home in a bare Debian; AS=root: as root there.
fresh-check:
	bash tests/fresh_check.sh $(AS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/cfg_against_adapter.py
	$(BIN)/python benchmarks/store_against_authors.py --folder outputs/bench

gpu-wheels: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.wheels

clean:
	rm -rf outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis
