"""InfoNCE and its kin with in-batch and given negatives, for every head the model has, together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxret.ops.contrastive import improved_contrastive, info_nce
from jaxret.runtime.mesh import all_pairs
from jaxret.runtime.model import Model
from jaxret.train.objectives.represented import (
    Batch,
    Metrics,
    Represented,
    accuracies,
    batch_scores,
    candidates,
    effective_negatives,
    over_heads,
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
    mask_known: bool = True,
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
      mask_known: leave out texts that are known to answer the query; without, they count as negatives.
    """
    where, own = candidates(batch, teacher_margin, relative_teacher_margin, mask_known), positives(batch)
    scores = batch_scores(r)
    losses = {head: loss(x, own, temperature=temperature[head], where=where) for head, x in scores.items()}
    total, metrics = over_heads("loss", losses, weight)
    return total, metrics | accuracies(scores, own) | effective_negatives(where, own)


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
    mask_known: bool = True,
) -> tuple[Float[Array, ""], Metrics]:
    """Granite's contrastive loss: queries, and passages, compete among each other too (`ops.improved_contrastive`).

    Copies of a query's positive are left out of all its candidates. `r`, `batch`, `temperature`, `weight` and
    `mask_known` as in `contrast`, `alpha` to `delta` as in the loss.
    """
    where, own = candidates(batch, known=mask_known), positives(batch)
    ways = batch["passage_key"].shape[1]
    same_text = where[:, ::ways]
    mine = jax.tree.map(lambda x: x[::ways], r.passage)

    def scored(x: Any, y: Any) -> dict[str, Array]:
        return all_pairs(lambda q, d: pair_scores(r.maxsim, q, d), x, y)

    q_q, d_d, losses = scored(r.query, r.query), scored(mine, r.passage), {}
    for head, q_d in batch_scores(r).items():
        losses[head] = improved_contrastive(
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
    total, metrics = over_heads("loss", losses, weight)
    return total, metrics | effective_negatives(where, own)
