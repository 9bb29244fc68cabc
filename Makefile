# Everything sets itself up: a virtual environment in .venv, from wheels only.
#   make demo      train, evaluate and reconstruct on embedded photographs
#   make test      the fast tests          make test-all   the slow ones too
#   make check     lint, format and types  make bench      benchmarks against PyTorch

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

.PHONY: demo test test-all check bench clean

$(VENV)/.base: pyproject.toml
	@test -n "$(PYTHON)" || { echo "jaxrecon needs Python 3.11, 3.12 or 3.13 on the path (or PYTHON=/path/to/python)"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --prefer-binary -e .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(RUN) -m pip install --quiet --disable-pip-version-check --prefer-binary -e '.[dev]'
	@touch $@

demo: $(VENV)/.base
	$(RUN) -m jaxrecon.main --config=configs/metahmr.py --workdir=$(DEMO) --mode=train

test: $(VENV)/.test
	$(RUN) -m pytest -q -n 2 --dist loadfile

test-all: $(VENV)/.test
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not gpu"

check: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.test
	$(RUN) -m tests.benchmarks.page

clean:
	rm -rf $(VENV) runs out dist
