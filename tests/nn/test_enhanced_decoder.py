import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.attention import plain_attention
from jaxret.nn.block import Block
from jaxret.nn.config import EncoderConfig
from jaxret.nn.enhanced_decoder import EnhancedDecoder, visible_sets
from jaxret.nn.positions import rotary_tables
from tests.nn.plain_decoder import decoded
from tests.train.objectives.pretraining import BERT

B, L, D = 2, 5, 16
ROTARY = EncoderConfig(width=D, num_heads=2, mlp_width=12, window=1, global_every=2, first_norm=False)


def example(config, random_params):
    random = np.random.default_rng(0)
    query, seen = (jnp.asarray(random.normal(size=(B, L, D)), jnp.float32) for _ in range(2))
    visible = random.random((B, L, L)) < 0.5
    visible[:, :, 0] = True
    module = EnhancedDecoder(config)
    params = jax.eval_shape(module.init, jax.random.key(0), query, seen, jnp.asarray(visible))["params"]
    return module, random_params(nn.meta.unbox(params)), query, seen, jnp.asarray(visible)


def test_a_berts_decoder_is_a_loop_over_visible_places(random_params):
    module, params, query, seen, visible = example(BERT, random_params)
    states = np.asarray(jax.jit(module.apply)({"params": params}, query, seen, visible))
    plain = jax.tree.map(np.float64, params)
    for row in range(B):
        expected = decoded(plain, np.float64(query[row]), np.float64(seen[row]), np.asarray(visible[row]), 2)
        np.testing.assert_allclose(states[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [BERT, ROTARY], ids=["bert", "rotary"])
def test_a_position_depends_on_what_it_sees_alone(config, random_params):
    module, params, query, seen, visible = example(config, random_params)
    apply = jax.jit(lambda seen: module.apply({"params": params}, query, seen, visible))
    before = np.asarray(apply(seen))
    for place in range(L):
        after = np.asarray(apply(seen.at[:, place].add(1.0)))
        np.testing.assert_array_equal(np.any(np.abs(after - before) > 1e-6, axis=-1), visible[:, :, place])


def test_a_decoder_of_one_text_is_a_layer_of_the_encoder(random_params):
    """With its own states to see, and one mask for all positions; the window of the encoder's layers is no matter."""
    module, params, query, _, _ = example(ROTARY, random_params)
    mask = jnp.array([[True] * 5, [True] * 3 + [False] * 2])
    states = module.apply({"params": params}, query, query, jnp.broadcast_to(mask[:, None], (B, L, L)))
    plain = dataclasses.replace(ROTARY, window=0, global_every=0, first_norm=True)
    tables = (rotary_tables(L, 8, ROTARY.rope_base),)
    block = Block(plain, plain_attention, True, False)
    expected, _ = block.apply({"params": params["block"]}, query, jnp.int32(0), mask, tables)
    expected = expected / np.sqrt(np.mean(np.square(expected), axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(states, expected * params["final_norm"]["scale"][None, None], rtol=1e-4, atol=1e-5)


SEED = jnp.array([3, 4, 4], jnp.int32)


def sets(length=40, real=(40, 40, 30), rate=0.5):
    kept = np.arange(length)[None, :] < np.array(real)[:, None]
    return np.asarray(jax.jit(visible_sets, static_argnums=2)(SEED, jnp.asarray(kept), rate))


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_each_position_sees_a_share_of_the_others(rate):
    found = sets(200, (200, 200, 200), rate)
    others = ~np.eye(200, dtype=bool) & (np.arange(200) > 0)[None, :]
    assert abs(found[0][others].mean() - (1 - rate)) < 0.01
    assert len({row.tobytes() for row in found[0]}) == 200, "each position has a set of its own"


def test_the_vector_is_seen_and_the_own_token_is_not():
    found = sets(rate=0.0)
    assert found[:, :, 0].all()
    expected = ~np.eye(40, dtype=bool)
    expected[:, 0] = True
    np.testing.assert_array_equal(found[0], expected)
    assert not found[2, :, 30:].any(), "padding is not seen"


def test_sets_follow_the_texts_seed_and_not_the_padding():
    found, longer = sets(), sets(47)
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[1][:, :30], found[2][:, :30])
    np.testing.assert_array_equal(longer[:, :40, :40], found)
