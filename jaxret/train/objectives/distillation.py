"""Learning from a teacher's scores of each query's own passages, and from the model's own heads together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxret.ops.contrastive import info_nce
from jaxret.ops.distillation import ensemble_scores, kl_divergence, ranked_distillation, self_distillation
from jaxret.train.objectives.represented import (
    Batch,
    Metrics,
    Represented,
    accuracies,
    batch_scores,
    candidates,
    group_scores,
    over_heads,
    positives,
)


def unscaled(scores: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """The scores as they are."""
    return scores


def distill(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    weight: Mapping[str, float],
    loss: Callable[..., Float[Array, " b"]] = kl_divergence,
    scale: Callable[[Array], Array] = unscaled,
    teacher_scale: Callable[[Array], Array] = unscaled,
) -> tuple[Float[Array, ""], Metrics]:
    """The weighted sum over heads of a loss between the scores of each query's own passages and the teacher's.

    ColBERTv2 has `kl_divergence` of the scores as they are, JaColBERTv2.5 of both sides' `min_max`, and Granite
    `soft_cross_entropy`.

    Args:
      r: the embeddings.
      batch: with `teacher_scores` [b n].
      step: takes no part.
      weight: by head.
      loss: of `(scores, teacher)` [b n]: `kl_divergence`, `soft_cross_entropy` or `margin_mse`, its temperatures bound.
      scale: what happens to the model's scores before, such as `min_max`.
      teacher_scale: the same for the teacher's.
    """
    teacher = teacher_scale(batch["teacher_scores"])
    losses = {head: loss(scale(scores), teacher) for head, scores in group_scores(r).items()}
    return over_heads("distillation", losses, weight)


def distill_ranked(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
    teacher_temperature: float = 1.0,
) -> tuple[Float[Array, ""], Metrics]:
    """BGE-M3's distillation from a reranker, each passage among those that the teacher likes less and the whole batch.

    See `ops.distillation.ranked_distillation`; `batch` as in `distill`, `temperature` and `weight` by head.
    """
    teacher, where = batch["teacher_scores"], candidates(batch)
    order = jnp.argsort(-teacher, axis=1)
    columns, ranked = positives(batch)[:, None] + order, jnp.take_along_axis(teacher, order, axis=1)
    kept = where.at[jnp.arange(len(columns))[:, None], columns].set(True)
    losses = {
        head: ranked_distillation(scores, columns, ranked, temperature[head], teacher_temperature, where=kept)
        for head, scores in batch_scores(r).items()
    }
    return over_heads("distillation", losses, weight)


def self_distill(
    r: Represented,
    batch: Batch,
    step: Any,
    *,
    temperature: float,
    ensemble: Mapping[str, float],
    weight: Mapping[str, float],
    start: int = 0,
) -> tuple[Float[Array, ""], Metrics]:
    """BGE-M3's self-knowledge distillation: each head learns the labels, and from step `start` all heads together too.

    `L = (sum_h weight_h InfoNCE_h + InfoNCE_all) / (H + 1)`, and with `L' = sum_h weight_h KD_h / H` the loss is
    `(L + L') / 2` (Chen et al. 2024, sec. 3.3, as FlagEmbedding trains it: H = 3 heads; all is the heads' scores, dense
    1, lexical 0.3, multi-vector 1, summed; the lexical head's losses weigh 0.1).

    Args:
      r: the embeddings.
      batch: see `contrastive`.
      step: number of steps done.
      temperature: divides every score, 0.02 in BGE-M3.
      ensemble: weight of each head's scores in the sum.
      weight: of each head's losses.
      start: first step with distillation.
    """
    where, own, heads = candidates(batch), positives(batch), batch_scores(r)
    together = ensemble_scores(heads, ensemble)
    kept = where.at[jnp.arange(len(own)), own].set(True)
    all_heads = jnp.mean(info_nce(together, own, temperature, where=where))
    by_labels = {head: info_nce(x, own, temperature, where=where) for head, x in heads.items()}
    by_all = {head: self_distillation(x, together, temperature, where=kept) for head, x in heads.items()}
    labels, metrics = over_heads("loss", by_labels, weight)
    taught, more = over_heads("distillation", by_all, weight)
    labels, taught = (labels + all_heads) / (len(heads) + 1), taught / len(heads)
    metrics |= more | accuracies(heads, own) | {"loss_ensemble": all_heads}
    return jnp.where(step >= start, (labels + taught) / 2, labels), metrics
