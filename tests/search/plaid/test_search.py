import dataclasses

import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.ops.topk import EMPTY
from jaxret.runtime.mesh import device_mesh
from jaxret.search.plaid import search
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.shards import held_bytes, shards
from jaxret.search.plaid.stages import UNPRUNED, Pruning, published_pruning
from jaxret.search.vectors import Ragged
from tests.search.plaid.conftest import built, clustered


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(search, "QUERY_BATCH", 4)


@pytest.fixture(scope="module")
def index(folder):
    return PlaidIndex.load(folder)


def mesh(devices):
    return device_mesh((-1, 1, 1), jax.devices()[:devices])


def unpacked(index):
    """The bucket of each value, out of the bits as they lie in the file."""
    bits = np.unpackbits(index.residuals, axis=1).reshape(len(index.codes), -1, index.codec.nbits)
    return (bits * 2 ** np.arange(index.codec.nbits)).sum(-1)


def plain(index):
    """Every document's vectors by the published formula, in float64."""
    vectors = index.codec.centroids[index.codes].astype(np.float64) + index.codec.weights[unpacked(index)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [vectors[a:b] for a, b in zip(index.starts, index.starts[1:], strict=False)]


def oracle(index, query, k, pruning):
    """(score, position) of one query's results: each stage of the paper, one document at a time."""
    codes = [index.codes[a:b] for a, b in zip(index.starts, index.starts[1:], strict=False)]
    order = sorted((row for row in range(len(index)) if len(codes[row])), key=lambda row: (len(codes[row]), row))
    table = query.astype(np.float64) @ index.codec.centroids.astype(np.float64).T

    def best(rows, scores, count):
        return [row for _, _, row in sorted((-scores(row), place, row) for place, row in enumerate(rows))[:count]]

    if pruning.ncells:
        cells = {int(c) for row in table for c in np.argsort(-row, kind="stable")[: pruning.ncells]}
        order = [row for row in order if cells & set(codes[row].tolist())]
        near = table.max(0) >= pruning.centroid_score_threshold
        first = best(
            order,
            lambda row: table[:, [c for c in codes[row] if near[c]]].max(1).sum() if near[codes[row]].any() else -1e9,
            pruning.ndocs,
        )
        first = [row for row in order if row in set(first)]
        order = best(first, lambda row: table[:, codes[row]].max(1).sum(), pruning.ndocs // 4)
    vectors = plain(index)
    scored = [(-round(float((query @ vectors[row].T).max(1).sum()), 9), row) for row in order]
    return [(-score, row) for score, row in sorted(scored)[:k]]


def check(index, queries, k, pruning, devices=1):
    scores, positions = PlaidSearch(index, mesh(devices), k, pruning)(queries)
    for row in range(len(queries)):
        expected = oracle(index, queries.tokens.row(row), k, pruning)
        assert positions[row].tolist() == [p for _, p in expected] + [EMPTY] * (k - len(expected))
        np.testing.assert_allclose(scores[row][: len(expected)], [s for s, _ in expected], rtol=1e-5)
        assert np.all(scores[row][len(expected) :] == -np.inf)
    return scores, positions


def test_without_pruning_the_results_are_those_of_maxsim_over_all_decompressed_vectors(index, queries):
    check(index, queries, 59, UNPRUNED)
    scores, positions = PlaidSearch(index, mesh(1), 61, UNPRUNED)(queries)
    assert np.all(positions[:, 59:] == EMPTY) and np.all(scores[:, 59:] == -np.inf), "documents without tokens"


@pytest.mark.parametrize(
    ("k", "pruning"),
    [
        (3, Pruning(1, 0.5, 12)),  # both cuts
        (2, Pruning(2, 0.97, 8)),  # hardly a centroid is near: documents without one come last, not never
        (10, Pruning(1, 0.5, 256)),  # no cut
        (5, Pruning(64, -9.0, 40)),  # more cells than centroids; a threshold that lets all pass
    ],
)
def test_each_stage_equals_a_plain_loop(index, queries, k, pruning):
    check(index, queries, k, pruning)


@pytest.mark.parametrize("pruning", [Pruning(1, 0.5, 12), UNPRUNED])
def test_any_number_of_devices_gives_the_same_bits(index, queries, pruning):
    one = PlaidSearch(index, mesh(1), 3, pruning)(queries)
    eight = PlaidSearch(index, mesh(8), 3, pruning)(queries)
    for a, b in zip(one, eight, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ties_go_by_position(index, queries):
    copies = set(range(0, 61, 7))
    scores, positions = PlaidSearch(index, mesh(1), 59, UNPRUNED)(queries)
    for row, ranked in zip(scores, positions.tolist(), strict=True):
        places = [place for place, position in enumerate(ranked) if position in copies]
        assert [ranked[place] for place in places] == sorted(copies)
        assert len(set(row[places].tolist())) == 1


@pytest.mark.parametrize("nbits", [1, 4])
def test_other_bits(tmp_path, queries, nbits):
    index = PlaidIndex.load(built(tmp_path / "plaid", clustered(20, 3), nbits=nbits))
    check(index, queries, 3, Pruning(1, 0.5, 12))


def test_one_document_on_eight_devices(tmp_path, queries):
    index = PlaidIndex.load(built(tmp_path / "plaid", clustered(1, 3, longest=1)))
    assert len(index.codec.centroids) == 1, "k-means makes no more centroids than vectors"
    check(index, queries, 1, Pruning(1, 0.5, 4), devices=8)


def test_published_settings():
    assert [published_pruning(k) for k in (10, 100, 1000, 2000)] == [
        Pruning(1, 0.5, 256),
        Pruning(2, 0.45, 1024),
        Pruning(4, 0.4, 4096),
        Pruning(4, 0.4, 8000),
    ]


@pytest.mark.parametrize(
    ("k", "change", "problem"),
    [
        (0, {}, "k: 0 results of a corpus of 61"),
        (62, {}, "k: 62 results of a corpus of 61"),
        (3, {"ndocs": 11}, "ndocs: 11 documents pass.*Give 12 or more"),
        (3, {"ncells": -1}, "ncells: -1"),
    ],
)
def test_wrong_settings_are_named(index, k, change, problem):
    with pytest.raises(InputError, match=problem):
        PlaidSearch(index, mesh(1), k, dataclasses.replace(published_pruning(10), **change))


def test_a_budget_that_the_corpus_does_not_fit_is_refused_with_what_it_needs(index, queries):
    with pytest.raises(InputError, match=r"memory_budget_gb: 0\.1 GB, where the process holds .* needs .*Give \d"):
        PlaidSearch(index, mesh(1), 3, memory_budget_gb=0.1)
    roomy = PlaidSearch(index, mesh(1), 3, memory_budget_gb=50)(queries)
    np.testing.assert_array_equal(roomy[1], PlaidSearch(index, mesh(1), 3)(queries)[1])


def test_what_is_held_is_what_the_budget_counts(index):
    arrays = jax.tree.leaves(shards(index, 1))
    assert sum(array.nbytes for array in arrays) <= held_bytes(index) + 8 * len(index.codec.centroids)


def test_queries_that_are_not_finite_are_named(index, queries):
    broken = dataclasses.replace(queries, tokens=Ragged(queries.tokens.values.copy(), queries.tokens.offsets))
    broken.tokens.values[queries.tokens.offsets[3]] = np.nan
    with pytest.raises(InputError, match=r"^query 3: tokens holds NaN"):
        PlaidSearch(index, mesh(1), 2)(broken)
