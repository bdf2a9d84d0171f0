"""What the tests of both reduced searches share."""

import jax
import numpy as np
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.search import blocks, query_batches
from jaxret.search.blocks import BlockSizes
from jaxret.search.exact import ExactSearch
from jaxret.search.reduced import ReducedSearch

WIDTH, QUERIES = 24, 11


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setitem(blocks.SIZES, "cpu", BlockSizes(documents=64, tile_tokens=128, tiles=2))
    monkeypatch.setattr(query_batches, "BATCH", (2, 4))
    monkeypatch.setattr(ReducedSearch, "pays", classmethod(lambda *_: True))


def normal(rows, seed):
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def one_cpu(mode, corpus, k, **settings):
    search = ExactSearch(mode, corpus, device_mesh((1, 1, 1), jax.devices()[:1]), k, **settings)
    assert isinstance(search._searched, ReducedSearch)
    return search


def both(mode, corpus, queries, k, lanes=2, share=(0, 1)):
    """The reduced search, its results, and those of the search in float32."""
    search = one_cpu(mode, corpus, k, share=share)
    scan = search._searched
    scan._lanes = lanes
    found = search(queries)
    search._searched = scan._plain
    return scan, found, search(queries)


def assert_same(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[0].tobytes() == expected[0].tobytes()
