# Everything a person or a build server does with a checkout. Needs Python 3.11 or 3.12, pip and make.

.DEFAULT_GOAL := help

BIN := .venv/bin
ACCELERATOR := $(or $(CLAASBOT_ACCELERATOR),$(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu))
INSTALLED := .venv/.installed-$(ACCELERATOR)
INSTALLED_TOOLS := .venv/.installed-dev
DATA := $(or $(CLAASBOT_DATA),data/var)
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
export PIP_ROOT_USER_ACTION := ignore

ifeq ($(filter cpu gpu,$(ACCELERATOR)),)
$(error CLAASBOT_ACCELERATOR is "$(ACCELERATOR)", expected cpu or gpu)
endif

.PHONY: help install tools model run demo check test test-unit test-real load faults soak fuzz mutants programs lock audit sbom clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Install the bot, its server and its trainer into .venv (GPU if there is one)

run: install ## Install if needed, then start the bot
	$(BIN)/claasbot run

demo: install ## Watch scripted people teach the bot, beside two control groups
	$(BIN)/claasbot demo

check: tools ## Lint, types, import rules, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -d tests/docs ]; then $(BIN)/python -m pytest tests/docs -q; fi

test: test-unit test-real ## Run every test: the fast ones first, then those with a real server and model

test-unit test-real: export CHROMIUM := $(CHROMIUM)

test-unit: tools programs ## Run the tests that need no server and no model
	$(BIN)/python -m pytest tests --ignore tests/real

test-real: tools programs model ## Run the tests with a real server and a real model
	$(BIN)/python -m pytest tests/real

load: tools ## Print how a simulated Telegram is served: 200 chats at once, then a day in fast-forward
	$(BIN)/python -m tests.chat.load
	$(BIN)/python -m tests.chat.soak

faults: tools programs model ## Kill, fill, cut and corrupt: the fault suite at its full figures; ends with one JSON line of totals
	FAULTS=full $(BIN)/python -m pytest tests/faults tests/real/test_faults.py -q

fuzz: tools programs ## Hostile requests, names and bytes at their full figures: 10,000 cases against the API, 5,000 raw requests
	FAULTS=full $(BIN)/python -m pytest tests/fuzz -q -s

soak: tools ## Talk and teach for MINUTES (30) in real time: memory, descriptors and tasks must stay flat
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),30)

mutants: tools ## Break one line at a time: a named test must notice each
	$(BIN)/python -m tests.mutants

model: install ## Prepare the embedded base model
	$(BIN)/python -m claasbot.training.prepare --to $(DATA)/models/SmolLM2-135M-Instruct

lock: ## Resolve requirements/*.lock anew (needs PyPI)
	$(MAKE) --no-print-directory $(BIN)/python
	$(BIN)/python requirements/lock.py

audit: ## Ask for known advisories against what the locks pin (needs PyPI)
	@$(MAKE) --no-print-directory $(BIN)/python
	$(BIN)/python requirements/audit.py

sbom: tools ## Write what a CPU and a GPU installation are made of as CycloneDX into dist/
	@mkdir -p dist
	for lock in cpu gpu; do \
		$(BIN)/cyclonedx-py requirements requirements/$$lock.lock --pyproject pyproject.toml --output-reproducible \
			-o dist/claasbot-$$lock.cdx.json; \
	done

clean: ## Remove .venv, caches and builds; keeps data/var, which holds people's conversations
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find claasbot tests requirements -name __pycache__ -type d -prune -exec rm -rf {} +

tools: $(INSTALLED_TOOLS)

programs:
	@for program in gcc strace unshare; do \
		command -v $$program >/dev/null || { \
			echo "The fault tests need $$program: apt-get install gcc libc6-dev strace util-linux (or dnf)." >&2; exit 1; \
		}; \
	done
	@if [ -z "$(CHROMIUM)" ]; then \
		echo "The browser tests need Chromium: apt-get install chromium (or dnf), or set CHROMIUM to its path." >&2; \
		exit 1; \
	fi

$(BIN)/python:
	@for python in python3.11 python3.12 python3; do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then \
			echo "install: making .venv with $$($$python --version)"; \
			exec $$python -m venv .venv; \
		fi; \
	done; \
	echo "claasbot needs Python 3.11 or 3.12; none is on the PATH." >&2; exit 1

$(INSTALLED): requirements/$(ACCELERATOR).lock requirements/install.py pyproject.toml | $(BIN)/python
	$(BIN)/python requirements/install.py $(ACCELERATOR)
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

$(INSTALLED_TOOLS): requirements/dev.lock requirements/install.py | $(INSTALLED)
	$(BIN)/python requirements/install.py dev
	@touch $@
