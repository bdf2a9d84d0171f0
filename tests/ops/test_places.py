import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.ops.places import places_of_true


@given(st.lists(st.booleans(), min_size=1, max_size=400), st.integers(0, 3))
def test_it_is_where_the_mask_is_true(mask, more):
    expected = np.flatnonzero(mask)
    found = places_of_true(jnp.asarray(mask), max(1, len(expected) + more), 999)
    np.testing.assert_array_equal(found, np.pad(expected, (0, len(found) - len(expected)), constant_values=999))


@pytest.mark.parametrize("number", [1, 128, 129, 100_000])
def test_many_places(number):
    mask = np.random.default_rng(0).random(number) < 0.7
    found = places_of_true(jnp.asarray(mask), number, number)
    np.testing.assert_array_equal(found[: mask.sum()], np.flatnonzero(mask))
    assert np.all(found[mask.sum() :] == number)
