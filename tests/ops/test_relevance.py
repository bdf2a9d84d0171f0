import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.contrastive import info_nce
from jaxret.ops.relevance import binary_cross_entropy, score_mse, softmax_cross_entropy
from tests.ops.losses import assert_equals_loop, assert_masked_is_deleted, finite

RELEVANCE = np.array([[1, 0, 0.5, 0], [0.25, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0.75], [1, 0, 1, 0]])


def scores(seed=0):
    return np.random.default_rng(seed).normal(size=RELEVANCE.shape) * 2


def bce_row(s, r):
    shares = 1 / (1 + np.exp(-s))
    return np.mean([-(y * np.log(p) + (1 - y) * np.log(1 - p)) for p, y in zip(shares, r, strict=True)])


def softmax_row(s, r):
    total = sum(np.exp(s))
    return -sum(y * np.log(np.exp(x) / total) for x, y in zip(s, r, strict=True)) / sum(r)


def mse_row(s, t):
    return sum((x - y) ** 2 for x, y in zip(s, t, strict=True)) / len(s)


LOSSES = {binary_cross_entropy: bce_row, softmax_cross_entropy: softmax_row, score_mse: mse_row}
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


@each_loss
def test_equals_a_plain_loop(loss):
    def loop(s):
        return np.array([LOSSES[loss](*row) for row in zip(s, RELEVANCE, strict=True)])

    assert_equals_loop(lambda s: loss(s, jnp.asarray(RELEVANCE, s.dtype)), loop, scores())


@each_loss
def test_masked_candidates_are_deleted(loss):
    assert_masked_is_deleted(loss, scores(), fixed=[np.float32(RELEVANCE)])


@each_loss
def test_large_scores_are_finite(loss):
    finite(lambda s: loss(s, jnp.asarray(RELEVANCE, s.dtype)), scores() * 1e3)


def test_one_relevant_candidate_is_info_nce():
    labels = jnp.eye(4, dtype=jnp.int32)
    s = jnp.asarray(scores()[:4], jnp.float32)
    np.testing.assert_allclose(softmax_cross_entropy(s, labels), info_nce(s, jnp.arange(4), 1.0), rtol=1e-5)


def test_nothing_relevant_costs_nothing():
    zero = jnp.zeros((5, 4), jnp.int32)
    np.testing.assert_array_equal(softmax_cross_entropy(jnp.asarray(scores(), jnp.float32), zero), np.zeros(5))
