import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.halves import halved, restored

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-39, -1e-45, 1.0, -1.0], np.float32)


@pytest.mark.parametrize("x", [SPECIAL, np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)])
def test_every_bit_comes_back(x):
    assert np.asarray(jax.jit(restored)(halved(x))).tobytes() == x.tobytes()


def test_every_pattern_of_the_lower_bits_comes_back():
    x = (np.uint32(0x3F80_0000) + np.arange(2**17, dtype=np.uint32)).view(np.float32)
    assert np.asarray(restored(halved(x))).tobytes() == x.tobytes()
    assert np.asarray(restored(halved(-x))).tobytes() == (-x).tobytes()


def test_the_high_half_is_the_nearest():
    x = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    np.testing.assert_array_equal(halved(x).high, x.astype(jnp.bfloat16))
    away = np.array([1 + 2.0**-8, -1 - 2.0**-8], np.float32)  # halfway
    np.testing.assert_array_equal(halved(away).high.astype(np.float32), [1 + 2.0**-7, -1 - 2.0**-7])
