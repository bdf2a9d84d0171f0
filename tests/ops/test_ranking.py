import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.ranking import lambda_loss, lambda_rank, list_mle, ndcg_loss_2, ndcg_loss_2pp, ranknet
from tests.ops.losses import (
    assert_equals_loop,
    assert_masked_is_deleted,
    finite,
    masked_rows,
    value_and_gradients,
)

B, N = 5, 6
RELEVANCE = np.random.default_rng(5).integers(0, 4, (B, N)).astype(np.int32)
RELEVANCE[1] = 2  # no pair at all


def example():
    random = np.random.default_rng(0)
    return random.normal(size=(B, N)), masked_rows(random, (B, N))


def ahead(relevance):
    """Pairs of positions, the first the more relevant."""
    return [(i, j) for i, j in itertools.permutations(range(len(relevance)), 2) if relevance[i] > relevance[j]]


def ranknet_row(s, relevance, sigma):
    costs = [np.log(1 + np.exp(-sigma * (s[i] - s[j]))) for i, j in ahead(relevance)]
    return np.mean(costs) if costs else 0.0


def list_mle_row(s, relevance):
    order = sorted(range(len(s)), key=lambda i: (-relevance[i], i))
    return -sum(np.log(np.exp(s[i]) / sum(np.exp(s[j]) for j in order[place:])) for place, i in enumerate(order))


def discount(rank):
    return np.log2(1 + rank)


WEIGHTS = {
    lambda_rank: lambda g, r, h, q: abs(1 / discount(r) - 1 / discount(q)) * abs(g - h),
    ndcg_loss_2: lambda g, r, h, q: abs(1 / discount(abs(r - q)) - 1 / discount(abs(r - q) + 1)) * abs(g - h),
}
WEIGHTS[ndcg_loss_2pp] = lambda *pair: 10 * WEIGHTS[ndcg_loss_2](*pair) + WEIGHTS[lambda_rank](*pair)


def lambda_row(s, relevance, sigma, weighting, k):
    k = k or len(s)
    order = sorted(range(len(s)), key=lambda i: (-s[i], i))
    rank = [order.index(i) + 1 for i in range(len(s))]
    best = sorted(relevance, reverse=True)[:k]
    dcg = sum((2.0**y - 1) / discount(place + 1) for place, y in enumerate(best))
    gain = [(2.0**y - 1) / dcg if dcg else 0.0 for y in relevance]
    return sum(
        WEIGHTS[weighting](gain[i], rank[i], gain[j], rank[j]) * np.log2(1 + np.exp(-sigma * (s[i] - s[j])))
        for i, j in ahead(relevance)
        if min(rank[i], rank[j]) <= k
    )


LOSSES = {
    "ranknet": (partial(ranknet, sigma=0.7), partial(ranknet_row, sigma=0.7)),
    "list_mle": (list_mle, list_mle_row),
    **{
        f"{weighting.__name__}_{k}": (
            partial(lambda_loss, sigma=1.3, weighting=weighting, k=k),
            partial(lambda_row, sigma=1.3, weighting=weighting, k=k),
        )
        for weighting, k in ((lambda_rank, None), (ndcg_loss_2, None), (ndcg_loss_2pp, None), (ndcg_loss_2pp, 2))
    },
}


@pytest.mark.parametrize("name", LOSSES)
def test_equals_a_loop(name):
    scores, where = example()
    loss, row = LOSSES[name]

    def loop(scores):
        rows = zip(scores, RELEVANCE, where, strict=True)
        return np.array([row(s[kept], y[kept]) if kept.any() else 0.0 for s, y, kept in rows])

    assert_equals_loop(lambda s: loss(s, jnp.asarray(RELEVANCE), where=jnp.asarray(where)), loop, scores)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_masked_might_as_well_be_deleted(name):
    assert_masked_is_deleted(LOSSES[name][0], example()[0], fixed=(RELEVANCE,), kept=4)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_scores_are_finite(name):
    several = np.concatenate([scale * example()[0] for scale in (1e-3, 1e3)])
    finite(lambda s: LOSSES[name][0](s, jnp.asarray(np.tile(RELEVANCE, (2, 1)))), several)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_scores_rank_by_position_and_keep_a_gradient(name):
    loss, row = LOSSES[name]
    ties = np.float32(np.round(example()[0]))
    assert any(len(set(s)) < N for s in ties)
    value, (gradient,) = value_and_gradients(lambda s: loss(s, jnp.asarray(RELEVANCE)), [ties])
    wanted = [row(np.float64(s), y) for s, y in zip(ties, RELEVANCE, strict=True)]
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
    assert np.any(gradient) and np.all(np.isfinite(gradient))


def test_float_relevances_rank_as_integers_do():
    def losses(relevance):
        return [loss(jnp.float32(example()[0]), relevance) for loss in (ranknet, list_mle, lambda_loss)]

    for one, other in zip(jax.jit(losses)(RELEVANCE), jax.jit(losses)(np.float32(RELEVANCE)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_list_without_relevant_candidates_loses_nothing():
    none = jnp.zeros((B, N), jnp.int32)
    value = finite(lambda s: jnp.stack([ranknet(s, none), lambda_loss(s, none)]), example()[0])
    np.testing.assert_array_equal(value, 0.0)
