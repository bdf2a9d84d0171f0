"""Strict by default: 8 emulated devices, no silent broadcasting, shapes and types checked, warnings are errors."""

# ruff: noqa: E402 (the environment comes before jax)

import gc
import json
import os
import shutil
import sys
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Most of a test's time is compilation, of programs that run once.
# Eight devices on a busy machine may wait for each other for longer than XLA allows, which then ends the process.
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600 --xla_cpu_collective_timeout_seconds=600"
)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
# Where each operation was written, ten calls deep, is a quarter of that; one call is what `runtime.compiled` reads.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["JAXRET_CACHE"] = ""  # what an earlier run compiled must not help a test
# What one test or process has compiled, another need not: a cache for this run, its workers and their children.
# Programs for a TPU that is not there cannot be kept.
FIRST = "JAX_COMPILATION_CACHE_DIR" not in os.environ and "--tpu" not in sys.argv
if FIRST:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxret-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from tests import typechecks

typechecks.install("jaxret")

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir

jax.config.update("jax_numpy_rank_promotion", "raise")
if "--tpu" not in sys.argv:
    # For each program JAX makes a new MLIR context with all its dialects: a sixth of what compiling a small one costs.
    mlir.make_ir_context = cache(mlir.make_ir_context)

if find_spec("hypothesis"):  # which the environments of the live comparisons lack
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]


LIVE = {"reference": "_live", "pylate": "_pylate"}  # endings of files that import that environment's packages


def pytest_addoption(parser: pytest.Parser) -> None:
    """Other suites in other environments: `make tpu` gives --tpu (libtpu), `make parity` --parity (torch)."""
    parser.addoption("--tpu", action="store_true", help="collect tests/tpu")
    parser.addoption("--parity", choices=tuple(LIVE), help="collect the live comparisons of that environment alone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that no worker still has one when the other is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The garbage collector need not look through what is imported, nor often through the rest: a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Drops the cache where it was made."""
    if FIRST:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves each suite to the command that sets up its environment."""
    if collection_path == ROOT / "tests" / "tpu":
        return None if config.getoption("--tpu") else True
    if not collection_path.name.startswith("test_"):
        return None
    environments = [name for name, ending in LIVE.items() if collection_path.stem.endswith(ending)]
    return None if environments == [name for name in (config.getoption("--parity"),) if name] else True


COMPILED = "/jax/core/compile/backend_compile_duration"
ANIMALS = ("cat", "dog", "owl", "fox", "hen", "pig", "ant", "bee")
PLACES = ("in the garden", "on the hill", "by the river", "under a tree, alone")
DOCUMENTS = [
    (
        f"{animal}{number}",
        animal,
        f"The {animal} sleeps {place}. {'It dreams of rain and of bread. ' * (number % 3)}".strip(),
    )
    for animal in ANIMALS
    for number, place in enumerate(PLACES)
]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def random_params() -> Callable[..., Any]:
    """Fills parameters with random numbers of a size that lets every one of them matter."""

    def fill(params: Any, seed: int = 0) -> Any:
        random = np.random.default_rng(seed)

        def filled(x: Any) -> jax.Array:
            width = x.shape[-2] if x.ndim > 1 else 1
            return jax.numpy.asarray(np.asarray(random.normal(size=x.shape) / np.sqrt(width) + (x.ndim == 1), x.dtype))

        return jax.tree.map(filled, params)

    return fill


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """A list that grows with every program that is compiled."""
    found: list[str] = []

    def listen(event: str, *_: object, **__: object) -> None:
        if event == COMPILED:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def beir_of_animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of 32 documents, each with one training query."""
    folder = tmp_path_factory.mktemp("animals")
    (folder / "qrels").mkdir()
    rows = [{"_id": name, "title": title, "text": text} for name, title, text in DOCUMENTS]
    queries = [{"_id": f"q{name}", "text": f"where is the {title}? {name}"} for name, title, _ in DOCUMENTS]
    for file, records in (("corpus", rows), ("queries", queries)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pairs = "".join(f"q{name}\t{name}\t1\n" for name, _, _ in DOCUMENTS)
    (folder / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{pairs}")
    return folder


@pytest.fixture(scope="session")
def groups_of_animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored ColBERT file of groups over the animals: each query with its document and three of other animals."""
    file = tmp_path_factory.mktemp("groups") / "groups.jsonl"
    names = [name for name, _, _ in DOCUMENTS]
    step = len(PLACES)
    rows = [
        [f"q{name}", *([names[(row + n * step) % len(names)], 1.5 - n] for n in range(4))]
        for row, name in enumerate(names)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where `gs://bucket` leads to."""
    from tests.fake_storage import FakeStorage

    storage = FakeStorage("bucket")
    with storage.running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield storage


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A vocabulary of some 300 ids, most of them bytes."""
    from jaxret.data.tokenizer import Tokenizer, trained_vocabulary

    return Tokenizer(trained_vocabulary([text for _, _, text in DOCUMENTS], 300))


@pytest.fixture(scope="session")
def model(tokenizer: Any) -> Any:
    """A tiny retriever with all three heads."""
    from jaxret.data.text import TextConfig
    from jaxret.nn.config import EncoderConfig
    from jaxret.nn.retriever import RetrieverConfig
    from jaxret.runtime.model import Model

    encoder = EncoderConfig(vocab_size=tokenizer.size, width=16, num_layers=2, num_heads=2, mlp_width=12)
    config = RetrieverConfig(
        encoder, dense_layers=(8,), token_layers=(6,), skip_ids=tuple(sorted(tokenizer.skiplist()))
    )
    return Model(config, TextConfig(query_max_len=10, passage_max_len=40), tokenizer)
