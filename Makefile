# Everything from a fresh Linux machine with Python 3.11 or newer: the first call makes .venv and installs into it,
# later calls go straight to work, until pyproject.toml or constraints.txt changes.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A name on the path may be a shim without a Python behind it, so each candidate is run.
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3
PYTHON := .venv/bin/python
PIP_INSTALL := $(PYTHON) -m pip install --disable-pip-version-check --constraint constraints.txt

# A stamp is written last: an install that was interrupted has none, and is done again.
CORE := .venv/.installed
DEV := .venv/.installed-dev

.PHONY: help install install-dev demo test check format help-files pages equality loading results clean

help: ## show these lines
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

install: $(CORE) ## the package and what it needs, into .venv

install-dev: $(DEV) ## the same with what tests and checks need

demo: $(CORE) ## train on real handwritten digits, evaluate, look inside
	@$(PYTHON) -m vitreous demo

test: $(DEV) ## every test
	@$(PYTHON) -m pytest --numprocesses auto --dist worksteal

check: $(DEV) ## format, lint and types, as CI has them
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m pyrefly check

format: $(DEV) ## format the code and fix what ruff can
	@$(PYTHON) -m ruff check --fix-only .
	@$(PYTHON) -m ruff format .

help-files: $(DEV) ## freeze the command line's help anew, after a change on purpose
	@$(PYTHON) -m tests.cli.help_files

pages: $(CORE) ## renew the code, shapes and outputs in the documents, and the notebook
	@$(PYTHON) -m docs.include_source
	@$(PYTHON) -m docs.make_notebook

equality: $(CORE) ## measure the distance to the authors' own code
	@$(PYTHON) -m benchmarks.equality

loading: $(DEV) ## measure how long loading B/16 takes, beside timm, transformers and torchvision
	@$(PYTHON) -m benchmarks.loading

results: $(DEV) ## run the experiments that are not finished: ONLY=name for one, DATA=folder of image sets, AGAIN=1
	@$(PYTHON) -m experiments $(if $(ONLY),--only '$(ONLY)') $(if $(DATA),--data '$(DATA)') $(if $(AGAIN),--again)

clean: ## remove .venv and the caches; runs/ stays
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The last thing that venv makes is pip, so a .venv without a working pip is half made, and made anew.
define make_venv
@$(PYTHON) -m pip --version >/dev/null 2>&1 && exit; \
found=; \
for python in $(PYTHONS); do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	found="$$python"; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null && exec "$$python" -m venv --clear .venv; \
done; \
if [ -n "$$found" ]; then echo "error: $$found cannot make a venv; on Debian: apt-get install python3-venv"; \
else echo "error: Python 3.11 or newer is needed, and none of these is: $(PYTHONS)"; fi >&2; exit 1
endef

$(CORE): pyproject.toml constraints.txt
	$(make_venv)
	@$(PIP_INSTALL) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt
	$(make_venv)
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $(CORE) $@
