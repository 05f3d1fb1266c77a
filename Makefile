# make demo [INPUT=my.mp3]   translate a recording into all six domains, on the CPU
# make test                  unit tests and every notebook
# make browser-test          notebooks, widgets and site in a browser, where there is one
# make notebooks             run every notebook and keep what is seen and heard
# make course                the students' version and the teacher's guide
# make site                  the course as a web site, in build/site
# make lint                  style
# make clean                 remove the environment
#
# Each installs what it needs into .venv first, once. PYTHON=python3.12 chooses the interpreter.

INPUT ?= data/examples/whistle.wav
OUT ?= outputs
VENV := .venv
BIN := $(VENV)/bin
SEVEN := $(VENV)/ipywidgets7
# Tests go to whichever process is free; a notebook's cells, in order, to one.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

PACKAGES := 'import sysconfig; print(sysconfig.get_path("purelib"))'
IS_NEW := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" $(IS_NEW) 2>/dev/null && echo "$$p" && break; done)

.PHONY: demo test browser-test browser-tests notebooks course site lint clean

demo: $(VENV)/.installed
	$(BIN)/umt translate "$(INPUT)" --out "$(OUT)"

test: $(VENV)/.installed-test
	@$(PYTEST) --dist worksteal --cov=umtlib --cov-report=term:skip-covered --ignore tests/browser tests umtlib; units=$$?; \
	$(PYTEST) --dist loadfile --nbval-lax --nbval-current-env $(wildcard notebooks/*.ipynb); \
	notebooks=$$?; echo "exit status of the unit tests: $$units, of the notebooks: $$notebooks"; \
	test $$units$$notebooks = 00

notebooks: $(VENV)/.installed-test
	$(BIN)/python scripts/notebooks.py

course: $(VENV)/.installed-test
	$(BIN)/python scripts/course.py

site: $(VENV)/.installed-site
	$(BIN)/python -m sphinx -q -c docs -b html . build/site

# In JupyterLab and Chromium, with ipywidgets 8 and, as on Colab, 7.
browser-test:
	@if { command -v chromedriver && { command -v chromium || command -v google-chrome; }; } >/dev/null; \
	then $(MAKE) browser-tests; \
	else echo "the browser tests are skipped: apt-get install chromium chromium-driver"; fi

browser-tests: $(VENV)/.installed-test $(VENV)/.installed-site $(SEVEN)/.installed
	@$(BIN)/python -m pytest tests/browser; eight=$$?; \
	$(SEVEN)/bin/python -m pytest tests/browser/test_widgets_in_browser.py; seven=$$?; \
	echo "exit status with ipywidgets 8: $$eight, with 7: $$seven"; test $$eight$$seven = 00

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

$(VENV)/.installed-site: pyproject.toml | venv
	$(BIN)/python -m pip install --editable '.[site]'
	@touch $@ $(VENV)/.installed

# An environment that sees all of the first one but for these packages, which have files beside
# their modules.
$(SEVEN)/.installed: $(VENV)/.installed-test
	$(BIN)/python -m venv --clear $(SEVEN)
	echo "import site; site.addsitedir('$$($(BIN)/python -c $(PACKAGES))')" \
	  > "$$($(SEVEN)/bin/python -c $(PACKAGES))/first.pth"
	$(SEVEN)/bin/python -m pip install --no-deps --ignore-installed jupyterlab anywidget \
	  'ipywidgets==7.7.*' 'jupyterlab-widgets==1.*' ipython-genutils
	@touch $@

$(BIN)/ruff: | venv
	$(BIN)/python -m pip install ruff

.PHONY: venv
venv:
	@test -n "$(PYTHON)" && "$(PYTHON)" $(IS_NEW) || { \
	  echo "umtlib needs Python 3.11 or newer, and found none; install it, or say where it is:" \
	       "make demo PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
