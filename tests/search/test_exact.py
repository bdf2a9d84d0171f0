import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.search import exact
from jaxret.search.exact import SCORES, ExactSearch, sharded_top_k
from jaxret.search.vectors import Ragged, Vectors

MODES = tuple(SCORES)
VOCAB, QUERIES = 30, 6
# One document, fewer than devices, ragged last blocks.
SIZES = (1, 3, 61)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(exact, "TILE_TOKENS", 64)
    monkeypatch.setattr(exact, "BLOCK_DOCUMENTS", 8)
    monkeypatch.setattr(exact, "QUERY_BATCH", 4)


def vectors(count, seed, longest=24):
    """Random vectors; among documents 0, 7, 14, ... every one is a copy of the first, and some texts have no token."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        if number % 7 == 0 and number:
            rows.append(rows[0])
            continue
        length = 0 if number % 10 == 3 else int(random.integers(1, longest + 1))
        terms = np.sort(random.choice(VOCAB, size=min(length, 20), replace=False)).astype(np.int32)
        tokens = random.normal(size=(length, 5)).astype(np.float32)
        rows.append(
            (random.normal(size=4).astype(np.float32), tokens, terms, random.random(len(terms)).astype(np.float32))
        )
    dense, tokens, terms, weights = zip(*rows, strict=True)
    return Vectors(np.stack(dense), *(Ragged.from_rows(part) for part in (tokens, terms, weights)))


def oracle(mode, queries, corpus):
    """All scores in float64, one pair at a time."""
    scores = np.zeros((len(queries), len(corpus)))
    for i, j in np.ndindex(scores.shape):
        if mode == "dense":
            scores[i, j] = np.float64(queries.dense[i]) @ np.float64(corpus.dense[j])
        elif mode == "lexical":
            found = dict(zip(corpus.term_ids.row(j), corpus.term_weights.row(j), strict=True))
            pairs = zip(queries.term_ids.row(i), queries.term_weights.row(i), strict=True)
            scores[i, j] = sum(float(w) * float(found.get(term, 0.0)) for term, w in pairs)
        else:
            q, d = np.float64(queries.tokens.row(i)), np.float64(corpus.tokens.row(j))
            scores[i, j] = sum(max(x @ y for y in d) for x in q) if len(d) else 0.0
    return scores


def search(mode, corpus, num_devices, k):
    return ExactSearch(mode, corpus, device_mesh((-1, 1, 1), jax.devices()[:num_devices]), k, VOCAB)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [8, 61])
def test_the_best_documents_equal_a_sort_of_all_scores(mode, count):
    queries, corpus = vectors(QUERIES, 1), vectors(count, 2)
    for k in sorted({min(5, count), count}):
        scores, positions = search(mode, corpus, 1, k)(queries)
        expected = oracle(mode, queries, corpus)
        ranked = np.stack([np.lexsort((np.arange(count), -row))[:k] for row in np.round(expected, 10)])
        np.testing.assert_array_equal(positions, ranked)
        np.testing.assert_allclose(scores, np.take_along_axis(expected, ranked, axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", SIZES)
def test_any_number_of_devices_gives_the_same_bits(mode, count):
    queries, corpus = vectors(QUERIES, 3), vectors(count, 4)
    k = min(count, 30)
    scores, positions = search(mode, corpus, 1, k)(queries)
    assert scores.shape == positions.shape == (QUERIES, k)
    for num_devices in (2, 4, 8):
        more = search(mode, corpus, num_devices, k)(queries)
        np.testing.assert_array_equal(more[1], positions, err_msg=f"{num_devices} devices")
        assert more[0].tobytes() == scores.tobytes(), f"{num_devices} devices"


def test_a_mesh_of_three_axes_gives_the_same_bits():
    queries, corpus = vectors(QUERIES, 3), vectors(61, 4)
    scores, positions = search("multi_vector", corpus, 1, 10)(queries)
    more = ExactSearch("multi_vector", corpus, device_mesh((2, 2, 2)), 10, VOCAB)(queries)
    np.testing.assert_array_equal(more[1], positions)
    assert more[0].tobytes() == scores.tobytes()


def test_documents_of_one_length_tie_wherever_they_lie():
    """Sums of small integers are exact, so that every copy of a document has its very score."""
    random = np.random.default_rng(0)
    kinds = [random.integers(-2, 3, (10, 5)).astype(np.float32) for _ in range(3)]
    corpus = Vectors(tokens=Ragged.from_rows([kinds[i] for i in random.integers(0, 3, 50)]))
    queries = Vectors(tokens=Ragged.from_rows([random.integers(-2, 3, (4, 5)).astype(np.float32) for _ in range(3)]))
    scores = oracle("multi_vector", queries, corpus)
    for num_devices in (1, 8):
        found = search("multi_vector", corpus, num_devices, 50)(queries)
        np.testing.assert_array_equal(found[1], [np.lexsort((np.arange(50), -row)) for row in scores])
        np.testing.assert_array_equal(found[0], -np.sort(-scores, axis=1))


@pytest.mark.parametrize("mode", MODES)
def test_a_query_is_scored_alike_alone_and_among_others(mode):
    corpus, queries = vectors(20, 5), vectors(QUERIES, 6)
    ranked = search(mode, corpus, 1, 5)
    scores, positions = ranked(queries)
    for i in (0, QUERIES - 1):
        one = Vectors(
            queries.dense[i : i + 1],
            *(Ragged.from_rows([part.row(i)]) for part in (queries.tokens, queries.term_ids, queries.term_weights)),
        )
        alone = ranked(one)
        np.testing.assert_array_equal(alone[1], positions[i : i + 1])
        np.testing.assert_allclose(alone[0], scores[i : i + 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_no_query_gives_no_result(mode):
    queries = Vectors(
        np.zeros((0, 4), np.float32),
        *(
            Ragged(np.zeros((0, *w), d), np.zeros(1, np.int64))
            for d, w in ((np.float32, (5,)), (np.int32, ()), (np.float32, ()))
        ),
    )
    scores, positions = search(mode, vectors(3, 0), 1, 2)(queries)
    assert scores.shape == positions.shape == (0, 2)


def test_products_of_bfloat16_vectors_are_summed_in_float32():
    queries, corpus = vectors(QUERIES, 1), vectors(20, 2)
    half = ExactSearch("multi_vector", corpus, device_mesh(), 20, dtype="bfloat16")(queries)
    scores = oracle("multi_vector", queries, corpus)
    assert half[0].dtype == np.float32
    np.testing.assert_allclose(half[0], np.take_along_axis(scores, half[1], axis=1), rtol=0.05, atol=0.1)
    assert len(np.unique(half[0])) > len(np.unique(np.asarray(half[0], jnp.bfloat16)))


def test_progress_hears_of_every_query():
    counts = []
    search("dense", vectors(3, 0), 1, 2)(vectors(QUERIES, 1), counts.append)
    assert counts == [4, 2]


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_beyond_the_corpus_is_an_input_error(k):
    with pytest.raises(InputError, match=rf"^k: {k} results of a corpus of 3 documents\. Give 1 to 3"):
        search("dense", vectors(3, 0), 1, k)


def test_an_unknown_mode_is_an_input_error():
    with pytest.raises(InputError, match=r"^mode: unknown 'sparse'\. Choose one of dense, lexical, multi_vector"):
        search("sparse", vectors(3, 0), 1, 1)


@pytest.mark.parametrize(("mode", "part"), [("dense", "dense"), ("lexical", "term_ids"), ("multi_vector", "tokens")])
def test_only_the_representation_of_the_mode_is_needed(mode, part):
    whole = vectors(3, 0)
    without = dataclasses.replace(whole, **{part: None})
    with pytest.raises(InputError, match=rf"^vectors: '{part}' is missing"):
        search(mode, without, 1, 1)
    for other in set(MODES) - {mode}:
        search(other, without, 1, 1)


def temporary_bytes(mode, num_blocks):
    """What the compiled search needs besides its inputs and results."""
    blocks = {
        "dense": jax.ShapeDtypeStruct((num_blocks, 64, 16), jnp.float32),
        "lexical": tuple(jax.ShapeDtypeStruct((num_blocks, 64, 24), dtype) for dtype in (jnp.int32, jnp.float32)),
        "multi_vector": (
            jax.ShapeDtypeStruct((num_blocks, 8, 8, 16, 16), jnp.float32),
            jax.ShapeDtypeStruct((num_blocks, 8), jnp.bool_),
        ),
    }
    queries = {
        "dense": jax.ShapeDtypeStruct((4, 16), jnp.float32),
        "lexical": jax.ShapeDtypeStruct((4, 100), jnp.float32),
        "multi_vector": (jax.ShapeDtypeStruct((4, 8, 16), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.bool_)),
    }
    program = sharded_top_k(SCORES[mode], 10, device_mesh((1, 1, 1), jax.devices()[:1]))
    positions = jax.ShapeDtypeStruct((num_blocks, 64), jnp.int32)
    return program.lower(queries[mode], blocks[mode], positions).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("mode", MODES)
def test_memory_does_not_grow_with_the_corpus(mode):
    few, many = temporary_bytes(mode, 2), temporary_bytes(mode, 16)
    assert 0 < many <= few * 1.05
