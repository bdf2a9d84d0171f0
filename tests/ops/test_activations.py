import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from jaxret.ops.activations import ACTIVATIONS

X = np.linspace(-12, 12, 2001, dtype=np.float32)
EXACT = {
    "identity": lambda x: x,
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.fixture(params=["cpu", "default"])
def platform(request, monkeypatch):
    """Functions for CPUs or for all else."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, **ways: ways[request.param](*arrays))


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("name", EXACT)
def test_values_and_slopes(name):
    assert set(EXACT) == set(ACTIVATIONS)
    exact, step = EXACT[name], 1e-5
    x = np.float64(X[X != 0])
    slopes = (exact(x + step) - exact(x - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(ACTIVATIONS[name])(jnp.float32(x)), exact(x), atol=2e-6)
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda x: jnp.sum(ACTIVATIONS[name](x))))(jnp.float32(x)), slopes, atol=1e-5
    )


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_bfloat16_rounds_once(name):
    x = jnp.asarray(X, jnp.bfloat16)
    found = jax.jit(ACTIVATIONS[name])(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, jax.jit(ACTIVATIONS[name])(x.astype(jnp.float32)).astype(jnp.bfloat16))


@pytest.mark.usefixtures("platform")
def test_the_backward_pass_keeps_one_number_a_value():
    x = jnp.ones((8, 16), jnp.bfloat16)
    _, backward = jax.vjp(ACTIVATIONS["gelu"], x)
    kept = [leaf for leaf in jax.tree.leaves(backward) if getattr(leaf, "size", 0) > 1]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [((8, 16), jnp.bfloat16)]
