from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.contrastive import (
    context_prediction,
    improved_contrastive,
    info_nce,
    pair_and_in_batch,
    sigmoid_pairs,
    symmetric_info_nce,
)
from tests.ops.losses import (
    assert_equals_loop,
    assert_masked_is_deleted,
    finite,
    masked_rows,
    value_and_gradients,
)

B, C, M = 4, 8, 3
POSITIVE = np.array([3, 0, 5, 2], np.int32)
T = 0.3


def example(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(B, C)), random.random((B, C)) < 0.5


def square(seed):
    random = np.random.default_rng(seed)
    return random.normal(size=(B, B)), random.random((B, B)) < 0.5


def log_share(score, others, temperature):
    """Minus the logarithm of a score's share of the exponentials of itself and of others."""
    return np.logaddexp.reduce([0.0, *((other - score) / temperature for other in others)])


def one_way(scores, positive, temperature, where=None):
    where = np.ones(scores.shape, bool) if where is None else where
    return np.array(
        [
            log_share(row[own], [row[c] for c in range(len(row)) if where[i, c] and c != own], np.float64(temperature))
            for i, (row, own) in enumerate(zip(scores, positive, strict=True))
        ]
    )


@pytest.mark.parametrize(("temperature", "masked"), [(0.05, True), (1.0, False), (7.0, True)])
def test_info_nce_equals_a_loop(temperature, masked):
    scores, where = example()
    mask = jnp.asarray(where) if masked else None
    assert_equals_loop(
        lambda s: info_nce(s, jnp.asarray(POSITIVE), temperature, where=mask),
        lambda s: one_way(s, POSITIVE, temperature, where if masked else None),
        scores,
    )


def both_ways(scores, positive, temperature, where):
    back = one_way(scores[:, positive].T, range(len(scores)), temperature, where[:, positive].T)
    return (one_way(scores, positive, temperature, where) + back) / 2


def test_symmetric_info_nce_equals_a_loop():
    scores, where = example()
    assert_equals_loop(
        lambda s: symmetric_info_nce(s, jnp.asarray(POSITIVE), T, where=jnp.asarray(where)),
        lambda s: both_ways(s, POSITIVE, T, where),
        scores,
    )
    unmasked = jax.jit(lambda s: symmetric_info_nce(s, jnp.asarray(POSITIVE), T))(np.float32(scores))
    np.testing.assert_allclose(unmasked, both_ways(scores, POSITIVE, T, np.ones_like(where)), rtol=1e-5)


def partition(q_d, q_q, d_d, weights, masks, temperature):
    """Granite's Z_i, and GTE's third sum, written out."""
    alpha, beta, gamma, delta = weights
    where, q_where, d_where = masks
    losses = []
    for i in range(B):
        own = POSITIVE[i]
        terms = [(1.0, q_d[i, own])]
        terms += [(alpha, q_d[i, c]) for c in range(C) if c != own and where[i, c]]
        terms += [(beta, q_q[i, j]) for j in range(B) if j != i and q_where[i, j]]
        terms += [(gamma, d_d[i, c]) for c in range(C) if c != own and d_where[i, c]]
        terms += [(delta, q_d[j, own]) for j in range(B) if j == i or where[j, own]]
        losses.append(-np.log(np.exp(q_d[i, own] / temperature) / sum(w * np.exp(s / temperature) for w, s in terms)))
    return np.array(losses)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 1.0), (0.5, 0.0, 2.0, 0.0), (1.0, 0, 0, 0)])
