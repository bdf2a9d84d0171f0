# make demo   set-up, then train, search and evaluate a Japanese retriever: about 6 minutes on 2 cores
# make test   set-up, then all tests
# make lint   style and types
# make tpu    compile the programs for real TPU topologies, without a TPU
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LIBTPU := $(VENV)/libtpu

.PHONY: setup demo test lint tpu bench-setup clean
.DELETE_ON_ERROR:

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxret needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup
	$(BIN)/python -m experiments.demo.run --output runs/demo

test: setup
	$(BIN)/pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(LIBTPU)/installed: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(LIBTPU) libtpu==$$($(BIN)/python tests/tpu/libtpu_version.py)
	touch $@

tpu: $(LIBTPU)/installed
	PYTHONPATH=$(LIBTPU) TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu $(BIN)/pytest tests/tpu --tpu

clean:
	rm -rf $(VENV) runs build *.egg-info
