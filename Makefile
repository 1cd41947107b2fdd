# `make` lists what there is. Everything runs in the project's own environment, .venv, which is set up when it is needed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup book test unit lab serve handout record reproduce bench lint format sync clean clean-all lock

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then echo $$p; break; fi; done)
SCALE ?= full
PORT ?= 8000
ifeq ($(OS),Windows_NT)
PY := .venv/Scripts/python
else
PY := .venv/bin/python
endif
# Packages are compiled once, not anew in each process, whatever the machine is set to.
unexport PYTHONDONTWRITEBYTECODE
# Where the time went, on the last line of a target. `set -e` fails a recipe where make is too old for .SHELLFLAGS (macOS's 3.81).
START = set -e; started=$$SECONDS;
DONE = echo "make $@: done in $$((SECONDS - started)) s"

help:  ## this list
	@echo "Transfer Learning in Neural Networks: an executable course"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  while IFS=$$'\t' read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done
	@echo
	@echo "  Scales: TL_SCALE=quick (default, no network), laptop, full.  Example: TL_SCALE=laptop make book"

setup:  ## set up .venv (every other target does so by itself)
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11, 3.12 or 3.13 found. Install one, or say where: make PYTHON=/path/to/python3.12"; exit 1; fi
	@$(PYTHON) tools/environment.py

book: setup  ## build the website into _build/html, running every notebook
	@$(START) $(PY) tools/build_book.py; $(DONE)

test: setup  ## unit tests, every notebook, a strict site build, the site in a browser
	@$(START) $(PY) tools/run_tests.py; $(DONE)

unit: setup  ## the unit tests alone
	@$(START) $(PY) -m pytest -n 2 --ignore=tests/test_site.py --ignore=tests/test_notebooks.py --ignore=tests/test_typed_results.py tests; $(DONE)

lab: setup  ## open the notebooks in JupyterLab
	@echo "JupyterLab opens in your browser; stop it with Ctrl-C."
	@$(PY) -m jupyter lab book

serve: setup  ## show the built website at http://localhost:8000 (PORT=...)
	@test -f _build/html/index.html || { echo "Nothing built yet: run 'make book' first."; exit 1; }
	@echo "The site: http://localhost:$(PORT)   (stop with Ctrl-C)"
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

handout: setup  ## write NOTEBOOK=book/... (one or several) for students into handouts/: no solutions
	@test -n "$(NOTEBOOK)" || { echo "Which notebook? For example: make handout NOTEBOOK=book/math/descending.ipynb"; exit 1; }
	@$(START) $(PY) tools/handout.py $(if $(EXECUTED),--executed "$(EXECUTED)") $(NOTEBOOK); $(DONE)

record: setup  ## run NOTEBOOK=book/... (one or several) as committed, at SCALE=full, and add the run records
	@test -n "$(NOTEBOOK)" || { echo "Which notebook? For example: make record NOTEBOOK=book/math/descending.ipynb SCALE=full"; exit 1; }
	@$(START) $(PY) tools/record.py --scale $(SCALE) $(NOTEBOOK); $(DONE)

reproduce: setup  ## run EXPERIMENT=... again (at TL_SCALE, or SCALE=...) and say whether it fell inside its band
	@test -n "$(EXPERIMENT)" || { echo "Which experiment? For example: make reproduce EXPERIMENT=$$(ls tl_helpers/records | sed -n 's/\.jsonl$$//p' | head -1)"; exit 1; }
	@$(START) $(PY) -m tl_helpers reproduce "$(EXPERIMENT)" $(if $(filter command line,$(origin SCALE)),--scale $(SCALE)); $(DONE)

bench: setup  ## cost ratios, measured side by side (features, program, fit)
	@$(START) $(PY) tools/bench.py; $(DONE)

lint: setup  ## check style and that notebooks are stripped
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) tools/sync.py --check

format: setup  ## put code and notebooks into the project's form
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format . && $(PY) tools/sync.py

sync: setup  ## carry the repository's address and the first cells into every file
	@$(PY) tools/sync.py

lock: setup  ## rewrite requirements.txt with the newest versions
	@$(PYTHON) tools/environment.py --lock

clean:  ## remove what was built
	rm -rf _build .cache dist build *.egg-info .pytest_cache .ruff_cache

clean-all: clean  ## remove the environment too
	rm -rf .venv
