# Works on a fresh Linux machine with Python 3.11 or newer. The first target installs into .venv; later ones reuse it
# until pyproject.toml or constraints.txt changes.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Each candidate is run, since a name on the path may be a broken shim.
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3
PYTHON := .venv/bin/python
PIP_INSTALL := $(PYTHON) -m pip install --disable-pip-version-check --constraint constraints.txt

# Written last, so that an interrupted install is repeated.
CORE := .venv/.installed
DEV := .venv/.installed-dev

.PHONY: help install install-dev demo test check format help-files pages equality coverage published loading reliability results clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

install: $(CORE) ## install the package and its dependencies into .venv

install-dev: $(DEV) ## install for development, with the tools for tests and checks

demo: $(CORE) ## train on handwritten digits, evaluate, and write a report
	@$(PYTHON) -m vitreous demo

test: $(DEV) ## run all tests
	@$(PYTHON) -m pytest --numprocesses auto --dist worksteal

check: $(DEV) ## check format, lint and types, as CI does
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m pyrefly check

format: $(DEV) ## format the code and apply ruff's fixes
	@$(PYTHON) -m ruff check --fix-only .
	@$(PYTHON) -m ruff format .

help-files: $(DEV) ## update the frozen help texts after an intended change
	@$(PYTHON) -m tests.cli.help_files

pages: $(CORE) ## update the code, shapes, tables and outputs in the docs, and the notebook
	@$(PYTHON) -m docs.include_source
	@$(PYTHON) -m docs.scale_tables
	@$(PYTHON) -m docs.make_notebook

equality: $(CORE) ## measure the difference to the authors' code
	@$(PYTHON) -m benchmarks.equality

coverage: $(DEV) ## load every published ViT of timm and transformers, and compare: ONLY=pattern, WRITE=1 for docs/weights.md
	@$(PYTHON) -W ignore -m benchmarks.coverage $(if $(ONLY),--only '$(ONLY)') $(if $(WRITE),--write)

published: $(DEV) ## download one small checkpoint of each family, and compare with its own library: ONLY=pattern
	@$(PYTHON) -m pytest -q -p no:cacheprovider tests/published/comparisons.py $(if $(ONLY),-k '$(ONLY)')

loading: $(DEV) ## time loading B/16, next to timm, transformers and torchvision
	@$(PYTHON) -m benchmarks.loading

reliability: $(DEV) ## inject faults into training: ONLY=lines or cost, SHORT=1 for few of each, WRITE=1 for docs/reliability.md
	@$(PYTHON) -W ignore -m benchmarks.reliability $(if $(ONLY),--only $(ONLY)) $(if $(SHORT),--short) \
		$(if $(SEED),--seed $(SEED)) $(if $(WRITE),--out docs/reliability.md)

results: $(DEV) ## run unfinished experiments: ONLY=name, DATA=folder of image sets, AGAIN=1 to repeat
	@$(PYTHON) -m experiments $(if $(ONLY),--only '$(ONLY)') $(if $(DATA),--data '$(DATA)') $(if $(AGAIN),--again)

clean: ## remove .venv and caches, but not runs/
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# venv installs pip last, so a .venv without a working pip is incomplete and is created again.
define make_venv
@$(PYTHON) -m pip --version >/dev/null 2>&1 && exit; \
found=; \
for python in $(PYTHONS); do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	found="$$python"; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null && exec "$$python" -m venv --clear .venv; \
done; \
if [ -n "$$found" ]; then echo "error: $$found cannot create a venv; on Debian: apt-get install python3-venv"; \
else echo "error: Python 3.11 or newer is needed, and none was found among: $(PYTHONS)"; fi >&2; exit 1
endef

$(CORE): pyproject.toml constraints.txt
	$(make_venv)
	@$(PIP_INSTALL) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt
	$(make_venv)
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $(CORE) $@
