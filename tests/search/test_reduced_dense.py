"""The scan in bfloat16 gives the bits of the search in float32."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.search import exact, query_batches, reduced, reduced_dense
from jaxret.search.dtypes import decoded, stored_as
from jaxret.search.exact import ExactSearch
from jaxret.search.reduced_dense import ReducedDense
from jaxret.search.vectors import Vectors
from tests.search import reduced_cases
from tests.search.reduced_cases import QUERIES, WIDTH, assert_same, normal, small_blocks  # noqa: F401

DOCUMENTS = 1000
PAYS = ReducedDense.pays


def near_ties():
    """Nine in ten documents differ from the first by less than bfloat16 can tell."""
    corpus = normal(DOCUMENTS, 1)
    corpus[0] *= 5
    near = np.arange(DOCUMENTS) % 10 > 0
    corpus[near] = (corpus[0] * (1 + 1e-5 * normal(DOCUMENTS, 2)))[near]
    return corpus


def rising():
    """Along one direction, each document further than the one before."""
    return (np.arange(1, DOCUMENTS + 1, dtype=np.float32)[:, None] / DOCUMENTS) * np.abs(normal(1, 3))


CORPORA = {
    "random": lambda: normal(DOCUMENTS, 1),
    "integers": lambda: np.random.default_rng(1).integers(-2, 3, (DOCUMENTS, WIDTH)).astype(np.float32),
    "one document": lambda: np.tile(normal(1, 1), (DOCUMENTS, 1)),
    "copies": lambda: np.repeat(normal(DOCUMENTS // 20, 1), 20, axis=0),
    "near ties": near_ties,
    "rising": rising,
    "falling": lambda: rising()[::-1].copy(),
    "zeros": lambda: np.zeros((DOCUMENTS, WIDTH), np.float32),
    "one long": lambda: normal(DOCUMENTS, 1) * np.where(np.arange(DOCUMENTS) == 7, 1e4, 1)[:, None].astype(np.float32),
    "tiny": lambda: normal(DOCUMENTS, 1) * np.float32(1e-30),
    "huge": lambda: normal(DOCUMENTS, 1) * np.float32(1e30),
}


both = partial(reduced_cases.both, "dense")


def ranked(corpus, queries, k):
    """The best k by products in float64, ties by position."""
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    return scores, np.stack([np.lexsort((np.arange(len(corpus)), -row))[:k] for row in scores])


@pytest.mark.parametrize("k", [1, 10, 300, DOCUMENTS])
@pytest.mark.parametrize("kind", CORPORA)
def test_the_bits_are_those_of_float32(kind, k):
    corpus, queries = CORPORA[kind](), normal(QUERIES, 5)
    _, found, expected = both(Vectors(corpus), Vectors(queries), k)
    assert_same(found, expected)
    scores, best = ranked(corpus, queries, k)
    size = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(np.float64(corpus), axis=1).max()
    assert (np.abs(found[0] - np.take_along_axis(scores, best, axis=1)) <= 1e-6 * size).all()


def test_overflow_is_that_of_float32():
    """A sum that overflows must not hide the documents beside it."""
    rows = np.arange(DOCUMENTS) % 7 == 0
    corpus = normal(DOCUMENTS, 1) * np.where(rows, np.float32(3e37), 1)[:, None]
    scan, found, expected = both(Vectors(corpus), Vectors(10 * normal(QUERIES, 5)), 10)
    assert_same(found, expected)
    assert scan.repeated == QUERIES


def test_ties_go_by_position():
    """Products of small integers are exact."""
    corpus = CORPORA["integers"]()
    queries = np.random.default_rng(5).integers(-2, 3, (QUERIES, WIDTH)).astype(np.float32)
    for k in (10, 100):
        _, found, _ = both(Vectors(corpus), Vectors(queries), k)
        scores, best = ranked(corpus, queries, k)
        np.testing.assert_array_equal(found[1], best)
        np.testing.assert_array_equal(found[0], np.take_along_axis(scores, best, axis=1))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_stores_in_fewer_bytes(dtype):
    corpus, queries = stored_as(Vectors(normal(DOCUMENTS, 1)), dtype), normal(QUERIES, 5)
    scan, found, expected = both(corpus, Vectors(queries), 20)
    assert_same(found, expected)
    assert scan.repeated == 0
    np.testing.assert_array_equal(found[1], ranked(decoded(corpus).dense, queries, 20)[1])


@pytest.mark.parametrize("count", [1, 63, 64, 65, 129])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_no_document_is_lost_at_the_end(count, lanes):
    corpus = normal(count, 1)
    _, found, expected = both(Vectors(corpus), Vectors(normal(QUERIES, 5)), count, lanes)
    assert_same(found, expected)
    assert (np.sort(found[1], axis=1) == np.arange(count)).all()


@pytest.mark.parametrize("count", [3, 4, 5, 64, 65, 150])
def test_any_number_of_queries(count, monkeypatch):
    monkeypatch.setattr(reduced_dense, "PORTION", 64)
    monkeypatch.setattr(query_batches, "PORTION_BYTES", 1)
    corpus, told = Vectors(normal(DOCUMENTS, 1)), []
    search = ExactSearch("dense", corpus, device_mesh((1, 1, 1), jax.devices()[:1]), 10)
    found = search(Vectors(normal(count, 5)), told.append)
    search._searched = search._searched._plain
    assert_same(found, search(Vectors(normal(count, 5))))
    assert sum(told) == DOCUMENTS


def test_a_query_without_proof_is_searched_again():
    queries = Vectors(normal(QUERIES, 5))
    assert both(Vectors(CORPORA["one document"]()), queries, 10)[0].repeated == QUERIES
    assert both(Vectors(normal(DOCUMENTS, 1)), queries, 10)[0].repeated == 0


def test_one_query_of_many_without_proof():
    """Documents along the first axis that only the first query tells apart by less than bfloat16 can."""
    corpus = normal(DOCUMENTS, 1)
    corpus[:, 0] = 0
    corpus[:500] = 0
    corpus[:500, 0] = 1 + 1e-6 * np.random.default_rng(2).permutation(500)
    queries = normal(QUERIES, 5)
    queries[:, 0] = 0
    queries[0] = np.eye(1, WIDTH, dtype=np.float32)
    scan, found, expected = both(Vectors(corpus), Vectors(queries), 10)
    assert_same(found, expected)
    assert scan.repeated == 1
    np.testing.assert_array_equal(found[1][0], np.argsort(-corpus[:, 0], kind="stable")[:10])


def test_without_the_proof_a_near_tie_would_be_wrong(monkeypatch):
    """So that the tests above can fail."""
    monkeypatch.setattr(reduced_dense, "score_error", lambda queries, _: np.full(len(queries), -np.inf))
    _, found, expected = both(Vectors(near_ties()), Vectors(normal(QUERIES, 5)), 10)
    assert (found[1] != expected[1]).any()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_share_of_the_corpus(number, monkeypatch):
    monkeypatch.setattr(exact, "best_of_processes", lambda scores, positions: (scores, positions))
    _, found, expected = both(Vectors(normal(100, 1)), Vectors(normal(QUERIES, 5)), 40, share=(number, 3))
    assert_same(found, expected)


def test_a_budget_without_room_for_it_is_kept(monkeypatch):
    corpus, mesh = Vectors(normal(DOCUMENTS, 1)), device_mesh((1, 1, 1), jax.devices()[:1])
    asked = []

    def fits(budget, nbytes):
        asked.append(nbytes)
        return nbytes <= corpus.dense.nbytes

    monkeypatch.setattr(exact, "fits", fits)
    search = ExactSearch("dense", corpus, mesh, 10, memory_budget_gb=1)
    assert not isinstance(search._searched, ReducedDense)
    assert asked[-1] == corpus.dense.nbytes + ReducedDense.workspace(10, mesh, corpus)


def test_where_it_pays(monkeypatch):
    monkeypatch.setattr(reduced, "multiplies_bfloat16", lambda: True)
    assert PAYS(100, 10_000) and not PAYS(1000, 10_000)
    monkeypatch.setattr(reduced, "multiplies_bfloat16", lambda: False)
    assert not PAYS(100, 10_000)
