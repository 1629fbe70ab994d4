# Every target is fine on its own on a bare machine: it makes the virtual environment and installs what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := contract trainer serving monitor dashboards deploy
export ORT_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: help demo demo-dashboards test test-quick lint types imports docs clean system-packages fuzz-serving

help: ## show this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Clipdrift needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; torch and evidently take a minute or two) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: $(VENV)/.runtime ## the whole loop on real flights of 2013: four minutes on two cores
	@$(BIN)/clipdrift demo --out build/demo $(DEMO_FLAGS)

demo-dashboards: $(VENV)/.dev ## the demo's year in a real Prometheus, its dashboards in a browser or in your Grafana (GRAFANA_URL)
	@test -f build/demo/metrics.om || $(MAKE) demo
	@$(BIN)/python -m clipdrift_deploy.demo_dashboards build/demo/metrics.om

test: lint types imports system-packages ## everything: lint, types, import contracts, doctests, unit, conformance, system
	@$(BIN)/python tests/run.py all

test-quick: $(VENV)/.dev ## what needs no server: about five minutes on two cores
	@$(BIN)/python tests/run.py quick

lint: $(VENV)/.dev ## ruff: rules and layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

types: $(VENV)/.dev ## mypy --strict
	@$(BIN)/mypy $(foreach c,$(SOURCES),$(c)/clipdrift_$(c))

imports: $(VENV)/.dev ## no component imports another
	@$(BIN)/lint-imports --verbose > build-imports.log 2>&1 || { cat build-imports.log; rm -f build-imports.log; exit 1; }
	@tail -n 4 build-imports.log; rm -f build-imports.log

system-packages: $(VENV)/.dev ## Debian packages that marked tests start as servers
	@tests/system-packages.sh

docs: $(VENV)/.dev ## write the generated pages: events, metrics, settings, command, dashboards
	@$(BIN)/python -m clipdrift_contract.docs
	@$(BIN)/python -m clipdrift_deploy.docs
	@$(BIN)/clipdrift dashboards build

bench-%: $(VENV)/.dev ## run bench/NAME.py; its last line is one JSON object
	@$(BIN)/python bench/$(subst -,_,$*).py

fuzz-serving: $(VENV)/.dev ## ten minutes of broken requests against a real server
	@$(BIN)/python tests/serving/fuzz/fuzz.py --seconds 600 --seed 1

clean: ## remove what was built (not the virtual environment)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
