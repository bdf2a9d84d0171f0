"""Contrastive losses over score matrices: one positive a query. Unreduced, at least float32; the caller reduces."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import everywhere, masked_logsumexp, precise


def info_nce(
    scores: Float[Array, "b c"],
    positive: Int[Array, " b"],
    temperature: float,
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """`-log softmax(scores / temperature)` at the positive column (van den Oord et al. 2018, eq. 4).

    Columns where `where` is False take no part; the positive always does, and alone its loss is 0.
    """
    logits = precise(scores) / temperature
    own = _own(positive, scores)
    return masked_logsumexp(logits, everywhere(where, scores) | own) - _at(own, logits)


def symmetric_info_nce(
    scores: Float[Array, "b c"],
    positive: Int[Array, " b"],
    temperature: float,
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """The mean of both directions: the positive among documents, the query among queries (CLIP, Radford et al. 2021).

    The second direction compares the rows of the positive's column, with the same mask. Alone a pair's loss is 0.
    """
    queries = jnp.arange(scores.shape[0])
    columns = None if where is None else _columns(where, positive)
    there = info_nce(scores, positive, temperature, where=where)
    return (there + info_nce(_columns(scores, positive), queries, temperature, where=columns)) / 2


def improved_contrastive(
    q_d: Float[Array, "b c"],
    q_q: Float[Array, "b b"],
    d_d: Float[Array, "b c"],
    positive: Int[Array, " b"],
    temperature: float,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    delta: float = 0.0,
    where: Bool[Array, "b c"] | None = None,
    q_where: Bool[Array, "b b"] | None = None,
    d_where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """`-log(exp s(q, p) / Z)` with more negatives in Z (Granite, Awasthy et al. 2025, eqs. 1-3; GTE, Li et al. 2023).

    Z holds the positive, and each of these times its weight; a block of weight 0 is left out. Alone the loss is 0.

    Args:
      q_d: queries against documents; all but the positive weigh `alpha`.
      q_q: queries against queries; all but the query itself weigh `beta`.
      d_d: each query's positive against documents; all but the positive itself weigh `gamma`.
      positive: column of each query's positive.
      temperature: divides every score.
      alpha: 0 or 1 in Granite; any weight from 0 on.
      beta: as `alpha`.
      gamma: as `alpha`.
      delta: weight of all queries against the positive, the own one once more among them: 1 in GTE, 0 in Granite.
      where: False leaves a pair of `q_d` out.
      q_where: of `q_q`.
      d_where: of `d_d`; GTE in sentence-transformers leaves a query's own documents out.
    """
    own, itself = _own(positive, q_d), jnp.eye(q_d.shape[0], dtype=jnp.bool_)
    where = everywhere(where, q_d)
    blocks = (
        (q_d, own, 1.0),
        (q_d, where & ~own, alpha),
        (q_q, everywhere(q_where, q_q) & ~itself, beta),
        (d_d, everywhere(d_where, d_d) & ~own, gamma),
        (_columns(q_d, positive), _columns(where, positive) | itself, delta),
    )
    used = [block for block in blocks if block[2] > 0]
    logits = jnp.concatenate([precise(x) / temperature + math.log(weight) for x, _, weight in used], axis=1)
    partition = masked_logsumexp(logits, jnp.concatenate([kept for _, kept, _ in used], axis=1))
    return partition - _at(own, precise(q_d) / temperature)


def sigmoid_pairs(
    scores: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    temperature: float | Float[Array, ""],
    bias: float | Float[Array, ""],
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """Each pair is a yes or no of its own: `sum_c softplus(-z (s / temperature + bias))`, z = 1 or -1.

    SigLIP (Zhai et al. 2023), which learns both numbers from a temperature of 0.1 and a bias of -10. Any number of
    positives; 0 where all is masked.
    """
    where = everywhere(where, scores)
    logits = jnp.where(where, precise(scores) / temperature + bias, 0.0)
    return jnp.sum(jnp.where(where, jax.nn.softplus(jnp.where(positive, -logits, logits)), 0.0), axis=1)


def pair_and_in_batch(
    scores: Float[Array, "b c"],
    positive: Int[Array, " b"],
    ways: int,
    temperature: float = 1.0,
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """The positive among the query's own documents, plus the positive among all documents but its own negatives.

    ColBERT's training with in-batch negatives (Santhanam et al. 2022), which JaColBERT v1 has without a teacher. A
    query's own documents are the `ways` columns from its positive on. Alone the positive's loss is 0.
    """
    own = positive[:, None] + jnp.arange(ways)[None, :]
    column, kept = jnp.arange(scores.shape[1])[None, :], everywhere(where, scores)
    others = kept & ((column <= positive[:, None]) | (column >= positive[:, None] + ways))
    among_own = info_nce(
        jnp.take_along_axis(scores, own, axis=1),
        jnp.zeros_like(positive),
        temperature,
        where=jnp.take_along_axis(kept, own, axis=1),
    )
    return among_own + info_nce(scores, positive, temperature, where=others)


def context_prediction(
    scores: Float[Array, "b b"],
    center_bank: Float[Array, "b m"],
    context_bank: Float[Array, "b m"],
    temperature: float,
    *,
    where: Bool[Array, "b b"] | None = None,
    bank_where: Bool[Array, "b m"] | None = None,
) -> Float[Array, " b"]:
    """A sentence finds its context among the batch's contexts and the bank, and the context finds it: the sum of both.

    Contrastive context prediction (Wu et al. 2022). Pair i's own score is on the diagonal and always takes part; alone
    its loss is 0.

    Args:
      scores: centres against contexts of the batch.
      center_bank: centres against remembered sentences; further columns may hold the other centres of the batch.
      context_bank: contexts against the same.
      temperature: divides every score.
      where: False where centre i and context j must not meet, such as those of two languages.
      bank_where: likewise for the bank, and False at its unfilled places.
    """
    pairs, bank = everywhere(where, scores), everywhere(bank_where, center_bank)
    own = jnp.arange(scores.shape[0])

    def one_way(batch: Array, more: Array, kept: Array) -> Array:
        columns, kept_columns = jnp.concatenate([batch, more], axis=1), jnp.concatenate([kept, bank], axis=1)
        return info_nce(columns, own, temperature, where=kept_columns)

    return one_way(scores, center_bank, pairs) + one_way(scores.T, context_bank, pairs.T)


def _own(positive: Int[Array, " b"], scores: Float[Array, "b c"]) -> Bool[Array, "b c"]:
    return jax.nn.one_hot(positive, scores.shape[1], dtype=jnp.bool_)


def _at(own: Bool[Array, "b c"], logits: Float[Array, "b c"]) -> Float[Array, " b"]:
    return jnp.sum(jnp.where(own, logits, 0.0), axis=1)


def _columns(x: Array, positive: Int[Array, " b"]) -> Array:
    """Row i is what all queries have in the column of query i's positive."""
    return jnp.take(x, positive, axis=1).T
