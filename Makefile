# make demo | test | check | bench | engines | engines-extra | long | soak | lock | clean
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 3
SEEDS ?= 5000
PEERS := "persist-queue>=1.0" "diskcache>=5.6" "filelock>=3.15" "aetcd>=1.0" "python-redis-lock>=4.0" "pysyncobj>=0.3.17"

.PHONY: demo test check bench engines engines-extra long soak lock clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml requirements/dev.lock scripts/venv.sh
	@bash scripts/venv.sh "$(PYTHON)" "$(VENV)" requirements/dev.lock
	@touch $(STAMP)

test: $(STAMP)
	@$(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile

check: $(STAMP)
	@$(BIN)/ruff check src tests examples benchmarks scripts
	@$(BIN)/ruff format --check src
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_house.py tests/docs -q

demo: $(STAMP)
	@$(BIN)/python -m examples.airline.demo

long: $(STAMP)
	@ATOLL_LONG=1 $(BIN)/python -m pytest tests -m long

soak: $(STAMP)
	@$(BIN)/atoll verify raft --simulate --seeds $(SEEDS)
	@$(BIN)/atoll verify swim --simulate --seeds 2000 --seed 1 --jobs 2
	@$(BIN)/python -m atoll.verify.swim --sizes 10,100,1000,10000 --seeds 3

bench: $(STAMP)
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then $(BIN)/python -m pip install -q $(PEERS); \
	else uv pip install -q --python $(BIN)/python $(PEERS); fi
	@$(BIN)/python -m benchmarks

engines:
	@bash scripts/engines.sh

engines-extra:
	@bash scripts/engines_extra.sh .engines

lock: $(STAMP)
	@bash scripts/lock.sh

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist .atoll
