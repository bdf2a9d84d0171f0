import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import Retriever, RetrieverConfig

SIZES = EncoderConfig(vocab_size=20, width=12, num_layers=2, num_heads=2, mlp_width=10)
CONFIG = RetrieverConfig(SIZES, dense_layers=(8,), token_layers=(6,), pooling="mean", skip_ids=(9, 15))
CLS, SEP, MASK = 2, 3, 4
# Ids 9 and 15 are punctuation; 12 occurs twice.
IDS = np.array([[CLS, 6, 12, 9, 12, SEP, -1], [CLS, 6, 15, 8, SEP, -1, -1], [CLS, 5, 7, SEP, MASK, MASK, MASK]])


@pytest.fixture(scope="module")
def params(random_params):
    boxed = jax.eval_shape(lambda: Retriever(CONFIG).init(jax.random.key(0), jnp.asarray(IDS), "query"))["params"]
    return random_params(nn.meta.unbox(boxed))


@functools.partial(jax.jit, static_argnums=(2, 3))
def applied(params, ids, side, config):
    return Retriever(config).apply({"params": params}, ids, side)


def embedded(params, ids=IDS, side="passage", config=CONFIG):
    return applied(params, jnp.asarray(ids), side, config)


@pytest.mark.parametrize(("side", "pooling"), [("query", "mean"), ("passage", "mean"), ("passage", "cls")])
def test_more_padding_changes_nothing(params, side, pooling):
    config = dataclasses.replace(CONFIG, pooling=pooling)
    narrow, wide = (
        embedded(params, ids, side, config) for ids in (IDS, np.pad(IDS, ((0, 0), (0, 5)), constant_values=-1))
    )
    np.testing.assert_allclose(wide.dense, narrow.dense, atol=1e-6)
    real = IDS >= 0
    np.testing.assert_allclose(wide.tokens[:, :7][real], narrow.tokens[real], atol=1e-6)
    np.testing.assert_allclose(wide.lexical.weights[:, :7][real], narrow.lexical.weights[real], atol=1e-6)
    np.testing.assert_array_equal(wide.mask[:, :7], narrow.mask)
    assert not np.any(wide.mask[:, 7:]) and not np.any(wide.lexical.weights[:, 7:])


@pytest.mark.parametrize(("side", "first"), [("query", 2), ("passage", 0)])
def test_the_dense_head_leaves_out_the_first_ids(params, side, first):
    plain = dataclasses.replace(CONFIG, dense_layers=(), token_layers=(), normalize=False, normalize_tokens=False)
    module = Retriever(plain, unpooled=(2, 0))
    found = jax.jit(module.apply, static_argnums=2)(
        {"params": {name: params[name] for name in ("encoder", "lexical")}}, jnp.asarray(IDS), side
    )
    lengths = (IDS >= 0).sum(axis=1)
    expected = [row[first:length].mean(axis=0) for row, length in zip(found.tokens, lengths, strict=True)]
    np.testing.assert_allclose(found.dense, expected, rtol=1e-4, atol=1e-5)


def test_permuting_texts_permutes_embeddings(params):
    order = np.array([2, 0, 1])
    straight, turned = embedded(params), embedded(params, IDS[order])
    for ours, theirs in zip(jax.tree.leaves(turned), jax.tree.leaves(straight), strict=True):
        np.testing.assert_allclose(ours, theirs[order], atol=1e-6)


def test_vectors_have_length_one_and_weights_are_not_negative(params):
    found = embedded(params)
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.tokens, axis=-1), 1.0, rtol=1e-5)
    assert np.all(np.asarray(found.lexical.weights) >= 0) and np.any(np.asarray(found.lexical.weights) > 0)


def test_special_ids_have_no_lexical_weight(params):
    everything = np.arange(20)[None, :]
    weights = np.asarray(embedded(params, everything, "query").lexical.weights)
    assert not np.any(weights[:, :7])
    alive = dataclasses.replace(CONFIG, special_ids=())
    assert np.any(np.asarray(embedded(params, everything, "query", alive).lexical.weights)[:, :7])


def test_passages_leave_out_the_skip_list_and_queries_do_not(params):
    real = IDS >= 0
    np.testing.assert_array_equal(embedded(params, side="passage").mask, real & ~np.isin(IDS, CONFIG.skip_ids))
    np.testing.assert_array_equal(embedded(params, side="query").mask, real)


def test_expansion_is_attended_only_if_asked(params):
    def dense_of_expanded(attend):
        config = dataclasses.replace(CONFIG, attend_to_expansion=attend)
        short, expanded = (embedded(params, ids, "query", config) for ids in (IDS[2:, :4], IDS[2:]))
        return np.asarray(short.dense), np.asarray(expanded.dense), expanded

    short, expanded, found = dense_of_expanded(False)
    np.testing.assert_allclose(expanded, short, atol=1e-6)
    assert np.all(np.asarray(found.mask)), "[MASK] vectors take part in MaxSim either way"
    short, expanded, _ = dense_of_expanded(True)
    assert not np.allclose(expanded, short, atol=1e-3)


@pytest.mark.parametrize("heads", [("dense",), ("lexical",), ("multi_vector",), ("dense", "multi_vector")])
def test_a_model_has_the_heads_it_names(heads):
    config = dataclasses.replace(CONFIG, heads=heads)

    def parts():
        found, variables = Retriever(config).init_with_output(jax.random.key(0), jnp.asarray(IDS), "query")
        weights = None if found.lexical is None else found.lexical.weights
        outputs = {"dense": found.dense, "lexical": weights, "multi_vector": found.tokens}
        return variables["params"], {name: value for name, value in outputs.items() if value is not None}

    params, outputs = jax.eval_shape(parts)
    assert set(params) == {"encoder", *heads}
    assert set(outputs) == set(heads)


def test_bfloat16_parameters_give_bfloat16_vectors_and_float32_weights(params):
    found = embedded(jax.tree.map(jnp.bfloat16, params))
    exact = embedded(params)
    assert (found.dense.dtype, found.tokens.dtype, found.lexical.weights.dtype) == (
        jnp.bfloat16,
        jnp.bfloat16,
        jnp.float32,
    )
    np.testing.assert_allclose(np.float32(found.dense), exact.dense, atol=0.1)
