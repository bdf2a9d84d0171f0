import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.ops.contrastive import info_nce
from jaxret.ops.matryoshka import matryoshka
from tests.ops.losses import assert_equals_loop, finite

B, C, K = 3, 4, 6
POSITIVE = np.array([2, 0, 3], np.int32)
T = 0.2


def loss(q, d):
    return info_nce(jnp.einsum("bk,ck->bc", q, d), jnp.asarray(POSITIVE), T)


def loop(q, d, sizes, weight):
    losses = np.zeros(B)
    for size, c in zip(sizes, weight, strict=True):
        for i in range(B):
            cosines = [q[i, :size] @ x[:size] / np.linalg.norm(q[i, :size]) / np.linalg.norm(x[:size]) for x in d]
            shares = np.exp(np.array(cosines) / T)
            losses[i] -= c * np.log(shares[POSITIVE[i]] / sum(shares))
    return losses


def example():
    random = np.random.default_rng(0)
    return random.normal(size=(B, K)), random.normal(size=(C, K))


@pytest.mark.parametrize(("sizes", "weight"), [((6, 2), None), ((1, 4, 6), (0.5, 2.0, 1.0))])
def test_equals_a_loop_over_sizes(sizes, weight):
    assert_equals_loop(
        lambda q, d: matryoshka(loss, (q, d), sizes, weight),
        lambda q, d: loop(q, d, sizes, weight or [1.0] * len(sizes)),
        *example(),
    )


def test_components_beyond_the_longest_size_leave_no_trace():
    q, d = example()
    short = jax.jit(lambda q, d: matryoshka(loss, (q, d), (2, 4)))
    wanted = short(np.float32(q[:, :4]), np.float32(d[:, :4]))
    q[:, 4:], d[:, 4:] = np.nan, np.inf
    np.testing.assert_array_equal(short(np.float32(q), np.float32(d)), wanted)


def test_a_vector_that_begins_with_zeros_is_finite():
    q, d = example()
    q[0, :2] = 0
    finite(lambda q, d: matryoshka(loss, (q, d), (2, 6)), q, d)


@pytest.mark.parametrize(
    ("sizes", "weight", "place"), [((), None, "sizes"), ((7,), None, "sizes"), ((0, 6), None, "sizes")]
)
def test_sizes_that_do_not_fit_are_an_error(sizes, weight, place):
    with pytest.raises(InputError, match=place):
        matryoshka(loss, [jnp.float32(x) for x in example()], sizes, weight)


def test_each_size_has_one_weight():
    with pytest.raises(InputError, match="1 weights for 2 sizes"):
        matryoshka(loss, [jnp.float32(x) for x in example()], (2, 6), (1.0,))
