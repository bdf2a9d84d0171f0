"""Losses of scores against a relevance or a teacher's score each, without pairs. Unreduced, at least float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from jaxret.ops.masked import everywhere, masked_log_softmax, masked_mean, precise


def binary_cross_entropy(
    scores: Float[Array, "b n"], relevance: Real[Array, "b n"], *, where: Bool[Array, "b n"] | None = None
) -> Float[Array, " b"]:
    """The mean of `-r log sigmoid(s) - (1 - r) log sigmoid(-s)`, each r from 0 to 1 (monoBERT, Nogueira and Cho 2019).

    0 where all is masked.
    """
    scores, where = precise(scores), everywhere(where, scores)
    scores, target = jnp.where(where, scores, 0.0), jnp.where(where, relevance.astype(scores.dtype), 0.0)
    return masked_mean(jax.nn.softplus(scores) - target * scores, where)


def softmax_cross_entropy(
    scores: Float[Array, "b n"], relevance: Real[Array, "b n"], *, where: Bool[Array, "b n"] | None = None
) -> Float[Array, " b"]:
    """`-sum r log softmax(s) / sum r` among the kept candidates, r from 0 on (Bruch et al. 2019, eq. 3).

    With one relevant candidate it is InfoNCE. 0 where nothing that is kept is relevant.
    """
    scores, where = precise(scores), everywhere(where, scores)
    weight = jnp.where(where, relevance.astype(scores.dtype), 0.0)
    total = jnp.sum(weight, axis=1)
    surprise = -jnp.sum(weight * masked_log_softmax(scores, where), axis=1)
    return surprise / jnp.where(total > 0, total, 1.0)


def score_mse(
    scores: Float[Array, "b n"], teacher: Float[Array, "b n"], *, where: Bool[Array, "b n"] | None = None
) -> Float[Array, " b"]:
    """The mean squared difference from the teacher's scores; 0 where all is masked."""
    where = everywhere(where, scores)
    errors = jnp.where(where, precise(scores) - precise(teacher), 0.0)
    return masked_mean(jnp.square(errors), where)
