import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.ops.places import places_of_true

compiled = jax.jit(places_of_true, static_argnums=(1, 2))


@given(st.sampled_from([(1, 1), (1, 3), (127, 40), (128, 128), (129, 130), (400, 7), (400, 300)]), st.data())
def test_it_is_where_the_mask_is_true(sizes, data):
    """So many numbers and slots: often some are left over, often none."""
    number, slots = sizes
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)))
    expected = np.flatnonzero(mask & (np.cumsum(mask) <= slots))
    mask = np.isin(np.arange(number), expected)
    found = compiled(mask, slots, 999)
    np.testing.assert_array_equal(found, np.pad(expected, (0, slots - len(expected)), constant_values=999))


@pytest.mark.parametrize("number", [1, 128, 129, 100_000])
def test_many_places(number):
    mask = np.random.default_rng(0).random(number) < 0.7
    found = np.asarray(compiled(mask, number, number))
    np.testing.assert_array_equal(found[: mask.sum()], np.flatnonzero(mask))
    assert np.all(found[mask.sum() :] == number)
