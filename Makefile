# The habits of this project. They need python3 (3.11 or newer) and make, nothing else; `make` alone lists them.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m
# One more than there are processors: tests that wait for another process leave theirs to others.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Compiled once, whatever the surroundings say: else each of the hundreds of processes that the tests start compiles anew.
export PYTHONDONTWRITEBYTECODE :=
# What `make check` leaves to `make test` and `make test-tools`: tests that start servers or kill processes, and long
# random walks.
SLOW := integration/* providers/* sandbox/* common/stores/* *_killed.py *_model.py *_races.py *_scorecard.py \
  functions/test_audit.py ops/test_audit.py ops/test_client.py ops/test_demo.py ops/test_guide.py ops/test_run.py \
  ops/test_served.py ops/test_venv.py ops/test_lint.py ops/test_image.py ops/test_keys*.py ops/test_backup*.py ops/test_sweep.py \
  ops/test_canary*.py ops/test_deploy*.py ops/test_release.py ops/test_monitoring*.py ops/test_cardata_page.py \
  common/test_patient_worker.py common/test_bus.py common/test_second_level.py common/test_ratelimit_redis.py bench/test_whole.py

# Tests of tools: none of them runs a line of the service that the others do not.
TOOLS := tests/ops tests/bench

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '%-18s %s\n' "$$name" "$$what"; done

.PHONY: venv
venv:
	@$(PYTHON) ops/venv.py

.PHONY: run
run: venv ## the API on localhost:8080 in front of simulated car makers; Ctrl-C ends all (PORT=..., INSTANCES=4)
	@$(RUN) ops.run

.PHONY: demo
demo: venv ## a tour by itself: connect, read, lock, a fault, the recovery
	@$(RUN) ops.demo

.PHONY: test
test: venv ## every test of the service and its simulators, with the coverage gate
	@rm -f .coverage .coverage.*
	$(RUN) pytest -q -n $(JOBS) --maxprocesses 8 --dist worksteal --cov --cov-report=term $(TOOLS:%=--ignore=%)

.PHONY: test-tools
test-tools: venv ## every test of what deploys, watches, repairs and measures it
	$(RUN) pytest -q -n $(JOBS) --maxprocesses 8 --dist worksteal $(TOOLS)

.PHONY: check
check: venv ## format, lint, types, layers, dead code, workflows, secrets, generated pages, fast tests: before every commit
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(BIN)/lint-imports --no-logo
	$(RUN) vulture
	$(RUN) ops.docs --check
	$(RUN) ops.lint
	@$(RUN) pytest -q -n $(JOBS) --maxprocesses 8 $(SLOW:%=--ignore-glob='tests/%')

.PHONY: format
format: venv ## format the code and fix what the linter can fix
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

.PHONY: docs
docs: venv ## write the generated pages: actions, errors, configuration, OpenAPI
	@$(RUN) ops.docs

.PHONY: bench
bench: venv ## cached and fresh reads beside an empty function and a naive wrapper; growth, workers, memory (25 min)
	@$(RUN) bench.run

.PHONY: load
load: venv ## a minute of everyday load on four instances while an instance and Valkey are killed: docs/load-test.md
	@$(RUN) bench.loadtest

.PHONY: release
release: check test test-tools ## tag this commit with its version and the changelog's notes
	@$(RUN) ops.release

.PHONY: scorecard
scorecard: venv ## the promises, measured on real processes and printed as a table (ROWS="11 15" for some)
	@$(RUN) scorecard $(ROWS)

.PHONY: lock
lock: venv ## compile the three requirements files from their .in files
	@for name in requirements requirements-dev requirements-sandbox; do \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-emit-index-url \
	    $$name.in -o $$name.txt || exit 1; \
	done

.PHONY: clean
clean: ## remove everything that is not in git but came from here
	@rm -rf .venv .run .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
