# make demo   set-up, then train, search and evaluate a Japanese retriever: a few minutes on 2 cores
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

DEMO := runs/demo
JAXRET := $(BIN)/jaxret
demo: setup
	$(JAXRET) vocab --data data/jaquad --size 8000 --output $(DEMO)/vocabulary.model
	$(JAXRET) train --gin_file=configs/demo/japanese.gin
	$(JAXRET) evaluate --model $(DEMO)/model --data data/jaquad-dev --split dev --language ja \
	    --systems bm25,multi_vector,fusion --fusion_weight choose --output $(DEMO)/dev
	$(JAXRET) index --model $(DEMO)/model --data data/jsquad --language ja --output $(DEMO)/index
	$(JAXRET) evaluate --model $(DEMO)/model --step 0 --data data/jsquad --language ja \
	    --systems multi_vector --prefix untrained_ --output $(DEMO)
	$(JAXRET) evaluate --model $(DEMO)/model --vectors $(DEMO)/index/vectors --data data/jsquad --language ja \
	    --systems bm25,dense,lexical,multi_vector,fusion --fusion_weight $(DEMO)/dev/fusion.json --output $(DEMO)
	$(JAXRET) report --results $(DEMO) --model $(DEMO)/model --data data/jsquad --output $(DEMO)/report.html

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
