# make demo: install cvstyle into .venv and stylise the bundled photograph into out.png
# make test: install what the tests need as well, and run them
# make bench: the benchmarks (PyTorch is used beside cvstyle where it is installed)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find cvstyle kernels models -type f -not -name '*.pyc')

.PHONY: demo test bench lint clean

demo: $(VENV)/installed
	$(BIN)/cvstyle run --content models/demo/content.jpg --style models/demo/style.jpg --output out.png

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/pytest

bench: $(VENV)/installed
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/iteration.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian: apt-get install python3-venv"; exit 1; }

# The wheel is what users get, so the demo and the tests use it rather than an editable install.
$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	touch $@
