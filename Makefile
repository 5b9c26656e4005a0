# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Of model families those that are read; mypy is machine code; and the rest is compiled if it is ever imported.
NOT_COMPILED := /tests?/|/transformers/models/(?!(auto|bert|encoder_decoder)/)\w+/|/torch/(_inductor|testing)/
NOT_COMPILED := $(NOT_COMPILED)|/site-packages/(fontTools|mypy|networkx|pip|sentence_transformers|setuptools)/

# Where it is set, each of the processes that the tests start would compile this project's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup quickstart recipe test test-slow test-oldest test-newest fuzz chaos test-all bench check format audit clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 14

setup: $(INSTALLED)  ## a virtual environment with the pinned packages

$(INSTALLED): requirements.txt requirements-optional.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --no-compile -r requirements.txt -r requirements-optional.txt \
		-r requirements-dev.txt
	@# on all cores; pip takes one
	@$(RUN) -m compileall -q -j 0 -x '$(NOT_COMPILED)' $(VENV)/lib > $(VENV)/compiled.log 2>&1 || true
	@touch $@

quickstart: $(INSTALLED)  ## both stages and the comparison on made-up financial news, in minutes on two CPU cores
	$(RUN) run_pretraining.py --recipe recipes/quickstart/pretraining.yaml
	$(RUN) run_sentiment.py --recipe recipes/quickstart/sentiment.yaml
	$(RUN) run_ner.py --recipe recipes/quickstart/ner.yaml
	$(RUN) run_comparison.py --recipe recipes/quickstart/comparison.yaml
	@$(RUN) -m two_stage.results.report outputs/quickstart/pretraining outputs/quickstart/sentiment outputs/quickstart/ner

recipe: $(INSTALLED)  ## your own: NAME=mydomain CORPUS=... and SENTIMENT=... or ENTITIES=..., see docs/your_own_data.md
	$(RUN) recipes/new_recipe.py $(or $(NAME),--help) $(if $(CORPUS),--corpus $(CORPUS)) $(if $(SENTIMENT),--sentiment \
	    $(SENTIMENT)) $(if $(ENTITIES),--entities $(ENTITIES)) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(FLAGS)

test: $(INSTALLED)  ## the fast tests, offline, two to three minutes
	$(RUN) -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(INSTALLED)  ## the tests that start processes or read real data
	$(RUN) -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder --durations 15

# The same environment, with another transformers and what it needs laid over it: no second torch.
define test_on
	rm -rf .transformers-$(1)
	$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --target .transformers-$(1) -r requirements-$(1).txt
	PYTHONPATH=$(CURDIR)/.transformers-$(1) $(RUN) -m pytest -m "not slow" -n 2 --dist loadfile
endef

test-oldest: $(INSTALLED)  ## the fast tests on the oldest transformers that is supported
	$(call test_on,oldest)

test-newest: $(INSTALLED)  ## the fast tests on the newest transformers that is supported
	$(call test_on,newest)

fuzz: $(INSTALLED)  ## the property tests on examples that no run had before
	HYPOTHESIS_PROFILE=random $(RUN) -m pytest -m hypothesis

chaos: $(INSTALLED)  ## 30 SIGKILLs and 10 SIGTERMs at random over a run, which must end as if nothing happened; ten minutes
	$(RUN) -m tests.chaos

test-all: test test-slow  ## every test

bench: $(INSTALLED)  ## speed and memory beside other ways; on a GPU where there is one
	$(RUN) benchmarks/stage_one.py --length 128 --rows 16 --steps 2 --rounds 2
	$(RUN) benchmarks/stage_one.py --length 512 --rows 4 --steps 2 --rounds 2 --measure step memory
	$(RUN) benchmarks/fine_tuning.py --rows 256 --rounds 1
	$(RUN) benchmarks/preprocessing.py --rounds 1
	$(RUN) benchmarks/start_up.py --rounds 2
	$(RUN) benchmarks/growth.py --megabytes 3 10 30 --steps 2

check: $(INSTALLED)  ## lint, format, types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(INSTALLED)  ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

audit: $(INSTALLED)  ## known vulnerabilities of all installed packages; needs the network
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1
	$(RUN) -m pip freeze | sed -E 's/\+[a-z0-9.]+$$//' > .audit/installed.txt
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r .audit/installed.txt

clean:  ## remove what was made, but not the virtual environment
	rm -rf outputs .audit .transformers-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
