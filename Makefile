# Every target sets itself up in .venv: a fresh machine needs Python 3.11 or newer, and make.
#
#   make demo                      the main job on an8Flower: runs/an8flower/report.html
#   make demo VARIANT=double_12c   the same on the harder variant
#   make test                      the tests
#   make lint                      format, lint and types
#   make docs                      the documentation: docs/_build/html/index.html
#   make fuzz N=1000               so many random networks against what is known of them, damaged files of every format
#   make parity                    logits and maps against torchvision, timm, Captum and pytorch-grad-cam (in .venv-parity)
#   make zoo                       layers, maps and guided gradients of the networks of other packages (in .venv-zoo)
#   make rivals                    the mu-lasso beside seven other solvers (in .venv-rivals and .venv-adelie)
#   make suite                     the metrics of explanations beside those of Quantus (in .venv-quantus)
#   make device                    all that is measured on a GPU, in 10 minutes: runs/device/device.json
#   make references                makes again what the tests compare with, by the same libraries

PYTHON ?= python3
VARIANT ?= single_6c
OUT ?= runs/an8flower
DEVICE_OUT ?= runs/device
N ?= 1000
# for CPUs: the PyTorch for Linux that PyPI has brings 4 GB of CUDA along
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin

.PHONY: demo test fuzz lint docs clean parity references device zoo rivals suite

demo: .venv/.installed
	$(BIN)/python -m experiments.an8flower laptop --variant $(VARIANT) --out $(OUT)

test: .venv/.installed-test
	@$(BIN)/python -c 'import platform, jax; print("Python", platform.python_version() + ", jax", jax.__version__)'
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

fuzz: .venv/.installed-test
	$(BIN)/python -m tests.transforms.fuzz --number $(N)
	$(BIN)/python -m tests.files.fuzz --number $(N)

parity: .venv-parity/.installed
	.venv-parity/bin/python -m benchmarks.parity

zoo: .venv-zoo/.installed
	.venv-zoo/bin/python -m benchmarks.zoo

rivals: .venv/.installed-test .venv-rivals/.installed .venv-adelie/.installed
	$(BIN)/python -m benchmarks.rivals

suite: .venv-quantus/.installed
	.venv-quantus/bin/python -m benchmarks.suite

device: .venv/.installed-device
	$(BIN)/python -m benchmarks.device accelerator --out $(DEVICE_OUT)

references: .venv-parity/.installed
	.venv-parity/bin/python -m tests.references.make_references

lint: .venv/.installed-test .venv/.installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf .venv .venv-parity .venv-zoo .venv-rivals .venv-adelie .venv-quantus .compiled dist docs/_build

.venv-parity/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-parity
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) torch torchvision \
		|| echo "no PyTorch for CPUs from $(TORCH_INDEX): taking that of PyPI, with 4 GB of CUDA"
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[parity]'
	@touch $@

.venv-quantus/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-quantus
	.venv-quantus/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) torch \
		|| echo "no PyTorch for CPUs from $(TORCH_INDEX): taking that of PyPI, with 4 GB of CUDA"
	.venv-quantus/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[suite]'
	@touch $@

# eqxvision declares PyTorch, which it needs to read weights only
.venv-zoo/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-zoo
	.venv-zoo/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[zoo]'
	.venv-zoo/bin/python -m pip install --quiet --disable-pip-version-check --no-deps eqxvision==0.2.8
	@touch $@

# vexplain itself needs NumPy 2, and is not installed beside adelie
.venv-rivals/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-rivals
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[rivals]'
	@touch $@

.venv-adelie/.installed: | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-adelie
	.venv-adelie/bin/python -m pip install --quiet --disable-pip-version-check 'numpy<2' adelie==1.1.52
	@touch $@

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
