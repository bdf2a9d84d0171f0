"""What a cross-encoder minimises: losses over the scores of each query's passages, by their labels or a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.ops.false_negatives import other_texts
from jaxret.ops.relevance import softmax_cross_entropy
from jaxret.runtime.cross_encoder import CrossEncoderModel
from jaxret.train.objectives.distillation import unscaled
from jaxret.train.objectives.represented import Batch, Metrics

Part = Callable[[Array, Batch], tuple[Float[Array, ""], Metrics]]
Loss = Callable[..., Float[Array, " b"]]


def cross_encoder(
    model: CrossEncoderModel,
    params: Any,
    state: Any,
    batch: Batch,
    rng: jax.Array,
    *,
    parts: Sequence[Part],
    weight: Sequence[float] | None = None,
) -> tuple[Float[Array, ""], tuple[Any, Metrics]]:
    """The weighted sum of losses over the scores of each query with each of its own passages.

    Args:
      model: called as `(params, token_ids, type_ids, rng)`.
      params: the parameters.
      state: carried unchanged.
      batch: of `data.pair_batches.pair_batches`.
      rng: for dropout.
      parts: `(scores [b n], batch) -> (loss, metrics)`: `by_labels`, `by_teacher`.
      weight: one a part; all 1 by default.
    """
    scores = pair_scores(model, params, batch, rng)
    total, metrics = jnp.zeros(()), Metrics()
    for part, share in zip(parts, [1.0] * len(parts) if weight is None else weight, strict=True):
        loss, found = part(scores, batch)
        total, metrics = total + share * loss, metrics | found
    return total, (state, metrics)


def pair_scores(
    model: CrossEncoderModel, params: Any, batch: Batch, rng: jax.Array | None = None
) -> Float[Array, "b n"]:
    """The score of each query with each of its passages, before any activation; without `rng` there is no dropout."""
    pairs = batch["pair"]
    types = batch["pair_types"].reshape(-1, pairs.shape[-1]) if "pair_types" in batch else None
    return model(params, pairs.reshape(-1, pairs.shape[-1]), types, rng).reshape(pairs.shape[:2])


def by_labels(
    scores: Float[Array, "b n"], batch: Batch, *, loss: Loss = softmax_cross_entropy
) -> tuple[Float[Array, ""], Metrics]:
    """A loss against labels: the first passage is relevant, the others are not.

    Others that are known to be relevant all the same take no part.

    Args:
      scores: of each query's passages.
      batch: with `passage_key` [b n], and `positive_keys` [b p] of all relevant texts or else the own positive's alone.
      loss: of `(scores, labels, where=)`: `binary_cross_entropy` (each passage alone), `ranknet` (pairs),
        `softmax_cross_entropy`, `list_mle` or `lambda_loss` (the list), its settings bound.
    """
    where, labels = known_negatives(batch), jnp.zeros_like(scores).at[:, 0].set(1.0)
    found = jnp.mean(loss(scores, labels, where=where))
    best = jnp.argmax(jnp.where(where, scores, -jnp.inf), axis=1)
    return found, {"loss_labels": found, "accuracy": jnp.mean(best == 0)}


def by_teacher(
    scores: Float[Array, "b n"], batch: Batch, *, loss: Loss, teacher_scale: Callable[[Array], Array] = unscaled
) -> tuple[Float[Array, ""], Metrics]:
    """A loss against a teacher's scores of the same passages.

    Args:
      scores: of each query's passages.
      batch: with `teacher_scores` [b n].
      loss: of `(scores, teacher)`: `score_mse`, `margin_mse`, `kl_divergence`, its settings bound.
      teacher_scale: what happens to the teacher's scores before.
    """
    found = jnp.mean(loss(scores, teacher_scale(batch["teacher_scores"])))
    return found, {"loss_teacher": found}


def known_negatives(batch: Batch) -> Bool[Array, "b n"]:
    """True in the first column, and where a passage is not known, by its text, to answer the query."""
    keys = batch["passage_key"]
    return other_texts(batch.get("positive_keys", keys[:, :1]), keys).at[:, 0].set(True)
