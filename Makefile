# make demo [INPUT=my.mp3]   translate a recording into all six domains, on the CPU
# make test                  unit tests and every notebook
# make lint                  style
# make clean                 remove the environment
#
# Each installs what it needs into .venv first, once. PYTHON=python3.12 chooses the interpreter.

INPUT ?= data/examples/whistle.wav
OUT ?= outputs
VENV := .venv
BIN := $(VENV)/bin
# Tests go to whichever process is free; a notebook's cells, in order, to one.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

IS_NEW := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" $(IS_NEW) 2>/dev/null && echo "$$p" && break; done)

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/umt translate "$(INPUT)" --out "$(OUT)"

test: $(VENV)/.installed-test
	@$(PYTEST) --dist worksteal --cov=umtlib --cov-report=term:skip-covered tests umtlib; units=$$?; \
	$(PYTEST) --dist loadfile --nbval-lax --nbval-current-env $(wildcard notebooks/*.ipynb); \
	notebooks=$$?; echo "exit status of the unit tests: $$units, of the notebooks: $$notebooks"; \
	test $$units$$notebooks = 00

lint: $(BIN)/ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV)

# Stamps: an interrupted installation leaves none, and is simply done again.
$(VENV)/.installed: pyproject.toml | venv
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | venv
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(BIN)/ruff: | venv
	$(BIN)/python -m pip install ruff

.PHONY: venv
venv:
	@test -n "$(PYTHON)" && "$(PYTHON)" $(IS_NEW) || { \
	  echo "umtlib needs Python 3.11 or newer, and found none; install it, or say where it is:" \
	       "make demo PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