def test_improved_contrastive_equals_a_loop(weights):
    (q_d, where), (q_q, q_where), (d_d, d_where) = example(), square(1), example(2)
    names = dict(zip(("alpha", "beta", "gamma", "delta"), map(float, weights), strict=True))
    masks = {"where": jnp.asarray(where), "q_where": jnp.asarray(q_where), "d_where": jnp.asarray(d_where)}
    used = [x for x, weight in ((q_d, 1), (q_q, weights[1]), (d_d, weights[2])) if weight]

    def blocks(xs):
        rest = iter(xs)
        return [next(rest) if weight else x for x, weight in ((q_d, 1), (q_q, weights[1]), (d_d, weights[2]))]

    assert_equals_loop(
        lambda *xs: improved_contrastive(*map(jnp.asarray, blocks(xs)), jnp.asarray(POSITIVE), T, **names, **masks),
        lambda *xs: partition(*blocks(xs), weights, (where, q_where, d_where), T),
        *used,
    )


def test_improved_contrastive_with_documents_alone_is_info_nce():
    scores, where = example()
    q_q, d_d = jnp.full((B, B), jnp.nan), jnp.full((B, C), jnp.nan)
    arguments = jnp.asarray(POSITIVE), T
    loss = improved_contrastive(
        jnp.float32(scores), q_q, d_d, *arguments, beta=0.0, gamma=0.0, where=jnp.asarray(where)
    )
    np.testing.assert_allclose(loss, info_nce(jnp.float32(scores), *arguments, where=jnp.asarray(where)), rtol=1e-5)


def pairs_loop(scores, positive, temperature, bias, where):
    def cost(score, yes):
        return np.log(1 + np.exp((-1 if yes else 1) * (score / temperature + bias)))

    return np.array(
        [
            sum(cost(scores[i, c], positive[i, c]) for c in range(scores.shape[1]) if where[i, c])
            for i in range(len(scores))
        ]
    )


def test_sigmoid_pairs_equal_a_loop_and_learn_their_temperature_and_bias():
    scores, positive = example()
    where = masked_rows(np.random.default_rng(3), (B, C))
    assert_equals_loop(
        lambda s, t, b: sigmoid_pairs(s, jnp.asarray(positive), t, b, where=jnp.asarray(where)),
        lambda s, t, b: pairs_loop(s, positive, t, b, where),
        *(scores, np.array(0.1), np.array(-2.0)),
    )
    loss = partial(sigmoid_pairs, temperature=0.1, bias=-2.0)
    assert_masked_is_deleted(loss, scores, fixed=(positive,))


WAYS, STARTS = 2, np.arange(B, dtype=np.int32) * 2


def pair_and_in_batch_loop(scores, where):
    losses = []
    for i, start in enumerate(STARTS):
        negatives = range(start + 1, start + WAYS)
        pair = log_share(scores[i, start], [scores[i, c] for c in negatives if where[i, c]], T)
        rest = [c for c in range(C) if c != start and c not in negatives and where[i, c]]
        losses.append(pair + log_share(scores[i, start], [scores[i, c] for c in rest], T))
    return np.array(losses)


@pytest.mark.parametrize("masked", [False, True])
def test_pair_and_in_batch_equals_a_loop(masked):
    scores, where = example()
    mask = jnp.asarray(where) if masked else None
    assert_equals_loop(
        lambda s: pair_and_in_batch(s, jnp.asarray(STARTS), WAYS, T, where=mask),
        lambda s: pair_and_in_batch_loop(s, where | (not masked)),
        scores,
    )


def context_loop(scores, center_bank, context_bank, where, bank_where):
    kept = np.concatenate([where, bank_where], axis=1)
    back = np.concatenate([where.T, bank_where], axis=1)
    there = one_way(np.concatenate([scores, center_bank], axis=1), range(B), T, kept)
    return there + one_way(np.concatenate([scores.T, context_bank], axis=1), range(B), T, back)


@pytest.mark.parametrize("masked", [False, True])
def test_context_prediction_equals_a_loop(masked):
    scores, where = square(1)
    center_bank, context_bank = np.random.default_rng(2).normal(size=(2, B, M))
    bank_where = np.random.default_rng(3).random((B, M)) < 0.5
    masks = {"where": jnp.asarray(where), "bank_where": jnp.asarray(bank_where)} if masked else {}
    assert_equals_loop(
        lambda *xs: context_prediction(*xs, T, **masks),
        lambda *xs: context_loop(*xs, where | (not masked), bank_where | (not masked)),
        *(scores, center_bank, context_bank),
    )


