"""Losses against a teacher's scores or vectors. Unreduced, at least float32; the caller reduces.

Gradients flow into a teacher that is traced, unless the function says otherwise: `jax.lax.stop_gradient` it.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import (
    everywhere,
    masked_log_softmax,
    masked_logsumexp,
    masked_mean,
    masked_softmax,
    precise,
    suffix_logsumexp,
)


def min_max(
    scores: Float[Array, "b n"], *, where: Bool[Array, "b n"] | None = None, epsilon: float = 1e-8
) -> Float[Array, "b n"]:
    """`(s - min) / (max - min + epsilon)` of each query's kept scores (JaColBERTv2.5, Clavié 2024); masked ones are 0.

    Where all kept scores are equal they become 0, and their gradient is 0.
    """
    scores, where = precise(scores), everywhere(where, scores)
    low = jnp.min(jnp.where(where, scores, jnp.inf), axis=1, keepdims=True)
    high = jnp.max(jnp.where(where, scores, -jnp.inf), axis=1, keepdims=True)
    spread = where & (high > low)
    low, high = jnp.where(high > low, low, 0.0), jnp.where(high > low, high, 1.0)
    return jnp.where(spread, scores - low, 0.0) / (high - low + epsilon)


def soft_cross_entropy(
    scores: Float[Array, "b n"],
    teacher: Float[Array, "b n"],
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    *,
    where: Bool[Array, "b n"] | None = None,
) -> Float[Array, " b"]:
    """`-sum softmax(teacher) log softmax(scores)`, each over its temperature (Granite, Awasthy et al. 2025, eq. 6).

    The KL divergence plus the teacher's entropy; 0 where all is masked.
    """
    where = everywhere(where, scores)
    target, found = _log_shares(scores, teacher, temperature, teacher_temperature, where)
    return -jnp.sum(jnp.where(where, jnp.exp(target) * found, 0.0), axis=1)


def kl_divergence(
    scores: Float[Array, "b n"],
    teacher: Float[Array, "b n"],
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    *,
    where: Bool[Array, "b n"] | None = None,
) -> Float[Array, " b"]:
    """`KL(softmax(teacher) || softmax(scores))`, each over its temperature (ColBERTv2, Santhanam et al. 2022).

    0 where all is masked, and where student and teacher agree.
    """
    where = everywhere(where, scores)
    target, found = _log_shares(scores, teacher, temperature, teacher_temperature, where)
    return jnp.sum(jnp.where(where, jnp.exp(target) * (target - found), 0.0), axis=1)


def _log_shares(
    scores: Float[Array, "b n"],
    teacher: Float[Array, "b n"],
    temperature: float,
    teacher_temperature: float,
    where: Bool[Array, "b n"],
) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
    """Log softmax of the teacher and of the student, each over its temperature; masked ones are 0."""
    target = masked_log_softmax(precise(teacher) / teacher_temperature, where)
    return target, masked_log_softmax(precise(scores) / temperature, where)


def ranked_distillation(
    scores: Float[Array, "b c"],
    candidates: Int[Array, "b n"],
    teacher: Float[Array, "b n"],
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """`-sum_i softmax(teacher)_i log p_i`, p_i being candidate i's share among all columns but candidates 1 to i-1.

    BGE-M3's distillation from a reranker as FlagEmbedding trains it (`m3_kd_loss`).

    Args:
      scores: against all documents.
      candidates: each query's own documents as different columns, best first.
      teacher: their teacher scores.
      temperature: divides `scores`.
      teacher_temperature: divides `teacher`.
      where: False columns take no part, as candidates or otherwise; where no candidate is left the loss is 0.
    """
    logits, where = precise(scores) / temperature, everywhere(where, scores)
    mine, kept = (jnp.take_along_axis(x, candidates, axis=1) for x in (logits, where))
    rows = jnp.arange(scores.shape[0])[:, None]
    rest = where & jnp.ones(scores.shape, jnp.bool_).at[rows, candidates].set(False)
    in_turn = jnp.concatenate([mine, masked_logsumexp(logits, rest)[:, None]], axis=1)
    taking_part = jnp.concatenate([kept, jnp.any(rest, axis=1, keepdims=True)], axis=1)
    surprise = jnp.where(kept, suffix_logsumexp(in_turn, taking_part)[:, :-1] - mine, 0.0)
    return jnp.sum(masked_softmax(precise(teacher) / teacher_temperature, kept) * surprise, axis=1)


def ensemble_scores(scores: Mapping[str, Float[Array, "b c"]], weight: Mapping[str, float]) -> Float[Array, "b c"]:
    """The weighted sum of the heads' scores; KeyError for a head without a weight.

    BGE-M3 (Chen et al. 2024) weighs dense 1, lexical 0.3 and multi-vector 1.
    """
    total = jnp.zeros((), jnp.float32)
    for head, values in scores.items():
        total = total + weight[head] * precise(values)
    return total


def self_distillation(
    scores: Float[Array, "b c"],
    ensemble: Float[Array, "b c"],
    temperature: float = 1.0,
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """Cross-entropy of one head's scores against the ensemble's, which gets no gradient (BGE-M3, Chen et al. 2024).

    One temperature divides both; 0 where all is masked.
    """
    return soft_cross_entropy(scores, lax.stop_gradient(ensemble), temperature, temperature, where=where)


def margin_mse(
    scores: Float[Array, "b n"], teacher: Float[Array, "b n"], *, where: Bool[Array, "b n"] | None = None
) -> Float[Array, " b"]:
    """Mean squared difference of student's and teacher's margins, positive less negative (Hofstätter et al. 2020).

    The positive is the first column and always takes part; 0 where all negatives are masked.
    """
    negatives = everywhere(where, scores)[:, 1:]
    errors = precise(scores) - precise(teacher)
    return masked_mean(jnp.square(jnp.where(negatives, errors[:, :1] - errors[:, 1:], 0.0)), negatives)


def embedding_mse(student: Float[Array, "b k"], teacher: Float[Array, "b k"]) -> Float[Array, " b"]:
    """Mean squared difference of two vectors (Reimers and Gurevych 2020).

    They train a multilingual student with the teacher's vector of a sentence as the target for the sentence and for
    its translation.
    """
    return jnp.mean(jnp.square(precise(student) - precise(teacher)), axis=1)
