import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.attention import plain_attention
from jaxret.nn.block import Block
from jaxret.nn.config import EncoderConfig
from jaxret.nn.encoder import Encoder, unstacked
from jaxret.nn.positions import rotary_tables

CONFIG = EncoderConfig(vocab_size=11, width=12, num_layers=3, num_heads=2, mlp_width=10, dropout=0.5)
IDS = jnp.array([[3, 7, 7, 1, 0], [9, 2, 0, 0, 0]])


@pytest.fixture(scope="module")
def params(random_params):
    boxed = jax.eval_shape(Encoder(CONFIG).init, jax.random.key(0), IDS, IDS != 0)["params"]
    return random_params(nn.meta.unbox(boxed))


@jax.jit
def states(params, ids=IDS, mask=IDS != 0):
    return Encoder(CONFIG).apply({"params": params}, ids, mask)[0]


@jax.jit
def dropped(params, seed):
    rngs = {"dropout": jax.random.key(seed)}
    return Encoder(CONFIG).apply({"params": params}, IDS, IDS != 0, deterministic=False, rngs=rngs)[0]


def changed(ids, place, value):
    return ids.at[place].set(value)


def test_layers_are_stacked_in_float32(params):
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert all(leaf.shape[0] == CONFIG.num_layers for leaf in jax.tree.leaves(params["layers"]))


def test_each_layer_starts_from_its_own_random_numbers():
    params = nn.meta.unbox(jax.jit(Encoder(CONFIG).init)(jax.random.key(0), IDS, IDS != 0))["params"]
    for path in (("attention", "query"), ("mlp", "down")):
        kernel = params["layers"][path[0]][path[1]]["kernel"]
        assert not np.allclose(kernel[0], kernel[1])


@pytest.mark.parametrize(
    "changes",
    [{}, {"window": 2, "global_every": 2, "local_rope_base": 50.0}, {"norm_order": "pre", "first_norm": False}],
)
def test_unstacked_layers_equal_the_scan(random_params, changes):
    encoder = Encoder(dataclasses.replace(CONFIG, **changes))
    boxed = jax.eval_shape(encoder.init, jax.random.key(0), IDS, IDS != 0)["params"]
    params = {"encoder": random_params(nn.meta.unbox(boxed))}
    single = unstacked(params)
    assert sorted(set(single["encoder"]) - set(params["encoder"])) == ["layers_0", "layers_1", "layers_2"]
    run = jax.jit(lambda p: encoder.apply({"params": p["encoder"]}, IDS, IDS != 0, all_states=True))
    for found, wanted in zip(run(single), run(params), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_unstacked_layers_drop_by_the_key(params):
    single = unstacked(params)
    one, same, other = (dropped(single, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other) and not np.allclose(one, states(single))


def test_scanned_layers_equal_a_loop(params):
    block, tables = Block(CONFIG, plain_attention, True, False), (rotary_tables(5, 6, CONFIG.rope_base),)
    layer = jax.jit(lambda p, x: block.apply({"params": p}, x, jnp.int32(0), IDS != 0, tables)[0])
    x = params["token_embedding"][IDS]
    for number in range(CONFIG.num_layers):
        x = layer(jax.tree.map(lambda p, number=number: p[number], params["layers"]), x)
    x = (
        x
        / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6)
        * np.asarray(params["final_norm"]["scale"])[None, None]
    )
    np.testing.assert_allclose(states(params), x, rtol=1e-4, atol=1e-5)


def test_masked_positions_are_seen_by_none(params):
    other = changed(changed(IDS, (0, 4), 8), (1, 3), 5)
    before, after = (np.asarray(states(params, ids, IDS != 0)) for ids in (IDS, other))
    np.testing.assert_array_equal(before[np.asarray(IDS != 0)], after[np.asarray(IDS != 0)])
    assert not np.allclose(before, after)


def test_every_kept_position_is_seen_by_all(params):
    before, after = states(params), states(params, changed(IDS, (0, 3), 2))
    assert np.all(np.any(np.abs(before[0] - after[0]) > 1e-5, axis=-1))
    np.testing.assert_array_equal(before[1], after[1])


def test_order_matters(params):
    swapped = states(params, IDS[:, jnp.array([1, 0, 2, 3, 4])])
    assert not np.allclose(states(params)[0, 2], swapped[0, 2], atol=1e-4)


def test_dropout_follows_its_key(params):
    np.testing.assert_array_equal(dropped(params, 0), dropped(params, 0))
    assert not np.allclose(dropped(params, 0), dropped(params, 1))
    assert not np.allclose(dropped(params, 0), states(params))


LEARNED = {"positions": "learned", "max_positions": 9, "num_types": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": 1, "global_every": 2, "local_rope_base": 50.0},
        {"causal": True},
        LEARNED,
        LEARNED | {"position_offset": 2},
    ],
    ids=["rotary", "window", "causal", "learned", "roberta"],
)
def test_texts_in_one_row_are_each_for_themselves(random_params, changes):
    """Five texts in two rows, with padding, against a row each."""
    encoder = Encoder(dataclasses.replace(CONFIG, **changes))
    texts = [[3, 7, 7], [9, 2, 4, 6, 5], [8], [1, 10, 3, 2], [6, 4]]
    alone = jnp.array([text + [-1] * (5 - len(text)) for text in texts])
    packed = jnp.array([texts[0] + texts[1] + texts[2], texts[3] + texts[4] + [-1] * 3])
    segments = jnp.array([[0] * 3 + [1] * 5 + [2], [0] * 4 + [1] * 2 + [-1] * 3])
    boxed = jax.eval_shape(encoder.init, jax.random.key(0), alone, alone >= 0)["params"]
    params = random_params(nn.meta.unbox(boxed))
    run = jax.jit(lambda ids, segments: encoder.apply({"params": params}, ids, ids >= 0, segments=segments)[0])
    expected = run(alone, None)[alone >= 0]
    np.testing.assert_allclose(run(packed, segments)[packed >= 0], expected, atol=1e-5)
    assert np.abs(run(packed, jnp.minimum(segments, 0))[packed >= 0] - expected).max() > 0.01
