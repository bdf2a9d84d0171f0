"""The best 1,000 of tens of thousands of documents, by products that are exact: equal to NumPy's to the last bit."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxret.data.beir import BeirFolder
from jaxret.runtime.mesh import device_mesh
from jaxret.search import blocks, exact, on_devices
from jaxret.search.blocks import BlockSizes
from jaxret.search.exact import ExactSearch
from jaxret.search.folder import Folder
from jaxret.search.store import StoredVectors, seal, shard_bounds, write_shard
from jaxret.search.vectors import Vectors

DATA = Path(__file__).parents[2] / "data"
WIDTH, COUNT, QUERIES, K = 64, 30_000, 16, 1000


@pytest.fixture(scope="module")
def corpus():
    """How often each of so many kinds of characters occurs in a sentence of JaQuAD: small integers, many ties."""
    texts = itertools.chain.from_iterable(text.split("。") for text in BeirFolder(DATA / "jaquad").corpus.texts)
    rows = [np.frombuffer(text.encode("utf-32-le"), np.uint32) % WIDTH for text in itertools.islice(texts, COUNT)]
    counts = np.stack([np.bincount(row, minlength=WIDTH) for row in rows]).clip(max=255).astype(np.float32)
    assert len(counts) == COUNT and len(np.unique(counts, axis=0)) < COUNT, "some sentences occur twice"
    return Vectors(dense=counts)


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    for number, (start, stop) in enumerate(shard_bounds(COUNT)):
        ids = [f"{COUNT - row:05d}" for row in range(start, stop)]
        write_shard(Folder(folder), number, ids, corpus.part(start, stop))
    seal(Folder(folder), number + 1, {})
    return StoredVectors(folder)


def test_the_best_thousand_are_numpys(corpus, store, monkeypatch):
    queries = Vectors(dense=corpus.dense[:: COUNT // QUERIES][:QUERIES])
    expected = queries.dense @ corpus.dense.T
    ranked = np.stack([np.lexsort((np.arange(COUNT), -row))[:K] for row in expected])
    best = np.take_along_axis(expected, ranked, axis=1)
    assert (np.diff(best, axis=1) == 0).sum() > K, "ties to be broken"
    monkeypatch.setattr(exact, "fits", lambda *_: False)  # so that a budget means parts
    for devices, documents, held, part in (
        (1, 4096, corpus, None),
        (1, 1000, store, 2 * 10**6),
        (2, 4096, store, None),
        (4, 4096, corpus, None),
        (8, 1024, store, 10**6),
    ):
        monkeypatch.setattr(on_devices, "part_bytes", lambda *_, part=part: part)
        monkeypatch.setitem(blocks.SIZES, "cpu", BlockSizes(documents, 1024, 16))
        mesh = device_mesh((-1, 1, 1), jax.devices()[:devices])
        scores, positions = ExactSearch("dense", held, mesh, K, memory_budget_gb=part and 1)(queries)
        np.testing.assert_array_equal(positions, ranked, err_msg=f"{devices} devices")
        np.testing.assert_array_equal(scores, best, err_msg=f"{devices} devices")