def test_without_a_bank_context_prediction_is_twice_the_symmetric_loss():
    scores, where = square(1)
    empty = jnp.zeros((B, 0))
    ours = context_prediction(jnp.float32(scores), empty, empty, T, where=jnp.asarray(where))
    both = symmetric_info_nce(jnp.float32(scores), jnp.arange(B), T, where=jnp.asarray(where))
    np.testing.assert_allclose(ours, 2 * both, rtol=1e-6)


ONE_POSITIVE = {
    "info_nce": lambda s, p, t, where: info_nce(s, p, t, where=where),
    "symmetric_info_nce": lambda s, p, t, where: symmetric_info_nce(s, p, t, where=where),
    "improved_contrastive": lambda s, p, t, where: improved_contrastive(
        s, s[:, :B], s, p, t, where=where, q_where=where[:, :B], d_where=where
    ),
    "pair_and_in_batch": lambda s, p, t, where: pair_and_in_batch(s, p, 2, t, where=where),
}


@pytest.mark.parametrize("name", ONE_POSITIVE)
def test_a_masked_column_might_as_well_be_deleted(name):
    scores, _ = example()
    gone = C - 1
    where = np.arange(C)[None, :] != np.full((B, 1), gone)
    covered = np.where(where, scores, np.nan)
    loss = partial(ONE_POSITIVE[name], p=jnp.asarray(POSITIVE), t=0.5)
    value, (gradient,) = value_and_gradients(partial(loss, where=jnp.asarray(where)), [jnp.float32(covered)])
    fewer = np.delete(scores, gone, axis=1)
    wanted, (slope,) = value_and_gradients(partial(loss, where=jnp.ones(fewer.shape, bool)), [jnp.float32(fewer)])
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :gone], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[:, gone], 0.0)


@pytest.mark.parametrize("name", ONE_POSITIVE)
def test_the_positive_takes_part_even_where_the_mask_leaves_it_out_and_alone_loses_nothing(name):
    scores, _ = example()
    where = jnp.zeros((B, C), bool)
    loss = finite(lambda s: ONE_POSITIVE[name](s, jnp.asarray(POSITIVE), 1.0, where), scores)
    np.testing.assert_allclose(loss, np.zeros(B), atol=1e-6)


@pytest.mark.parametrize("name", ONE_POSITIVE)
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_are_finite(name, temperature):
    scores, where = example()
    loss = partial(ONE_POSITIVE[name], p=jnp.asarray(POSITIVE), t=temperature, where=jnp.asarray(where))
    value = finite(loss, 30 * scores)
    if name == "info_nce":
        np.testing.assert_allclose(value, one_way(30 * scores, POSITIVE, temperature, where), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ONE_POSITIVE)
def test_equal_scores_share_the_gradient(name):
    loss = partial(ONE_POSITIVE[name], p=jnp.asarray(POSITIVE), t=1.0, where=jnp.ones((B, C), bool))
    _, (gradient,) = value_and_gradients(loss, [jnp.ones((B, C))], np.arange(B) == 0)
    others = np.asarray(gradient[0])[[6, 7]]
    assert others[0] == others[1] > 0


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_sigmoid_pairs_and_context_prediction_are_finite_too(temperature):
    (scores, positive), (square_scores, where) = example(), square(0)
    finite(lambda s: sigmoid_pairs(s, jnp.asarray(positive), temperature, -10.0), 30 * scores)
    bank = jnp.float32(30 * scores)
    finite(lambda s: context_prediction(s, bank, bank, temperature, where=jnp.asarray(where)), square_scores)
