import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.products import dense_product

B, L, D, F = 3, 5, 7, 4


def example():
    random = np.random.default_rng(0)
    return random.normal(size=(B, L, D)), random.normal(size=(D, F)), random.normal(size=(B, L, F))


def expected(x, kernel, g):
    """Value and gradients by plain matrix products in float64."""
    return x @ kernel, g @ kernel.T, np.sum(np.swapaxes(x, 1, 2) @ g, axis=0)


@pytest.mark.parametrize("platform", ["cpu", "default"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-5), ("bfloat16", 2e-2)])
def test_value_and_gradients_equal_plain_products(monkeypatch, platform, dtype, tolerance):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, **ways: ways[platform](*arrays))
    with jax.enable_x64(dtype == "float64"):
        x, kernel, g = (jnp.asarray(a, dtype) for a in example())
        value, pull = jax.vjp(dense_product, x, kernel)
        results = (value, *pull(g))
        assert [r.dtype for r in results] == [jnp.dtype(dtype)] * 3
        wanted = expected(*(np.float64(a) for a in (x, kernel, g)))
        for ours, theirs in zip(results, wanted, strict=True):
            np.testing.assert_allclose(np.float64(ours), theirs, rtol=tolerance, atol=tolerance)


def test_bfloat16_is_summed_in_float32():
    ones = jnp.ones((1, 1, 1024), jnp.bfloat16)
    value, pull = jax.vjp(dense_product, jnp.ones((1024, 1, 1), jnp.bfloat16), jnp.ones((1, 1), jnp.bfloat16))
    assert dense_product(ones, jnp.ones((1024, 1), jnp.bfloat16)).item() == 1024
    assert pull(jnp.ones_like(value))[1].item() == 1024


def dots(jaxpr):
    """The products of a program and of those in it."""
    for equation in jaxpr.eqns:
        if "dot" in str(equation.primitive):
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from dots(inner)


def test_the_backward_products_of_a_bfloat16_layer_take_bfloat16():
    x, kernel, _ = (jnp.asarray(a, jnp.bfloat16) for a in example())
    program = jax.make_jaxpr(jax.grad(lambda x, k: jnp.sum(dense_product(x, k).astype(jnp.float32)), argnums=(0, 1)))(
        x, kernel
    )
    products = list(dots(program.jaxpr))
    # Forwards; the cotangent of x; that of the kernel in two ways, on CPUs and elsewhere.
    assert len(products) == 4
    assert all(v.aval.dtype == jnp.bfloat16 for e in products for v in e.invars)
