.DEFAULT_GOAL := help
.PHONY: help setup quickstart test base test-runs test-engines test-parts test-versions peers test-peers mutants check benchmark package clean

VENV := .venv/bin
export OMP_NUM_THREADS ?= 1

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/stamp ## create .venv and install everything (once)

.venv/stamp: requirements/cpu.txt pyproject.toml kernels/pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh

quickstart: .venv/stamp ## train the embedded model with the real loop, in minutes; see runs/quickstart/report.html
	@$(VENV)/polaris train configs/quickstart.toml

# Three parts of about the same length, each in a process of its own: engines and process groups of one do not meet those of the others, and
# one computes while another waits. The kernels come first in theirs: they need no base model, which the others build meanwhile.
RUNS := tests/embedded tests/run tests/learn tests/sampling tests/recipe tests/distributed tests/checkpoint tests/cli
ENGINES := $(addprefix tests/run/,test_separate.py test_lost_engines.py test_two_machines.py) tests/distributed/test_two_nodes.py tests/evaluation tests/rollout
PARTS := tests/kernels $(filter-out tests/kernels $(RUNS) $(ENGINES),$(patsubst %/,%,$(wildcard tests/*/)) $(wildcard tests/test_*.py))

# Threads that wait spin by default: beside the others, a step of two threads then takes twenty times as long.
test test-runs test-engines test-parts: export OMP_WAIT_POLICY ?= passive
# Imports are half of a command without bytecode, which `make setup` leaves to the first of them.
test test-runs test-engines test-parts: export PYTHONDONTWRITEBYTECODE :=

test: .venv/stamp ## run the test suite, in three processes
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-runs test-engines test-parts

# The base model first: its build, minutes on a busy machine, is no part of the first test that wants it.
test-runs test-engines: base
	@$(VENV)/pytest --durations=15 $(SUITE)

test-runs: SUITE = $(RUNS) $(addprefix --ignore=,$(ENGINES))
test-engines: SUITE = $(ENGINES)

base: .venv/stamp
	@$(VENV)/python -m polaris.cli embedded build > /dev/null

test-parts: .venv/stamp
	@$(VENV)/pytest --durations=15 $(PARTS)

test-versions: .venv/stamp ## run the test suite with the oldest supported versions of torch, Triton, vLLM and transformers
	@bash scripts/test_versions.sh

peers: .venv/peers/stamp ## install verl, Liger, Cut Cross-Entropy, torchao and torchtitan into .venv/peers, for the next target and for benchmarks

.venv/peers/stamp: .venv/stamp requirements/peers.txt
	@rm -rf .venv/peers
	@$(VENV)/pip install --quiet --no-deps --target .venv/peers --requirement requirements/peers.txt
	@touch .venv/peers/stamp

test-peers: .venv/peers/stamp ## run the tests of polaris_kernels inside each known verl, torchtitan, prime-rl (PRIME_RL=checkout) and the hub's client
	@bash scripts/test_peers.sh

mutants: .venv/stamp ## break the source on purpose and count how often the tests notice; MUTANTS="--package data --count 20" (docs/testing.md)
	@PYTHONPATH= nice -n 10 $(VENV)/python scripts/mutants $(MUTANTS)

check: .venv/stamp ## lint, format check, types
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy

benchmark: export PYTHONPATH := $(CURDIR)/.venv/peers
benchmark: .venv/stamp ## measure on this machine, beside the peers that are there (make peers); writes benchmarks/results/; keep the machine idle
	@$(VENV)/pytest benchmarks --benchmark-json=benchmark.json
	@$(VENV)/python benchmarks/summary.py benchmark.json

package: .venv/stamp ## write dist/: wheel, source distribution and hub repository of polaris_kernels
	@$(VENV)/python scripts/package_kernels.py dist > /dev/null && ls -d dist/*

clean: ## remove the environment; runs stay
	@rm -rf .venv
