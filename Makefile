# `make` alone says what there is to do. Everything is installed into .venv, nothing outside this folder.

PYTHON ?= python3
STUDY ?= config/demo.yaml
# cpu, cuda, or empty: cpu where pip is told of a folder that holds that wheel, else the build on the package index
TORCH ?=
CORES ?= $(shell $(PYTHON) -c 'import os; \
	print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
ARGS ?=

BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)

define RUN_STUDY
$(BIN)/snakemake --cores $(CORES) --configfile $(1) $(ARGS)
endef

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: install ## the whole line on real digits, in minutes; prints where the report is
	$(call RUN_STUDY,config/demo.yaml)

.PHONY: study
study: install ## the study of STUDY=config/NAME.yaml
	$(call RUN_STUDY,$(STUDY))

.PHONY: gpu-evidence
gpu-evidence: install ## the full-size study on this machine's GPU (30 minutes of it), into docs/results/gpu-evidence
	@$(BIN)/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make gpu-evidence needs a GPU with CUDA: torch finds none here")'
	$(call RUN_STUDY,config/gpu-evidence.yaml)
	$(BIN)/scatterproof publish --configfile config/gpu-evidence.yaml docs/results/gpu-evidence

.PHONY: test
test: install ## the tests (ARGS="-m slow" for the slow ones)
	$(BIN)/pytest $(ARGS)

.PHONY: test-slurm
test-slurm: install ## the tests on a real one-machine SLURM, which it starts (root on Debian; ARGS="-k demo" for some)
	$(BIN)/pytest -m slurm tests/slurm $(ARGS)

.PHONY: cluster-up cluster-down
cluster-up: ## start a real SLURM on this machine: accounting, 4 nodes with 2 pretended GPUs each
	tests/slurm/cluster/up
cluster-down: ## end it (ARGS=--wipe forgets its jobs and accounts)
	tests/slurm/cluster/down $(ARGS)

.PHONY: lint lint-ruff lint-types lint-snakemake
lint: lint-ruff lint-types lint-snakemake ## ruff, mypy, snakefmt and snakemake --lint
lint-ruff: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
lint-types: install
	$(BIN)/mypy
lint-snakemake: install
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile config/demo.yaml

.PHONY: config-docs
config-docs: install ## write config/README.md, the JSON schema and the defaults anew from the model of a study
	$(BIN)/python -m scatterproof.command.config_docs

.PHONY: lock
lock: install ## write envs/ anew from pyproject.toml, keeping versions that still fit (ARGS=--upgrade for newer ones)
	$(BIN)/python envs/lock.py $(ARGS)

.PHONY: install
install: .venv/.installed ## make .venv at the locked versions
.venv/.installed: pyproject.toml envs/install.sh $(wildcard envs/*.txt)
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" sh envs/install.sh
	@touch $@

.PHONY: clean
clean: ## remove .venv and all caches, but no results
	rm -rf .venv .snakemake .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist src/*.egg-info
