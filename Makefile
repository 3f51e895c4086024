# Two commands on a fresh machine with Python >= 3.11 and make: `make demo` and `make test`.
# Each makes its own environment in .venv first, from the committed lock; the second time that takes no time.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/installed
COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate

.PHONY: help
help: ## List the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

.PHONY: demo
demo: $(STAMP) ## Close thirty generated days on a real Prefect server and show what comes out
	@$(BIN)/python -m deployments.demo

.PHONY: test
test: $(STAMP) ## Run every test on real PostgreSQL
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

.PHONY: lint
lint: $(STAMP) ## Check format, style, types, imports, SQL and that each idea stays in its one place
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lints.sql
	$(BIN)/python -m tests.lints.homes

.PHONY: format
format: $(STAMP) ## Rewrite the code in the agreed format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: serve
serve: $(STAMP) ## Local Prefect server with UI, all deployments and a worker, until Ctrl-C
	@$(BIN)/ledger-eod serve

.PHONY: bench
bench: $(STAMP) ## Measure speed, growth, look-ups and memory
	$(BIN)/python -m benchmarks

.PHONY: lock
lock: $(STAMP) ## Resolve the dependencies again: requirements.lock to run it, requirements-dev.lock to work on it
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) --group dev --upgrade -o requirements-dev.lock
	$(COMPILE) --upgrade -c requirements-dev.lock -o requirements.lock

.PHONY: clean
clean: ## Remove the environment and every cache; the ledger in .ledger-eod stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: install
install: $(STAMP) ## Make the environment in .venv

# The newest Python that will do; --require-hashes installs exactly what was tested.
$(STAMP): requirements-dev.lock pyproject.toml
	@python=; for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if command -v "$$candidate" >/dev/null 2>&1 && \
			"$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'make: no Python >= 3.11 with venv found (on Debian: apt-get install python3 python3-venv); or name one: make PYTHON=/path/to/python' >&2; \
		exit 1; \
	fi; \
	echo "making .venv with $$("$$python" --version)"; \
	if [ -x $(BIN)/python ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then :; else "$$python" -m venv --clear .venv; fi
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)
