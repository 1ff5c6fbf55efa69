# The two commands are `make demo` and `make test`; both set up what they need.

ENGINES ?=
BACKENDS ?=
BIN := .venv/bin

.PHONY: demo test check docs clean help

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo:  ## set up, run a campaign over a fleet of two on this machine, show it; BACKENDS=all
	@tools/setup.sh demo $(BACKENDS)
	@$(BIN)/fleetmark demo $(if $(filter-out all,$(BACKENDS)),--backends $(BACKENDS))

test:  ## set up, lint, type-check and test; ENGINES=all with every engine
	@tools/setup.sh test $(ENGINES)
	@$(MAKE) --no-print-directory check
	@ENGINES=$(ENGINES) $(BIN)/python -m pytest -m "not soak" $(PYTEST_ARGS)

check:  ## lint, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs:  ## write the generated documents again
	@tools/setup.sh test
	@$(BIN)/python tools/generate_docs.py

clean:  ## remove the virtual environment and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
