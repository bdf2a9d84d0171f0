"""Losses and mining over labelled vectors, every one of which may have several positives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import masked_logsumexp, precise
from jaxret.ops.vectors import unit

NEAR = 1e-6  # squared distance; below it float32 cannot tell two unit vectors apart


def cosine_scores(x: Float[Array, "b k"], y: Float[Array, "c k"]) -> Float[Array, "b c"]:
    """Cosines of all pairs; 0 for a zero vector."""
    return jnp.einsum("bk,ck->bc", unit(precise(x)), unit(precise(y)), precision=lax.Precision.HIGHEST)


def euclidean_scores(x: Float[Array, "b k"], y: Float[Array, "c k"]) -> Float[Array, "b c"]:
    """Negative distances of unit vectors, from -2 to 0; pairs closer than 0.001 have distance 0 and no gradient."""
    squared = 2 - 2 * cosine_scores(x, y)
    apart = squared > NEAR
    return -jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def label_pairs(labels: Int[Array, " n"]) -> tuple[Bool[Array, "n n"], Bool[Array, "n n"]]:
    """Positive pairs (one label, two vectors) and negative pairs (two labels).

    LUSIFER gives a query and its positives one label and every hard negative a label of its own.
    """
    same = labels[:, None] == labels[None, :]
    return same & ~jnp.eye(labels.shape[0], dtype=jnp.bool_), ~same


def nt_xent(
    scores: Float[Array, "b c"], positive: Bool[Array, "b c"], negative: Bool[Array, "b c"], temperature: float
) -> Float[Array, " b"]:
    """`-log(exp s_p / (exp s_p + sum over negatives of exp s_n))`, scores over the temperature, summed over positives.

    NT-Xent (SimCLR, Chen et al. 2020, eq. 1) as LUSIFER uses it: a positive never competes with another, and the
    caller divides by the number of positive pairs, which differs by row. A row without positives, or without
    negatives, has loss 0. Scores are cosines or negative distances.
    """
    logits = precise(scores) / temperature
    pairs = positive & jnp.any(negative, axis=1, keepdims=True)
    above = jnp.where(pairs, masked_logsumexp(logits, negative)[:, None] - logits, 0.0)
    return jnp.sum(jnp.where(pairs, jax.nn.softplus(above), 0.0), axis=1)


def multi_similarity_pairs(
    scores: Float[Array, "b c"], positive: Bool[Array, "b c"], negative: Bool[Array, "b c"], epsilon: float
) -> tuple[Bool[Array, "b c"], Bool[Array, "b c"]]:
    """Informative pairs: positives below the best negative plus `epsilon`, negatives above the worst positive less it.

    Multi-similarity mining (Wang et al. 2019); LUSIFER mines on cosines with an epsilon of 0.25, whatever its loss
    compares. A row without positives, or without negatives, keeps no pair.
    """
    scores = precise(scores)
    best_negative = jnp.max(jnp.where(negative, scores, -jnp.inf), axis=1, keepdims=True)
    worst_positive = jnp.min(jnp.where(positive, scores, jnp.inf), axis=1, keepdims=True)
    return positive & (scores - epsilon < best_negative), negative & (scores + epsilon > worst_positive)
