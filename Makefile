# Penstock: every command a newcomer needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup jars export-venv demo demo-live test coverage test-stream test-long chaos class-lists lint format bench bench-smoke bench-gpu client lite lite-arm64 up down status doctor freeze clean purge
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Images of containers set it; every process would compile anew what it imports.
export PYTHONDONTWRITEBYTECODE :=
# Tests run in four processes on two cores: while one waits for a server or a clock, others compute.
ROOMS := $(addprefix room-,connectors flows tasks kernels)
ROOM := -m "not cluster and not long" --durations=15
NAME ?=
ARGS ?=
FORMAT ?=

# Empty unless .venv was set up, and for this place: after a move its scripts find no interpreter.
READY = $(and $(wildcard $(BIN)/penstock),$(shell grep -sF -- "-m venv --clear $(CURDIR)/.venv" .venv/pyvenv.cfg))
require-setup = $(if $(READY),,$(error run 'make setup' first))

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' Makefile

setup: ## Create .venv and install everything (safe to repeat)
	@infra/setup.sh

jars: setup ## Build the stream's Java module and bring Kafka (part of setup)
	@infra/jars/build.sh

export-venv: setup ## Packages of one export format: make export-venv FORMAT=executorch|tflite|coreml
	@infra/export/setup.sh "$(FORMAT)"

demo: setup ## A bank and a line of parts: train, register, score, inspect, report
	@$(BIN)/penstock demo

demo-live: setup ## After demo: its payments through Kafka, Flink and the API, to be watched
	@$(BIN)/penstock demo-live

test: setup ## Lint, type-check and run the tests (skipped ones are listed with the reason)
	@$(MAKE) --jobs --keep-going lint $(ROOMS)

coverage: setup ## The same tests with line coverage, at least 90 % (half as long again)
	@rm -f .coverage*
	@$(MAKE) --jobs --keep-going $(ROOMS) ROOM='$(ROOM) --cov --cov-report= --cov-fail-under=0'
	$(BIN)/coverage combine .coverage.*
	$(BIN)/coverage report

.PHONY: $(ROOMS)
# Each collects its own tests alone, and writes whole lines between those of the others.
$(ROOMS): room-%:
	$(require-setup)COVERAGE_FILE=.coverage.$* OMP_NUM_THREADS=1 $(BIN)/python -m pytest --room=$* $(ROOM) | sed -u ''

test-stream: setup ## The long tests: streams on the real broker and cluster, killed and upgraded
	$(BIN)/python -m pytest -m cluster --durations=15

test-long: setup ## Tests of minutes: exports, kills, benchmarks at their small size, formats with environments
	@$(MAKE) --jobs=2 --keep-going $(ROOMS) ROOM='-m long --durations=15'

chaos: setup ## Kill every part of a running stream under load (~10 minutes)
	@$(BIN)/penstock bench chaos

class-lists: setup ## After a new version of Flink, Kafka or Java: what archives of classes shall hold
	@infra/java/record-classes.sh

lint: ## Style, formatting, types and floors
	$(require-setup)$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: ## Rewrite the sources in the house style
	$(require-setup)$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Run one benchmark: make bench NAME=entity-state ARGS="--smoke --json"
	@$(BIN)/penstock bench $(NAME) $(ARGS)

bench-smoke: setup ## Run every benchmark at its small size
	@$(BIN)/penstock bench all --smoke

bench-gpu: setup ## Every figure that needs a CUDA device, appended to docs/benchmarks/
	@$(BIN)/penstock bench gpu --csv docs/benchmarks

lite: ## Build the wheel of penstock-lite, for machines with ONNX Runtime alone
	$(require-setup)@$(BIN)/python -m infra.lite.build

client: ## Build the wheel of penstock-client, for owners of data that is scored encrypted
	$(require-setup)@$(BIN)/python -m infra.lite.build --project connectors/private/client

lite-arm64: lite ## The packages that penstock-lite needs on 64-bit ARM, pinned with their digests
	@infra/lite/arm64.sh

up: setup ## Start the Prefect and MLflow servers
	@$(BIN)/penstock up

down: ## Stop them
	$(require-setup)@$(BIN)/penstock down

status: ## Show what runs and where
	$(require-setup)@$(BIN)/penstock status

doctor: ## Check this machine; every finding comes with its fix
	$(require-setup)@$(BIN)/penstock doctor

freeze: ## Rewrite constraints.txt from what .venv holds
	$(require-setup)@{ echo "# Every package of the environment at the version tried together; made by 'make freeze'."; \
	   $(BIN)/uv pip freeze --exclude-editable --python $(BIN)/python | grep -v -E '^pip==| @ '; } > constraints.tmp
	@mv constraints.tmp constraints.txt

clean: ## Stop services and remove caches (keeps .venv and .penstock)
	$(if $(wildcard $(BIN)/penstock),$(require-setup)@$(BIN)/penstock down)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	@find . \( -path ./.venv -o -path ./.venvs \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

purge: clean ## Also remove .venv, .venvs and .penstock (models, runs, reports)
	@rm -rf .venv .venvs .penstock *.egg-info
