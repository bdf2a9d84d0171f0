import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.layers import MLP, Dense, Norm


def applied(module, x, random_params):
    params = random_params(nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), x))["params"])
    return jax.jit(module.apply)({"params": params}, x), params


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3), (2, 2, 4, 3)])
@pytest.mark.parametrize("use_bias", [False, True])
def test_dense(random_params, shape, use_bias):
    x = np.random.default_rng(1).normal(size=shape)
    y, params = applied(Dense(5, (None, None), use_bias), jnp.float32(x), random_params)
    expected = x @ np.float64(params["kernel"]) + (np.float64(params["bias"]) if use_bias else 0)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm(random_params, kind, use_bias):
    x = np.random.default_rng(1).normal(size=(2, 3, 6)) * 5 + 1
    y, params = applied(Norm(kind, 1e-2, use_bias), jnp.float32(x), random_params)
    centred = x - x.mean(axis=-1, keepdims=True) if kind == "layer" else x
    expected = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-2) * np.float64(params["scale"])
    expected = expected + (np.float64(params["bias"]) if use_bias else 0)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_rms_norm_of_bfloat16_works_in_float32(random_params):
    x = jnp.full((1, 1, 4096), 3.0, jnp.bfloat16)
    y = Norm("rms", 1e-6).apply({"params": {"scale": jnp.ones(4096)}}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(y), 1.0)


def test_gated_mlp(random_params):
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    y, params = applied(MLP(7, "gelu_tanh", gated=True), jnp.float32(x), random_params)
    gate, up, down = (np.float64(params[name]["kernel"]) for name in ("gate", "up", "down"))
    z = x @ gate
    # The tanh approximation of gelu.
    expected = (z * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) * (x @ up)) @ down
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_plain_mlp_with_biases(random_params):
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    y, params = applied(MLP(7, "relu", gated=False, use_bias=True), jnp.float32(x), random_params)
    up, down = ({name: np.float64(value) for name, value in params[part].items()} for part in ("up", "down"))
    expected = np.maximum(x @ up["kernel"] + up["bias"], 0) @ down["kernel"] + down["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
