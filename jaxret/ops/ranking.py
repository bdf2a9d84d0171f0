"""Losses over a ranked list: n candidates a query, each with a relevance. Unreduced, at least float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from jaxret.ops.masked import everywhere, masked_mean, precise, suffix_logsumexp

Weighting = Callable[[Float[Array, "b n"], Int[Array, "b n"]], Float[Array, "b n n"]]


def ranknet(
    scores: Float[Array, "b n"],
    relevance: Real[Array, "b n"],
    sigma: float = 1.0,
    *,
    where: Bool[Array, "b n"] | None = None,
) -> Float[Array, " b"]:
    """The mean of `softplus(-sigma (s_i - s_j))` over pairs of which i is more relevant (Burges et al. 2005).

    Candidates of equal relevance form no pair; without any pair the loss is 0.
    """
    scores, pairs = precise(scores), _ordered(relevance, everywhere(where, scores))
    flat = (len(scores), scores.shape[1] ** 2)
    return masked_mean(_pair_costs(scores, pairs, sigma).reshape(flat), pairs.reshape(flat))


def list_mle(
    scores: Float[Array, "b n"], relevance: Real[Array, "b n"], *, where: Bool[Array, "b n"] | None = None
) -> Float[Array, " b"]:
    """`-log` of the Plackett-Luce likelihood that the scores give to the order by relevance (Xia et al. 2008).

    Equal relevances are taken in their order of position. 0 where at most one candidate is kept.
    """
    where = everywhere(where, scores)
    order = _order(relevance, where)
    ranked, kept = (jnp.take_along_axis(x, order, axis=1) for x in (precise(scores), where))
    return jnp.sum(jnp.where(kept, suffix_logsumexp(ranked, kept) - ranked, 0.0), axis=1)


def lambda_rank(gain: Float[Array, "b n"], rank: Int[Array, "b n"]) -> Float[Array, "b n n"]:
    """What exchanging i and j changes in the nDCG (LambdaRank, Burges et al. 2006)."""
    discount = 1 / jnp.log2(1.0 + rank.astype(gain.dtype))
    return jnp.abs(_differences(gain) * _differences(discount))


def ndcg_loss_2(gain: Float[Array, "b n"], rank: Int[Array, "b n"]) -> Float[Array, "b n n"]:
    """`|1 / D(|i-j|) - 1 / D(|i-j|+1)| |G_i - G_j|` with ranks i, j and D(r) = log2(1+r) (Wang et al. 2018)."""
    distance = jnp.maximum(jnp.abs(_differences(rank)), 1).astype(gain.dtype)
    return (1 / jnp.log2(1.0 + distance) - 1 / jnp.log2(2.0 + distance)) * jnp.abs(_differences(gain))


def ndcg_loss_2pp(gain: Float[Array, "b n"], rank: Int[Array, "b n"]) -> Float[Array, "b n n"]:
    """NDCG-Loss2++: ten times `ndcg_loss_2`, plus `lambda_rank` (Wang et al. 2018)."""
    return 10.0 * ndcg_loss_2(gain, rank) + lambda_rank(gain, rank)


def lambda_loss(
    scores: Float[Array, "b n"],
    relevance: Real[Array, "b n"],
    sigma: float = 1.0,
    *,
    weighting: Weighting = ndcg_loss_2pp,
    k: int | None = None,
    where: Bool[Array, "b n"] | None = None,
) -> Float[Array, " b"]:
    """RankNet's pairs, each weighed by what it means for the nDCG, in bits and summed (LambdaLoss, Wang et al. 2018).

    Without a pair the loss is 0. Equal scores rank by position. No gradient flows through gains and ranks.

    Args:
      scores: of the candidates.
      relevance: from 0 on; the gain is `2^relevance - 1` over the best possible DCG.
      sigma: steepness of the sigmoid.
      weighting: `(gains, ranks from 1) -> weight of each pair`.
      k: leaves out pairs with both ranks above it, and cuts the best possible DCG there.
      where: False candidates take no part.
    """
    scores, where = precise(scores), everywhere(where, scores)
    rank = jnp.argsort(_order(scores, where), axis=1) + 1
    gain = jnp.where(where, jnp.exp2(relevance.astype(scores.dtype)) - 1, 0.0)
    gain = gain / _best_dcg(gain, k)
    pairs = _ordered(relevance, where)
    if k is not None:
        pairs &= jnp.minimum(rank[:, :, None], rank[:, None, :]) <= k
    weight = jax.lax.stop_gradient(weighting(gain, rank))
    return jnp.sum(weight * _pair_costs(scores, pairs, sigma), axis=(1, 2)) / math.log(2)


def _best_dcg(gain: Float[Array, "b n"], k: int | None) -> Float[Array, "b 1"]:
    """DCG of the best order, its first k places; 1 where nothing is relevant."""
    best = -jnp.sort(-gain, axis=1)[:, :k]
    discount = jnp.log2(2.0 + jnp.arange(best.shape[1], dtype=gain.dtype))
    total = jnp.sum(best / discount[None, :], axis=1, keepdims=True)
    return jnp.where(total > 0, total, 1.0)


def _pair_costs(scores: Float[Array, "b n"], pairs: Bool[Array, "b n n"], sigma: float) -> Float[Array, "b n n"]:
    """0 where there is no pair."""
    ahead = jnp.where(pairs, _differences(scores), 0.0)
    return jnp.where(pairs, jax.nn.softplus(-sigma * ahead), 0.0)


def _ordered(relevance: Real[Array, "b n"], where: Bool[Array, "b n"]) -> Bool[Array, "b n n"]:
    """Pairs of kept candidates, the first the more relevant."""
    return where[:, :, None] & where[:, None, :] & (relevance[:, :, None] > relevance[:, None, :])


def _order(values: Real[Array, "b n"], where: Bool[Array, "b n"]) -> Int[Array, "b n"]:
    """Positions of kept values, highest first, equal ones by position; masked ones come last."""
    return jnp.argsort(jnp.where(where, -precise(values), jnp.inf), axis=1, stable=True)


def _differences(x: Real[Array, "b n"]) -> Real[Array, "b n n"]:
    return x[:, :, None] - x[:, None, :]
