"""Normalisation equals a plain loop; its gradients equal finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxret.ops.normalization import layer_norm, rms_norm


def example(dtype=np.float64):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 3, 7)) * 2 + 5
    return x.astype(dtype), random.normal(size=(7,)), random.normal(size=(7,))


def plain(x, scale, bias, centred):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        row = row - sum(row) / len(row) if centred else row
        size = (sum(value * value for value in row) / len(row) + 1e-6) ** 0.5
        rows.append([value / size * s + b for value, s, b in zip(row, scale, bias, strict=True)])
    return np.array(rows).reshape(x.shape)


@pytest.mark.parametrize("function", [layer_norm, rms_norm])
def test_equals_a_plain_loop(function):
    x, scale, bias = example()
    wanted = plain(x, scale, bias, function is layer_norm)
    np.testing.assert_allclose(function(*map(jnp.float32, (x, scale, bias)), 1e-6), wanted, rtol=1e-5, atol=1e-5)
    without = function(jnp.float32(x), jnp.float32(scale), None, 1e-6)
    np.testing.assert_allclose(without, wanted - bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [layer_norm, rms_norm])
def test_gradients_are_finite_differences(function):
    with jax.enable_x64():
        arrays = tuple(map(jnp.asarray, example()))
        check_grads(jax.jit(lambda *a: function(*a, 1e-6)), arrays, order=1, modes=["rev"])
        check_grads(jax.jit(lambda x, scale: function(x, scale, None, 1e-6)), arrays[:2], order=1, modes=["rev"])


def test_bfloat16_far_from_zero():
    """The mean of squares less the square of the mean loses less than bfloat16 has lost."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(64, 256)) + 30, jnp.bfloat16)
    ones = jnp.ones((256,))
    exact = plain(np.float64(x), np.ones(256), np.zeros(256), True)
    np.testing.assert_allclose(np.float64(layer_norm(x, ones, None, 1e-6)), exact, atol=2e-2)
