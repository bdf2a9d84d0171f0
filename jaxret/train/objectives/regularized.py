"""Comparisons beside the ranking: sparsity, shorter vectors, labelled pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxret.errors import InputError
from jaxret.nn.retriever import Embeddings
from jaxret.ops.metric_learning import cosine_scores, euclidean_scores, label_pairs, multi_similarity_pairs, nt_xent
from jaxret.ops.sparsity import flops, l1_norm, quadratic_ramp
from jaxret.ops.vectors import unit
from jaxret.train.objectives.represented import Batch, Comparison, Metrics, Represented, needed


def sparsity(
    r: Represented,
    batch: Batch,
    step: Any,
    *,
    query_flops: float = 0.0,
    passage_flops: float = 0.0,
    query_norm: float = 0.0,
    passage_norm: float = 0.0,
    ramp_steps: int = 0,
) -> tuple[Float[Array, ""], Metrics]:
    """What the lexical head's weights cost: FLOPS (SPLADE) and L1 norms (Granite, Awasthy et al. 2025, eq. 9 and 10).

    Args:
      r: the embeddings, the lexical ones among them.
      batch: takes no part.
      step: number of steps done.
      query_flops, passage_flops, query_norm, passage_norm: weights of the four terms; norms are averaged over texts.
      ramp_steps: over so many steps the weights grow from 0, with the square of the step.
    """
    total, metrics = jnp.zeros(()), {}
    sides = (("query", r.query, query_flops, query_norm), ("passage", r.passage, passage_flops, passage_norm))
    for side, embeddings, by_flops, by_norm in sides:
        weights = needed(embeddings, "lexical").spread()
        metrics[f"flops_{side}"], norm = flops(weights), jnp.mean(l1_norm(weights))
        metrics[f"active_{side}"] = jnp.mean(jnp.sum(weights > 0, axis=1, dtype=jnp.float32))
        total = total + by_flops * metrics[f"flops_{side}"] + by_norm * norm
    return total * quadratic_ramp(step + 1, ramp_steps), metrics


def at_sizes(
    r: Represented,
    batch: Batch,
    step: Any,
    *,
    comparison: Comparison,
    sizes: Sequence[int],
    weight: Sequence[float] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """A comparison at several lengths of the dense vectors, made unit again (Matryoshka, Kusupati et al. 2022, eq. 1).

    Args:
      r: the embeddings.
      batch: the comparison's.
      step: number of steps done.
      comparison: of which the dense head alone takes part.
      sizes: the lengths; the whole one too if it is to count.
      weight: one a size; all 1 by default.
    """
    total, metrics = jnp.zeros(()), Metrics()
    for size, share in zip(sizes, [1.0] * len(sizes) if weight is None else weight, strict=True):
        short = dataclasses.replace(r, query=_shortened(r.query, size), passage=_shortened(r.passage, size))
        part, found = comparison(short, batch, step)
        total, metrics = total + share * part, metrics | {f"{name}_{size}": x for name, x in found.items()}
    return total, metrics


def _shortened(embeddings: Embeddings, size: int) -> Embeddings:
    vectors = needed(embeddings, "dense")
    if not 0 < size <= vectors.shape[1]:
        problem = f"{size} of {vectors.shape[1]} numbers"
        raise InputError("at_sizes.sizes", problem, f"Give sizes from 1 to {vectors.shape[1]}.")
    return Embeddings(unit(vectors[:, :size]), None, None, None)


def labelled_pairs(
    r: Represented,
    batch: Batch,
    step: Any,
    *,
    temperature: float = 0.05,
    miner_epsilon: float | None = 0.25,
    similarity: Callable[[Array, Array], Array] = euclidean_scores,
) -> tuple[Float[Array, ""], Metrics]:
    """LUSIFER's representation fine-tuning: NT-Xent over all dense vectors of the batch, queries and passages alike.

    A query and the passages with the text of its positive have one label, every other passage a label of its own.

    Args:
      r: the embeddings.
      batch: with `passage_key` [b n].
      step: takes no part.
      temperature: divides the scores.
      miner_epsilon: of the multi-similarity miner, which works on cosines; None takes all pairs.
      similarity: of the loss; LUSIFER's are negative distances of unit vectors.
    """
    keys = batch["passage_key"]
    vectors = jnp.concatenate([needed(r.query, "dense"), needed(r.passage, "dense")])
    positive, negative = label_pairs(jnp.concatenate([keys[:, 0], keys.reshape(-1)]))
    if miner_epsilon is not None:
        positive, negative = multi_similarity_pairs(cosine_scores(vectors, vectors), positive, negative, miner_epsilon)
    losses = nt_xent(similarity(vectors, vectors), positive, negative, temperature)
    pairs = jnp.sum(positive & jnp.any(negative, axis=1, keepdims=True), dtype=jnp.float32)
    return jnp.sum(losses) / jnp.maximum(pairs, 1), {"positive_pairs": pairs}
