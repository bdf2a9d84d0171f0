"""InfoNCE over the whole global batch without its score matrix: memory for a tile, whatever the batch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jaxret.nn.retriever import Embeddings
from jaxret.ops.tiled import tiled_info_nce
from jaxret.runtime.mesh import BATCH
from jaxret.train.objectives.represented import (
    Batch,
    Metrics,
    Represented,
    needed,
    over_heads,
    pair_scores,
    positives,
)

NO_HEAD = Embeddings(None, None, None, None)


def tiled_contrast(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
    rows: int = 4096,
    columns: int = 512,
) -> tuple[Float[Array, ""], Metrics]:
    """`contrast` with `info_nce`, tile after tile; the heads are those that have a weight.

    On a mesh no device holds the documents of all: they go round in a ring.

    Args:
      r: the embeddings.
      batch: `passage_key` [b n], and `positive_keys` [b p] or else the own positive's alone.
      step: takes no part.
      temperature: by head.
      weight: by head.
      rows, columns: queries and documents of a tile. MaxSim holds `rows * s * columns` numbers, lexical scores the
        weights of a tile's texts over the vocabulary.
    """
    keys = batch["passage_key"]
    own_keys, flat, places = batch.get("positive_keys", keys[:, :1]), keys.reshape(-1), positives(batch)
    mesh = jax.sharding.get_abstract_mesh()
    split = not mesh.empty and math.prod(mesh.shape[axis] for axis in BATCH) > 1
    losses, metrics = {}, Metrics()
    for head in weight:
        program: Any = functools.partial(
            tiled_info_nce,
            functools.partial(_score, r.maxsim, head),
            temperature=temperature[head],
            rows=rows,
            columns=columns,
            axes=BATCH if split else (),
        )
        if split:
            part = PartitionSpec(BATCH)
            program = jax.shard_map(
                program, mesh=mesh, in_specs=part, out_specs=part, axis_names=set(BATCH), check_vma=False
            )
        losses[head], correct = program(_alone(r.query, head), _alone(r.passage, head), own_keys, flat, places)
        metrics[f"accuracy_{head}"] = jnp.mean(correct)
    total, found = over_heads("loss", losses, weight)
    return total, found | metrics | {"effective_negatives": jnp.mean(_negatives(own_keys, keys))}


def _negatives(own_keys: Int[Array, "b p"], keys: Int[Array, "b n"]) -> Float[Array, " b"]:
    """How many passages of the batch each query has as negatives: all but the texts that answer it."""
    own = jnp.concatenate([keys[:, :1], own_keys], axis=1)
    repeated = jnp.any(jnp.tril(own[:, :, None] == own[:, None, :], -1), axis=2)
    ordered = jnp.sort(keys.reshape(-1))
    first, last = (jnp.searchsorted(ordered, own, side=side) for side in ("left", "right"))
    return keys.size - jnp.sum(jnp.where(repeated, 0, last - first), axis=1).astype(jnp.float32)


def _score(maxsim: str, head: str, q: Embeddings, d: Embeddings) -> Float[Array, "b c"]:
    return pair_scores(maxsim, q, d)[head]


def _alone(embeddings: Embeddings, head: str) -> Embeddings:
    """The embeddings of one head; InputError where the model lacks it."""
    name = {"multi_vector": "tokens"}.get(head, head)
    parts = {name: needed(embeddings, name)} | ({"mask": embeddings.mask} if name == "tokens" else {})
    return dataclasses.replace(NO_HEAD, **parts)
