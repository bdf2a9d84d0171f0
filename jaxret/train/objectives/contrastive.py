"""InfoNCE and its kin with in-batch and given negatives, for every head the model has, together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxret.ops.contrastive import improved_contrastive, info_nce
from jaxret.runtime.mesh import all_pairs
from jaxret.runtime.model import Model
from jaxret.train.objectives.represented import (
    Batch,
    Metrics,
    Represented,
    batch_scores,
    candidates,
    pair_scores,
    positives,
    represented,
)


def contrastive(
    model: Model,
    params: Any,
    state: Any,
    batch: Batch,
    rng: jax.Array,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
) -> tuple[Float[Array, ""], tuple[Any, Metrics]]:
    """The weighted sum of each head's InfoNCE; every passage of the global batch is a candidate.

    Args:
      model: called as `(params, token_ids, side, rng) -> Embeddings`.
      params: the parameters.
      state: carried unchanged.
      batch: `query [b s]`, `passage [b n t]` with the positive first, `passage_key [b n]`, and what `candidates` takes.
      rng: for dropout.
      temperature: by head.
      weight: by head.
    """
    loss, metrics = contrast(represented(model, params, batch, rng), batch, temperature=temperature, weight=weight)
    return loss, (state, metrics)


def contrast(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
    loss: Callable[..., Float[Array, " b"]] = info_nce,
    teacher_margin: float | None = None,
    relative_teacher_margin: float = 0.0,
) -> tuple[Float[Array, ""], Metrics]:
    """The weighted sum over heads of a loss over the whole batch's scores.

    Args:
      r: the embeddings.
      batch: see `contrastive`.
      step: takes no part.
      temperature: by head.
      weight: by head.
      loss: of `(scores, positive, temperature=, where=)`: `info_nce`, `symmetric_info_nce`, or ColBERT's
        `pair_and_in_batch` with its `ways` bound.
      teacher_margin, relative_teacher_margin: leave out own negatives that the teacher likes, see `candidates`.
    """
    where, own = candidates(batch, teacher_margin, relative_teacher_margin), positives(batch)
    total, metrics = jnp.zeros(()), {}
    for head, scores in batch_scores(r).items():
        found = jnp.mean(loss(scores, own, temperature=temperature[head], where=where))
        total, metrics[f"loss_{head}"] = total + weight[head] * found, found
        metrics[f"accuracy_{head}"] = jnp.mean(jnp.argmax(scores, axis=1) == own)
    return total, metrics


def improved_contrast(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    delta: float = 0.0,
) -> tuple[Float[Array, ""], Metrics]:
    """Granite's contrastive loss: queries, and passages, compete among each other too (`ops.improved_contrastive`).

    Copies of a query's positive are left out of all its candidates. `r`, `batch`, `temperature` and `weight` as in
    `contrast`, `alpha` to `delta` as in the loss.
    """
    where, own = candidates(batch), positives(batch)
    ways = batch["passage_key"].shape[1]
    same_text = where[:, ::ways]
    mine = jax.tree.map(lambda x: x[::ways], r.passage)

    def scored(x: Any, y: Any) -> dict[str, Array]:
        return all_pairs(lambda q, d: pair_scores(r.maxsim, q, d), x, y)

    q_q, d_d = scored(r.query, r.query), scored(mine, r.passage)
    total, metrics = jnp.zeros(()), {}
    for head, q_d in batch_scores(r).items():
        losses = improved_contrastive(
            q_d,
            q_q[head],
            d_d[head],
            own,
            temperature[head],
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            delta=delta,
            where=where,
            q_where=same_text,
            d_where=where,
        )
        metrics[f"loss_{head}"] = jnp.mean(losses)
        total = total + weight[head] * metrics[f"loss_{head}"]
    return total, metrics
