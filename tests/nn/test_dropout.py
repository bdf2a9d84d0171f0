"""Dropout by row: as many as asked for, each by itself, and a row's own wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.dropout import dropped, row_numbers

SHAPE = 64, 32, 48


def kept(key=0, rate=0.25, shape=SHAPE):
    return np.asarray(dropped(jnp.ones(shape), rate, jax.random.key(key)) > 0, np.float64)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_and_the_mean(rate):
    values = np.asarray(dropped(jnp.ones(SHAPE), rate, jax.random.key(0)))
    deviation = (rate * (1 - rate) / values.size) ** 0.5
    assert abs((values == 0).mean() - rate) < 4 * deviation
    np.testing.assert_allclose(values[values > 0], 1 / (1 - rate), rtol=1e-6)


def test_every_row_and_every_place_has_its_share():
    for axes in [(1, 2), (0, 2), (0, 1)]:
        shares = kept().mean(axis=axes)
        deviation = (0.25 * 0.75 / (kept().size / shares.size)) ** 0.5
        assert abs(shares - 0.75).max() < 4.5 * deviation
        assert 0.7 < shares.std() / deviation < 1.3, "more even, or less, than chance"


def test_neighbours_rows_and_keys_are_independent():
    x = (kept() - 0.75) / (0.25 * 0.75) ** 0.5
    pairs = {f"{step} places on": (x[..., step:], x[..., :-step]) for step in (1, 2, 16)}
    pairs |= {f"{step} tokens on": (x[:, step:], x[:, :-step]) for step in (1, 2, 16)}
    pairs |= {f"{step} rows on": (x[step:], x[:-step]) for step in (1, 2, 32)}
    pairs |= {f"key {key}": (x, (kept(key) - 0.75) / (0.25 * 0.75) ** 0.5) for key in (1, 2, 1 << 16)}
    for name, (one, other) in pairs.items():
        assert abs((one * other).mean()) < 4.5 / one.size**0.5, name


def test_a_row_loses_its_own_wherever_it_stands():
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE))
    whole = dropped(x, 0.3, jax.random.key(5))
    with row_numbers(jnp.array([7, 3])):
        np.testing.assert_array_equal(dropped(x[jnp.array([7, 3])], 0.3, jax.random.key(5)), whole[jnp.array([7, 3])])
