"""InfoNCE with negatives from earlier batches, and from a momentum encoder if asked."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxret.ops.contrastive import info_nce
from jaxret.ops.false_negatives import other_texts
from jaxret.ops.memory_bank import MemoryBank, bank_scores, empty_bank, remembered
from jaxret.runtime.mesh import all_pairs
from jaxret.runtime.model import Model
from jaxret.train.objective import Objective, copied, languages_below
from jaxret.train.objectives.represented import (
    Batch,
    candidates,
    dot_products,
    effective_negatives,
    needed,
    positives,
    represented,
)

AXES = (("languages", "memories", None), ("languages", "memories"), ("languages",), ("languages",))


def boxed_bank(languages: int, size: int, width: int) -> Any:
    """An empty bank whose memories are split over the devices as batches are."""
    return MemoryBank._make(map(nn.LogicallyPartitioned, empty_bank(languages, size, width), AXES))


def moved(average: Any, params: Any, momentum: float) -> Any:
    """`momentum * average + (1 - momentum) * params` (MoCo, He et al. 2020, eq. 2); no gradient flows."""
    return jax.tree.map(lambda m, p: momentum * m + (1 - momentum) * lax.stop_gradient(p), average, params)


def remembering(*, size: int, temperature: float, languages: int = 1, momentum: float | None = None) -> Objective:
    """InfoNCE of the dense head over the batch and the passages of earlier batches (He et al. 2020).

    The first passage of each query, its positive, is remembered. The batch has `language` [b] where there is more than
    one; a query then meets its own language's memories only. Memories of texts that are known to answer the query are
    left out, as copies in the batch are.

    Args:
      size: memories of each language; a multiple of the number of devices that a batch is split over.
      temperature: divides the scores.
      languages: how many rings of memories.
      momentum: the passages' encoder is this moving average of the model (0.999 in MoCo), through which no gradient
        flows; None for the model itself.
    """

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        state = {"bank": boxed_bank(languages, size, model.config.dense_width)}
        return {}, state if momentum is None else state | {"average": copied(params)}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        r = represented(model, params, batch, rng)
        queries, passages = needed(r.query, "dense"), needed(r.passage, "dense")
        if momentum is not None:
            state = state | {"average": moved(state["average"], params, momentum)}
            passages = lax.stop_gradient(needed(represented(model, state["average"], batch, None).passage, "dense"))
        keys, bank = batch["passage_key"], state["bank"]
        language = batch["language"] if languages > 1 else jnp.zeros(len(keys), jnp.int32)
        scores = all_pairs(dot_products, queries, passages)
        older, older_keys, written = bank_scores(queries, bank, language)
        known = batch.get("positive_keys", keys[:, :1])
        where = jnp.concatenate([candidates(batch), written & other_texts(known, older_keys)], axis=1)
        own = positives(batch)
        losses = info_nce(jnp.concatenate([scores, older], axis=1), own, temperature, where=where)
        bank = remembered(bank, passages[:: keys.shape[1]], language, keys[:, 0])
        metrics = {"memories": jnp.mean(jnp.sum(written, axis=1, dtype=jnp.float32))}
        return jnp.mean(losses), (state | {"bank": bank}, metrics | effective_negatives(where, own))

    return Objective(loss, init, check=languages_below(languages, "remembering.languages"))
