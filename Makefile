# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: help setup quickstart test test-slow fuzz test-all check format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 14

setup: $(INSTALLED)  ## a virtual environment with the pinned packages

$(INSTALLED): requirements.txt requirements-optional.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -r requirements.txt -r requirements-optional.txt \
		-r requirements-dev.txt
	@touch $@

quickstart: $(INSTALLED)  ## both stages and the comparison on made-up financial news, in minutes on two CPU cores
	$(RUN) run_pretraining.py --recipe recipes/quickstart/pretraining.yaml
	$(RUN) run_sentiment.py --recipe recipes/quickstart/sentiment.yaml
	$(RUN) run_ner.py --recipe recipes/quickstart/ner.yaml
	$(RUN) run_comparison.py --recipe recipes/quickstart/comparison.yaml
	@$(RUN) -m two_stage.report outputs/quickstart/pretraining outputs/quickstart/sentiment outputs/quickstart/ner

test: $(INSTALLED)  ## the fast tests, offline, under two minutes
	$(RUN) -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(INSTALLED)  ## the tests that start processes or read real data
	$(RUN) -m pytest -m slow

fuzz: $(INSTALLED)  ## the property tests on examples that no run had before
	HYPOTHESIS_PROFILE=random $(RUN) -m pytest -m hypothesis

test-all: test test-slow  ## every test

check: $(INSTALLED)  ## lint, format, types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(INSTALLED)  ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove what was made, but not the virtual environment
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis
