# `make` lists the targets. CI runs the same ones.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
RUN := .venv/bin/

.PHONY: help setup environment programs eksctl demo lab test lint unit e2e e2e-browser chaos abuse audit bench bench-inference lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

setup: ## set up all that demo, lab and test need (first time: minutes; then seconds)
	@$(MAKE) --no-print-directory -j2 environment programs

environment:
	@PYTHON=$(PYTHON) tools/environment.sh

programs:
	@$(PYTHON) tools/build.py

eksctl: ## build the real eksctl where the PATH lacks it (first time: minutes)
	@$(PYTHON) tools/build.py --eksctl

demo: setup ## the whole walk on this machine: nine notebooks, ten tokens, nothing left behind
	@$(RUN)gpurunbook run --target rehearsal

lab: setup ## JupyterLab on the notebooks
	@$(RUN)jupyter lab --ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.app_settings_dir=tools/lab \
		$(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_start.ipynb

test: setup eksctl lint ## all tests, as CI runs them
	@$(RUN)python -m pytest tests

lint: ## ruff and mypy
	@$(RUN)ruff check . && $(RUN)mypy

unit: ## the tests that take seconds
	@$(RUN)python -m pytest tests/unit tests/contract

e2e: ## the tests on a real control plane
	@$(RUN)python -m pytest tests/e2e

e2e-browser: setup ## all notebooks as a person takes them: JupyterLab in Chromium (SCREENSHOTS=DIR keeps the pictures)
	@$(RUN)python -m pytest -q --no-header tests/browser

chaos: setup ## kill -9 at the journal's boundaries, resume, compare (LONG=1: at each of them, 30 victims; SEED=N)
	@$(RUN)python -m tests.chaos $(if $(LONG),--long) $(if $(SEED),--seed $(SEED))

abuse: setup ## hostile parameters, files, arguments and output (SEED=N)
	@$(RUN)python -m tests.abuse $(if $(SEED),--seed $(SEED))

audit: setup ## ask whether a locked package has a known vulnerability (needs the internet)
	@$(RUN)python tools/audit.py

bench: setup ## the figures of the README, into benchmarks/results/
	@over=0; for what in rehearsal readiness overlap; do $(RUN)python benchmarks/$$what.py || over=1; done; exit $$over

bench-inference: setup ## next-token latency of all arms beside llama.cpp (DEVICE=gpu; the first time it builds llama.cpp)
	@$(RUN)python -m benchmarks.inference $(if $(DEVICE),--device $(DEVICE))

lock: ## resolve pyproject.toml again into requirements.lock
	@uv pip compile pyproject.toml --extra model --extra widgets --group dev --generate-hashes --universal --python-version 3.11 \
		--no-header --upgrade -q -o requirements.lock

clean: ## end what dead runs left
	@$(RUN)gpurunbook clean
