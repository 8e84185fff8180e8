# Every target sets itself up in .venv: a fresh machine needs Python 3.11 or newer, and make.
#
#   make demo                      the main job on an8Flower: runs/an8flower/report.html
#   make demo VARIANT=double_12c   the same on the harder variant
#   make test                      the tests
#   make lint                      format, lint and types

PYTHON ?= python3
VARIANT ?= single_6c
OUT ?= runs/an8flower
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.installed
	$(BIN)/python -m experiments.an8flower laptop --variant $(VARIANT) --out $(OUT)

test: .venv/.installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/.installed-test .venv/.installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf .venv dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "vexplain needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
		exit 1; }
	$(PYTHON) -m venv --clear .venv

.venv/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
