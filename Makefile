# `make help` lists the targets. The environment in .venv is created by the first call and updated
# when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help

# The package's processor, as Debian calls it, and the release of Debian that it is for.
ARCH ?= $(shell dpkg --print-architecture 2>/dev/null)
DEBIAN ?= 12

.PHONY: help demo check test test-slow test-arm64 bench release deb test-deb image app models substances-50 mixtures-12 fruits-5 paper-50 clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/demo-installed ## watch simulated boards being recognised; ARGS="--plain --seconds 60"
	@$(BIN)/scentd demo $(ARGS)

check: $(VENV)/dev-installed ## linters, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check ## check, and the tests that must pass before a commit; ARGS="-k ring"
	$(BIN)/pytest -m "not slow" -n 3 --dist loadfile $(ARGS)

test-slow: $(VENV)/dev-installed ## the slow tests: trainings to convergence and soak tests
	$(BIN)/pytest -m slow $(ARGS)

test-arm64: $(VENV)/dev-installed ## the Debian package on emulated 64-bit Arm; root, about 20 minutes; ARGS="FILE.deb"
	tests/arm64/run $(ARGS)

bench: $(VENV)/dev-installed ## speed and memory on this machine (docs/performance.md)
	$(BIN)/scentd bench $(ARGS)
	$(BIN)/scent-train bench $(ARGS)

models: substances-50 mixtures-12 fruits-5 paper-50 ## train, evaluate and export the shipped models from SCENTD_DATA

substances-50: RECORDINGS = $(SCENTD_DATA)/smellnet/base
mixtures-12: RECORDINGS = $(SCENTD_DATA)/smellnet/mixture
substances-50 mixtures-12: $(VENV)/dev-installed
	@test -d "$(RECORDINGS)" || { echo "There are no recordings at $(RECORDINGS). Set SCENTD_DATA to the folder that holds smellnet/." >&2; exit 1; }
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

# A network of another rig, with whole days held out.
fruits-5: $(VENV)/dev-installed
	@test -d "$(SCENTD_DATA)/rigs/fruits5" || { echo "There are no recordings at $(SCENTD_DATA)/rigs/fruits5. Set SCENTD_DATA to the folder that holds rigs/." >&2; exit 1; }
	$(BIN)/scent-train data import $(SCENTD_DATA)/rigs/fruits5 --format fruits5 --output runs/fruits5
	$(BIN)/scent-train crossval --sessions --config $@ --data runs/fruits5
	$(BIN)/scent-train fit --config $@ --data runs/fruits5
	$(BIN)/scent-train export --config $@ --data runs/fruits5 --output models/bundles/$@

# The published recipe trains for an hour per fold, so only one fold is evaluated.
paper-50: RECORDINGS = $(SCENTD_DATA)/smellnet/base
paper-50: $(VENV)/dev-installed
	$(BIN)/scent-train crossval --config $@ --data $(RECORDINGS) --folds 0
	$(BIN)/scent-train fit --config $@ --data $(RECORDINGS)
	$(BIN)/scent-train export --config $@ --data $(RECORDINGS) --output models/bundles/$@

release: $(VENV)/dev-installed ## build the wheel, and a file of every model for `scentd models install`
	$(BIN)/python -m build --wheel --outdir dist
	@for bundle in models/bundles/*/; do \
		name=$$(basename $$bundle); case $$name in _*) continue ;; esac; \
		version=$$(sed -n 's/^version: //p' $$bundle/manifest.yaml); \
		tar -czf dist/$$name-$$version.tar.gz -C models/bundles $$name && echo dist/$$name-$$version.tar.gz; done

deb: ## build the Debian package into dist/; ARCH=arm64 DEBIAN=13
	PYTHON=$(PYTHON) packaging/build-deb --arch $(ARCH) --debian $(DEBIAN)

test-deb: deb ## install, use, upgrade, remove and purge the package in a clean Debian, without and with systemd (root; minutes)
	packaging/try-deb --debian $(DEBIAN) dist/scentd_*+deb$(DEBIAN)_$(ARCH).deb
	packaging/try-deb-booted --debian $(DEBIAN) dist/scentd_*+deb$(DEBIAN)_$(ARCH).deb

# The program that builds images; ARGS are further options, such as --platform linux/arm64.
IMAGE_BUILD ?= $(if $(shell command -v docker),docker build,podman build --format docker)

image: ## build the container image; IMAGE_BUILD="podman build --format docker"
	$(IMAGE_BUILD) --file packaging/container/Containerfile --tag localhost/scentd $(ARGS) .

APP := dist/home-assistant

app: $(VENV)/demo-installed ## put the app for Home Assistant together in dist/home-assistant
	rm -rf $(APP)
	mkdir -p dist && cp -r packaging/home-assistant $(APP)
	$(BIN)/python -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir $(APP)/scentd/packages .
	cp systemd/requirements.txt systemd/requirements-web.txt packaging/make-environment.sh packaging/trim-environment $(APP)/scentd/packages/

clean: ## remove the environment and all caches; runs/ and its trainings stay
	rm -rf $(VENV) build dist *.egg-info .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scentd needs Python 3.11 or newer. Name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# These files are newer than pyproject.toml while the installed packages are up to date.
$(VENV)/demo-installed: pyproject.toml | $(BIN)/python
	@echo "Installing scentd and its demo into $(VENV) ..." >&2
	@$(PIP) --editable ".[demo]"
	@touch $@

$(VENV)/dev-installed: pyproject.toml tests/constraints.txt | $(BIN)/python
	@echo "Installing scentd, its trainer and its tests into $(VENV) (torch is large) ..." >&2
	@$(PIP) --constraint tests/constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/demo-installed
