import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.masked import masked_log_softmax, masked_logsumexp, masked_mean, masked_softmax, suffix_logsumexp
from tests.ops.losses import assert_equals_loop, value_and_gradients

ROWS, COLUMNS = 5, 7


def example():
    random = np.random.default_rng(0)
    where = random.random((ROWS, COLUMNS)) < 0.6
    where[:, -1], where[1], where[-1] = True, True, False
    return random.normal(size=(ROWS, COLUMNS)), where


def by_row(function, empty):
    """A loop over rows of `function(kept entries)`, `empty` where there are none."""

    def loop(x):
        where = example()[1]
        return np.array([function(row[kept]) if kept.any() else empty for row, kept in zip(x, where, strict=True)])

    return loop


def spread(function):
    """The same, with one number an entry, 0 at the masked ones."""

    def loop(x):
        out = np.zeros_like(x)
        for row, kept, place in zip(x, example()[1], out, strict=True):
            place[kept] = function(row[kept])
        return out

    return loop


LOOPS = {
    masked_logsumexp: by_row(lambda x: np.log(np.sum(np.exp(x))), 0.0),
    masked_mean: by_row(np.mean, 0.0),
    masked_softmax: spread(lambda x: np.exp(x) / np.sum(np.exp(x))),
    masked_log_softmax: spread(lambda x: np.log(np.exp(x) / np.sum(np.exp(x)))),
}


@pytest.mark.parametrize("function", LOOPS, ids=lambda f: f.__name__)
def test_equals_a_loop(function):
    x, where = example()
    assert_equals_loop(lambda x: function(x, jnp.asarray(where)), LOOPS[function], x)


def test_suffix_logsumexp_equals_a_loop_as_far_as_something_is_kept():
    x, where = example()
    where, x = where[:-1], x[:-1]
    assert_equals_loop(
        lambda x: suffix_logsumexp(x, jnp.asarray(where)),
        lambda x: np.array(
            [
                [np.log(np.sum(np.exp(row[i:][kept[i:]]))) for i in range(COLUMNS)]
                for row, kept in zip(x, where, strict=True)
            ]
        ),
        x,
    )


@pytest.mark.parametrize("function", [*LOOPS, suffix_logsumexp], ids=lambda f: f.__name__)
@pytest.mark.parametrize("scale", [1e-3, 1e5])
def test_what_is_masked_leaves_no_trace_in_the_gradient(function, scale):
    x, where = example()
    covered = np.float32(np.where(where, scale * x, np.nan))
    value, (gradient,) = value_and_gradients(
        lambda x: jnp.where(jnp.asarray(where), function(x, jnp.asarray(where)).reshape(ROWS, -1), 0.0), [covered]
    )
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[~where], 0.0)
