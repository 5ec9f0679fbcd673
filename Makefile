# Targets for people with nothing but Python >= 3.11; each makes the virtual environment it needs, once.
#   make example      reconstruct a procedural capture into out/
#   make train        train a small model on procedural scenes, from novel views to streaming, into out/train
#   make test         run all tests
#   make lint types wheel-check      what continuous integration runs besides
# PYTHON=python3.13 or VENV=elsewhere choose another interpreter or another environment.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
PYTEST_FLAGS ?=
# A look at every run of the chain, some minutes; TRAIN_FLAGS= trains all of it, which takes hours.
TRAIN_FLAGS ?= --max-steps 100

BIN := $(abspath $(VENV))/bin
# Most of the time from a clone to the first result goes into installing torch; uv takes two thirds of pip's.
INSTALL := $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install)
# An editable install sees changed Python files by itself; these need it again.
INSTALL_INPUTS := pyproject.toml $(wildcard setup.py) $(wildcard kernels/*/native/*)

.PHONY: help example train test lint types wheel-check clean
.DELETE_ON_ERROR:

help:
	@sed -n '2,6s/^#//p' Makefile

example: $(VENV)/.installed
	$(BIN)/lrm-ttt reconstruct example -o $(OUT) $(shell sh .ci/overwrite_flag $(OUT))
	@echo "Open $(OUT)/report.html; the Gaussians are in $(OUT)/scene.ply, a flight around them in $(OUT)/video.mp4."

train: $(VENV)/.installed
	$(BIN)/lrm-ttt train configs/train/tiny/chain.yaml -o $(OUT)/train $(TRAIN_FLAGS) $(if $(wildcard $(OUT)/train),--resume)

test: $(VENV)/.installed-test
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/python .ci/check_types.py

wheel-check: $(VENV)/.installed-dev
	$(BIN)/python .ci/check_wheel.py

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lrm-ttt needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(INSTALL_INPUTS)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python $(INSTALL_INPUTS)
	$(INSTALL) --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/bin/python $(INSTALL_INPUTS)
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test
