import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.vectors import POOLINGS, unit


def test_unit_vectors_have_length_one():
    x = np.random.default_rng(0).normal(size=(3, 4, 5)) * 10
    np.testing.assert_allclose(unit(jnp.float32(x)), x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-5, 1e15])
def test_unit_vectors_of_tiny_and_huge_ones(scale):
    np.testing.assert_allclose(np.linalg.norm(unit(jnp.array([[3.0, 4.0]]) * scale)), 1.0, rtol=1e-5)


def test_a_zero_vector_stays_zero_and_its_gradient_is_zero():
    x = jnp.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    value, pull = jax.vjp(unit, x)
    (gradient,) = pull(jnp.ones_like(x))
    assert not np.any(value[0])
    assert not np.any(gradient[0])
    # d(x/|x|) = (I - u u^T) / |x| with u = (1, 2, 2) / 3.
    u = np.array([1, 2, 2]) / 3
    np.testing.assert_allclose(gradient[1], (np.ones(3) - u * u.sum()) / 3, rtol=1e-5)


def test_unit_keeps_the_dtype_and_works_in_float32():
    x = np.random.default_rng(0).normal(size=(2, 600))
    result = unit(jnp.bfloat16(x))
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.linalg.norm(np.float64(result), axis=-1), 1.0, rtol=4e-3)


def example():
    random = np.random.default_rng(0)
    mask = random.random((4, 6)) < 0.5
    mask[:, 0], mask[3] = True, False
    return random.normal(size=(4, 6, 3)), mask


def test_cls_pooling_takes_the_first_position():
    x, mask = example()
    np.testing.assert_array_equal(POOLINGS["cls"](jnp.float32(x), jnp.asarray(mask)), np.float32(x[:, 0]))


def test_mean_pooling_equals_a_loop():
    x, mask = example()
    expected = [row[kept].mean(axis=0) if kept.any() else np.zeros(3) for row, kept in zip(x, mask, strict=True)]
    x[~mask] = np.nan
    np.testing.assert_allclose(POOLINGS["mean"](jnp.float32(x), jnp.asarray(mask)), expected, rtol=1e-5)


def test_mean_pooling_sums_bfloat16_in_float32():
    x = jnp.ones((1, 1000, 1), jnp.bfloat16)
    assert POOLINGS["mean"](x, jnp.ones((1, 1000), bool)).item() == 1.0
