"""What every loss is held to: a plain loop's value, finite differences' gradient, and no trace of what is masked."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

STEP = 1e-5


def value_and_gradients(loss: Callable[..., jax.Array], arrays: Sequence, cotangent: np.ndarray | float = 1.0) -> tuple:
    """The loss and its gradients, weighed by the cotangent, as numpy arrays."""

    @jax.jit
    def both(*xs):
        value, pull = jax.vjp(loss, *xs)
        return value, pull(jnp.broadcast_to(jnp.asarray(cotangent, value.dtype), value.shape))

    return jax.device_get(both(*arrays))


def differences(value: Callable[..., float], arrays: Sequence[np.ndarray], number: int) -> list[float]:
    """Central differences of `value(*arrays)` in every entry of one array."""
    slopes = []
    for place in np.ndindex(arrays[number].shape):
        ends = []
        for step in (STEP, -STEP):
            moved = [x.copy() for x in arrays]
            moved[number][place] += step
            ends.append(value(*moved))
        slopes.append((ends[0] - ends[1]) / (2 * STEP))
    return slopes


def assert_equals_loop(loss: Callable[..., jax.Array], loop: Callable[..., np.ndarray], *arrays: np.ndarray) -> None:
    """Value and gradients in float64, the value in float32, and the dtype of a loss of bfloat16 arrays."""
    expected = np.asarray(loop(*arrays))
    cotangent = np.random.default_rng(7).normal(size=expected.shape)
    with jax.enable_x64(True):
        value, gradients = value_and_gradients(loss, [jnp.asarray(x) for x in arrays], cotangent)
        assert value.dtype == jnp.float64 and value.shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
    for number, gradient in enumerate(gradients):
        wanted = differences(lambda *xs: float(np.sum(cotangent * loop(*xs))), arrays, number)
        np.testing.assert_allclose(np.ravel(gradient), wanted, rtol=1e-5, atol=1e-6)
        assert np.any(gradient), "nothing is learnt"
    np.testing.assert_allclose(jax.jit(loss)(*map(np.float32, arrays)), expected, rtol=1e-4, atol=1e-5)
    assert jax.eval_shape(loss, *map(jnp.bfloat16, arrays)).dtype == jnp.float32


def assert_masked_is_deleted(
    loss: Callable[..., jax.Array], *arrays: np.ndarray, fixed: Sequence[np.ndarray] = (), kept: int = 3
) -> None:
    """`loss(*arrays, *fixed, where=)` is the loss of the kept columns alone, NaN under the mask; 0 without any.

    Every row keeps its first column and others of its own choice, `kept` in all; the last row keeps nothing.
    """
    rows, columns = arrays[0].shape
    random = np.random.default_rng(8)
    where = np.array([[True, *(random.permutation(columns - 1) < kept - 1)] for _ in range(rows)])
    where[-1] = False
    covered = [np.float32(np.where(where, x, np.nan)) for x in arrays]
    whole, rest = ([jnp.asarray(x) for x in xs] for xs in (fixed, [x[where].reshape(-1, kept) for x in fixed]))
    value, gradients = value_and_gradients(lambda *xs: loss(*xs, *whole, where=jnp.asarray(where)), covered)
    alone = [np.float32(x[where].reshape(-1, kept)) for x in arrays]
    wanted, slopes = value_and_gradients(lambda *xs: loss(*xs, *rest), alone)
    found = value[:-1] if value.ndim == 1 else value[where].reshape(-1, kept)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(value[-1], np.zeros_like(value[-1]))
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient[where].reshape(-1, kept), slope, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(gradient[~where], 0.0)


def finite(loss: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    """The value in float32, which is finite with all its gradients."""
    value, gradients = value_and_gradients(loss, [np.float32(x) for x in arrays])
    for x in (value, *gradients):
        assert np.all(np.isfinite(x)), x
    return value


def masked_rows(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A random mask: the first row full, the last empty, the one before it with its first entry alone."""
    where = random.random(shape) < 0.6
    where[:, 0] = True
    where[0], where[-1] = True, False
    where[-2] = np.arange(shape[1]) == 0
    return where
