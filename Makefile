# The two commands are `make demo` and `make test`; both set up what they need.

ENGINES ?=
BACKENDS ?=
BIN := .venv/bin
# These measure, or have the machine to themselves; all others run beside one another.
APART := integration or chaos or soak

.PHONY: demo test check audit docs sbom deb clean help

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo:  ## set up, run a campaign over a fleet of two on this machine, show it; BACKENDS=all
	@tools/setup.sh demo $(BACKENDS)
	@$(BIN)/fleetmark demo $(if $(filter-out all,$(BACKENDS)),--backends $(BACKENDS))

test:  ## set up, lint, type-check and test; ENGINES=all with every engine
	@tools/setup.sh test $(ENGINES)
	@$(MAKE) --no-print-directory check
	@failed=0; export ENGINES=$(ENGINES); \
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not ($(APART))" || failed=1; \
	$(BIN)/python -m pytest -m "($(APART)) and not soak" || failed=1; \
	exit $$failed

check:  ## lint (security, too), types, layers, known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/audit.py --if-reachable

audit:  ## known vulnerabilities of the pinned packages; fails where no service can be asked
	@tools/setup.sh test
	@$(BIN)/python tools/audit.py

sbom:  ## dist/*.cdx.json: what a device and a centre get, as CycloneDX
	@tools/setup.sh test
	@$(BIN)/python tools/sbom.py

docs:  ## write the generated documents again
	@tools/setup.sh test
	@$(BIN)/python tools/generate_docs.py

deb:  ## the agent as Debian packages for amd64 and arm64, in dist/; WITH=engines ARCH=one
	@tools/build_deb.sh $(if $(WITH),--with $(WITH)) $(if $(ARCH),--arch $(ARCH))

clean:  ## remove the virtual environment and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
