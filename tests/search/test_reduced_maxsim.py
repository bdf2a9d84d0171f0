"""MaxSim with a scan in bfloat16 gives the bits of the search in float32."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.search import exact, query_batches, reduced, reduced_maxsim
from jaxret.search.dtypes import stored_as
from jaxret.search.exact import ExactSearch
from jaxret.search.reduced_maxsim import ReducedMaxSim
from jaxret.search.vectors import Ragged, Vectors
from tests.search import reduced_cases
from tests.search.reduced_cases import QUERIES, WIDTH, assert_same, normal, small_blocks  # noqa: F401

DOCUMENTS = 600
PAYS = ReducedMaxSim.pays


def texts(lengths, seed, make=normal):
    """Token vectors of texts of these lengths."""
    return Vectors(tokens=Ragged(make(int(np.sum(lengths)), seed), np.concatenate([[0], np.cumsum(lengths)])))


def asked(count=QUERIES):
    return texts([1 + row % 13 for row in range(count)], 5)


def lengths(count=DOCUMENTS):
    return np.random.default_rng(7).integers(1, 40, count)


def alike(rows, seed):
    """All tokens differ from one by less than bfloat16 can tell."""
    return normal(1, 3) * (1 + 1e-5 * normal(rows, seed))


CORPORA = {
    "random": normal,
    "integers": lambda rows, seed: np.random.default_rng(seed).integers(-2, 3, (rows, WIDTH)).astype(np.float32),
    "one token": lambda rows, _: np.tile(normal(1, 1), (rows, 1)),
    "near ties": alike,
    "zeros": lambda rows, _: np.zeros((rows, WIDTH), np.float32),
    "one long": lambda rows, seed: (
        normal(rows, seed) * np.where(np.arange(rows) == 7, 1e4, 1)[:, None].astype(np.float32)
    ),
    "tiny": lambda rows, seed: normal(rows, seed) * np.float32(1e-30),
    "huge": lambda rows, seed: normal(rows, seed) * np.float32(1e30),
}


both = partial(reduced_cases.both, "multi_vector")


@pytest.mark.parametrize("k", [1, 10, DOCUMENTS])
@pytest.mark.parametrize("kind", CORPORA)
def test_the_bits_are_those_of_float32(kind, k):
    _, found, expected = both(texts(lengths(), 1, CORPORA[kind]), asked(), k)
    assert_same(found, expected)


def test_few_documents_are_scored_again():
    scan, found, expected = both(texts(lengths(), 1), asked(), 5)
    assert_same(found, expected)
    assert scan.repeated == 0
    assert 5 * QUERIES <= scan.rescored < ReducedMaxSim.kept(5) * QUERIES < DOCUMENTS * QUERIES


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_stores_in_fewer_bytes(dtype):
    scan, found, expected = both(stored_as(texts(lengths(), 1), dtype), asked(), 10)
    assert_same(found, expected)
    assert scan.repeated == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_any_number_of_queries_and_of_documents(count, monkeypatch):
    monkeypatch.setattr(query_batches, "PORTION_BYTES", 1)
    corpus, told = texts(lengths(60 + count), 1), []
    search = ExactSearch("multi_vector", corpus, device_mesh((1, 1, 1), jax.devices()[:1]), 7)
    found = search(asked(count), told.append)
    search._searched = search._searched._plain
    assert_same(found, search(asked(count)))
    assert sum(told) == len(corpus)


def test_texts_without_tokens():
    """A document has the score 0 then, and a query finds nothing but ties."""
    _, found, expected = both(texts([0, 3, 0, *lengths(100)], 1), texts([0, 4, 2], 5), 20)
    assert_same(found, expected)
    np.testing.assert_array_equal(found[1][0], np.arange(20))


def test_a_query_without_proof_is_searched_again():
    assert both(texts(lengths(), 1, CORPORA["one token"]), asked(), 10)[0].repeated == QUERIES
    assert both(texts(lengths(), 1), asked(), 10)[0].repeated == 0


def test_a_corpus_that_nothing_is_proven_of_is_scanned_once():
    corpus = texts(lengths(), 1, CORPORA["one token"])
    search = ExactSearch("multi_vector", corpus, device_mesh((1, 1, 1), jax.devices()[:1]), 10)
    scans, scan = [], search._searched._scan
    search._searched._scan = lambda *args: scans.append(0) or scan(*args)
    first, second = search(asked()), search(asked())
    assert_same(first, second)
    assert len(scans) == 1


def test_without_the_proof_a_near_tie_would_be_wrong(monkeypatch):
    """So that the tests above can fail."""
    monkeypatch.setattr(reduced_maxsim, "maxsim_error", lambda *_: -np.inf)
    _, found, expected = both(texts(lengths(), 1, alike), asked(), 10)
    assert (found[1] != expected[1]).any()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_share_of_the_corpus(number, monkeypatch):
    monkeypatch.setattr(exact, "best_of_processes", lambda scores, positions: (scores, positions))
    _, found, expected = both(texts(lengths(100), 1), asked(), 40, share=(number, 3))
    assert_same(found, expected)


def test_a_budget_without_room_for_it_is_kept(monkeypatch):
    corpus, mesh = texts(lengths(), 1), device_mesh((1, 1, 1), jax.devices()[:1])
    nbytes, asked_for = corpus.tokens.values.nbytes, []

    def fits(budget, more):
        asked_for.append(more)
        return more <= nbytes

    monkeypatch.setattr(exact, "fits", fits)
    search = ExactSearch("multi_vector", corpus, mesh, 10, memory_budget_gb=1)
    assert not isinstance(search._searched, ReducedMaxSim)
    assert asked_for[-1] == nbytes + ReducedMaxSim.workspace(10, mesh, corpus)


def test_where_it_pays(monkeypatch):
    monkeypatch.setattr(reduced, "multiplies_bfloat16", lambda: True)
    assert PAYS(100, 5_000) and not PAYS(1000, 5_000)
    monkeypatch.setattr(reduced, "multiplies_bfloat16", lambda: False)
    assert not PAYS(100, 5_000)
