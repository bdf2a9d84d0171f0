import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.sparsity import flops, l1_norm, linear_ramp, quadratic_ramp
from tests.ops.losses import assert_equals_loop, value_and_gradients

B, V = 4, 6
WHERE = np.array([True, False, True, True])


def example():
    return np.random.default_rng(0).normal(size=(B, V))


def flops_loop(weights):
    return np.array(sum(np.mean([abs(w) for w in column]) ** 2 for column in weights.T))


def test_flops_equal_a_loop():
    assert_equals_loop(flops, flops_loop, example())
    kept = jnp.asarray(WHERE)
    assert_equals_loop(lambda w: flops(w, where=kept), lambda w: flops_loop(w[WHERE]), example())


def test_a_masked_text_leaves_no_trace():
    covered = np.float32(np.where(WHERE[:, None], example(), np.nan))
    value, (gradient,) = value_and_gradients(lambda w: flops(w, where=jnp.asarray(WHERE)), [covered])
    np.testing.assert_allclose(value, flops_loop(example()[WHERE]), rtol=1e-5)
    np.testing.assert_array_equal(gradient[~WHERE], 0.0)
    assert np.all(np.isfinite(gradient))
    value, (gradient,) = value_and_gradients(lambda w: flops(w, where=jnp.zeros(B, bool)), [covered])
    assert value == 0 and not np.any(gradient)


def test_flops_prefer_spread_out_weights_to_the_same_words_in_all_texts():
    (spread, same), norms = jax.jit(lambda w: (jax.vmap(flops)(w), jax.vmap(l1_norm)(w)))(
        np.float32([np.eye(4), np.eye(4)[[0, 0, 0, 0]]])
    )
    assert spread < same
    np.testing.assert_array_equal(norms, 1.0)


def test_l1_norm_equals_a_loop():
    assert_equals_loop(l1_norm, lambda w: np.array([sum(abs(x) for x in row) for row in w]), example())


def test_bfloat16_weights_are_summed_in_float32():
    both = jax.jit(lambda w: (flops(w), l1_norm(w.T)))(jnp.ones((1000, 1), jnp.bfloat16))
    np.testing.assert_allclose([x.item() for x in both], [1, 1000], rtol=1e-6)


@pytest.mark.parametrize(("ramp", "power"), [(linear_ramp, 1), (quadratic_ramp, 2)])
def test_ramps_grow_from_0_to_1_and_stay_there(ramp, power):
    expected = [0.0, 0.25**power, 0.5**power, 0.75**power, 1.0, 1.0]
    np.testing.assert_array_equal([ramp(step, 4) for step in (0, 1, 2, 3, 4, 1000)], expected)
    assert jax.jit(ramp, static_argnums=1)(jnp.int32(1), 4) == expected[1]
