"""Sums in tiles are those of the whole matrix; scores are whole numbers, so that ties are exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.tiled import Block, Columns, Rows, Sums, Tiles, tiled_sums

B, C, WIDTH = 5, 7, 3
PLACE = np.array([2, 0, 5, 6, 3])
OWN_KEYS = np.array([[10, -1], [11, 12], [-1, -1], [14, 10], [15, -1]])
LEFT_OUT = np.full((B, 6), -1)
LEFT_OUT[0, 2], LEFT_OUT[3, 0], LEFT_OUT[2] = 3, 2, (0, 1, 2, 3, 4, 6)  # nothing counts in row 2
KEYS = np.array([10, 11, 10, 12, 13, 14, -1])


def arrays():
    random = np.random.default_rng(2)
    return [random.integers(-1, 2, (n, WIDTH)).astype(np.float32) for n in (B, C, B)]


def whole(x, y, z):
    """The sums of both matrices, plainly."""
    kept = np.ones((B, C), bool)
    for row in range(B):
        for column in range(C):
            answers = KEYS[column] in set(OWN_KEYS[row]) - {-1}
            kept[row, column] = not answers and column not in LEFT_OUT[row] and column != PLACE[row]
    found = []
    for scores in (x @ y.T, 2 * z @ y.T):
        masked = jnp.where(kept, scores, -1e30)
        along = jnp.where(kept.any(1), jax.nn.logsumexp(masked, axis=1), -jnp.inf)
        own = scores[np.arange(B), PLACE]
        found += [Sums(along, jax.nn.logsumexp(masked, axis=0), own, jnp.argmax(scores, axis=1) == PLACE)]
    return [found[0], found[1]._replace(down=None)]


def tiled(x, y, z, sizes):
    rows = Rows((x, z), jnp.asarray(OWN_KEYS), jnp.asarray(PLACE), jnp.asarray(LEFT_OUT))
    blocks = [Block(lambda x, y: x[0] @ y.T, down=True), Block(lambda x, y: 2 * x[1] @ y.T)]
    return tiled_sums(blocks, rows, Columns(y, jnp.asarray(KEYS), jnp.arange(C)), Tiles(*sizes))


def valued(sums):
    """The sums, and the gradients of something of all of them."""

    def loss(xs):
        one, other = sums(*xs)
        total = jnp.sum(jax.nn.softplus(one.along - one.own) * jnp.arange(1.0, B + 1)) + jnp.sum(one.down**2)
        return total + jnp.sum(jax.nn.softplus(other.along) + other.own), [one, other]

    return jax.jit(jax.grad(loss, has_aux=True))(arrays())


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (100, 100)])
def test_tiles_change_nothing(sizes):
    (ours, found), (theirs, expected) = valued(partial(tiled, sizes=sizes)), valued(whole)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, expected)
    assert not np.isfinite(expected[0].along).all() and 0 < np.mean(expected[1].first) < 1
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
