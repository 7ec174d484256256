# scentd: `make demo` shows it, `make test` proves it, `make help` lists the rest.
# The environment in .venv is made on the first call and renewed when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.PHONY: help demo check test test-slow bench models substances-50 mixtures-12 paper-50 clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/demo-installed ## watch a simulated board being smelled; ARGS="--plain --seconds 60"
	@$(BIN)/scentd demo $(ARGS)

check: $(VENV)/dev-installed ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check ## everything that should pass before a commit; ARGS="-k ring"
	$(BIN)/pytest -m "not slow" -n 3 --dist loadfile $(ARGS)

test-slow: $(VENV)/dev-installed ## trainings to convergence and soaks
	$(BIN)/pytest -m slow $(ARGS)

bench: $(VENV)/dev-installed ## the figures of the README, on this machine
	$(BIN)/scentd bench $(ARGS)
	$(BIN)/scent-train bench $(ARGS)

models: substances-50 mixtures-12 paper-50 ## train, judge and export the shipped models from SCENTD_DATA

substances-50: RECORDINGS = $(SCENTD_DATA)/smellnet/base
mixtures-12: RECORDINGS = $(SCENTD_DATA)/smellnet/mixture
substances-50 mixtures-12: $(VENV)/dev-installed
	@test -d "$(RECORDINGS)" || { echo "There are no recordings at $(RECORDINGS): name the folder that holds smellnet/ in SCENTD_DATA." >&2; exit 1; }
	@if [ $@ = substances-50 ]; then set -x; \
		$(BIN)/scent-train crossval --config $@ --data $(RECORDINGS) --open-set; fi
	$(BIN)/scent-train crossval --config $@ --data $(RECORDINGS)
	@if [ $@ = substances-50 ]; then set -ex; \
		$(BIN)/scent-train crossval --config $@ --data $(RECORDINGS) --few-shot; \
		$(BIN)/scent-train compare --data $(RECORDINGS) --models trees,trees-published,rocket --run runs/$@; \
		$(BIN)/scent-train audit --data $(RECORDINGS) --model-report runs/$@/crossval.json --run runs/$@; \
		$(BIN)/scent-train trust --config $@ --data $(RECORDINGS); fi
	$(BIN)/scent-train fit --config $@ --data $(RECORDINGS)
	$(BIN)/scent-train export --config $@ --data $(RECORDINGS) --output models/bundles/$@

# The published recipe takes an hour a fold, so one stands for all.
paper-50: RECORDINGS = $(SCENTD_DATA)/smellnet/base
paper-50: $(VENV)/dev-installed
	$(BIN)/scent-train crossval --config $@ --data $(RECORDINGS) --folds 0
	$(BIN)/scent-train fit --config $@ --data $(RECORDINGS)
	$(BIN)/scent-train export --config $@ --data $(RECORDINGS) --output models/bundles/$@

clean: ## remove the environment and every cache; runs/ and its trainings stay
	rm -rf $(VENV) build dist *.egg-info .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scentd needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp is newer than pyproject.toml while its packages are up to date.
$(VENV)/demo-installed: pyproject.toml | $(BIN)/python
	@echo "Installing scentd and its demo into $(VENV) (once) ..." >&2
	@$(PIP) --editable ".[demo]"
	@touch $@

$(VENV)/dev-installed: pyproject.toml tests/constraints.txt | $(BIN)/python
	@echo "Installing scentd, its trainer and its tests into $(VENV) (once; torch is large) ..." >&2
	@$(PIP) --constraint tests/constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/demo-installed
