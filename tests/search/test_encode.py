import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.data.text import padded, passage_ids, query_ids
from jaxret.runtime.mesh import device_mesh
from jaxret.search.encode import TextEncoder

TEXTS = [
    "The cat sleeps in the garden.",
    "bee",
    "The dog dreams of rain and of bread, alone under a tree on the hill by the river. It dreams of rain.",
    "ant, ant. ant!",
    "The cat sleeps in the garden.",
    "An owl by the river.",
    "...",
]


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


@pytest.fixture(scope="module")
def encoder(model, params):
    # 48 tokens a device: three texts of 16, or one of 40.
    return TextEncoder(model, params, device_mesh((2, 1, 1), jax.devices()[:2]), batch_tokens=48)


def one_by_one(model, params, rows, side):
    """Each text alone, in one shape: dense vectors, kept tokens, {term: weight}."""
    apply = jax.jit(model.apply, static_argnums=2)
    for row in rows:
        found = apply(params, jnp.asarray(padded([row], 41)), side)
        terms = {}
        for term, weight in zip(row, np.asarray(found.lexical.weights[0]), strict=False):
            if weight > 0:
                terms[term] = max(terms.get(term, 0.0), float(weight))
        yield np.asarray(found.dense[0]), np.asarray(found.tokens[0])[np.asarray(found.mask[0])], terms


@pytest.mark.parametrize("side", ["query", "passage"])
def test_batches_by_length_equal_texts_one_by_one(model, params, encoder, side):
    ids = (query_ids if side == "query" else passage_ids)(model.tokenizer, model.text, TEXTS)
    found = (encoder.queries if side == "query" else encoder.passages)(TEXTS)
    assert len(found) == len(TEXTS)
    assert side == "query" or len({-(-len(row) // 8) for row in ids}) > 2, "the texts must fill several buckets"
    for i, (dense, tokens, terms) in enumerate(one_by_one(model, params, ids, side)):
        np.testing.assert_allclose(found.dense[i], dense, atol=1e-5)
        np.testing.assert_allclose(found.tokens.row(i), tokens, atol=1e-5)
        assert found.term_ids.row(i).tolist() == sorted(terms)
        np.testing.assert_allclose(found.term_weights.row(i), [terms[t] for t in sorted(terms)], atol=1e-5)


def test_equal_texts_have_equal_vectors(encoder):
    found = encoder.passages(TEXTS)
    np.testing.assert_allclose(found.dense[0], found.dense[4], atol=1e-6)
    assert found.tokens.lengths[0] == found.tokens.lengths[4]


def test_vectors_are_float32_whatever_the_model_computes_in(model, params, encoder):
    half = TextEncoder(dataclasses.replace(model, precision="bfloat16"), params, encoder.mesh, batch_tokens=48)
    found = half.passages(TEXTS[:2])
    assert {found.dense.dtype, found.tokens.values.dtype, found.term_weights.values.dtype} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found.dense, encoder.passages(TEXTS[:2]).dense, atol=0.1)


def test_progress_hears_of_every_text(encoder):
    counts = []
    encoder.passages(TEXTS, counts.append)
    assert sum(counts) == len(TEXTS) and len(counts) > 1


def test_no_text_gives_no_vectors(encoder):
    some, none = encoder.passages(TEXTS[:1]), encoder.queries([])
    assert len(none) == 0 and len(none.tokens) == len(none.term_ids) == len(none.term_weights) == 0
    assert none.dense.shape[1:] == some.dense.shape[1:]
    assert none.tokens.values.shape[1:] == some.tokens.values.shape[1:]


def test_missing_heads_give_no_vectors(model, random_params):
    config = dataclasses.replace(model.config, heads=("multi_vector",))
    only = dataclasses.replace(model, config=config)
    encoder = TextEncoder(only, random_params(only.abstract_params()), device_mesh((1, 1, 1), jax.devices()[:1]), 48)
    for texts in (TEXTS[:2], []):
        found = encoder.passages(texts)
        assert found.dense is None and found.term_ids is None and found.term_weights is None
        assert len(found) == len(texts)
